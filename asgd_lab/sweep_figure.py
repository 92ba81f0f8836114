"""The figure of a sweep, or of one run: the one that its scenario names, else the one that the swept keys suggest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asgd_lab import sweep_tables
from asgd_lab.errors import ScenarioError, among, shown
from asgd_lab.metric_words import higher_is_better
from asgd_lab.scenario import Scenario
from asgd_lab.sweep_tables import Group

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OF_ONE_RUN = ("curves", "staleness", "where_time_goes")


class _Swept(NamedTuple):
    """The runs to draw: groups of replications, and the keys with several values."""

    scenario: Scenario
    groups: Sequence[Group]
    keys: Mapping[str, list[Any]]

    @classmethod
    def of(cls, scenario: Scenario, groups: Sequence[Group]) -> _Swept:
        texts = {key: [sweep_tables.label({"": group.values[key]}) for group in groups] for key in groups[0].values}
        return cls(scenario, groups, {key: [*dict.fromkeys(each)] for key, each in texts.items() if len({*each}) > 1})

    @property
    def table(self) -> pd.DataFrame:
        return sweep_tables.means(self.groups)

    def named(self, group: Group, keys: Sequence[str]) -> str:
        """The group's values of these keys, as a label."""
        return sweep_tables.label({key: group.values[key] for key in keys})


def draw(scenario: Scenario, groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw the figure of these runs into the folder; return its files, none without a figure.

    ScenarioError if it cannot be drawn. Without a sweep only a figure of one run is drawn, and only if the scenario
    names it.
    """
    name = named(scenario, groups)
    if name == "none" or (not groups[0].values and (scenario.figure is None or name not in OF_ONE_RUN)):
        return []
    from asgd_lab.figures import style

    return style.save(figure(scenario, groups), folder / name)


def named(scenario: Scenario, groups: Sequence[Group]) -> str:
    """The name of the figure that the scenario names, or that these runs suggest; none where nothing does."""
    return scenario.figure or _suggested(_Swept.of(scenario, groups))


def figure(scenario: Scenario, groups: Sequence[Group], name: str | None = None) -> Figure:
    """The figure of that name, else of the scenario's; ScenarioError if it cannot be drawn of these runs."""
    if not groups:
        raise ScenarioError("figure: there is nothing to draw, since no point has finished")
    name = name or named(scenario, groups)
    if not isinstance(name, str) or name not in FIGURES:
        said = "is the scenario's wish, or nothing is swept" if name == "none" else "is no figure"
        raise ScenarioError(f"figure: {shown(name)} {said}{among(name, FIGURES)}")
    try:
        return FIGURES[name](_Swept.of(scenario, groups))
    except ScenarioError as error:
        raise ScenarioError(f"figure: {name} is not drawn: {error}") from None


def _suggested(swept: _Swept) -> str:
    scenario = swept.scenario
    known = {metric for group in swept.groups for numbers in group.runs.values() for metric in numbers}
    candidates = {
        "to_target": "seconds_to_target" in known,
        "speedup": "speedup" in known,
        "curves": scenario.evaluate is not None,
        "final": any(metric.startswith("test_") for metric in known),
        "throughput": "minibatches_per_s" in known,
    }
    return next((name for name, fits in candidates.items() if fits), "none")


def _speedup(swept: _Swept) -> Figure:
    from asgd_lab.figures.values import Measure, over_values

    if "workers" not in swept.keys:
        raise ScenarioError("it compares numbers of workers, and there is one")
    fewest = swept.groups[0].fewest_workers
    if not any("speedup" in numbers for group in swept.groups for numbers in group.runs.values()):
        raise ScenarioError(f"no run has a speed-up: all with {fewest} workers have failed, or there is no clock")
    crew = "1 worker" if fewest == 1 else f"{fewest} workers"
    table = swept.table
    to_target = "target_speedup" in {*table["metric"]}
    measures = [
        Measure("speedup", f"throughput over {crew}" if to_target else f"speed-up over {crew}", ideal=True),
        *([Measure("target_speedup", "speed-up to the target", ideal=True)] if to_target else []),
        Measure("staleness_mean", "mean staleness (versions)", best="max"),
    ]
    return over_values(table, measures, "workers")


def _throughput(swept: _Swept) -> Figure:
    from asgd_lab.figures.values import Measure, over_values

    measures = [
        Measure("minibatches_per_s", "minibatches per second"),
        Measure("worker_utilisation", "share of workers' time computing", is_share=True),
    ]
    return over_values(swept.table, measures)


def _final(swept: _Swept) -> Figure:
    from asgd_lab.figures.values import Measure, over_values

    known = {metric for group in swept.groups for metric in group.means() if metric.startswith("test_")}
    name = min(known, key=lambda metric: (metric != "test_error", metric != "test_loss", metric), default="test_loss")
    words, is_higher = f"final {name.replace('_', ' ')}", higher_is_better(name, swept.scenario)
    best = None if is_higher is None else "max" if is_higher else "min"
    return over_values(swept.table, [Measure(name, words, best=best, is_share=name == "test_error")])


def _to_target(swept: _Swept) -> Figure:
    from asgd_lab.figures.values import Measure, over_values

    measures = [
        Measure("seconds_to_target", "seconds to the target", best="min"),
        Measure("minibatches_to_target", "minibatches to the target", best="min"),
    ]
    return over_values(swept.table, measures)


def _curves(swept: _Swept) -> Figure:
    from asgd_lab.figures.curves import learning_curves

    return learning_curves({_label(swept, group): [*group.paths.values()] for group in swept.groups}, _title(swept))


def _label(swept: _Swept, group: Group) -> Any:
    """The value of the only swept key, else the values of all; the scenario's name without a sweep."""
    keys = list(swept.keys)
    if len(keys) == 1 and isinstance(group.values[keys[0]], int | float):
        return group.values[keys[0]]
    if len(keys) == 1:
        return sweep_tables.label({"": group.values[keys[0]]})
    return swept.named(group, keys) if keys else swept.scenario.name


def _title(swept: _Swept) -> str | None:
    keys = list(swept.keys)
    return keys[0] if len(keys) == 1 else None


def _staleness(swept: _Swept) -> Figure:
    from asgd_lab.figures.curves import staleness_histograms

    keys = list(swept.keys)
    panels: dict[str, dict[str, list[Path]]] = {}
    for group in swept.groups:
        panel = swept.named(group, keys[-1:]) if len(keys) > 1 else ""
        line = swept.named(group, keys[:-1] if len(keys) > 1 else keys) or swept.scenario.name
        panels.setdefault(panel, {})[line] = [*group.paths.values()]
    return staleness_histograms(panels)


def _where_time_goes(swept: _Swept) -> Figure:
    from asgd_lab.figures.where_time_goes import time_shares

    keys = list(swept.keys)
    numbers = [key for key in keys if all(isinstance(group.values[key], int | float) for group in swept.groups)]
    across = max(numbers, key=lambda key: (len(swept.keys[key]), keys.index(key)), default=None)
    panels: dict[str, dict[Any, list[Path]]] = {}
    for group in swept.groups:
        panel = swept.named(group, [key for key in keys if key != across]) or swept.scenario.name
        panels.setdefault(panel, {})["" if across is None else group.values[across]] = [*group.paths.values()]
    return time_shares(panels, across)


FIGURES: dict[str, Callable[[_Swept], Figure]] = {
    "speedup": _speedup,
    "where_time_goes": _where_time_goes,
    "curves": _curves,
    "staleness": _staleness,
    "throughput": _throughput,
    "final": _final,
    "to_target": _to_target,
}
