"""Words on metrics for a terminal and a page: headings, formats, the order of columns, the better direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from asgd_lab.record.replications import Estimate

if TYPE_CHECKING:
    from asgd_lab.scenario import Scenario

FORMATS = {
    **{"makespan_s": ",.3f", "minibatches_per_s": ",.1f", "staleness_mean": ".2f"},
    **{"worker_utilisation": ".1%", "server_utilisation": ".1%", "speedup": ".2f", "efficiency": ".1%"},
    "target_speedup": ".2f",
    **{"target_reached": ".0%", "seconds_to_target": ",.3f", "minibatches_to_target": ",.0f"},
}
HEADINGS = {
    **{"makespan_s": "makespan s", "minibatches_per_s": "minibatches/s", "staleness_mean": "staleness"},
    **{"worker_utilisation": "workers busy", "server_utilisation": "server busy", "speedup": "speed-up"},
    "target_speedup": "speed-up to target",
    **{"seconds_to_target": "s to target", "minibatches_to_target": "minibatches to target"},
}
FIRST = (
    *("speedup", "target_speedup", "efficiency"),
    *("seconds_to_target", "minibatches_to_target", "target_reached"),
)
"""The metrics that stand first, in this order."""
_EXPECTED = {"target_reached": 1.0}
"""The values that say nothing where all rows have them."""

_FALLING = frozenset(["loss", "error", "perplexity", "nll", "mse", "mae", "rmse"])
_RISING = frozenset(["accuracy", "precision", "recall", "f1", "auc", "bleu", "iou", "dice", "reward"])

Spec = Callable[[str], str]
"""The format of a metric's numbers."""


def spec(metric: str) -> str:
    """The format of a metric's values."""
    return FORMATS.get(metric, ".4g")


def heading(metric: str) -> str:
    """The metric's name for readers."""
    return HEADINGS.get(metric, metric.replace("_", " "))


def higher_is_better(name: str, scenario: Scenario | None = None) -> bool | None:
    """Whether a higher value of a result's metric, such as test_accuracy, is better; None where nothing tells.

    The scenario's target or early stop tells of the metric that it observes, in any split; the name's words tell of
    others, the last first.
    """
    budget = None if scenario is None else scenario.budget
    observed: dict[tuple[str, str], bool] = {}
    if budget is not None and (stop := budget.early_stop) is not None:
        observed[stop.split, stop.metric] = stop.mode == "max"
    if budget is not None and (target := budget.target) is not None:
        observed[target.split, target.metric] = target.above is not None
    for (split, metric), is_higher in observed.items():
        if name in (f"{split}_{metric}", metric):
            return is_higher
    for (_, metric), is_higher in observed.items():
        if name.partition("_")[2] == metric:
            return is_higher
    for word in reversed(name.lower().split("_")):
        if word in _FALLING or word in _RISING:
            return word in _RISING
    return None


def ordered(rows: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """The metrics of the rows in the order of columns, without those that have the expected value in every row."""
    known = dict.fromkeys(metric for row in rows.values() for metric in row)
    for metric, expected in _EXPECTED.items():
        if all(metric in row and row[metric].mean == expected for row in rows.values()):
            known.pop(metric, None)
    return sorted(known, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def table(
    rows: Mapping[str, Mapping[str, Estimate]], metrics: Sequence[str], spec: Spec = spec
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and cells: a row's name, its number of seeds where there are several, and its metrics."""
    replicated = any(each.n > 1 for row in rows.values() for each in row.values())
    headings = ["point", *(["seeds"] if replicated else []), *(heading(name) for name in metrics)]
    cells = []
    for name, row in rows.items():
        seeds = [str(max((each.n for each in row.values()), default=0))] if replicated else []
        values = (written(row[metric], spec(metric)) if metric in row else "-" for metric in metrics)
        cells.append((name, *seeds, *values))
    return headings, cells


def written(each: Estimate, spec: str) -> str:
    """The mean, and the half-width of its interval if there is one."""
    half_width = "" if each.n < 2 else f" ± {each.half_width:{spec.removeprefix('+')}}"
    return f"{each.mean:{spec}}{half_width}"
