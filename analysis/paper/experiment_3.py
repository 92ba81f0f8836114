"""Rules on experiment 3: n_sync and the number of clients, after a warm start."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from cells import (
    COSTS,
    FITS,
    N_SYNC,
    NOT,
    OPTIMUM,
    OWN,
    REPRODUCED,
    SERVER,
    Tables,
    Verdict,
    counts,
    elsewhere,
    gap,
    magnitude,
    points,
    rank_correlation,
    whose_verdict,
)

from asgd_lab.record.replications import Estimate


def a7(tables: Tables) -> Verdict:
    """Eight clients against one."""

    def found(whose: str, lr: float = OPTIMUM) -> Estimate | None:
        return gap(tables, whose, {"workers": 1}, {"workers": 8}, n_sync=100, lr=lr)

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        return magnitude(found(whose, lr), 0.06, 0.18)

    levels = [tables.by_seed(OWN, "figures-3-and-4", workers=count, n_sync=100, lr=OPTIMUM, costs=COSTS).values()
              for count in (1, 8)]  # fmt: skip
    return Verdict(
        "A7", "n_sync 100: training error 70% with 1 GPU, 58% with 8",
        "the gap counts and is 6 to 18 points: reproduced; it counts: ordering only",
        points(found(SERVER)), points(found(OWN)), whose_verdict(decide(SERVER), decide(OWN)),
        f"replicas: {100 * np.mean([*levels[0]]):.0f}% and {100 * np.mean([*levels[1]]):.0f}%; "
        + elsewhere(decide, tables),
    )  # fmt: skip


def a8(tables: Tables) -> Verdict:
    """More clients help."""
    workers = sorted(tables.runs.loc[tables.runs["experiment"] == "figures-3-and-4", "workers"].unique())

    def steps(whose: str, lr: float) -> tuple[int, int, int]:
        """Of all steps to more clients, how many help; and at how many n_sync the whole counts."""
        helping, ends = [], 0
        for n in N_SYNC:
            means = [
                np.mean(
                    [*tables.by_seed(whose, "figures-3-and-4", workers=count, n_sync=n, lr=lr, costs=COSTS).values()]
                )
                for count in workers
            ]
            helping += [one > other for one, other in pairwise(means)]
            ends += counts(gap(tables, whose, {"workers": workers[0]}, {"workers": workers[-1]}, n_sync=n, lr=lr))
        return sum(helping), len(helping), ends

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        helping, all_of_them, ends = steps(whose, lr)
        return REPRODUCED if helping == all_of_them and ends == len(N_SYNC) else NOT

    said = {
        whose: "{} of {} steps help; 1 to 8 counts at {} of 4 n_sync".format(*steps(whose, OPTIMUM))
        for whose in (SERVER, OWN)
    }
    return Verdict(
        "A8", "more clients help at every n_sync",
        "every step to more clients lowers the mean error, and from 1 to 8 it counts, at every n_sync",
        said[SERVER], said[OWN], whose_verdict(decide(SERVER), decide(OWN)),
        elsewhere(decide, tables, len(workers) * len(N_SYNC)),
    )  # fmt: skip


def a9(tables: Tables) -> Verdict:
    """Jags, and their cause."""

    def jags(column: str, n: int, **where: Any) -> float:
        where = {"experiment": "figures-3-and-4", "workers": 8, "lr": 2 * OPTIMUM, "costs": COSTS} | where
        found = [*tables.by_seed(column, where.pop("experiment"), n_sync=n, **where).values()]
        return float(np.mean(found)) if found else float("nan")

    def decide(column: str) -> str:
        found = [jags(column, n) for n in N_SYNC]
        grows = found[-1] >= 2 * max(found[0], 0.001) and rank_correlation(N_SYNC, found) >= 0.8
        return REPRODUCED if grows else NOT

    def listed(column: str, **where: Any) -> str:
        found = [jags(column, n, **where) for n in N_SYNC]
        return ", ".join(f"{100 * each:.1f}" for each in found if not np.isnan(each))

    in_step = {"experiment": "without-staleness"}
    passing = ", ".join(f"{abs(np.sinc(400 / n)):.2f}" for n in N_SYNC)
    return Verdict(
        "A9", "the larger n_sync, the more jagged the curve; supposed from stale updates",
        "at twice the optimum the deviation of the smoothed curve from its trend grows with n_sync (Spearman 0.8 or "
        "more), from 100 to 900 at least twofold; stale updates are the cause if it does not do so in lock-step",
        f"{listed('jags_server')} points", f"{listed('jags_own')} points",
        whose_verdict(decide("jags_server"), decide("jags_own")),
        f"error's rise within a round {listed('drift')} points; in lock-step, without any staleness, at 100 and 900 "
        f"{listed('drift', **in_step)}; jags there {listed('jags_own', **in_step)}, server's "
        f"{listed('jags_server', **in_step)}; of a sawtooth of period n_sync a mean of 400 passes {passing}",
    )  # fmt: skip


def a10(tables: Tables) -> Verdict:
    """Fewer minibatches, lower error."""
    made = [
        np.mean(
            [*tables.by_seed("minibatches", "figures-3-and-4", workers=8, n_sync=n, lr=OPTIMUM, costs=COSTS).values()]
        )
        for n in (100, 900)
    ]
    fewer = made[0] < 0.9 * made[1]

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        better = counts(gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8, lr=lr))
        return REPRODUCED if fewer and better else NOT

    def said(whose: str) -> str:
        return points(gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8))

    others = [
        f"{fit.removeprefix('paine-2013-')}: replicas {points(found)}"
        for fit in (FITS[0], FITS[2])
        if (found := gap(tables, OWN, {"n_sync": 900}, {"n_sync": 100}, "other-costs", workers=8, costs=fit))
        is not None
    ]
    return Verdict(
        "A10", "n_sync 100 makes far fewer minibatches in 24 h than larger ones, and its error is still lower",
        "8 clients make less than 0.9 times the minibatches at n_sync 100 that they make at 900 (fitted), and their "
        "error is lower by what counts",
        said(SERVER), said(OWN), whose_verdict(decide(SERVER), decide(OWN)),
        "; ".join([f"{made[0] / made[1]:.2f} times the minibatches", *others, elsewhere(decide, tables)]),
    )  # fmt: skip


def a11(tables: Tables) -> Verdict:
    """n_sync 900 against 100."""

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        return magnitude(gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8, lr=lr), 0.02, 0.06)

    def said(whose: str) -> str:
        return points(gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8))

    return Verdict(
        "A11", "8 clients: about 4 points of training error between n_sync 900 and 100",
        "the gap counts and is 2 to 6 points: reproduced; it counts: ordering only",
        said(SERVER), said(OWN), whose_verdict(decide(SERVER), decide(OWN)), elsewhere(decide, tables),
    )  # fmt: skip
