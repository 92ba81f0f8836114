"""The rule on experiment 2: cold starts of 2 to 32 clients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from cells import (
    FITS,
    FITTED,
    NOT,
    ORDERING,
    OWN_CURVE,
    REPRODUCED,
    SERVER,
    Tables,
    Verdict,
    counts,
    is_positive,
    points,
    rank_correlation,
    whose_verdict,
)

from asgd_lab.record.replications import Estimate, difference

HALF = 12.0  # hours
NAMES = {SERVER: "server", OWN_CURVE: "replicas"}


def a4(tables: Tables) -> Verdict:
    """Clients and the cold start."""
    runs = tables.runs[tables.runs["experiment"] == "figure-2"]
    several = sorted(runs["workers"].unique())
    fits = [fit for fit in FITS if fit in set(runs["costs"])]

    def decide(whose: str, costs: str) -> tuple[str, str, str]:
        errors = {
            count: _at(tables.curves_of(whose, "figure-2", workers=count, costs=costs), HALF) for count in several
        }
        slopes = {count: _slopes(tables.curves_of(whose, "figure-2", workers=count, costs=costs)) for count in several}
        means = {count: float(np.mean([*found.values()])) for count, found in errors.items()}
        ordered = rank_correlation(several, [*means.values()])
        behind = difference(errors[several[-1]], errors[several[0]])
        best = min((count for count in several if count <= 8), key=lambda count: means[count])
        many = ", ".join(
            f"{count} clients {points(difference(errors[count], errors[best]))}" for count in several if count > 8
        )
        fastest = {seed: max(found[seed] for found in [*slopes.values()][:-1]) for seed in slopes[several[-1]]}
        late = difference(slopes[several[-1]], fastest)
        is_steepest = is_positive(late)
        said = (
            f"{FITS[costs]}: {several[-1]} against {several[0]} clients {points(behind)}, order {ordered:+.1f}, "
            f"{'' if is_steepest else 'not '}steepest late"
        )
        if ordered < 0.8 or not _far(behind):
            return NOT, said, many
        return (REPRODUCED if is_steepest else ORDERING), said, many

    found = {(whose, fit): decide(whose, fit) for whose in (OWN_CURVE, SERVER) for fit in fits}
    verdicts = {fit: whose_verdict(found[SERVER, fit][0], found[OWN_CURVE, fit][0]) for fit in fits}
    both = {*verdicts.values()}
    verdict = both.pop() if len(both) == 1 else ORDERING if both <= {REPRODUCED, ORDERING} else FITTED

    def everywhere(said: Callable[[str, str], str]) -> str:
        return "; ".join(f"{FITS[fit]}, {NAMES[whose]}: {said(whose, fit)}" for fit in fits for whose in NAMES)

    others = everywhere(lambda whose, fit: found[whose, fit][2])
    by_minibatches = everywhere(lambda whose, fit: points(_by_minibatches(tables, whose, fit)))
    at_twice = everywhere(lambda whose, fit: points(_more(tables, whose, "figure-2-double-rate", 2, costs=fit)))
    free = ", ".join(
        f"{name} {points(_more(tables, whose, 'figure-2-free-server', 8))}" for whose, name in NAMES.items()
    )
    busy = " and ".join(
        f"{np.mean([*tables.by_seed('server_busy', 'figure-2', workers=count, costs=fits[-1]).values()]):.0%}"
        for count in several if count > 8
    )  # fmt: skip
    return Verdict(
        "A4", "cold start: the more clients the slower at first, 16 and 32 much slower; later 32 are the steepest",
        "after 12 hours error grows with the number of clients (Spearman 0.8 or more) and the most are 5 points behind "
        "the fewest, by what counts; over the last 6 hours the most fall fastest, by what counts: reproduced; without "
        "the last: ordering only; so at one end of the region of costs alone: fitted",
        "; ".join(found[SERVER, fit][1] for fit in fits),
        "; ".join(found[OWN_CURVE, fit][1] for fit in fits),
        verdict,
        f"against the best of 2, 4 and 8 clients: {others}. By minibatches of a client instead of time, 32 clients "
        f"less 2 at as many as 32 have made by then: {by_minibatches}. At twice the rate, 32 less 2: {at_twice}. With "
        f"the dearest software the server is busy {busy} of the time with the most clients; if none of its cost is the "
        f"server's, 32 clients less 8 after 12 hours: {free}",
    )  # fmt: skip


def _by_minibatches(tables: Tables, whose: str, costs: str) -> Estimate | None:
    many, few = (tables.curves_of(whose, "figure-2", workers=count, costs=costs) for count in (32, 2))
    made = {seed: float(np.interp(HALF, curve["hours"], curve["steps"])) for seed, curve in many.items()}
    early = {
        seed: float(np.interp(made[seed], few[seed]["steps"], few[seed]["error"])) for seed in few.keys() & made.keys()
    }
    return difference(_at(many, HALF), early)


def _more(tables: Tables, whose: str, experiment: str, few: int, **where: str) -> Estimate | None:
    """The error of 32 clients less that of a few, at the hour of the rule."""
    return difference(*(
        _at(tables.curves_of(whose, experiment, workers=count, **where), HALF) for count in (32, few)
    ))  # fmt: skip


def _far(behind: Estimate | None) -> bool:
    return behind is not None and counts(behind) and behind.mean >= 0.05


def _at(curves: dict[int, pd.DataFrame], hour: float) -> dict[int, float]:
    return {seed: float(np.interp(hour, curve["hours"], curve["error"])) for seed, curve in curves.items()}


def _slopes(curves: dict[int, pd.DataFrame]) -> dict[int, float]:
    """The decrease of the error per hour over the last six hours: the slope of a line through its spans."""
    late = {seed: curve[curve["hours"] >= 18] for seed, curve in curves.items()}
    return {seed: -float(np.polyfit(curve["hours"], curve["error"], 1)[0]) for seed, curve in late.items()}
