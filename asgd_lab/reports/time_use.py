"""The question of time: shares of the workers' time, the busiest servers and links, and a timeline of one run."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asgd_lab.figures import spans
from asgd_lab.figures.meanings import HEADINGS, KINDS
from asgd_lab.record import atomic_files
from asgd_lab.reports.content import Axis, Plot, Section, Series, Table, Trace
from asgd_lab.reports.recorded import Shown, Subject, effects_of
from asgd_lab.reports.words import seconds, share, span

if TYPE_CHECKING:
    import pandas as pd

MOST_BARS = 24  # points with a bar
MOST_SPANS = 1500  # rectangles of a timeline
MOST_TRACE_BYTES = 3_000_000  # of a trace that the page carries; packed it is a tenth of that
SHOWN_RESOURCES = 6
SEEN_FROM = 0.002  # of a worker's time

COLORS = {"link": "link-time"}  # of headings whose style sheet's variable has another name
OF_KINDS = {
    "training": "compute",
    "rest of a push or fetch": "idle",
    "on the device": "on-device",
    "copy": "staging",
    "transfer up": "link-time",
    "transfer down": "down-link",
    "a push at the server": "queue",
    "a fetch at the server": "grant",
}
"""The colour of each label of `figures.meanings.KINDS`."""


def section(subject: Subject) -> Section:
    """The shares of the workers' time, and the course of one run."""
    shown = subject.shown
    assert shown is not None
    if shown.summary.get("clock") == "effects":
        return Section.unanswered("Nothing here tells: this backend has no clock.")
    effects, left_out = effects_of(shown.path)
    found = _shares_of(subject)
    resources = shown.summary.get("resources", ())
    where = f" ({shown.name})" if shown.name else ""
    if resources:
        found.parts.append(_resources(resources, where))
    if len(effects):
        whole = "The whole run" if subject.is_whole(shown.path) else "The run's sampled rounds"
        found.parts.append(_timeline(effects, f"The first {len(effects):,} effects" if left_out else whole, where))
    else:
        found.notes.append("There is no timeline: no rows were recorded (record: summary).")
    if left_out:
        found.notes.append(f"The timeline is of the first {len(effects):,} effects; {left_out:,} follow.")
    if (trace := _trace(shown, subject.path, where)) is not None:
        found.parts.append(trace)
    return found


def _shares_of(subject: Subject) -> Section:
    spent: dict[str, Mapping[str, float]] = {}
    for group in subject.groups[:MOST_BARS]:
        each = [
            _shares(path, summary, subject.is_whole(path))
            for path, summary in zip(group.paths.values(), subject.summaries(group), strict=True)
        ]
        known = [shares for shares in each if shares]
        if known:
            spent[subject.label(group)] = {
                name: float(np.mean([one.get(name, 0.0) for one in known])) for name in HEADINGS
            }
    if not spent:
        return Section.unanswered("The shares of the workers' time are not known: no rows were recorded.")
    computed = [shares["compute"] for shares in spent.values()]
    others = {
        name: max(shares[name] for shares in spent.values())
        for name in HEADINGS
        if name != "compute" and max(shares[name] for shares in spent.values()) >= 0.005
    }
    largest = sorted(others, key=lambda name: -others[name])[:3]
    at_most = "" if len(spent) == 1 else "up to "
    rest = "; ".join(f"{at_most}{share(others[name])} {HEADINGS[name]}" for name in largest)
    answer = f"Workers compute for {span(min(computed), max(computed))} of their time."
    if rest:
        answer += f" {rest[0].upper()}{rest[1:]}."
    found = Section(answer)
    seen = [name for name in HEADINGS if max(shares[name] for shares in spent.values()) >= SEEN_FROM]
    labels = list(spent)
    if len(spent) > 1:
        found.parts.append(_stacked(spent, seen, labels))
    rows = [(label or subject.name, *(share(spent[label][name]) for name in seen)) for label in labels]
    caption = "Shares of the workers' time" if len(spent) == 1 else "The same in numbers"
    found.parts.append(Table(("point", *(HEADINGS[name] for name in seen)), rows, caption))
    if len(spent) < len(subject.groups):
        found.notes.append(f"Shares are those of the first {len(spent)} of {len(subject.groups)} points.")
    if any("time" not in summary for group in subject.groups[:1] for summary in subject.summaries(group)):
        found.notes.append(
            "In a real run the time of a push or a fetch is not divided: the wait at the server, the service and the "
            "copies are one heading."
        )
        if not all(subject.is_whole(path) for group in subject.groups[:MOST_BARS] for path in group.paths.values()):
            found.notes.append(
                "Computing is the summary's utilisation. Rows are of sampled rounds alone (record: sampled): the share "
                "of pushes and fetches is computing's times the ratio of the two in these rounds."
            )
    return found


def _stacked(spent: Mapping[str, Mapping[str, float]], seen: Sequence[str], labels: Sequence[str]) -> Plot:
    """A bar a point, from left to right; the first point is on top."""
    lanes, since = [float(lane) for lane in range(len(labels))][::-1], np.zeros(len(labels))
    series = []
    for name in seen:
        shares = np.array([spent[label][name] for label in labels])
        notes = [f"{label}: {HEADINGS[name]} {share(float(each))}" for label, each in zip(labels, shares, strict=True)]
        color = COLORS.get(name, name)
        series.append(Series(HEADINGS[name], since.tolist(), lanes, color, "span", length=shares.tolist(), notes=notes))
        since = since + shares
    x = Axis("share of workers' time", percent=True, from_zero=True)
    y, height = Axis("", categories=tuple(reversed(labels))), 90 + 26 * len(labels)
    return Plot("Shares of the workers' time", x, y, series, wide=True, height=height)


