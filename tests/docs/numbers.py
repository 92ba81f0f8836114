"""The origin of each number in the prose of README and of the pages: a kept file, a line of code, or a reason.

An entry of a page is a phrase of it. `Kept` makes the phrase from a file or from code, so that the page must follow
them; `Said` has the reason why no file holds the number. Numbers within code, backquotes and included examples are not
looked at: other tests run these.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from asgd_lab.counterfactual.study import MOST_LOOKS
from asgd_lab.loggers.wandb_runs import WeightsAndBiases
from asgd_lab.protocol.versions import IN_VAIN
from asgd_lab.record.summary import LATENESS_ALLOWED
from tests.backends.sim.laws import LEVEL
from tests.docs.fences import ROOT
from tests.docs.test_readme import MOST_WORDS


class Kept(NamedTuple):
    """A phrase that is made from its source."""

    phrase: Callable[[], str]


class Said(NamedTuple):
    """A phrase, and the reason why no file holds its numbers."""

    phrase: str
    reason: str


def loaded(path: str) -> Any:
    """A YAML file of the project."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


FIRST = "docs/examples/first.yaml"


def milliseconds(*keys: str) -> str:
    """A quantity of README's scenario."""
    found = loaded(FIRST)["hardware"]
    for key in keys:
        found = found[key]
    return f"{1000 * found:.0f} ms"


def points_of_first() -> str:
    *others, last = loaded(FIRST)["sweep"]["workers"]
    return f"with {', '.join(map(str, others))} and {last} workers"


def first_row(workers: int) -> list[float]:
    """A row of README's table: speed-up, efficiency, makespan, rate, staleness, workers busy, server busy, test error."""
    text = (ROOT / "docs" / "examples" / "first.txt").read_text(encoding="utf-8")
    row = re.search(rf"│ workers={workers} (.*)", text)
    assert row
    return [float(cell.strip(" %").replace(",", "")) for cell in row[1].split("│")[1:9]]


def pictures(seconds: float) -> str:
    """The pictures a second of a minibatch of 128 that takes so many seconds."""
    return f"{128 / seconds:.0f}"


def k20x() -> str:
    preset = loaded("asgd_lab/hardware/presets/blue-waters-k20x.yaml")
    titan = re.search(r"take ([\d.]+) s \(Titan Black", preset["sources"]["compute.step_s"])
    assert titan
    step_s = preset["hardware"]["compute"]["step_s"]
    return f"a K20X takes {pictures(step_s)} pictures a second, and a Titan Black {pictures(float(titan[1]))} (minibatches of 128)"


def experiment(name: str, *keys: str) -> Any:
    """A value of a scenario of the paper's experiments."""
    found = loaded(f"scenarios/paper/{name}.yaml")
    for key in keys:
        found = found[key]
    return found


def fits() -> list[tuple[str, str]]:
    """Passes of the paper's single run, and the seconds that a synchronisation then costs in software."""
    import cells

    return [
        (passes, cost) for text in cells.FITS.values() for passes, cost in re.findall(r"(\d+) passes \((\d+) s\)", text)
    ]


def costs() -> str:
    passes, seconds = ([each[place] for each in fits()] for place in (0, 1))
    return f"{passes[0]}, {passes[1]} and {passes[2]} passes of the paper's single run are {seconds[0]}, {seconds[1]} and {seconds[2]} s"


def free_interval() -> str:
    text = (ROOT / "analysis" / "figures" / "verdicts.md").read_text(encoding="utf-8")
    found = re.search(r"71 passes \(0 s\), server: \+(1\.\d ± \d\.\d) points; 71 passes \(0 s\), replicas: \+3", text)
    assert found
    return f"({found[1]} points if software costs nothing)"


def chance() -> str:
    """The scatter of a mean of 400 minibatches: 40 here, of 16 samples, at an error of 70%."""
    import collect

    samples = (
        collect.WINDOW
        // experiment("figures-3-and-4", "task", "scale")
        * experiment("figures-3-and-4", "task", "batch_size")
    )
    points = 100 * math.sqrt(0.7 * 0.3 / samples)
    return f"means of {collect.WINDOW} minibatches ({points:.1f} points of their scatter are chance)"


