"""The claims of Paine et al. 2013 (arXiv:1312.6186), and the rule that decides each.

paper.py says what of the rules is younger than the runs.

A verdict is about orderings and magnitudes at the single-client optimum of the learning rate, unless its rule says
otherwise; what holds at its double or triple is said beside it. A difference counts if its 95% interval over seeds
(Student's, paired by seed) excludes 0; of a single seed, if it is above a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from cells import (
    COSTS,
    FITS,
    FITTED,
    N_SYNC,
    NONE,
    NOT,
    ONE_POINT,
    OPTIMUM,
    ORDERING,
    OWN,
    PASS,
    REPLICAS_OF,
    REPRODUCED,
    SERVER,
    UNTESTED,
    Tables,
    Verdict,
    counts,
    elsewhere,
    gap,
    magnitude,
    points,
    whose_verdict,
)
from scipy import stats

from asgd_lab.record.replications import Estimate, difference, estimate


def rank_correlation(of: Sequence[float], with_: Sequence[float]) -> float:
    """Spearman's, rounded: 0.8 is one of its values for four points, and comes out as 0.7999999999999999."""
    return round(float(stats.spearmanr(of, with_).statistic), 9)


def a2(tables: Tables) -> Verdict:
    """Time to near the single client's best."""
    whole = tables.curve("server test", "figure-1-one-client")
    best = whole["error"].min()
    near = best + 0.015
    full = whole["hours"].max()

    def reached(curve: pd.DataFrame, near: float = near) -> float:
        below = curve[curve["error"] <= near]
        return float(below["hours"].iloc[0]) if len(below) else float("inf")

    def decide(hours: float) -> str:
        ratio = full / hours
        return REPRODUCED if 2.4 <= ratio <= 4.0 else ORDERING if ratio > 1.25 else NOT

    single = reached(whole)
    hours = {whose: reached(tables.curve(whose, "figure-1")) for whose in ("server test", "replicas' test")}
    said = {
        whose: f"{full / h:.2f} times ({h / 24:.1f} days); to equal error {single / h:.2f} times"
        if np.isfinite(h) else f"never within 1.5 points of {100 * best:.1f}%"
        for whose, h in hours.items()
    }  # fmt: skip
    server, replicas = (decide(hours[whose]) for whose in ("server test", "replicas' test"))
    eight = tables.curve("server test", "figure-1")
    system = 8 * (eight["steps"].max() / eight["hours"].max()) / (whole["steps"].max() / whole["hours"].max())
    # To the lowest error that one client has before its rate is divided, which 8 clients' rate never is.
    constant = whole[whole["steps"] < 30 * PASS]
    level = constant["error"].min()
    slow, quick = reached(whole, level), reached(eight, level)
    falling = tables.curve("server test", "figure-1-with-schedule")
    scheduled = "not run" if falling.empty else (
        f"lowest {100 * falling['error'].min():.1f}%, near after {reached(falling) / 24:.1f} days, "
        f"{full / reached(falling):.2f} times"
    )  # fmt: skip
    return Verdict(
        "A2", "8 clients, n_sync 600: near the best error in 3.3 days instead of 10.7, 3.2 times",
        "time until the test error is within 1.5 points of the single client's lowest, against the single client's "
        "whole schedule: 2.4 to 4.0 times is reproduced, above 1.25 ordering only",
        said["server test"], said["replicas' test"], whose_verdict(server, replicas),
        f"lowest test error of 8 clients {100 * eight['error'].min():.1f}%, of one {100 * best:.1f}%. With the single "
        f"run's schedule in proportion (server): {scheduled}. At one rate for both: one client comes to "
        f"{100 * level:.1f}% in {slow / 24:.1f} days, 8 in {quick / 24:.1f}: {slow / quick:.2f} times, of {system:.2f} "
        f"times the minibatches a second (fitted), each worth {slow / quick / system:.2f} of one's",
    )  # fmt: skip


def a3(tables: Tables) -> Verdict:
    """A minimum, and over-fitting."""

    def decide(whose: str) -> tuple[str, str]:
        curve, train = tables.curve(f"{whose} test", "figure-1"), tables.curve(f"{whose} train", "figure-1")
        place = int(curve["error"].argmin())
        rise = curve["error"].iloc[-1] - curve["error"].iloc[place]
        falls = train["error"].iloc[-1] < train["error"].iloc[place]
        passes = curve["steps"].iloc[place] / PASS
        said = f"lowest {100 * curve['error'].iloc[place]:.1f}% at pass {passes:.0f}, then {100 * rise:+.1f} points"
        if place == len(curve) - 1 or rise < ONE_POINT or not falls:
            return NOT, said
        return (REPRODUCED if 17 <= passes <= 27 else ORDERING), said

    (server, said), (replicas, others) = decide("server"), decide("replicas'")
    return Verdict(
        "A3", "test error has its lowest, 45%, at pass 22, then over-fits; ten crops are 2 to 3 points better",
        "the lowest test error is not the last, a point is lost after it while training error falls: reproduced if it "
        "is at passes 17 to 27, else ordering only",
        said, others, whose_verdict(server, replicas),
        "the percentages are ILSVRC's; ten crops need its images (the pipeline has them)",
    )  # fmt: skip


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


