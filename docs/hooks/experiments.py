"""Answers, figures and tables of the scenarios in `scenarios/paper`, from the kept tables of a full run."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANALYSIS = ROOT / "analysis"
sys.path.append(str(ANALYSIS / "paper"))

import cells  # noqa: E402
import kept_figures  # noqa: E402

from asgd_lab.scenario.writing import brief  # noqa: E402

ORDER = (
    "figure-1", "figure-1-one-client", "figure-1-with-schedule", "figure-2", "figure-2-double-rate",
    "figure-2-free-server", "figures-3-and-4", "learning-rate", "triple-rate", "other-costs", "plain-fashion-mnist",
    "momentum", "without-staleness", "ringing", "server-rules", "sequential", "one-minibatch",
)  # fmt: skip
OWN, TRAIN, TEST = "own", "server train", "server test"
COLUMNS = {OWN: "replicas, own minibatches", TRAIN: "server, training samples", TEST: "server, test samples"}
FREE, DEAR = "paine-2013-71-passes", "paine-2013-software"
DRAWN = "The figure of `asgd-lab run paper/{name}`, from the kept tables: means of three seeds."
MADE = "The figure of `asgd-lab run paper/{name}`; the table is of three seeds."
OF_THE_PAPER = {
    "figure-1": ("paper-figure-1",),
    "figure-2": ("paper-figure-2",),
    "figures-3-and-4": ("paper-figure-3", "paper-figure-4"),
    "without-staleness": ("paper-jags",),
}
"""Figures that redraw those of the paper, with both measures."""


def names() -> list[str]:
    """The scenarios in the order of the pages, as `asgd-lab run` takes them; one that ORDER does not know is last."""
    found = {path.stem for path in kept_figures.SCENARIOS.glob("*.yaml")}
    return [f"paper/{name}" for name in [name for name in ORDER if name in found] + sorted(found - set(ORDER))]


@functools.cache
def verdicts() -> dict[str, dict[str, str]]:
    """The kept verdicts: what the server and the replicas show, the verdict, the rule and the reason, by claim."""
    found: dict[str, dict[str, str]] = {}
    for table in (ANALYSIS / "figures" / "verdicts.md").read_text(encoding="utf-8").split("\n\n")[:2]:
        heading, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
        for row in rows:
            found.setdefault(row[0], {}).update(zip(heading, row, strict=False))
    return found


def error(experiment: str, whose: str = TRAIN, **where: Any) -> float:
    """The mean final error of the kept runs with these settings, in percent."""
    rows = kept_figures.table("runs")
    rows = rows[rows["experiment"] == experiment]
    for key, value in where.items():
        rows = rows[rows[key] == value]
    assert len(rows), (experiment, where)
    assert not rows["seed"].duplicated().any(), f"{experiment} {where} does not tell the runs apart"
    return 100 * float(rows[whose].mean())


def computing(workers: int, n_sync: int) -> float:
    """The share of workers' time in percent."""
    return error("one-minibatch", "computing", workers=workers, n_sync=n_sync)


def found_in(claim: str, column: str, pattern: str) -> tuple[str, ...]:
    """The numbers that a kept verdict tells."""
    found = re.search(pattern, verdicts()[claim][column])
    assert found, (claim, pattern)
    return found.groups()


def in_seeds() -> str:
    points, seeds, of = found_in("A2", "server", r"within ([\d.]+) points in (\d) of (\d) seeds")
    return (
        f"Not reliably: the server of eight comes within {points} points of one client's lowest test error in {seeds} "
        f"of {of} seeds, and its replicas in none."
    )


def one_client() -> str:
    rows = kept_figures.table("runs")
    days = rows[rows["experiment"] == "figure-1-one-client"]["hours"].mean() / 24
    end = error("figure-1-one-client", TEST)
    return f"{days:.1f} virtual days, at whose end the mean test error of three seeds is {end:.1f}%."