def schedule() -> str:
    """Passes of one client after which its rate is divided."""
    steps = experiment("figure-1-one-client", "task", "schedule", "every")
    a_pass = (
        experiment("figure-1-one-client", "task", "train_samples")
        // 16
        * experiment("figure-1-one-client", "task", "scale")
    )
    return f"divided after {steps / a_pass:.0f} and {2 * steps / a_pass:.0f} of {fits()[1][0]} passes for one"


GENERAL = {
    r"\[?arXiv:\d{4}\.\d{4,5}\]?": "a named source",
    r"\b[A-Z][\w-]+(?: et al\.)?,? (?:19|20)\d\d\b": "a named source with its year",
    r"\bof (?:19|20)\d\d\b": "a year",
    r"\b(?:[AH]\d00|K20X|100 GbE)\b": "the name of a device or a network",
    r"\b95%": "the level of every interval of the project",
    r"(?:^|(?<=: ))1\. |^\d\. ": "a place in a list",
    r"Top-k|top-k|top 1 and top 5": "a name",
    r"\bM/[MDG]/[1c](?:-PS)?\b": "the name of a law",
    r"heading_level: \d": "an option of mkdocstrings",
    r"min\(M/\(Z\+S\), 1/S\)|M - 1|M\(M-1\)": "a formula of the law in its row",
}
"""Numbers that are no results, on every page."""

LICENCE = Said("Apache 2.0", "the licence's name")
PYTHON = Kept(
    lambda: "Python " + tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    + " or newer"
)  # fmt: skip
SIZE = Said("everything takes 1.5 GB", "the size of a fresh environment; it is the libraries', and half of it torch's")
COMPARED = Said("intervals of three runs", "the default of `asgd-lab compare --repeats`")
SHARED = Said("8-byte store", "the size of the word that the server commits by: asgd_lab/backends/real")

