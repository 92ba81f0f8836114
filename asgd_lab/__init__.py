"""A simulation-plus-real testbed for asynchronous data-parallel training.

`run`, `sweep` and `compare` take a scenario, `replay` and `explain` a recorded run; all return objects; `report` writes
a page about them. Each name is imported when it is first used: `import asgd_lab` takes no time, and imports no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("run", "sweep", "compare", "replay", "report", "explain", "preset"), "api"),
    **{
        "Run": "runs",
        "Sweep": "sweeps",
        "Comparison": "comparisons",
        "Replay": "replays",
        "Explanation": "counterfactual.explanation",
    },
    **dict.fromkeys(("ScenarioError", "RunFailed", "Interrupted"), "errors"),
    **{"Algorithm": "composed", "Scenario": "scenario", "Progress": "backends.outcome"},
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