def a14(tables: Tables) -> Verdict:
    """One minibatch a synchronisation."""

    def computing(workers: int, n: int) -> float:
        return float(np.mean([*tables.by_seed("computing", "one-minibatch", workers=workers, n_sync=n).values()]))

    shares = ", ".join(f"{count}: {computing(count, 1):.0%}" for count in (1, 8, 15, 32))
    lost = 1 - computing(8, 1)
    return Verdict(
        "A14", "n_fetch = n_push = 1 does not suit GPUs because of the transfer",
        "on the hardware alone 8 clients lose at least 10% of their time at n_sync 1 and at most 2% at 100",
        f"computing at n_sync 1, by clients: {shares}; 8 clients at 100: {computing(8, 100):.1%}", "the same",
        REPRODUCED if lost >= 0.1 and computing(8, 100) >= 0.98 else NOT, "a matter of time alone, nobody's error",
    )  # fmt: skip


def a15(tables: Tables) -> Verdict:
    """Training error as an indicator."""

    def far(whose: str) -> float:
        curves = [tables.curve(f"{whose} {split}", "figure-1") for split in ("train", "test")]
        early = curves[0]["steps"] / PASS <= 4
        return float((curves[1]["error"] - curves[0]["error"])[early].abs().max())

    cell = {"workers": 8, "n_sync": 100, "lr": OPTIMUM, "costs": COSTS}
    train, test = (tables.curve(f"server {split}", "figures-3-and-4", **cell)["error"] for split in ("train", "test"))

    def decide(whose: str) -> str:
        return REPRODUCED if far(whose) <= 0.02 else NOT

    return Verdict(
        "A15", "early in training, training error is close to test error",
        "8 clients on limited data: at most 2 points apart within the first 4 passes",
        f"{100 * far('server'):.1f} points", f"{100 * far(REPLICAS_OF):.1f} points",
        whose_verdict(decide("server"), decide(REPLICAS_OF)),
        "with a million samples (experiment 3, 8 clients, n_sync 100, server) they are "
        f"{100 * (test - train).mean():.1f} points apart over the 24 hours",
    )  # fmt: skip


def fixed() -> list[Verdict]:
    """What no run here decides."""
    return [
        Verdict("A1", "10.7 days on one K20X", "an input", "", "", FITTED, "the preset's minibatch is fitted to it"),
        Verdict("A5", "early gradients point many ways, so that averaging slows", "a hypothesis", "", "", NONE,
                "server-rules.yaml compares what the authors planned against it"),
        Verdict("A6, A12, A13", "how the experiments were made", "set-up", "", "", NONE, "the scenarios follow it"),
        Verdict("42.2%", "ten-crop test error on ILSVRC 2012", "needs ILSVRC 2012 and GPUs", "", "", UNTESTED,
                "the pipeline is tested on a tree of images that the tests make"),
    ]  # fmt: skip


NAMES = {OWN: "replicas", SERVER: "server"}


def prediction(tables: Tables) -> str:
    """The point that the paper's figures lack: n_sync 300 with 2 clients."""
    found = {whose: tables.by_seed(whose, "figures-3-and-4", workers=2, n_sync=300, lr=OPTIMUM, costs=COSTS)
             for whose in (OWN, SERVER)}  # fmt: skip
    return "; ".join(
        f"{NAMES[whose]} {100 * estimate([*values.values()]).mean:.1f}%" for whose, values in found.items() if values
    )


def batching(tables: Tables) -> str:
    """What batched gradients change: one cell of experiment 3 beside itself in sequential numerics."""
    cell = {"workers": 8, "n_sync": 100, "lr": OPTIMUM, "costs": COSTS}
    return "; ".join(
        f"{NAMES[whose]} " + points(difference(
            *(tables.by_seed(whose, experiment, **cell) for experiment in ("figures-3-and-4", "sequential"))
        ))
        for whose in (OWN, SERVER)
    )  # fmt: skip


def table(tables: Tables) -> pd.DataFrame:
    """All verdicts."""
    rows = [rule(tables) for rule in (a2, a3, a4, a7, a8, a9, a10, a11, a14, a15)]
    return pd.DataFrame([*rows, *fixed()])


def markdown(found: pd.DataFrame) -> str:
    """The table as Markdown."""
    lines = [[str(column) for column in found.columns], ["---"] * len(found.columns)]
    lines += [[str(value).replace("|", "\\|") for value in row] for row in found.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
