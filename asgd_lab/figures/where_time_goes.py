"""The shares of workers' time, and the utilisation of links and servers; read from summaries alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style
from asgd_lab.record.run import read_summary

SHOWN_RESOURCES = 5
_SEEN_FROM = 0.002  # of a worker's time
_WIDTH_OF_A_LETTER, _HEIGHT_OF_A_NAME = 0.018, 0.07  # of a panel
_COLORS = style.palette(10)
COLORS: dict[str, Any] = {
    "compute": _COLORS[0],
    "wasted": _COLORS[2],
    "client": _COLORS[5],
    "staging": _COLORS[9],
    "link": _COLORS[1],
    "queue": _COLORS[3],
    "gate": _COLORS[4],
    "down": "0.25",
    "idle": "0.85",
}
_DARK = ("compute", "client", "queue", "gate", "down")

Floats = npt.NDArray[np.float64]


def time_shares(panels: Mapping[str, Mapping[int, Path | str]]) -> Figure:
    """The shares of workers' time over n_sync, stacked; one panel per label, with its runs by n_sync.

    A heading is written into its area if there is room, else into the legend. ScenarioError for a run whose summary has
    no shares of time.
    """
    found = {
        label: {n_sync: _shares(Path(run)) for n_sync, run in sorted(runs.items())} for label, runs in panels.items()
    }
    headings = [name for name in COLORS if _largest(name, found) >= _SEEN_FROM]
    with style.look():
        rows = -(-len(found) // 2)
        fig = style.figure(style.PAGE_IN, 0.3 + 1.9 * rows)
        grid = fig.subplots(rows, min(2, len(found)), squeeze=False, sharey=True)
        named: set[str] = set()
        for (label, shares), axes in zip(found.items(), grid.flat, strict=False):
            named |= _stack(axes, shares, headings)
            computed = [share["compute"] for share in shares.values()]
            axes.set_title(f"{label}\ncomputing {min(computed):.0%} to {max(computed):.0%} of the time")
        for axes in grid.flat[len(found) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("workers' time")
        for axes in fig.axes[-grid.shape[1] :]:  # the lowest of each column
            axes.set_xlabel("n_sync (minibatches)")
        handles = [Patch(color=COLORS[name], label=name) for name in headings if name not in named]
        if handles:
            fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
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
            grid[0, column].set_title(f"{resource['name']}\n{resource['utilisation']:.0%} busy")
            grid[1, column].set_title(f"{resource['present']:.2g} in the mean", fontweight="normal")
            grid[1, column].set_xlabel("time (s)")
        grid[0, 0].set(ylabel="utilisation", ylim=(0, 1.05))
        grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        grid[1, 0].set_ylabel("present")
        grid[1, 0].set_ylim(bottom=0)
        if len(shown) < len(resources):
            fig.suptitle(f"The {len(shown)} busiest of {len(resources)}")
    return fig


def _shares(run_dir: Path) -> dict[str, float]:
    time = read_summary(run_dir).get("time")
    if time is None:
        raise ScenarioError(f"{run_dir}: does not say where its time went; simulations do")
    total = sum(time["mean"].values())
    seconds = dict.fromkeys(COLORS, 0.0) | time["mean"]  # no time is wasted without stops
    return {name: each / total if total else 0.0 for name, each in seconds.items()}


def _largest(name: str, found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> float:
    return max(share[name] for shares in found.values() for share in shares.values())


def _stack(axes: Axes, shares: Mapping[int, Mapping[str, float]], headings: Sequence[str]) -> set[str]:
    """Draw one panel; return the headings written into it."""
    n_syncs = np.array(list(shares), dtype=np.float64)
    layers = np.array([[share[name] for share in shares.values()] for name in headings])
    axes.stackplot(n_syncs, layers, colors=[COLORS[name] for name in headings], edgecolor="w", linewidth=0.6)
    axes.set_xscale("log")
    axes.set(xlim=(n_syncs[0], max(n_syncs[-1], 1.01 * n_syncs[0])), ylim=(0, 1))
    axes.xaxis.set_major_locator(FixedLocator(list(n_syncs)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(False)
    tops = np.cumsum(layers, axis=0)
    bounds = zip(headings, np.vstack([np.zeros_like(tops[:1]), tops]), tops, strict=False)
    return {name for name, low, high in bounds if _name(axes, name, n_syncs, low, high)}


def _name(axes: Axes, name: str, n_syncs: Floats, low: Floats, high: Floats) -> bool:
    """Write a heading into the widest spot of its area; return False, without writing, if there is no room."""
    width = _WIDTH_OF_A_LETTER * (len(name) + 1)
    ends = np.log(axes.get_xlim())
    along = np.linspace(0, 1, 101)
    floor, ceiling = (np.interp(ends[0] + along * np.ptp(ends), np.log(n_syncs), edge) for edge in (low, high))
    centres = along[(along >= width / 2) & (along <= 1 - width / 2)]
    under = [np.abs(along - centre) <= width / 2 for centre in centres]
    bottoms, tops = np.array([floor[one].max() for one in under]), np.array([ceiling[one].min() for one in under])
    best = int(np.argmax(np.round(tops - bottoms, 2)))
    if tops[best] - bottoms[best] < _HEIGHT_OF_A_NAME:
        return False
    x, y = float(np.exp(ends[0] + centres[best] * np.ptp(ends))), (tops[best] + bottoms[best]) / 2
    axes.text(x, y, name, ha="center", va="center", fontsize=7, color="w" if name in _DARK else "k")
    return True


def _course(axes: Axes, resource: Mapping[str, Any], key: str) -> None:
    course, mean = resource["over_time"], resource[key]
    color = COLORS["queue" if re.fullmatch(r"server( \d+)?", resource["name"]) else "link"]  # "server 0 up" is its card
    axes.stairs(course[key], [0.0, *course["end_s"]], color=color, fill=True, alpha=0.25)
    axes.stairs(course[key], [0.0, *course["end_s"]], color=color, linewidth=1.0, baseline=None)
    axes.axhline(mean, color="0.3", linestyle="--", linewidth=0.8)
