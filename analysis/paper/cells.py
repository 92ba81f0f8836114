"""Parts of the rules: the tables of `collect`, differences between cells, and the union of two verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from asgd_lab.record.replications import Estimate, difference, estimate

REPRODUCED, ORDERING = "reproduced", "ordering only"
REPLICAS, ON_SERVER = "on replicas only", "on the server only"
FITTED, NOT, UNTESTED, NONE = "fitted, hence no verdict", "not reproduced", "cannot be tested here", "none: no claim"
RATE, TUNED = 0.08, 0.0
COSTS = "paine-2013-75-passes"
FITS = {  # passes of the single run, and what a synchronisation then costs in software
    "paine-2013-71-passes": "71 passes (0 s)",
    "paine-2013-75-passes": "75 passes (38 s)",
    "paine-2013-software": "90 passes (161 s)",
}
OWN, SERVER = "own", "server train"
OWN_CURVE = "replicas own"
ONE_POINT = 0.01
N_SYNC = (100, 300, 600, 900)
PASS = 10_009  # minibatches of 128 in a pass over ILSVRC 2012


@dataclass(frozen=True)
class Verdict:
    """A row of the table."""

    claim: str
    says: str
    rule: str
    server: str
    replicas: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Tables:
    """The tables of `collect`."""

    runs: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(cls, runs: pd.DataFrame, curves: pd.DataFrame) -> Tables:
        """The tables with experiment 3 at triple rate, and once more at the rate `TUNED`: each cell at the rate
        that gives the lowest error, of the replicas and of the server each.
        """
        runs = runs.replace({"experiment": {"triple-rate": "figures-3-and-4"}})
        cells = runs[(runs["experiment"] == "figures-3-and-4") & (runs["costs"] == COSTS)]
        tuned = []
        for _, cell in cells.groupby(["workers", "n_sync"]):
            best = cell[np.isclose(cell["lr"], RATE)].set_index("seed").assign(lr=TUNED)
            for whose in (OWN, SERVER):
                means = cell.groupby("lr")[whose].mean()
                best[whose] = cell[cell["lr"] == means.idxmin()].set_index("seed")[whose]
            tuned.append(best.reset_index())
        return cls(pd.concat([runs, *tuned], ignore_index=True), curves)

    def by_seed(self, column: str, experiment: str, **where: Any) -> dict[int, float]:
        """A column of the runs of an experiment with these settings, one number a seed; {} if there are none."""
        found = _where(self.runs, experiment=experiment, **where)
        if found["seed"].duplicated().any():
            raise ValueError(f"{experiment} {where} does not tell the runs apart")
        return {int(seed): float(value) for seed, value in zip(found["seed"], found[column], strict=True)}

    def curves_of(self, whose: str, experiment: str, **where: Any) -> dict[int, pd.DataFrame]:
        """(hours, error, steps) of each seed."""
        found = _where(self.curves, experiment=experiment, whose=whose, **where)
        if (found.groupby("seed")["run"].nunique() > 1).any():
            raise ValueError(f"{experiment} {where} does not tell the runs apart")
        return {
            int(seed): rows[["hours", "error", "steps"]].reset_index(drop=True) for seed, rows in found.groupby("seed")
        }

    def curve(self, whose: str, experiment: str, **where: Any) -> pd.DataFrame:
        """(hours, error, steps), the mean over seeds."""
        curves = [*self.curves_of(whose, experiment, **where).values()]
        if not curves:
            return pd.DataFrame(columns=["hours", "error", "steps"])
        return pd.concat(curves).groupby(level=0).mean()


def _where(rows: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for key, value in where.items():
        rows = rows[np.isclose(rows[key], value) if isinstance(value, float) else rows[key] == value]
    return rows


def rank_correlation(of: Sequence[float], with_: Sequence[float]) -> float:
    """Spearman's correlation, rounded: for four points it can be 0.8, computed as 0.7999999999999999."""
    return round(float(stats.spearmanr(of, with_).statistic), 9)


def counts(found: Estimate | None) -> bool:
    """Whether a difference exceeds chance."""
    if found is None:
        return False
    return found.mean > ONE_POINT if found.n == 1 else found.low > 0