def with_schedule() -> str:
    pattern = r"in proportion [\d.]+ ± [\d.]+%, server within ([\d.]+) points in (\d) of (\d)"
    points, seeds, of = found_in("A2", "why", pattern)
    return f"More often than at one rate: within {points} points of one client's lowest error in {seeds} of {of} seeds."


def cold_start() -> str:
    free, dear = ([error("figure-2", workers=workers, costs=costs) for workers in (2, 32)] for costs in (FREE, DEAR))
    return (
        f"Only a server's queue does. After 24 hours the server's training error is {free[0]:.0f}% with 2 clients and "
        f"{free[1]:.0f}% with 32 if software costs nothing, {dear[0]:.0f}% and {dear[1]:.0f}% if a synchronisation "
        "costs 161 s, half of it the server's."
    )


def double_rate() -> str:
    free, dear = (
        [error("figure-2-double-rate", workers=workers, costs=costs) for workers in (2, 32)] for costs in (FREE, DEAR)
    )
    return (
        f"Its order does not: after 12 hours at twice the rate the server's training error is {free[0]:.0f}% with 2 "
        f"clients and {free[1]:.0f}% with 32 where software costs nothing, {dear[0]:.0f}% and {dear[1]:.0f}% at 161 s."
    )


def free_server() -> str:
    eight, many = (error("figure-2-free-server", workers=workers) for workers in (8, 32))
    return (
        f"The queue. If clients pay the 161 s side by side, the server's training error after 12 hours is {eight:.0f}% "
        f"with 8 clients and {many:.0f}% with 32."
    )


def experiment_3() -> str:
    where: dict[str, Any] = {"experiment": "figures-3-and-4", "lr": 0.08, "costs": cells.COSTS}
    one, eight = (error(whose=OWN, workers=workers, n_sync=100, **where) for workers in (1, 8))
    gap = [error(whose=whose, workers=8, n_sync=900, **where) - error(whose=whose, workers=8, n_sync=100, **where)
           for whose in (OWN, TRAIN)]  # fmt: skip
    return (
        f"More clients do: at n_sync 100 the replicas' error is {one:.1f}% with one client and {eight:.1f}% with "
        f"eight. n_sync 100 is {gap[0]:.1f} points better than 900 on the replicas, and {gap[1]:.1f} on the server: "
        "a small n_sync lowers the replicas' error alone."
    )


def rate() -> str:
    rows = kept_figures.table("runs")
    means = rows[rows["experiment"] == "learning-rate"].groupby("lr")[TEST].mean()
    return (
        f"About {means.idxmin():g}: its mean test error is {100 * means.min():.1f}%, and {100 * means[0.08]:.1f}% at "
        "0.08, which all other scenarios use. Three seeds do not tell these two apart."
    )


def triple() -> str:
    small, large = (error("triple-rate", workers=8, n_sync=n_sync) for n_sync in (100, 900))
    one = error("triple-rate", workers=1, n_sync=100)
    return (
        f"The orderings: eight clients end at a training error of {small:.0f}% on the server with n_sync 100 and "
        f"{large:.0f}% with 900, one client at {one:.0f}%. Nobody would choose this rate."
    )


def costs() -> str:
    gaps = []
    for each in (FREE, DEAR):
        small, large = (error("other-costs", OWN, workers=8, n_sync=n_sync, costs=each) for n_sync in (100, 900))
        gaps.append(large - small)
    return (
        f"Yes. Where software costs nothing, eight replicas are {gaps[0]:.1f} points better with n_sync 100 than with "
        f"900; at 161 s a synchronisation they are {-gaps[1]:.1f} points worse."
    )


def ten_classes() -> str:
    ends = [error("plain-fashion-mnist", workers=workers, n_sync=n_sync) for workers in (1, 8) for n_sync in (100, 900)]
    return (
        f"That more clients help does; n_sync makes no difference. All four errors of the server lie between "
        f"{min(ends):.1f} and {max(ends):.1f}%, too close to tell more."
    )


