"""A simulation-plus-real testbed for asynchronous data-parallel training.

A scenario (a YAML file, the name of a carried one, a mapping, or a `Scenario`) says what is learned, by how many
workers, with which algorithm, on which hardware.

    run, sweep, compare    carry it out, and return a `Run`, a `Sweep` or a `Comparison`
    validate               checks it, and trains nothing
    calibrate              measures what one worker costs on this machine
    watch                  tells the progress of another process's run
    replay                 repeats a recorded run, and compares the bits
    explain                says what a recorded run owes to its staleness
    report                 writes a page about runs, sweeps and comparisons
    Run.open, Sweep.open, Comparison.open    read what was recorded
    new, available, preset, schema           what a scenario can be made of
    Algorithm              an algorithm of a program, a gate and a rule of your own: see `asgd_lab.extending`

A wrong scenario or argument raises `ScenarioError`, a failed run `RunFailed`, Ctrl-C `Interrupted`. Code that a
scenario names is imported, unless inside `with trusting(False)`. Nothing is printed.

Each name is imported when it is first used, so that `import asgd_lab` takes no time and imports no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("run", "sweep", "compare", "replay", "report", "explain"), "api"),
    **dict.fromkeys(("validate", "Validation"), "validation"),
    **dict.fromkeys(("calibrate", "Calibration"), "calibrations"),
    **dict.fromkeys(("available", "preset", "schema"), "catalogue"),
    **{"Run": "runs", "Sweep": "sweeps", "Comparison": "comparisons", "Replay": "replays"},
    "Explanation": "counterfactual.explanation",
    **dict.fromkeys(("ScenarioError", "RunFailed", "Interrupted"), "errors"),
    **{"Algorithm": "composed", "Scenario": "scenario", "Progress": "backends.outcome"},
    **{"new": "new_scenarios", "trusting": "trust", "watch": "watching"},
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import a public name from its home, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    """All public names, also those that are not imported yet."""
    return sorted({*globals(), *_HOMES})
