"""Rules on experiment 3: n_sync and the number of clients, after a warm start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from cells import (
    COSTS,
    FITS,
    N_SYNC,
    NOT,
    ORDERING,
    OWN,
    RATE,
    REPRODUCED,
    SERVER,
    Tables,
    Verdict,
    across_costs,
    counts,
    elsewhere,
    gap,
    is_positive,
    magnitude,
    points,
    rank_correlation,
    whose_verdict,
)
from scipy import stats

from asgd_lab.record.replications import Estimate, difference

REGION = "in the corners of both ends of the region of costs it counts too, or else it is fitted"


def a7(tables: Tables) -> Verdict:
    """Eight clients against one."""

    def found(whose: str, lr: float = RATE) -> Estimate | None:
        return gap(tables, whose, {"workers": 1}, {"workers": 8}, n_sync=100, lr=lr)

    def decide(whose: str, lr: float = RATE) -> str:
        return magnitude(found(whose, lr), 0.12)

    def at_costs(whose: str, costs: str) -> bool | None:
        return _all_count([gap(tables, whose, {"workers": 1}, {"workers": 8}, "other-costs", n_sync=100, costs=costs)])

    def elsewhere_alone(whose: str) -> Estimate | None:
        """Against one client that synchronises hardly ever."""
        return gap(tables, whose, {"workers": 1, "n_sync": 900}, {"workers": 8, "n_sync": 100})

    levels = [tables.by_seed(OWN, "figures-3-and-4", workers=count, n_sync=100, lr=RATE, costs=COSTS).values()
              for count in (1, 8)]  # fmt: skip
    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), at_costs)
    at_once = difference(*(
        {seed: float(np.interp(1.0, curve["hours"], curve["error"])) for seed, curve in tables.curves_of(
            SERVER, "figures-3-and-4", workers=count, n_sync=100, lr=RATE, costs=COSTS).items()}
        for count in (1, 8)
    ))  # fmt: skip
    return Verdict(
        "A7", "n_sync 100: training error 70% with 1 GPU, 58% with 8",
        "the gap counts, and its interval has the paper's 12 points or is within 6 to 18: reproduced; it counts: "
        f"ordering only; {REGION}",
        points(found(SERVER)), points(found(OWN)), verdict,
        f"replicas: {100 * np.mean([*levels[0]]):.0f}% and {100 * np.mean([*levels[1]]):.0f}%; of the server's gap "
        f"{points(at_once)} are there after an hour, by averaging at a constant rate and not by speed; against one "
        "client with n_sync 900, which pays hardly anything for synchronising: server "
        f"{points(elsewhere_alone(SERVER))}, replicas {points(elsewhere_alone(OWN))}; {other_costs}; "
        + elsewhere(decide, tables),
    )  # fmt: skip


def a8(tables: Tables) -> Verdict:
    """More clients at every n_sync."""
    workers = sorted(tables.runs.loc[tables.runs["experiment"] == "figures-3-and-4", "workers"].unique())

    def steps(whose: str, lr: float) -> tuple[int, int, int, int]:
        """The numbers of steps to more clients: helpful, all, significant; and of n_sync with a significant total."""
        helping, counting, ends = [], 0, 0
        for n in N_SYNC:
            means = [
                np.mean(
                    [*tables.by_seed(whose, "figures-3-and-4", workers=count, n_sync=n, lr=lr, costs=COSTS).values()]
                )
                for count in workers
            ]
            helping += [one > other for one, other in pairwise(means)]
            counting += sum(
                counts(gap(tables, whose, {"workers": few}, {"workers": many}, n_sync=n, lr=lr))
                for few, many in pairwise(workers)
            )
            ends += counts(gap(tables, whose, {"workers": workers[0]}, {"workers": workers[-1]}, n_sync=n, lr=lr))
        return sum(helping), len(helping), counting, ends

    def decide(whose: str, lr: float = RATE) -> str:
        helping, all_of_them, _, ends = steps(whose, lr)
        return REPRODUCED if helping == all_of_them and ends == len(N_SYNC) else NOT

    def at_costs(whose: str, costs: str) -> bool | None:
        return _all_count([gap(tables, whose, {"workers": 1}, {"workers": 8}, "other-costs", n_sync=n, costs=costs)
                           for n in (100, 900)])  # fmt: skip

    said = {
        whose: "{} of {} steps help, {} by what counts; 1 to 8 counts at {} of 4 n_sync".format(*steps(whose, RATE))
        for whose in (SERVER, OWN)
    }
    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), at_costs)
    return Verdict(
        "A8", "more clients help at every n_sync",
        f"every step to more clients lowers the mean error, and from 1 to 8 it counts, at every n_sync; {REGION}",
        said[SERVER], said[OWN], verdict,
        f"{other_costs}; " + elsewhere(decide, tables, len(workers) * len(N_SYNC)),
    )  # fmt: skip


def a9(tables: Tables) -> Verdict:
    """Jags, and their cause."""

    def by_seed(column: str, n: int, experiment: str) -> dict[int, float]:
        return tables.by_seed(column, experiment, n_sync=n, workers=8, lr=2 * RATE, costs=COSTS)

    def jags(column: str, experiment: str = "figures-3-and-4") -> dict[int, float]:
        """Deviations of the smoothed curve from its trend, by n_sync."""
        found = {n: [*by_seed(column, n, experiment).values()] for n in N_SYNC}
        return {n: float(np.sqrt(np.maximum(0.0, np.mean(each)))) for n, each in found.items() if each}

    def grow(column: str, experiment: str = "figures-3-and-4") -> str:
        found = jags(column, experiment)
        if not {100, 900} <= found.keys() or any(map(np.isnan, found.values())):
            return NOT
        if found[900] < 2 * max(found[100], 0.001) or rank_correlation([*found], [*found.values()]) < 0.8:
            return NOT
        more = difference(*(by_seed(column, n, experiment) for n in (900, 100)))
        return REPRODUCED if more is not None and more.n > 1 and is_positive(more) else ORDERING

    def told(errors: Iterable[float]) -> str:
        return ", ".join(f"{100 * each:.1f}" for each in errors)

    def drift(experiment: str) -> str:
        found = (by_seed("drift", n, experiment).values() for n in N_SYNC)
        return told(float(np.mean([*each])) for each in found if each)

    lock_step = "without-staleness"
    verdict = whose_verdict(grow("variance_server"), grow("variance_own"))
    alone = grow("variance_own", lock_step) == REPRODUCED
    if not jags("variance_own", lock_step):
        cause = "lock-step not run"
    elif alone:
        cause = "stale updates are not the cause, since jags grow as well in lock-step"
    else:
        cause = "stale updates may be the cause, since jags do not grow in lock-step by what counts"
    passing = ", ".join(f"{abs(np.sinc(400 / n)):.2f}" for n in N_SYNC)
    return Verdict(
        "A9", "the larger n_sync, the more jagged the curve; supposed from stale updates",
        "at rate 0.16 the deviation from its trend of one client's curve, smoothed over 400 minibatches, and of "
        "the server's, grows with n_sync (Spearman 0.8 or more), from 100 to 900 at least twofold: ordering only; by "
        "what counts in several seeds, too: reproduced; stale updates are not the cause if the latter holds in "
        "lock-step too",
        f"{told(jags('variance_server').values())} points", f"{told(jags('variance_own').values())} points",
        verdict + (", and not from stale updates" if alone and verdict != NOT else ""),
        f"{cause}, without any staleness: at 100 and 900 {told(jags('variance_own', lock_step).values())} points on "
        f"replicas, {told(jags('variance_server', lock_step).values())} on the server; what jags is a client's drift "
        f"from the average: its error rises by {drift('figures-3-and-4')} points from the first quarter of a round to "
        f"the last, in lock-step by {drift(lock_step)}; of a sawtooth of period n_sync a mean of 400 passes {passing}. "
        f"{_ringing(tables)}",
    )  # fmt: skip


def _ringing(tables: Tables) -> str:
    """A rival of both causes, which would show on the server."""
    runs = tables.runs[tables.runs["experiment"] == "ringing"]
    if runs.empty:
        return "Ringing: not run"
    ratio, low, high = ringing_ratio(runs)
    deviation = float(np.sqrt(max(0.0, runs["variance_server"].mean())))
    return (
        f"Ringing: all deviations of the server's curve are {100 * deviation:.1f} points, where it would be strongest; "
        f"its power at 3.6 to 5.6 rounds is {ratio:.1f} times that beside it ({low:.1f} to {high:.1f}; 1: none)"
    )


def ringing_ratio(runs: pd.DataFrame) -> tuple[float, float, float]:
    """The power of all runs at the periods of ringing by that beside it, with the 95% interval that it has if powers
    are those of a stationary Gaussian process: a ratio of two mean powers is F-distributed, 2 degrees of freedom each.
    """
    ratio = float(runs["ring_near"].mean() / runs["ring_beside"].mean())
    free = [2 * runs[f"ring_{where}_bins"].sum() for where in ("near", "beside")]
    low, high = (ratio / float(stats.f.ppf(quantile, *free)) for quantile in (0.975, 0.025))
    return ratio, low, high


def a10(tables: Tables) -> Verdict:
    """Fewer minibatches, lower error."""

    def share(costs: str = COSTS, experiment: str = "figures-3-and-4") -> float:
        """The minibatches with n_sync 100 by those with 900."""
        few, many = (
            tables.by_seed("minibatches", experiment, workers=8, n_sync=n, lr=RATE, costs=costs) for n in (100, 900)
        )
        return float(np.mean([*few.values()]) / np.mean([*many.values()]))

    def decide(whose: str, lr: float = RATE) -> str:
        return REPRODUCED if share() < 0.9 and counts(_less(tables, whose, lr)) else NOT

    def at_costs(whose: str, costs: str) -> bool | None:
        lower = _less_at_costs(tables, whose, costs)
        return None if lower is None else counts(lower) and share(costs, "other-costs") < 0.9

    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), at_costs)
    return Verdict(
        "A10", "n_sync 100 makes far fewer minibatches in 24 h than larger ones, and its error is still lower",
        "8 clients make less than 0.9 times the minibatches at n_sync 100 that they make at 900 (fitted), and their "
        "error is lower by what counts; so at both ends of the region of costs, in its corners, or else it is fitted",
        points(_less(tables, SERVER)), points(_less(tables, OWN)), verdict,
        "; ".join([
            f"{share():.2f} times the minibatches", f"{other_costs} ({_at_other_costs(tables)})",
            elsewhere(decide, tables),
        ]),
    )  # fmt: skip


def a11(tables: Tables) -> Verdict:
    """n_sync 900 against 100."""

    def decide(whose: str, lr: float = RATE) -> str:
        return magnitude(_less(tables, whose, lr), 0.04)

    def at_costs(whose: str, costs: str) -> bool | None:
        return _all_count([_less_at_costs(tables, whose, costs)])

    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), at_costs)
    return Verdict(
        "A11", "8 clients: about 4 points of training error between n_sync 900 and 100",
        "the gap counts, and its interval has the paper's 4 points or is within 2 to 6: reproduced; it counts: "
        f"ordering only; {REGION}",
        points(_less(tables, SERVER)), points(_less(tables, OWN)), verdict,
        f"{other_costs} ({_at_other_costs(tables)}); " + elsewhere(decide, tables),
    )  # fmt: skip


def _less(tables: Tables, whose: str, lr: float = RATE) -> Estimate | None:
    """The error of 8 clients with n_sync 900 minus that with 100."""
    return gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8, lr=lr)


def _less_at_costs(tables: Tables, whose: str, costs: str) -> Estimate | None:
    """The same at other costs."""
    return gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, "other-costs", workers=8, costs=costs)


def _at_other_costs(tables: Tables) -> str:
    found = [
        f"{told}, {name}: {points(more)}"
        for fit, told in FITS.items() for name, whose in (("server", SERVER), ("replicas", OWN))
        for more in [_less_at_costs(tables, whose, fit)] if more is not None
    ]  # fmt: skip
    return "; ".join(found) or "none"


def _all_count(gaps: Sequence[Estimate | None]) -> bool | None:
    """None if one of them was not run."""
    return None if None in gaps else all(map(counts, gaps))
