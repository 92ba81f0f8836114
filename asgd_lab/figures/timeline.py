"""A span of a run as in trace.json: the activity of workers, servers and links, and an arrow from each push to its
application; read from the effects table alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import spans, style
from asgd_lab.figures.meanings import KINDS
from asgd_lab.figures.spans import Stretch
from asgd_lab.figures.where_time_goes import COLORS
from asgd_lab.record import tables, tracks

SHOWN_LABELS = 16
_OCCUPANCY_IN = 0.42
_PALETTE = style.palette(10)
_WAITS: Any = "0.86"
_LOOKS: dict[str, Any] = {
    "train": COLORS["compute"],
    "fetch": _WAITS,
    "push": _WAITS,
    "adopt": _PALETTE[7],
    "measure": _PALETTE[7],
    "to_host": COLORS["staging"],
    "to_device": COLORS["staging"],
    "up": COLORS["link"],
    "down": _PALETTE[2],
    "apply": COLORS["queue"],
    "grant": _PALETTE[8],
}


def timeline(run_dir: Path | str, start_s: float, end_s: float) -> Figure:
    """One track per worker (with lanes below for exchanges that overlap its training), per server and per direction.

    ScenarioError if nothing was recorded in that span.
    """
    return timelines({"": run_dir}, start_s, end_s)


def timelines(runs: Mapping[str, Path | str], start_s: float, end_s: float) -> Figure:
    """The same span of several runs, one below the other, by label."""
    stretches = {label: _read(Path(run), start_s, end_s) for label, run in runs.items()}
    heights = [
        height
        for one in stretches.values()
        for height in (0.11 * len(one.names) + 0.1, *[_OCCUPANCY_IN] * len(one.transfers))
    ]
    with style.look():
        size = (style.PAGE_IN, sum(heights) + 0.85 + 0.3 * len(runs))
        fig = style.figure(*size)
        panels = list(fig.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        below = iter(panels)
        for label, stretch in stretches.items():
            axes = next(below)
            _tracks(axes, stretch)
            _arrows(axes, stretch)
            said = _said(stretch, start_s, end_s)
            axes.set_title(f"{style.plain(label)}: {said}" if label else f"{said[0].upper()}{said[1:]}")
            for name, rows in stretch.transfers.items():
                _occupancy(next(below), stretch.effects[rows], name)
        panels[-1].set(xlabel="time (s)", xlim=(start_s, end_s))
        seen = {kind for one in stretches.values() for kind in one.effects["kind"].unique()}
        labels = {label: _LOOKS[kind] for kind, label in KINDS.items() if kind in seen}
        handles = [Patch(color=color, label=label) for label, color in labels.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def _read(run_dir: Path, start_s: float, end_s: float) -> Stretch:
    effects = tables.read(run_dir, "effects")
    effects = effects[(effects["end_s"] >= start_s) & (effects["start_s"] <= end_s)].reset_index(drop=True)
    if effects.empty:
        raise ScenarioError(f"{run_dir}: has no effects between {start_s:g} s and {end_s:g} s")
    return spans.of(effects)


def _tracks(axes: Axes, stretch: Stretch) -> None:
    effects = stretch.effects
    for name in KINDS:
        mine, color = (effects["kind"] == name).to_numpy(), _LOOKS[name]
        left, right = (effects[column].to_numpy()[mine] for column in ("start_s", "end_s"))
        low, high = stretch.y[mine] - 0.4, stretch.y[mine] + 0.4
        corners = np.stack([left, low, left, high, right, high, right, low], -1).reshape(-1, 4, 2)
        # The edge makes effects without a duration visible.
        axes.add_collection(PolyCollection(list(corners), facecolor=color, edgecolor=color, linewidth=0.3, zorder=2))
    named = {at: name for at, name in stretch.names.items() if name}
    every = -(-len(named) // SHOWN_LABELS)
    shown = [(at, name) for number, (at, name) in enumerate(named.items()) if number % every == 0 or "server" in name]
    axes.set_yticks([at for at, _ in shown], labels=[name for _, name in shown])
    axes.set_ylim(min(stretch.names) - 0.6, max(stretch.names) + 0.6)
    axes.grid(False)
    axes.tick_params(left=False)


def _arrows(axes: Axes, stretch: Stretch) -> None:
    effects, y = stretch.effects, stretch.y
    senders, applies = tracks.arrows(effects)
    part = (effects["kind"] != "push").to_numpy()[senders]
    arrival = (effects["start_s"] - effects["wait_s"]).to_numpy()[applies]
    sent = np.where(part, effects["end_s"].to_numpy()[senders], arrival)
    begun = effects["start_s"].to_numpy()[applies]
    head = y[applies] + 0.45
    lines = np.stack([np.stack([sent, y[senders] - 0.4], -1), np.stack([begun, head], -1)], 1)
    axes.add_collection(LineCollection(list(lines), colors="k", linewidths=0.35, alpha=0.55, zorder=3))
    axes.plot(begun, head, linestyle="none", marker=7, markersize=2, color="k", zorder=3)


def _occupancy(axes: Axes, transfers: pd.DataFrame, name: str) -> None:
    """Draw the number of simultaneous transfers over time."""
    moments = pd.concat([pd.Series(1, transfers["start_s"]), pd.Series(-1, transfers["end_s"])])
    count = moments.groupby(level=0).sum().sort_index().cumsum()
    label, color = KINDS[name], _LOOKS[name]
    axes.fill_between(count.index, count, step="post", color=color, linewidth=0)
    axes.set_ylim(0, max(1.0, 1.1 * float(count.max())))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.set_ylabel(label.replace(" ", "s\n"), rotation=0, ha="right", va="center", fontsize=7)
    axes.grid(False)


def _said(stretch: Stretch, start_s: float, end_s: float) -> str:
    """A title: the shares of the span in which workers train and servers serve."""
    effects, length_s = stretch.effects, end_s - start_s
    spent_s = effects["end_s"].clip(upper=end_s) - effects["start_s"].clip(lower=start_s)
    serves = effects["worker"] < 0
    workers, servers = (effects[column][rows].nunique() for column, rows in (("worker", ~serves), ("shard", serves)))
    training = spent_s[effects["kind"] == "train"].sum() / max(1, workers) / length_s
    serving = spent_s[serves].sum() / max(1, servers) / length_s
    return f"workers train {training:.0%} of this time, and the server is busy {serving:.0%} of it"
