"""The rule on experiment 2: cold starts of 2 to 32 clients."""

from __future__ import annotations

import numpy as np
from cells import FITS, FITTED, NOT, ORDERING, REPRODUCED, Tables, Verdict, rank_correlation, whose_verdict


def a4(tables: Tables) -> Verdict:
    """The cold start."""
    several = sorted(tables.runs.loc[tables.runs["experiment"] == "figure-2", "workers"].unique())

    def decide(whose: str, costs: str) -> tuple[str, str]:
        curves = {count: tables.curve(whose, "figure-2", workers=count, costs=costs) for count in several}
        half = {count: float(np.interp(12, curve["hours"], curve["error"])) for count, curve in curves.items()}
        slopes = [
            (np.interp(18, curve["hours"], curve["error"]) - np.interp(23.5, curve["hours"], curve["error"])) / 5.5
            for curve in curves.values()
        ]
        ordered = rank_correlation(several, [*half.values()])
        best = min(error for count, error in half.items() if count <= 8)
        behind = {count: error - best for count, error in half.items() if count > 8}
        steepest = several[int(np.argmax(slopes))]
        said = f"{costs.removeprefix('paine-2013-')}: " + ", ".join(
            f"{count} clients {100 * gap:+.1f} points" for count, gap in behind.items()
        )
        said += f"; order {ordered:+.2f}; steepest late: {steepest}"
        also = [ordered >= 0.8, steepest == several[-1]]
        if min(behind.values()) < 0.05:
            return NOT, said
        return (REPRODUCED if all(also) else ORDERING if any(also) else NOT), said

    fits = [fit for fit in FITS if fit in set(tables.runs.loc[tables.runs["experiment"] == "figure-2", "costs"])]
    found = {(whose, fit): decide(whose, fit) for whose in ("replicas own", "server train") for fit in fits}
    verdicts = {
        fit: whose_verdict(found["server train", fit][0], found["replicas own", fit][0]) for fit in fits
    }  # fmt: skip
    if len(set(verdicts.values())) == 1:
        verdict = verdicts[fits[0]]
    elif verdicts[fits[0]] == NOT:
        verdict = FITTED
    else:
        verdict = ORDERING
    return Verdict(
        "A4", "cold start: the more clients the slower at first, 16 and 32 much slower; later 32 are the steepest",
        "after 12 hours 16 and 32 are each 5 points behind the best of 2, 4 and 8, and error grows with the number of "
        "clients (Spearman 0.8 or more), and over the last 6 hours the largest number falls fastest: reproduced; with "
        "one of the last two: ordering only; so at the dearest software alone: fitted",
        "; ".join(found["server train", fit][1] for fit in fits),
        "; ".join(found["replicas own", fit][1] for fit in fits),
        verdict, "; ".join(f"{fit.removeprefix('paine-2013-')}: {each}" for fit, each in verdicts.items())
        + "; with the dearest software the server is busy "
        + " and ".join(f"{np.mean([*busy.values()]):.0%}" for count in (16, 32) if (busy := tables.by_seed(
            "server_busy", "figure-2", workers=count, costs=fits[-1]))) + " of the time with 16 and 32",
    )  # fmt: skip