def _shares(path: Path, summary: Mapping[str, Any], is_whole: bool) -> dict[str, float]:
    """The shares of a run's time under each heading; {} where nothing tells.

    Rows that are not of the whole run tell only how pushes and fetches compare with training.
    """
    if "time" in summary:
        total = sum(summary["time"]["mean"].values())
        return {name: spent / total for name, spent in summary["time"]["mean"].items()} if total else {}
    effects, left_out = effects_of(path)
    whole = effects[(effects["worker"] >= 0) & effects["kind"].isin(["train", "fetch", "push"])]
    if whole.empty:
        return {}
    until_s = float(whole["end_s"].max()) if left_out else float(summary["makespan_s"])
    spent = (whole["end_s"] - whole["start_s"]).groupby(whole["kind"], observed=True).sum()
    training = float(spent.get("train", 0.0))
    if is_whole:
        spent = spent / (until_s * summary["workers"])
    elif training > 0:
        spent = spent * (float(summary["utilisation"]["workers"]) / training)
    else:
        return {}
    training = float(spent.get("train", 0.0))
    exchanges = min(1.0 - min(1.0, training), float(spent.get("push", 0.0)) + float(spent.get("fetch", 0.0)))
    return {"compute": min(1.0, training), "queue": exchanges, "idle": max(0.0, 1.0 - training - exchanges)}


def _resources(resources: Sequence[Mapping[str, Any]], where: str) -> Table:
    busiest = sorted(resources, key=lambda one: -one["utilisation"])[:SHOWN_RESOURCES]
    rows = [(one["name"], share(one["utilisation"]), f"{one['present']:.2g}") for one in busiest]
    caption = f"The busiest servers and links{where}" + (
        f", of {len(resources)}" if len(resources) > len(busiest) else ""
    )
    return Table(("server or link", "busy", "present in the mean"), rows, caption)


def _timeline(effects: pd.DataFrame, whole: str, where: str) -> Plot:
    """All rows of a short run, which the title calls `whole`; else some from its first crash on, or from the start."""
    effects = effects.sort_values("start_s", kind="stable")
    crash_s = _first_crash_s(effects)
    begin = 0
    if len(effects) > MOST_SPANS and crash_s is not None:
        begin = max(0, int(np.searchsorted(effects["start_s"].to_numpy(), crash_s)) - MOST_SPANS // 3)
    stretch = spans.of(effects.iloc[begin : begin + MOST_SPANS].sort_index().reset_index(drop=True))
    rows = stretch.effects
    lanes = {at: place for place, at in enumerate(sorted({*stretch.y.tolist()}))}
    names = [stretch.names.get(at, "") for at in lanes]
    series = []
    for label in dict.fromkeys(KINDS.values()):
        mine = np.flatnonzero(rows["kind"].map(KINDS).to_numpy() == label)
        if len(mine):
            chosen = rows.iloc[mine]
            series.append(
                Series(
                    label,
                    chosen["start_s"].tolist(),
                    [float(lanes[at]) for at in stretch.y[mine].tolist()],
                    OF_KINDS[label],
                    "span",
                    length=(chosen["end_s"] - chosen["start_s"]).tolist(),
                    notes=[_told(row) for row in chosen.itertuples()],
                )
            )
    first, last = float(rows["start_s"].min()), float(rows["end_s"].max())
    part = f"From {seconds(first)} to {seconds(last)}" if len(rows) < len(effects) else whole
    crash = f"; a worker crashes at {seconds(crash_s)}" if crash_s is not None and first <= crash_s <= last else ""
    title = f"{part}{where}{crash}: drag over a span to magnify it, double-click to go back"
    height = 90 + 26 * len(names)
    return Plot(title, Axis("time (s)"), Axis("", categories=tuple(names)), series, wide=True, height=min(900, height))


def _first_crash_s(effects: pd.DataFrame) -> float | None:
    """The first moment at which a worker began a new incarnation, less its absence; None if none did."""
    mine = effects[effects["worker"] >= 0]
    later = mine[mine["incarnation"] > mine.groupby("worker")["incarnation"].transform("min")]
    if later.empty:
        return None
    row = later.iloc[int(later["start_s"].to_numpy().argmin())]
    before = mine[(mine["worker"] == row["worker"]) & (mine["incarnation"] < row["incarnation"])]
    return float(before["end_s"].max())


def _told(row: Any) -> str:
    told = [f"{row.kind} {seconds(row.end_s - row.start_s)} at {row.start_s:.6g} s"]
    told += [
        f"{name} {getattr(row, name)}"
        for name, least in (("round", 1), ("version", 0), ("staleness", 0))
        if getattr(row, name) >= least
    ]
    return ", ".join(told)


def _trace(shown: Shown, folder: Path, where: str) -> Trace | None:
    path = shown.path / "trace.json"
    try:
        if not path.is_file():
            return None
        title = f"{shown.summary['backend']} {shown.summary['workers']} workers{where}"
        named = path.relative_to(folder) if path.is_relative_to(folder) else path
        if path.stat().st_size > MOST_TRACE_BYTES:
            return Trace(str(named), title)
        packed = gzip.compress(atomic_files.read_bytes(path), 6, mtime=0)
        return Trace(str(named), title, base64.b64encode(packed).decode())
    except OSError:
        return None