PAGES: dict[str, list[Kept | Said]] = {
    "README.md": [
        PYTHON,
        SIZE,
        LICENCE,
        Kept(lambda: f"a\nminibatch takes {milliseconds('compute', 'step_s')}, and the server needs {milliseconds('server', 'push_s')} for each push"),
        Kept(lambda: f"Eight workers are {first_row(8)[0]:.1f} times as fast as one: they compute {first_row(8)[5]:.0f}% of the time"),
        Kept(lambda: f"are {first_row(8)[4]:.1f} versions old"),
    ],
    "docs/tutorial.md": [
        PYTHON,
        SIZE,
        Kept(lambda: f"the run ends after {loaded(FIRST)['budget']['minibatches']:,} minibatches"),
        Kept(lambda: f"a minibatch takes {milliseconds('compute', 'step_s')}, and the server needs {milliseconds('server', 'push_s')} for each push"),
        Kept(points_of_first),
    ],
    "docs/benchmarks.md": [
        Kept(k20x),
        Said("With 61 million parameters a synchronisation passes 8 times over memory, and two copies and one axpy pass 7 times",
             "counted in tests/benchmarks/sync.py, whose benchmark is of 61 million parameters"),
    ],
    "docs/design.md": [Said("section 3", "of the cited paper"), SHARED],
    "docs/glossary.md": [
        Said("the loss at dose 1 less that at dose 0", "the definition of a dose"),
        Said("100% where no time is lost", "the definition of efficiency"),
        Said("numbered from 0", "the definition of a version"),
    ],
    "docs/live.md": [
        Said("the same of worker 3 alone", "an example of a worker"),
        Said("virtual time, from 0", "where a clock begins"),
        Kept(lambda: f"get about {WeightsAndBiases.most_points} points of a curve"),
        Said("means of 2, 4, 8... points", "halving, as asgd_lab/loggers does it"),
        Said("with exit status 1", "the command line's status of a failed run"),
    ],
    "docs/limits.md": [
        Said("Python 3.12", "the Python of the wheels: tests/gpu/wheels.py"),
        Kept(lambda: f"Above {100 * LATENESS_ALLOWED:.0f}%"),
    ],
    "docs/paper.md": [
        Kept(costs),
        Kept(lambda: f"and {fits()[1][0]} is used"),
        Kept(free_interval),
        Said("n_sync 100", "a value of the sweep"),
        Said("after 24 virtual hours", "the budget of figures-3-and-4.yaml"),
        Said("for 1 to 8 clients", "the sweep of figures-3-and-4.yaml"),
        Kept(lambda: "at rates {} and {}".format(*experiment("figures-3-and-4", "sweep", "task.optimizer.lr"))),
        Said("Figure 4", "of the paper"), Said("Figure 3", "of the paper"),
        Said("Figure 2", "of the paper"), Said("Figure 1", "of the paper"),
        Said("means of 15 minutes", "24 hours in the 96 spans of analysis/paper/collect.py"),
        Kept(chance),
        Kept(lambda: f"{fits()[1][0]}: {fits()[1][1]} s, half of it the server's; {fits()[0][0]} (nothing) and {fits()[2][0]} ({fits()[2][1]} s)"),
        Kept(lambda: f"lognormal, {100 * experiment('figures-3-and-4', 'hardware', 'compute', 'cv'):.0f}%"),
        Said("adds 1/clients of it", "the rule `scale`"),
        Kept(lambda: f"{experiment('figures-3-and-4', 'task', 'optimizer', 'lr')}, in the flat part"),
        Said("experiment 1", "of the paper"), Said("experiment 2", "of the paper"), Said("experiment 3", "of the paper"),
        Said("none for 8 clients", "figure-1.yaml"),
        Kept(schedule),
        Kept(lambda: f"128 for time, {experiment('figures-3-and-4', 'task', 'batch_size')} for learning"),
        Kept(lambda: f"| {experiment('figure-2', 'algorithm', 'n_sync')} |"),
        Said("figures 2 and 3", "of the paper"), Said("A4", "a claim's name"),
        Said("smoothed over 400 minibatches", "as the paper says; WINDOW in analysis/paper/collect.py"),
        Kept(lambda: f"({experiment('figures-3-and-4', 'task', 'size_bytes') // 4:,} parameters)"),
    ],
    "docs/records.md": [SHARED, Said("adds 1 to", "the model of tests/backends/test_recovery.py")],
    "docs/scenario.md": [
        Said(f"| {status} |", "an exit status; tests/cli/test_errors.py has them") for status in (0, 1, 2, 130)
    ],
    "docs/simulated-machine.md": [
        Said("8 and 32 workers", "the sweep of where-does-time-go.yaml"),
        Kept(lambda: f"at the level {LEVEL}"),
        Said("of 20 batch means", "tests/backends/sim/laws.py"),
    ],
    "docs/explain.md": [
        Said("Dose 1 is the record", "the definition of a dose"),
        Said("Dose 0 moves every fetch", "the definition of a dose"),
        Said("Dose 0 has a floor", "the definition of a dose"),
        Said("Dose 1 less dose 0 is", "the definition of the direct effect"),
        Said("each at dose 1 of staleness", "the definition of a dose"),
        Kept(lambda: f"has up to {MOST_LOOKS} of the record's pushes"),
    ],
    "docs/explain-costs-most.md": [
        Said("2 sin(π / (2(2τ + 1))), 0.1 at τ = 15", "the limit of stability of a delayed gradient step on a quadratic"),
    ],
    "docs/explain-turns-with-the-rate.md": [
        Said("about one excludes 0 by chance", "the level of the intervals"),
    ],
    "docs/extending/data.md": [
        Said("8 x 8 images", "the shape of the data set's images"),
        Said("100 or 1,000 classes", "two or three images of ten classes each"),
    ],
    "docs/extending/algorithm.md": [Said("if it is 0 there is nothing to push", "the definition")],
    "docs/extending/task.md": [
        Said("weight is 0 or more", "the definition"),
        Said("after 1 and 10 minibatches", "the trial of a task"),
    ],
    "docs/extending/gate.md": [
        Said("which are 0 on", "the backend without a clock"),
        Kept(lambda: f"after {IN_VAIN:,} drops and stops per worker, and at least {10 * IN_VAIN:,}"),
    ],
    "CONTRIBUTING.md": [
        Said("about 300 lines", "a rule; tests/test_architecture.py keeps the limit"),
        Kept(lambda: f"at most {MOST_WORDS:,} words"),
    ],
}  # fmt: skip
