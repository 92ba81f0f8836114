"""The question of trust: the prediction's error, the machine's load, lateness, sources of stated numbers, and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from asgd_lab.record.replications import COURSE
from asgd_lab.record.summary import LATENESS_ALLOWED
from asgd_lab.reports.content import Section, Table
from asgd_lab.reports.recorded import Subject, effects_of
from asgd_lab.reports.words import listed, share
from asgd_lab.scenario import presets
from asgd_lab.summary_words import crew, lateness, load, overruns

Fact = tuple[str, str]


def section(subject: Subject) -> Section:
    """Facts that make a number more or less certain."""
    doubts: list[str] = []
    facts = [*_origin(subject), *_prediction(subject, doubts), *_seeds(subject, doubts), *_machine(subject, doubts)]
    facts += [*_crashes(subject), *_recording(subject), *_warnings(subject, doubts)]
    if subject.failures:
        doubts.append(f"{len(subject.failures)} runs have no result")
    said = "Nothing recorded here speaks against these numbers" if not doubts else f"Beware: {'; '.join(doubts)}"
    found = Section(f"{said}.", parts=[Table(("what", "said"), facts, is_text=True)])
    graded = list(_grades(subject))
    if graded:
        found.parts.append(
            Table(("grade", "meaning", "numbers"), graded, "Numbers of the machine by their source", is_text=True)
        )
    return found


def _origin(subject: Subject) -> Iterator[Fact]:
    scenario = subject.scenario
    if subject.kind == "comparison":
        yield "numbers are", "measured with real processes, beside a simulation that knows one worker's run alone"
    elif scenario.backend.execution.measured:
        emulated = " on emulated devices, which wait for stated times" if scenario.backend.device == "emulated" else ""
        yield "numbers are", f"measured with real processes{emulated}: another run differs"
    elif scenario.backend.execution.simulated:
        yield "numbers are", "simulated: equal in every run of this scenario, and as good as the stated machine"
    else:
        yield "numbers are", f"of the backend {scenario.backend.name}"


def _prediction(subject: Subject, doubts: list[str]) -> Iterator[Fact]:
    if subject.compared is None:
        yield "prediction", "not compared here with a measurement; the command compare does that on this machine"
        return
    table = subject.compared
    error = table["error"].abs()
    yield "prediction", f"errs by {share(float(error.median()))} in the median, {share(float(error.max()))} at most"
    known = table[table["measured_low"].notna()]
    inside = ((known["predicted"] >= known["measured_low"]) & (known["predicted"] <= known["measured_high"])).sum()
    said = f"{inside} of {len(known)} predictions are in the measurement's 95% interval"
    yield "inside the interval", said if len(known) else "nothing tells: points with one repeat have no interval"
    invalid, busy = int((~table["valid"]).sum()), int(table["busy"].sum())
    if invalid:
        doubts.append(f"{invalid} of {len(table)} points were too late to count")
    if busy:
        doubts.append(f"{busy} of {len(table)} points were measured beside other work")


def _seeds(subject: Subject, doubts: list[str]) -> Iterator[Fact]:
    counts = sorted({len(group.runs) for group in subject.groups})
    what = "repeats" if subject.kind == "comparison" else "seeds"
    said = " to ".join(map(str, counts[:1] + counts[-1:] if len(counts) > 1 else counts))
    if counts[-1] < 2:
        yield what, "one: there is no interval, and a difference between two points may be chance"
        if len(subject.groups) > 1:
            doubts.append("each point has one seed")
        return
    wide: dict[str, float] = {}
    for group in subject.groups:
        for metric, each in group.means().items():
            if metric not in COURSE and each.mean and not math.isnan(each.half_width):
                wide[metric] = max(wide.get(metric, 0.0), each.half_width / abs(each.mean))
    widest = ", ".join(f"{metric.replace('_', ' ')} ±{share(half)}" for metric, half in list(wide.items())[:4])
    yield what, f"{said} a point{f'; widest 95% intervals: {widest}' if widest else ''}"


def _machine(subject: Subject, doubts: list[str]) -> Iterator[Fact]:
    loads, late, over = [], [], []
    for group in subject.groups:
        for summary in subject.summaries(group):
            if (beside := load(summary)) is not None:
                loads.append(beside)
            if (each := lateness(summary)) is not None:
                late.append(each)
            if (each := overruns(summary)) is not None:
                over.append(each)
    if loads:
        worst = max(loads, key=sum)
        yield "load", f"others took {worst.others:.0%} of the machine's cores at most, its host {worst.steal:.0%}"
        busy = sum(each.is_busy for each in loads)
        if busy and subject.compared is None:
            which = "the run" if len(loads) == 1 else f"{busy} of {len(loads)} measured runs"
            doubts.append(f"{which} ran beside other work")
    if late:
        yield "lateness", f"{max(late):.2%} longer than stated at most; {LATENESS_ALLOWED:.0%} is allowed"
        if max(late) > LATENESS_ALLOWED and subject.compared is None:
            doubts.append("emulated devices were later than allowed")
    if over:
        yield "overruns", f"{max(over):.2%} of a run's minibatches at most took longer than stated"


def _crashes(subject: Subject) -> Iterator[Fact]:
    shown = subject.shown
    assert shown is not None
    effects, _ = effects_of(shown.path)
    mine = effects[effects["worker"] >= 0]
    if mine.empty:
        return
    lives = mine.groupby("worker")["incarnation"].nunique()
    restarted = [f"worker {worker}" for worker, count in lives.items() if count > 1]
    if restarted:
        yield "crashes", f"{listed(restarted)} began again ({crew(len(lives))} in all)"


def _recording(subject: Subject) -> Iterator[Fact]:
    if subject.scenario.record != "all":
        yield "rows", f"record: {subject.scenario.record}; tables of effects are not complete, summaries are"


def _warnings(subject: Subject, doubts: list[str]) -> Iterator[Fact]:
    lines = [
        line for group in subject.groups for summary in subject.summaries(group) for line in summary.get("warnings", ())
    ]
    for line in list(dict.fromkeys(lines))[:8]:
        yield "warning", line
    if lines:
        doubts.append(f"{len({*lines})} warning{'s' if len({*lines}) > 1 else ''}")


def _grades(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """The presets' numbers by the grade of their source."""
    chosen = subject.scenario.hardware.preset
    names = [chosen] if isinstance(chosen, str) else list(chosen or ())
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        preset = presets.read(name)
        for key, source in preset.sources.items():
            found[source.partition(":")[0]].append(key)
    for grade, meaning in presets.GRADES.items():
        if grade in found:
            yield grade, meaning, f"{len(found[grade])}: {listed(found[grade], 8)}"
