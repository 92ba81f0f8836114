"""Answers, figures and tables from kept files: no number on a generated page is written by hand."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import experiments
import pandas as pd

from tests.benchmarks.report import read
from tests.benchmarks.table import RESULTS, table

ROOT = Path(__file__).parents[2]
ANALYSIS = ROOT / "analysis"
QUESTIONS = ANALYSIS / "questions"
COMPARED = ANALYSIS / "compare.csv"
PLACE = re.compile(r"^<!-- (table|source): (\S+) -->$", re.M)
FIGURES = {
    "quickstart": (
        "compare",
        "Lines are predicted, points measured; the panels of real workers (cpu) are this scenario's.",
    ),
    "does-the-server-saturate": ("compare", "Lines are predicted, points measured (emulated devices)."),
    "where-does-time-go": (
        "where-time-goes",
        "Shares of workers' time, and with fitted software.",
    ),
    "can-a-slower-server-be-faster": ("slower-server", "Timelines of a free and of a slow fetch."),
    "fashion-mnist-asgd": ("server-and-replicas", "Test error of the server and of its replicas."),
    "fashion-mnist-8-workers-simulated": ("server-and-replicas", "Test error of the server and of its replicas."),
}
"""Figures that were drawn for a question by hand; others are those of the kept sweeps."""
SWEPT = "The sweep's own figure, simulated, one seed a point; the table below has its numbers."
METRICS = (
    "speedup",
    "efficiency",
    "makespan_s",
    "minibatches_per_s",
    "staleness_mean",
    "worker_utilisation",
    "server_utilisation",
    "test_error",
    "test_loss",
)


@functools.cache
def kept(name: str) -> pd.DataFrame:
    """The kept table of a scenario's sweep: swept keys, metric, mean."""
    return pd.read_csv(QUESTIONS / f"{name}.csv")


def value(name: str, metric: str, **keys: Any) -> float:
    """The mean of one metric at one point; `keys` are the last parts of the swept keys."""
    rows = kept(name)
    rows = rows[rows["metric"] == metric]
    for key, wanted in keys.items():
        (column,) = (each for each in rows.columns if each.rpartition(".")[2] == key)
        rows = rows[rows[column].astype(str) == str(wanted)]
    (found,) = rows["mean"]
    return float(found)


def short(name: str) -> str:
    """The answer to a scenario's question, in a sentence or two."""
    if name.startswith("paper/"):
        return experiments.ANSWERS[name.removeprefix("paper/")]()
    answer = ANSWERS[name]
    return answer if isinstance(answer, str) else answer()


def how_stale() -> str:
    means = [
        value("how-stale", "staleness_mean", distribution=each, workers=8)
        for each in ("constant", "lognormal", "exponential")
    ]
    told = ", ".join(f"{mean:.2f}" for mean in means)
    return (
        "The mean is the number of workers less one, whatever the distribution of compute times: with 8 workers "
        f"{told} versions for constant, lognormal and exponential times. The distribution does depend on them."
    )


def slower_server() -> str:
    fast, slow = (
        value("can-a-slower-server-be-faster", "minibatches_per_s", fetch_s=each, step_s=0.02)
        for each in ("0.0", "0.01")
    )
    return (
        f"Yes. With minibatches of 20 ms, 16 workers make {fast:.0f} minibatches a second if a fetch costs nothing, "
        f"and {slow:.0f} if each costs the server 10 ms, which keeps the workers out of step."
    )


def time_goes() -> str:
    shares = [100 * value("where-does-time-go", "worker_utilisation", workers=32, n_sync=each) for each in (1, 10)]
    return (
        f"With the hardware alone, 32 workers compute {shares[0]:.0f}% of the time at n_sync = 1 and {shares[1]:.0f}% "
        "at 10: hardware does not explain why anybody would want 600. It takes the fitted software cost."
    )


def up_to_32() -> str:
    busy = [100 * value("up-to-32-workers", "server_utilisation", workers=each, n_sync=1) for each in (16, 32)]
    return (
        f"To about 28 workers at n_sync = 1: simulated, the server is {busy[0]:.0f}% busy with 16 workers and "
        f"{busy[1]:.0f}% with 32. With n_sync = 10 it carries them all."
    )