def momentum() -> str:
    kept, reset = (error("momentum", at_fetch=each) for each in ("keep", "reset"))
    return (
        f"Kept at a fetch, it ends at a training error of {kept:.1f}% on the server, and reset at {reset:.1f}%. "
        "At a tenth of the minibatches it does more than it would."
    )


def jags() -> str:
    small, large = found_in("A9", "why", r"at 100 and 900 ([\d.]+), ([\d.]+) points on replicas")
    return (
        f"No: in lock-step, without any staleness, the deviation of a client's smoothed curve grows from {small} to "
        f"{large} points as well. A client drifts from the average, and returns at each fetch."
    )


def ringing() -> str:
    power, low, high = found_in("A9", "why", r"is ([\d.]+) times that beside it \(([\d.]+) to ([\d.]+);")
    return f"Three seeds show none: its power is {power} times that beside it, with an interval from {low} to {high}."


def rules() -> str:
    plain, best = (error("server-rules", rule=each) for each in ("scale", "adadelta 1.0"))
    adagrad = min(error("server-rules", rule=f"adagrad {lr}") for lr in (0.01, 0.02, 0.04))
    return (
        f"Adadelta does: the server's training error ends at {best:.1f}% instead of {plain:.1f}%. Adagrad at the best "
        f"of three rates ends at {adagrad:.1f}%, which does not count."
    )


def numerics() -> str:
    text = (ANALYSIS / "figures" / "verdicts.md").read_text(encoding="utf-8")
    found = re.search(r"Batched less sequential .*: replicas -?(\S+ ± \S+) points; server (\S+ ± \S+) points", text)
    assert found
    return f"No: batched less sequential is {found[1]} points on the replicas, and {found[2]} on the server."


def one_minibatch() -> str:
    return (
        f"No, as the authors say: on the hardware alone, 8 clients compute {computing(8, 1):.0f}% of the time, and 32 "
        f"clients {computing(32, 1):.0f}%. With n_sync 10 it is {computing(8, 10):.0f}%, so that hardware does not "
        "explain 100 and more."
    )


ANSWERS: dict[str, Callable[[], str]] = {
    "figure-1": in_seeds,
    "figure-1-one-client": one_client,
    "figure-1-with-schedule": with_schedule,
    "figure-2": cold_start,
    "figure-2-double-rate": double_rate,
    "figure-2-free-server": free_server,
    "figures-3-and-4": experiment_3,
    "learning-rate": rate,
    "triple-rate": triple,
    "other-costs": costs,
    "plain-fashion-mnist": ten_classes,
    "momentum": momentum,
    "without-staleness": jags,
    "ringing": ringing,
    "server-rules": rules,
    "sequential": numerics,
    "one-minibatch": one_minibatch,
}


def shown(name: str) -> str:
    """The figures of a scenario, and the table of its kept runs."""
    caption = (MADE if name in kept_figures.TIMING else DRAWN).format(name=name)
    parts = [f"![{caption}](../../figures/paper/{name}.png)", f"*{caption}*"]
    for figure in OF_THE_PAPER.get(name, ()):
        parts.append(f"![As the paper draws it](../../figures/{figure}.png)")
    if name in OF_THE_PAPER:
        parts.append("*The same runs, as [the paper](../../paper.md) draws them.*")
    return "\n\n".join([*parts, _table(name)])


def _table(name: str) -> str:
    """A row a point: the swept values, and the final errors with their intervals over seeds."""
    timing = name in kept_figures.TIMING
    columns = {"computing": "workers' time computing", "server_busy": "server busy"} if timing else COLUMNS
    lines = [f"| point | {' | '.join(columns.values())} |", f"| --- {'| --- ' * len(columns)}|"]
    for scenario, values in kept_figures.points(name):
        rows = kept_figures.rows_of(scenario, kept_figures.table("runs"))
        ends = [cells.mean_of((100 * rows[column]).tolist(), "%") for column in columns]
        lines.append(f"| `{brief(values) or name}` | {' | '.join(ends)} |")
    return "\n".join(lines)
