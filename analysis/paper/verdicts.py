"""The claims of Paine et al. 2013 (arXiv:1312.6186), and the rule that decides each.

paper.py says what of the rules is younger than the runs.

A verdict is about orderings and magnitudes at one learning rate, 0.08, which is in the flat part of one client's
optimum, unless its rule says otherwise; what experiment 3 shows at its double and triple is said beside it, and
what the ends of experiment 2 show at its double is beside A4. Experiment 1 has no other rate. A difference counts if
its 95% interval over seeds (Student's, paired by seed) excludes 0; of a single seed, if it is above a point (but
slopes, in A4, if they are above 0). Between seeds the server's gaps differ by 1 to 2 points, so the verdicts of one
seed are a preview.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from cells import (
    COSTS,
    FITTED,
    NONE,
    NOT,
    OWN,
    RATE,
    REPRODUCED,
    SERVER,
    UNTESTED,
    Tables,
    Verdict,
    counts,
    mean_of,
    points,
)
from experiment_1 import a2, a3, a15
from experiment_2 import a4
from experiment_3 import a7, a8, a9, a10, a11

from asgd_lab.record.replications import difference


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


def fixed() -> list[Verdict]:
    """Claims that no run here decides."""
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
    """The point that the paper's figures lack: n_sync 300 with 2 clients; "not run" of tables without it."""
    found = {whose: tables.by_seed(whose, "figures-3-and-4", workers=2, n_sync=300, lr=RATE, costs=COSTS)
             for whose in (OWN, SERVER)}  # fmt: skip
    told = [f"{NAMES[whose]} {mean_of([100 * each for each in of.values()], '%')}" for whose, of in found.items() if of]
    return "; ".join(told) or "not run"


def rates(tables: Tables) -> str:
    """One client's test error at the end of learning-rate.yaml, and whether any rate is better than the one used."""
    tried = sorted(tables.runs.loc[tables.runs["experiment"] == "learning-rate", "lr"].unique())
    if not tried:
        return "not run"
    errors = {lr: tables.by_seed("server test", "learning-rate", lr=float(lr)) for lr in tried}
    told = ", ".join(f"{lr:g}: {mean_of([100 * each for each in found.values()], '%')}" for lr, found in errors.items())
    used = next((found for lr, found in errors.items() if np.isclose(lr, RATE)), {})
    better = [f"{lr:g}" for lr, found in errors.items() if counts(difference(used, found))]
    return f"{told}. Better than {RATE:g}, which is used, by what counts: {', '.join(better) or 'none'}"


def batching(tables: Tables) -> str:
    """The effect of batched gradients: one cell of experiment 3 beside the same cell in sequential numerics."""
    cell = {"workers": 8, "n_sync": 100, "lr": RATE, "costs": COSTS}
    return "; ".join(
        f"{NAMES[whose]} " + points(difference(
            *(tables.by_seed(whose, experiment, **cell) for experiment in ("figures-3-and-4", "sequential"))
        ))
        for whose in (OWN, SERVER)
    )  # fmt: skip


def planned(tables: Tables) -> str:
    """The reduction of the error of 8 clients' cold start by other server rules, against 1/clients of a push."""
    rules = sorted(set(tables.runs.loc[tables.runs["experiment"] == "server-rules", "rule"]) - {"scale"})
    return "; ".join(
        f"{rule}: " + ", ".join(
            f"{NAMES[whose]} " + points(difference(
                *(tables.by_seed(whose, "server-rules", rule=each) for each in ("scale", rule))
            ))
            for whose in (OWN, SERVER)
        )
        for rule in rules
    ) or "not run"  # fmt: skip


BEYOND = {
    "server-rules": "rule", "momentum": "at_fetch", "other-costs": "costs", "triple-rate": "lr",
    "plain-fashion-mnist": "dataset",
}  # fmt: skip


def beyond(runs: pd.DataFrame) -> pd.DataFrame:
    """A table beside the claims: errors after 24 hours of the runs."""
    rows = []
    for experiment, column in BEYOND.items():
        chosen = runs[runs["experiment"] == experiment]
        for (setting, workers, n), cell in chosen.groupby([column, "workers", "n_sync"]):
            errors = {name: mean_of((100 * cell[whose]).tolist(), "%") for whose, name in NAMES.items()}
            here = {"scenario": experiment, "setting": f"{column} {setting}", "clients": workers, "n_sync": n}
            rows.append(here | errors)
    return pd.DataFrame(rows)


def table(tables: Tables) -> pd.DataFrame:
    rows = [rule(tables) for rule in (a2, a3, a4, a7, a8, a9, a10, a11, a14, a15)]
    return pd.DataFrame([*rows, *fixed()])


def markdown(found: pd.DataFrame) -> str:
    """Two tables as Markdown: the findings, and the rules with their reasons."""
    found = found.fillna("")
    told, ruled = ["claim", "says", "server", "replicas", "verdict"], ["claim", "rule", "why"]
    return f"{rows_of(found[told])}\n\n{rows_of(found[ruled])}"


def rows_of(found: pd.DataFrame) -> str:
    """A table as Markdown."""
    lines = [[str(column) for column in found.columns], ["---"] * len(found.columns)]
    lines += [[str(value).replace("|", "\\|") for value in row] for row in found.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
