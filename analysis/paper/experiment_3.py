"""Rules on experiment 3: n_sync and the number of clients, after a warm start."""

from __future__ import annotations

from collections.abc import Callable
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
    across_costs,
    counts,
    elsewhere,
    gap,
    magnitude,
    mean_of,
    points,
    rank_correlation,
    whose_verdict,
)

from asgd_lab.record.replications import Estimate, difference

REGION = "so at both ends of the region of costs as far as its corners tell, or else fitted"


def a7(tables: Tables) -> Verdict:
    """Eight clients against one."""

    def found(whose: str, lr: float = OPTIMUM) -> Estimate | None:
        return gap(tables, whose, {"workers": 1}, {"workers": 8}, n_sync=100, lr=lr)

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        return magnitude(found(whose, lr), 0.12)

    def at_costs(whose: str, costs: str) -> list[Estimate | None]:
        return [gap(tables, whose, {"workers": 1}, {"workers": 8}, "other-costs", n_sync=100, costs=costs)]

    def elsewhere_alone(whose: str) -> Estimate | None:
        """Against one client that synchronises hardly ever."""
        return gap(tables, whose, {"workers": 1, "n_sync": 900}, {"workers": 8, "n_sync": 100})

    levels = [tables.by_seed(OWN, "figures-3-and-4", workers=count, n_sync=100, lr=OPTIMUM, costs=COSTS).values()
              for count in (1, 8)]  # fmt: skip
    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), at_costs)
    at_once = difference(*(
        {seed: float(np.interp(1.0, curve["hours"], curve["error"])) for seed, curve in tables.curves_of(
            SERVER, "figures-3-and-4", workers=count, n_sync=100, lr=OPTIMUM, costs=COSTS).items()}
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
    """More clients help."""
    workers = sorted(tables.runs.loc[tables.runs["experiment"] == "figures-3-and-4", "workers"].unique())

    def steps(whose: str, lr: float) -> tuple[int, int, int, int]:
        """Of all steps to more clients, how many help, and how many count; and at how many n_sync the whole counts."""
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

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        helping, all_of_them, _, ends = steps(whose, lr)
        return REPRODUCED if helping == all_of_them and ends == len(N_SYNC) else NOT

    def at_costs(whose: str, costs: str) -> list[Estimate | None]:
        return [gap(tables, whose, {"workers": 1}, {"workers": 8}, "other-costs", n_sync=n, costs=costs)
                for n in (100, 900)]  # fmt: skip

    said = {
        whose: "{} of {} steps help, {} by what counts; 1 to 8 counts at {} of 4 n_sync".format(*steps(whose, OPTIMUM))
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
    rings = [*tables.by_seed("ringing", "ringing").values()] if "ringing" in tables.runs else []
    passing = ", ".join(f"{abs(np.sinc(400 / n)):.2f}" for n in N_SYNC)
    return Verdict(
        "A9", "the larger n_sync, the more jagged the curve; supposed from stale updates",
        "at twice the optimum the deviation of the smoothed curve from its trend grows with n_sync (Spearman 0.8 or "
        "more), from 100 to 900 at least twofold; stale updates are the cause if it does not do so in lock-step",
        f"{listed('jags_server')} points", f"{listed('jags_own')} points",
        whose_verdict(decide("jags_server"), decide("jags_own")),
        f"error's rise within a round {listed('drift')} points; in lock-step, without any staleness, at 100 and 900 "
        f"{listed('drift', **in_step)}; jags there {listed('jags_own', **in_step)}, server's "
        f"{listed('jags_server', **in_step)}; ringing: the server's power at 3.6 to 5.6 rounds, by that beside it, "
        f"{mean_of(rings, ' times') if rings else 'not run'} (1: none); of a sawtooth of period n_sync a mean of 400 "
        f"passes {passing}",
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
        return REPRODUCED if fewer and counts(_less(tables, whose, lr)) else NOT

    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), _less_at_costs(tables))
    return Verdict(
        "A10", "n_sync 100 makes far fewer minibatches in 24 h than larger ones, and its error is still lower",
        "8 clients make less than 0.9 times the minibatches at n_sync 100 that they make at 900 (fitted), and their "
        f"error is lower by what counts; {REGION}",
        points(_less(tables, SERVER)), points(_less(tables, OWN)), verdict,
        "; ".join([
            f"{made[0] / made[1]:.2f} times the minibatches", f"{other_costs} ({_at_other_costs(tables)})",
            elsewhere(decide, tables),
        ]),
    )  # fmt: skip


def a11(tables: Tables) -> Verdict:
    """n_sync 900 against 100."""

    def decide(whose: str, lr: float = OPTIMUM) -> str:
        return magnitude(_less(tables, whose, lr), 0.04)

    verdict, other_costs = across_costs(whose_verdict(decide(SERVER), decide(OWN)), _less_at_costs(tables))
    return Verdict(
        "A11", "8 clients: about 4 points of training error between n_sync 900 and 100",
        "the gap counts, and its interval has the paper's 4 points or is within 2 to 6: reproduced; it counts: "
        f"ordering only; {REGION}",
        points(_less(tables, SERVER)), points(_less(tables, OWN)), verdict,
        f"{other_costs} ({_at_other_costs(tables)}); " + elsewhere(decide, tables),
    )  # fmt: skip


def _less(tables: Tables, whose: str, lr: float = OPTIMUM) -> Estimate | None:
    """By how much the error of 8 clients is lower with n_sync 100 than with 900."""
    return gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, workers=8, lr=lr)


def _less_at_costs(tables: Tables) -> Callable[[str, str], list[Estimate | None]]:
    """The same at other costs."""

    def at_costs(whose: str, costs: str) -> list[Estimate | None]:
        return [gap(tables, whose, {"n_sync": 900}, {"n_sync": 100}, "other-costs", workers=8, costs=costs)]

    return at_costs


def _at_other_costs(tables: Tables) -> str:
    found = [
        f"{fit.removeprefix('paine-2013-')}: {name} {points(more)}"
        for fit in FITS for name, whose in (("server", SERVER), ("replicas", OWN))
        for more in _less_at_costs(tables)(whose, fit) if more is not None
    ]  # fmt: skip
    return ", ".join(found) or "none"