def saturates() -> str:
    name, rate = "does-the-server-saturate", "minibatches_per_s"
    one, eight = (value(name, rate, n_sync=5, workers=each) for each in (1, 8))
    return (
        f"At n_sync = 5, simulated, eight workers are {eight / one:.1f} times as fast as one. The server could carry "
        "more: fetches queue behind pushes, so that the workers fall into step. The simulator predicts it."
    )


def rules() -> str:
    added, scaled = (
        100 * value("which-server-rule", "test_error", algorithm=f"asgd(n_sync=10,rule=[{rule}])")
        for rule in ("add", "scale")
    )
    return (
        f"Not add whole changes of eight workers: that ends at a test error of {added:.0f}%, the average at "
        f"{scaled:.1f}%. Averages learn alike, with or without a round; each rule deserves its own learning rate."
    )


def brought() -> str:
    loss = value("bring-your-own", "test_loss")
    return f"By four names, package.module:name. This one ends with a test loss of {loss:.2g}, simulated."


ANSWERS: dict[str, str | Callable[[], str]] = {
    "how-stale": how_stale,
    "can-a-slower-server-be-faster": slower_server,
    "where-does-time-go": time_goes,
    "up-to-32-workers": up_to_32,
    "does-the-server-saturate": saturates,
    "bring-your-own": brought,
    "how-much-n_sync": "Here about 30. Less is slow in time, because the server is saturated; more is slow in "
    "minibatches, because a replica's further steps lead nowhere. The best value belongs to machine and problem.",
    "which-server-rule": rules,
    "cold-or-warm-start": "No. A safe server needs none, and a bold one becomes unstable later instead of sooner.",
    "fetch-and-push-apart": "It costs little time and gains nothing here: a worker that fetches more often than it "
    "pushes repeats steps, and overshoots at first.",
    "quickstart": "Most of a second core, unless every minibatch is followed by a synchronisation.",
    "fashion-mnist-asgd": "Yes: 89 to 90% of the test images, as with plain SGD. The server is mostly better than its "
    "replicas.",
    "fashion-mnist-8-workers-simulated": "Nearly as much, later: the average of eight workers takes as many steps as "
    "one of them. It matters which error one reports.",
    "text-8-workers-simulated": "In the same time, about as much as one worker, with less noise: the pushes of eight "
    "workers are averaged.",
    "ilsvrc-2012": "Nobody knows here: no ILSVRC 2012 and no GPU was at hand.",
}


def shown(name: str) -> str:
    """The figure of a question, and the table of its kept sweep."""
    if name.startswith("paper/"):
        return experiments.shown(name.removeprefix("paper/"))
    parts = []
    if name in FIGURES:
        figure, caption = FIGURES[name]
        parts += [f"![{caption}](../figures/{figure}.png)", f"*{caption}*"]
    if (QUESTIONS / f"{name}.png").exists():
        parts += [f"![{SWEPT}](../figures/{name}.png)", f"*{SWEPT}*"]
    if (QUESTIONS / f"{name}.csv").exists():
        parts.append(_wide(kept(name)))
    return "\n\n".join(parts)


def _wide(rows: pd.DataFrame) -> str:
    """A row a point, a column a metric."""
    keys = list(rows.columns[: list(rows.columns).index("metric")])
    metrics = [each for each in METRICS if each in set(rows["metric"])]
    if not keys:
        rows, keys = rows.assign(run=""), ["run"]
    wide = rows.pivot_table(index=keys, columns="metric", values="mean", sort=False, dropna=False)[metrics]
    heading = [*keys, *(each.replace("_", " ") for each in metrics)]
    lines = [_line(heading), "| --- " * len(heading) + "|"]
    for point, row in wide.dropna(how="all").iterrows():
        cells = [str(each) for each in (point if isinstance(point, tuple) else (point,))]
        lines.append(
            _line(
                [
                    *(f"`{each}`" if each else "" for each in cells),
                    *(_number(metric, row[metric]) for metric in metrics),
                ]
            )
        )
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(metric: str, number: float) -> str:
    if metric.endswith(("utilisation", "efficiency", "error")):
        return f"{number:.1%}"
    return f"{number:,.4g}" if abs(number) < 10_000 else f"{number:,.0f}"


