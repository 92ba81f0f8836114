"""The numbers of a run's summary in words, for a terminal and for a notebook; text only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from asgd_lab.record.machine_load import Load
from asgd_lab.record.summary import LATENESS_ALLOWED

BUSY = 0.8  # utilisation above which a server or a link is reported
SHOWN_RESOURCES = 4


def rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of one run, each with its name."""
    share, late = overruns(summary), lateness(summary)
    staleness, busy = summary["staleness"], summary["utilisation"]
    emulated = " on emulated devices" if summary.get("emulated") else ""
    found = [
        ("ran", f"{crew(summary['workers'])}{emulated}, backend {summary['backend']}, seed {summary['seed']}"),
        ("makespan", f"{_seconds(summary)} s" if _timed(summary) else "this backend has no clock"),
        ("minibatches", f"{summary['minibatches']:,}" + (f", {_rate(summary)} a second" if _timed(summary) else "")),
        ("updates", f"{summary['updates']:,}; pushes dropped: {summary['dropped']:,}"),
        (
            "others' pushes" if "staleness_counts" in summary else "staleness",
            f"mean {staleness['mean']:.2f}, max {staleness['max']}",
        ),
        ("utilisation", f"workers {busy['workers']:.0%}, server {busy['server']:.0%}"),
        *_where_time_goes(summary),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in summary["final"].items()),
    ]
    if share is not None:
        found.append(("overruns", f"{share:.2%} of the minibatches took longer than stated"))
    if late is not None:
        verdict = "" if late <= LATENESS_ALLOWED else f"; above {LATENESS_ALLOWED:.0%} the measurement is invalid"
        found.append(("lateness", f"{late:.2%} longer than stated in the mean{verdict}"))
    if logs := summary.get("logs"):
        found.append(("logs", "; ".join(f"{name}: {place}" for name, place in logs.items())))
    beside = load(summary)
    if beside is not None and beside.is_busy:
        found.append(("measured", f"{beside}"))
    return found


def load(summary: Mapping[str, Any]) -> Load | None:
    """The machine's load during a measured run; None for other runs."""
    return Load(**summary["machine_load"]) if "machine_load" in summary else None


def doubts(summaries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each doubt about the measured points of a sweep: the number of such points, and the worst."""
    known = list(summaries)
    loads = [each for summary in known if (each := load(summary)) is not None]
    if busy := sum(each.is_busy for each in loads):
        worst = max(loads, key=sum)
        yield f"{busy} of {len(loads)} points were measured {worst} at worst"
    lates = [late for summary in known if (late := lateness(summary)) is not None]
    if invalid := sum(late > LATENESS_ALLOWED for late in lates):
        allowed = f"above {LATENESS_ALLOWED:.0%} a measurement is invalid"
        yield f"{invalid} of {len(lates)} points were late, by {max(lates):.2%} at worst; {allowed}"


def brief(summary: Mapping[str, Any]) -> str:
    """One run of a sweep, in a line."""
    clock = f"{_seconds(summary)} s, {_rate(summary)} minibatches/s, " if _timed(summary) else ""
    final = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in _tested(summary).items())
    return f"{clock}staleness {summary['staleness']['mean']:.2f}{final}"


def crew(workers: int) -> str:
    """The number of workers in words."""
    return f"{workers:,} worker{'s' if workers != 1 else ''}"


def overruns(summary: Mapping[str, Any]) -> float | None:
    """The share of an emulated run's minibatches that took longer than stated; None for other runs."""
    share: float | None = summary.get("overruns", {}).get("share")
    return share


def lateness(summary: Mapping[str, Any]) -> float | None:
    """The lateness of an emulated run by which it is judged: excess over the stated times; None for other runs."""
    late: float | None = summary.get("lateness", {}).get("judged")
    return late


def _where_time_goes(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The shares of workers' time, and the nearly saturated servers and links; only simulations have them."""
    spent = summary.get("time", {}).get("mean", {})
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])
    shares = [f"{name} {seconds / total:.0%}" for name, seconds in largest if seconds >= 0.005 * total > 0]
    if shares:
        yield "workers' time", ", ".join(shares)
    resources = sorted(summary.get("resources", ()), key=lambda one: -one["utilisation"])
    busy = [f"{one['name']} {one['utilisation']:.0%}" for one in resources if one["utilisation"] > BUSY]
    if busy:
        more = f" and {len(busy) - SHOWN_RESOURCES} more" if len(busy) > SHOWN_RESOURCES else ""
        yield "nearly saturated", ", ".join(busy[:SHOWN_RESOURCES]) + more


def _timed(summary: Mapping[str, Any]) -> bool:
    return summary.get("clock") != "effects"


def _seconds(summary: Mapping[str, Any]) -> str:
    return f"{summary['makespan_s']:,.3f}"


def _rate(summary: Mapping[str, Any]) -> str:
    return f"{summary['minibatches_per_s']:,.1f}"


def _tested(summary: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary["final"].items() if name.startswith("test_")}
