"""Rules on experiment 1: eight clients against the single one, to over-fitting."""

from __future__ import annotations

import numpy as np
import pandas as pd
from cells import (
    COSTS,
    NOT,
    ONE_POINT,
    OPTIMUM,
    ORDERING,
    PASS,
    REPLICAS_OF,
    REPRODUCED,
    Tables,
    Verdict,
    whose_verdict,
)


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