def verdicts() -> str:
    """The page of all rules and reasons."""
    return "# Rules and reasons\n\n" + (ANALYSIS / "figures" / "verdicts.md").read_text(encoding="utf-8")


def filled(markdown: str) -> str:
    """The page with kept tables and sources in the places of its comments."""
    return PLACE.sub(lambda found: TABLES[found[2]]() if found[1] == "table" else _source(found[2]), markdown)


SYNC = "end of one Train to the start of the next, 61 million parameters"
AIMS = (
    (f"{SYNC}, 1 worker, against two copies and one axpy", "at most", 1.0),
    (f"{SYNC}, 2 workers, against two copies and one axpy", "at most", 1.1),
    ("whole simulated run with real gradients, sequential, lenet at batch 64, 8 workers", "at most", 1.05),
    ("whole simulated run with real gradients, sequential, lenet at batch 64, 32 workers", "at most", 1.05),
    ("the same, against tuned simpy by hand, 16 workers", "at least", 0.75),
    ("the same, against tuned simpy by hand, 1,000 workers", "at least", 0.75),
    ("the same, against tuned simpy by hand, 10,000 workers", "at least", 0.75),
)


def aims() -> str:
    """Each aim beside the kept median, and whether that reaches it."""
    kept = {row["what"]: row for row in read(RESULTS)}
    lines = ["| | aim | median | reached |", "| --- | --- | --- | --- |"]
    for what, kind, aim in AIMS:
        row = kept[what]
        reached = row["median"] <= aim if kind == "at most" else row["median"] >= aim
        named = what.replace("the same,", "simulated rounds,")
        lines.append(f"| {named} | {kind} {aim:g} | {row['median']:.3g} {row['unit']} | {'yes' if reached else 'no'} |")
    return "\n".join(lines)


def text_minutes() -> str:
    """The test loss of the text task after some minutes of a run's clock."""
    kept = json.loads((ANALYSIS / "text_minutes.json").read_text(encoding="utf-8"))
    rows = [
        f"| {each['case']} | {each['minibatches']:,} | {each['staleness_mean']:.2f} | {each['test_loss']:.4f} "
        f"| {each['machine']} |"
        for each in sorted(kept, key=lambda each: each["case"])
    ]
    return "\n".join(["| workers | minibatches | staleness | test loss | computed on |", "| --- " * 5 + "|", *rows])


def predictions() -> str:
    """The errors of the predictions in the kept comparison, by device; a line where none is kept."""
    if not COMPARED.exists():
        return "No table of a comparison is kept yet: the titles of its figure have the errors."
    rows = pd.read_csv(COMPARED)
    lines = ["| workers | points | valid | beyond the knee | error in the median | at most |", "| --- " * 6 + "|"]
    for group, points in rows.groupby("group"):
        valid = points[points["valid"]]
        percent = 100 * valid["error"].abs()
        cells = [
            len(points),
            len(valid),
            int(valid["saturated"].sum()),
            f"{percent.median():.1f}%",
            f"{percent.max():.1f}%",
        ]
        lines.append(_line([{"cpu": "real, two cores"}.get(str(group), str(group)), *map(str, cells)]))
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "aims": aims,
    "predictions": predictions,
    "verdicts": lambda: (ANALYSIS / "figures" / "verdicts.md").read_text(encoding="utf-8").split("\n\n")[0],
    "benchmarks": lambda: table(read(RESULTS)),
    "text-minutes": text_minutes,
}


def _source(place: str) -> str:
    file, name = place.split(":")
    text = (ROOT / file).read_text(encoding="utf-8")
    (node,) = (each for each in ast.parse(text).body if getattr(each, "name", None) == name)
    return f"```python\n{ast.get_source_segment(text, node)}\n```"
