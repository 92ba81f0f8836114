"""The result of a study: a row per execution, and the effects, each an estimate over seeds.

An effect is dose 1 less dose 0, in units of the metric: positive means that the cause raises it. Doses are paired by
seed, so whatever a seed does to both cancels. Intervals are Student's over seeds, which reseed data and initialisation
and keep the order; evaluations of one run are never used for an interval, since they are correlated.
"""

from __future__ import annotations

import dataclasses
import html
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from asgd_lab.counterfactual import files
from asgd_lab.counterfactual.arms import PLAYERS, STALENESS, TOGETHER
from asgd_lab.record.replications import Estimate, difference, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECT = "direct effect of staleness at fixed order and fixed learning rate"
_SETTINGS = ("cause", "dose", "rate", "seed", "staleness", "staleness_max", "versions_kept")


@dataclass(frozen=True, slots=True)
class Facts:
    """The run that was explained, and how."""

    run: str
    backend: str
    algorithm: str
    workers: int
    seed: int
    seeds: int
    rules_see: str
    metric: str
    higher_is_better: bool | None
    pushes: int
    dropped: int
    staleness: float
    compares_final: bool
    notes: tuple[str, ...] = ()


class Effect(NamedTuple):
    """Dose 1 less dose 0 of a cause at a rate; `rate` is NaN where each dose has its own best one."""

    cause: str
    rate: float
    estimate: Estimate

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0; never with a single seed."""
        return bool(abs(self.estimate.mean) > self.estimate.half_width)


class Point(NamedTuple):
    """One dose of a cause at one rate: its realised mean staleness, and the metric."""

    cause: str
    rate: float
    dose: float
    staleness: float
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Explanation:
    """`frame` has a row per execution: cause, dose, rate, seed, realised mean staleness, and every metric.

    `looks` has a row for each of some pushes of the record: its staleness in versions, in seconds, in distance, and the
    cosine between its gradient and the one at the newest version.
    """

    frame: pd.DataFrame
    facts: Facts
    looks: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The metrics that the executions have."""
        return [name for name in self.frame.columns if name not in _SETTINGS]

    @property
    def metric(self) -> str:
        """The metric of effects."""
        return self.facts.metric

    def values(self, cause: str, dose: float, rate: float) -> dict[int, float]:
        """The metric by seed."""
        frame = self.frame
        rows = frame[(frame["cause"] == cause) & (frame["dose"] == dose) & (frame["rate"] == rate)]
        return {int(seed): float(value) for seed, value in zip(rows["seed"], rows[self.metric], strict=True)}

    @property
    def rates(self) -> list[float]:
        """The learning rates, as multiples of the record's."""
        return [*dict.fromkeys(self.frame["rate"].tolist())]

    @property
    def causes(self) -> list[str]:
        """The causes that were removed."""
        removed = self.frame[self.frame["dose"] < 1]
        return [*dict.fromkeys(removed["cause"].tolist())]

    @property
    def points(self) -> list[Point]:
        """All doses of all causes at all rates."""
        found = []
        key: Any
        for key, rows in self.frame.groupby(["cause", "rate", "dose"], sort=False):
            cause, rate, dose = key
            values = [float(value) for value in rows[self.metric]]
            found.append(Point(cause, rate, dose, float(rows["staleness"].mean()), estimate(values)))
        return sorted(found, key=lambda each: (each.cause != STALENESS, each.cause, each.rate, -each.dose))

    @property
    def effects(self) -> list[Effect]:
        """The effect of each cause at each rate, and that of staleness with each dose at its best of several rates."""
        found = []
        for cause in self.causes:
            for rate in self.rates:
                found.append(Effect(cause, rate, self._difference((1.0, rate), (cause, 0.0, rate))))
        if best := self.best_rates:
            found.append(Effect(STALENESS, math.nan, self._difference((1.0, best[1.0]), (STALENESS, 0.0, best[0.0]))))
        return found

    @property
    def best_rates(self) -> dict[float, float]:
        """The best rates of doses 1 and 0; {} if there are no several rates, or if one of the two is not known."""
        if len(self.rates) < 2 or STALENESS not in self.causes:
            return {}
        found = {dose: rate for dose in (1.0, 0.0) if (rate := self.best_rate(dose)) is not None}
        return found if len(found) == 2 else {}

    def waterfall(self, rate: float) -> dict[str, Estimate]:
        """The record less synchronous SGD of the same minibatches, divided among the causes: Shapley's value over all
        coalitions of removed causes, seed by seed; {} unless a waterfall was asked for.
        """
        if TOGETHER not in self.causes:
            return {}
        first, second = PLAYERS
        none, both = self.values(STALENESS, 1.0, rate), self.values(TOGETHER, 0.0, rate)
        of = {cause: self.values(cause, 0.0, rate) for cause in PLAYERS}
        return {
            cause: estimate([((none[seed] - of[cause][seed]) + (of[other][seed] - both[seed])) / 2 for seed in none])
            for cause, other in ((first, second), (second, first))
        }

    def best_rate(self, dose: float) -> float | None:
        """The rate with the best mean of the metric at this dose of staleness.

        A rate that diverged is none. None if all have, or if nothing tells whether a higher value is better.
        """
        if self.facts.higher_is_better is None:
            return None
        values = {rate: [*self.values(STALENESS, dose, rate).values()] for rate in self.rates}
        means = {rate: sum(each) / len(each) for rate, each in values.items() if all(map(math.isfinite, each))}
        best = max if self.facts.higher_is_better else min
        return best(means, key=means.__getitem__, default=None)

    def _difference(self, record: tuple[float, float], without: tuple[str, float, float]) -> Estimate:
        found = difference(self.values(STALENESS, *record), self.values(*without))
        assert found is not None
        return found

    @property
    def by_staleness(self) -> pd.DataFrame:
        """The number of pushes that were looked at, and their means, by staleness in versions."""
        groups = self.looks.groupby("staleness")
        means = groups[["seconds", "distance", "cosine"]].mean()
        return means.assign(pushes=groups.size()).reset_index()

    # ------------------------------------------------------------------ words

    @property
    def lines(self) -> list[str]:
        """The findings in sentences, the limits of what was done included."""
        facts = self.facts
        checked = "the record's bits" if facts.compares_final else "the record's pushes, bit for bit"
        seen = "the recorded" if facts.rules_see == "recorded" else "the counterfactual"
        return [
            f"self-check: dose 1 gives {checked}",
            *(self._sentence(each) for each in self.effects),
            f"rules see {seen} staleness; order, leases, minibatches, drops and the gate's decisions are the record's",
            *self._fallen(),
            *self._looked(),
            *self._floor(),
            *self._edges(),
            *(f"note: {line}" for line in facts.notes),
        ]

    def _sentence(self, effect: Effect) -> str:
        found = effect.estimate
        if effect.cause == STALENESS:
            what = DIRECT if not math.isnan(effect.rate) else "effect of staleness with each dose at its own best rate"
        else:
            what = f"direct effect of {effect.cause} at fixed order and fixed learning rate"
        if math.isnan(effect.rate):
            best = self.best_rates
            what += f" (dose 1: {best[1.0]:g}, dose 0: {best[0.0]:g})"
        elif len(self.rates) > 1:
            what += f", rate {effect.rate:g}"
        if not math.isfinite(found.mean):
            return f"{what}: not known: at least one execution has diverged"
        said = f"{what}: {found.mean:+.4g}"
        if found.n < 2:
            return f"{said} {self.metric}; one seed gives no interval"
        verdict = "" if effect.is_significant else "; the interval contains 0"
        return f"{said} ± {found.half_width:.2g} {self.metric} (95%, {found.n} seeds){verdict}"

    def _fallen(self) -> Iterator[str]:
        for rate in self.rates:
            parts = ", ".join(
                f"{cause} {each.mean:+.4g} ± {each.half_width:.2g}" for cause, each in self.waterfall(rate).items()
            )
            if parts:
                yield f"record less synchronous SGD of the same minibatches, rate {rate:g}, in {self.metric}: {parts}"

    def _looked(self) -> Iterator[str]:
        stale = self.looks[self.looks["staleness"] > 0]
        if len(stale):
            mean = stale[["staleness", "seconds", "distance", "cosine"]].mean()
            what = f"{mean['staleness']:.2f} versions, {mean['seconds']:.3g} s, distance {mean['distance']:.3g}"
            cosine = f"its gradient has cosine {mean['cosine']:.3f} with the one at the newest version"
            yield f"of {len(stale):,} stale pushes looked at, the mean is {what}; {cosine}"

    def _floor(self) -> Iterator[str]:
        zero = [point.staleness for point in self.points if point.cause == STALENESS and point.dose == 0]
        if zero and zero[0] > 0:
            why = "several pushes go on from one fetch, or wait before they are merged"
            yield f"dose 0 keeps a mean staleness of {zero[0]:.2f} of {self.facts.staleness:.2f}: {why}"

    def _edges(self) -> Iterator[str]:
        if len(self.rates) < 2 or STALENESS not in self.causes:
            return
        if self.facts.higher_is_better is None:
            yield f"no best rate is told: nothing says whether a higher {self.metric} is better"
            return
        for dose in (1.0, 0.0):
            if self.best_rate(dose) is None:
                yield f"dose {dose:g} has no best rate: an execution has diverged at each"
        ends = {min(self.rates), max(self.rates)}
        at_end = [f"{dose:g}" for dose in (1.0, 0.0) if self.best_rate(dose) in ends]
        if at_end:
            yield f"the best rate of dose {' and '.join(at_end)} is at an end of the axis: give more rates"

    def __str__(self) -> str:
        return "\n".join([self.facts.run, *self.lines])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        return f"<p>Explanation of <code>{html.escape(self.facts.run)}</code></p><ul>{items}</ul>"

    def noting(self, lines: Sequence[str]) -> Explanation:
        """The same with further notes."""
        facts = dataclasses.replace(self.facts, notes=(*self.facts.notes, *lines))
        return dataclasses.replace(self, facts=facts)

    # ------------------------------------------------------------------ files

    def summary(self) -> dict[str, Any]:
        """The content of explain.json: facts, points, effects and sentences."""
        return {
            **dataclasses.asdict(self.facts),
            "doses_are": "shares of the recorded staleness; x-axis: the realised mean staleness",
            "points": [{**each._asdict(), **_numbers(each.estimate)} for each in self.points],
            "effects": [
                {
                    "cause": each.cause, "rate": None if math.isnan(each.rate) else each.rate,
                    "at_best_rates": math.isnan(each.rate), **_numbers(each.estimate),
                    "significant": each.is_significant,
                }
                for each in self.effects
            ],
            "looks": self.by_staleness.to_dict("records"),
            "lines": self.lines,
        }  # fmt: skip

    def write(self, folder: str | os.PathLike[str] | None = None) -> list[Path]:
        """Write three files explain* into a folder, by default the run's; recorded files stay as they are."""
        where = Path(self.facts.run if folder is None else folder)
        return files.write(where, self.summary(), self.frame, self.looks)

    def plot(self) -> Figure:
        """The metric over the realised mean staleness, a line per rate, with intervals over seeds."""
        from asgd_lab.figures.doses import response

        curves = {
            rate: [(each.staleness, *_interval(each.estimate)) for each in self.points
                   if each.cause == STALENESS and each.rate == rate]
            for rate in self.rates
        }  # fmt: skip
        return response(curves, self.metric)


def _interval(found: Estimate) -> tuple[float, float]:
    return found.mean, found.half_width


def _numbers(found: Estimate) -> dict[str, Any]:
    return {"estimate": found.mean, "low": found.low, "high": found.high, "n": found.n}
