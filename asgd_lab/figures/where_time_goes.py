"""The shares of workers' time, and the utilisation of links and servers; read from summaries alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style
from asgd_lab.figures.meanings import HEADINGS
from asgd_lab.record.run import read_summary

SHOWN_RESOURCES = 5
_SEEN_FROM = 0.002  # of a worker's time
_WRITTEN_FROM, _MOST_WRITTEN = 0.09, 8  # a share with its number; bars of a panel whose numbers have room
_COLORS = style.palette(10)
COLORS: dict[str, Any] = {
    "compute": _COLORS[0],
    "wasted": _COLORS[2],
    "client": _COLORS[5],
    "staging": _COLORS[9],
    "link": _COLORS[1],
    "queue": "#882255",
    "gate": _COLORS[4],
    "down": "0.25",
    "idle": "0.85",
}


def time_shares(panels: Mapping[str, Mapping[Any, Path | str | Sequence[Path]]], key: str | None = "n_sync") -> Figure:
    """The shares of workers' time, a bar a value of the swept `key`, stacked; one panel per label.

    The legend names every heading that is seen, in the order of the bars. Replications count with their mean.
    ScenarioError for a run whose summary has no shares of time.
    """
    found = {
        label: {value: _mean_shares(paths) for value, paths in sorted(runs.items(), key=lambda item: item[0])}
        for label, runs in panels.items()
    }
    headings = [name for name in COLORS if _largest(name, found) >= _SEEN_FROM]
    with style.look():
        rows = -(-len(found) // 2)
        fig = style.figure(style.PAGE_IN, 0.3 + 1.9 * rows)
        grid = fig.subplots(rows, min(2, len(found)), squeeze=False, sharey=True)
        for (label, shares), axes in zip(found.items(), grid.flat, strict=False):
            _bars(axes, shares, headings)
            computed = [share["compute"] for share in shares.values()]
            axes.set_title(f"{style.plain(label)}\ncomputing {_span(computed)} of the time")
        for axes in grid.flat[len(found) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("share of workers' time")
        for axes in fig.axes[-grid.shape[1] :]:  # the lowest of each column
            axes.set_xlabel("" if key is None else style.labelled(key))
        handles = [Patch(color=COLORS[name], label=HEADINGS[name]) for name in reversed(headings)]
        fig.legend(handles=handles, loc="outside right center")
    return fig


def over_time(run_dir: Path | str) -> Figure:
    """Utilisation and mean number present of a run's busiest servers and links, over time."""
    resources = read_summary(run_dir).get("resources")
    if not resources:
        raise ScenarioError(f"{run_dir}: says nothing of servers and links over time; simulations do")
    shown = sorted(resources, key=lambda one: -one["utilisation"])[:SHOWN_RESOURCES]
    with style.look():
        fig = style.figure(style.PAGE_IN, 2.8)
        grid = fig.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row")
        for column, resource in enumerate(shown):
            for axes, key in zip(grid[:, column], ("utilisation", "present"), strict=True):
                _course(axes, resource, key)
            grid[0, column].set_title(f"{style.plain(resource['name'])}\n{resource['utilisation']:.0%} busy")
            grid[1, column].set_title(f"{resource['present']:.2g} in the mean", fontweight="normal")
            grid[1, column].set_xlabel("time (s)")
        grid[0, 0].set(ylabel="utilisation", ylim=(0, 1.05))
        grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        grid[1, 0].set_ylabel("present")
        grid[1, 0].set_ylim(bottom=0)
        if len(shown) < len(resources):
            fig.suptitle(f"The {len(shown)} busiest of {len(resources)}")
    return fig


def _mean_shares(runs: Path | str | Sequence[Path]) -> dict[str, float]:
    each = [_shares(Path(run)) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    return {name: float(np.mean([shares[name] for shares in each])) for name in each[0]}


def _shares(run_dir: Path) -> dict[str, float]:
    time = read_summary(run_dir).get("time")
    if time is None:
        raise ScenarioError(f"{run_dir}: does not say where its time went; simulations do")
    total = sum(time["mean"].values())
    seconds = dict.fromkeys(COLORS, 0.0) | time["mean"]  # no time is wasted without stops
    return {name: each / total if total else 0.0 for name, each in seconds.items()}


def _largest(name: str, found: Mapping[str, Mapping[Any, Mapping[str, float]]]) -> float:
    return max(share[name] for shares in found.values() for share in shares.values())


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _bars(axes: Axes, shares: Mapping[Any, Mapping[str, float]], headings: Sequence[str]) -> None:
    """Draw one panel; a share is written into its bar where it has room, in the ink that is easiest to read there."""
    places, bottom = np.arange(len(shares)), np.zeros(len(shares))
    for name in headings:
        heights = np.array([share[name] for share in shares.values()])
        axes.bar(places, heights, 0.8, bottom, color=COLORS[name], edgecolor="w", linewidth=0.6)
        for place, height, low in zip(places, heights, bottom, strict=True):
            if height >= _WRITTEN_FROM and len(shares) <= _MOST_WRITTEN:
                ink = style.ink(COLORS[name])
                axes.text(
                    float(place), low + height / 2, f"{height:.0%}", ha="center", va="center", fontsize=6.5, color=ink
                )
        bottom += heights
    axes.set_xticks(places, labels=[style.wrapped(style.value(value)) for value in shares])
    axes.set(ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(False)


def _course(axes: Axes, resource: Mapping[str, Any], key: str) -> None:
    course, mean = resource["over_time"], resource[key]
    color = COLORS["queue" if re.fullmatch(r"server( \d+)?", resource["name"]) else "link"]  # "server 0 up" is its card
    axes.stairs(course[key], [0.0, *course["end_s"]], color=color, fill=True, alpha=0.25)
    axes.stairs(course[key], [0.0, *course["end_s"]], color=color, linewidth=1.0, baseline=None)
    axes.axhline(mean, color="0.3", linestyle="--", linewidth=0.8)