def is_positive(found: Estimate | None) -> bool:
    """Whether a difference exceeds chance; for a single seed, whether it exceeds 0."""
    return found is not None and (found.low > 0 if found.n > 1 else found.mean > 0)


def points(found: Estimate | None) -> str:
    """A difference of errors, in words."""
    if found is None:
        return "not run"
    return _told(f"{100 * found.mean:+.1f}", 100 * found.half_width, found.n, " points")


def gap(tables: Tables, whose: str, of: dict[str, Any], against: dict[str, Any], experiment: str = "figures-3-and-4",
        **common: Any) -> Estimate | None:  # fmt: skip
    """Final error of one cell minus another's, paired by seed."""
    common = {"lr": RATE, "costs": COSTS} | common
    one, other = (tables.by_seed(whose, experiment, **common, **cell) for cell in (of, against))
    return difference(one, other)


def mean_of(values: Sequence[float], unit: str) -> str:
    """A mean and its interval over seeds, in words."""
    found = estimate(values)
    return _told(f"{found.mean:.1f}", found.half_width, found.n, unit)


def _told(mean: str, half_width: float, n: int, unit: str) -> str:
    """Three seeds are not mentioned."""
    return f"{mean}{'' if n == 1 else f' ± {half_width:.1f}'}{unit}" + ("" if n == 3 else f" (n = {n})")


def smooth(curve: pd.DataFrame) -> pd.Series:
    """Means over five spans around each span."""
    return curve["error"].rolling(5, center=True).mean()


def magnitude(found: Estimate | None, paper: float) -> str:
    """The verdict on a gap that the paper gives a size for: reproduced if the interval has it, or lies within half of
    it and one and a half times it.
    """
    if not counts(found):
        return NOT
    assert found is not None
    half = np.nan_to_num(found.half_width)
    has_it = found.mean - half <= paper <= found.mean + half
    is_near = paper / 2 <= found.mean - half and found.mean + half <= 1.5 * paper
    return REPRODUCED if has_it or is_near else ORDERING


def across_costs(verdict: str, holds: Callable[[str, str], bool | None]) -> tuple[str, str]:
    """A verdict at the default costs, and what is said: fitted if, at an end of the region, what it rests on does not
    hold (`holds(whose, costs)`; None: not run) for one of those who carry it.
    """
    carried_by = [whose for whose, name in ((SERVER, REPLICAS), (OWN, ON_SERVER)) if not verdict.startswith(name)]
    found = {fit: [holds(whose, fit) for whose in carried_by] for fit in FITS}
    run = {fit: each for fit, each in found.items() if None not in each}
    if verdict == NOT or not run:
        return verdict, "other costs not run" if not run else "other costs not looked at"
    failing = [FITS[fit] for fit, each in run.items() if not all(each)]
    if not failing:
        return verdict, "so at other costs"
    return f"{FITTED} (at 75 passes: {verdict})", f"not so at {' and '.join(failing)}"


def whose_verdict(server: str, replicas: str) -> str:
    """The union of two verdicts: the common one, or the one that only replicas or only the server show."""
    worse, better = sorted((server, replicas), key=[NOT, ORDERING, REPRODUCED].index)
    if worse != NOT or better == NOT:
        return worse
    whose = REPLICAS if better == replicas else ON_SERVER
    return whose if better == REPRODUCED else f"{whose} ({ORDERING})"


def elsewhere(decide: Callable[[str, float], str], tables: Tables, cells: int = 2) -> str:
    """The verdicts of the same rule at other learning rates, if at least `cells` cells were run at them."""
    said = []
    runs = tables.runs[tables.runs["experiment"] == "figures-3-and-4"]
    counted = runs.groupby("lr")[["workers", "n_sync"]].apply(lambda each: len(each.drop_duplicates()))
    rates = counted.index[counted >= cells]
    for lr in sorted((rate for rate in rates if not np.isclose(rate, RATE)), key=lambda lr: lr or np.inf):
        server, replicas = (decide(whose, lr) for whose in (SERVER, OWN))
        where = f"rate {lr:g}" if lr != TUNED else "the best rate of each cell"
        said.append(f"at {where}: {whose_verdict(server, replicas)}")
    return "; ".join(said)
