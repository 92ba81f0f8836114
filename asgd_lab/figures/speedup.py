"""Predicted beside measured: speed-up, the prediction's error and staleness, drawn from the comparison's table alone.

The table has one row per point: group, workers, n_sync, saturated, predicted, measured_mean, measured_low,
measured_high (the 95% interval), staleness_predicted, staleness_measured, error (relative). Markers are measured, lines
predicted; a colour is an n_sync, a marker's shape and a line's dashes a group, a ring a saturated point.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from asgd_lab.figures import style

_MARKERS = ("o", "s", "^", "v", "P")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)))
_RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgecolor": "0.15",
    "markeredgewidth": 0.8,
}
_IDEAL: dict[str, Any] = {"linestyle": ":", "color": style.REFERENCE, "linewidth": 1}


class _Series(NamedTuple):
    rows: pd.DataFrame
    color: tuple[float, float, float]
    marker: str
    line: Any
    size: float  # later series are smaller and on top, so coinciding points are all visible


def speedup_figure(table: pd.DataFrame) -> Figure:
    """Three panels: speed-up over workers, measured over predicted speed-up, staleness over workers.

    Points with an invalid measurement are left out, and the figure says how many.
    """
    valid = table["valid"] if "valid" in table else pd.Series(True, index=table.index)
    left_out, table = int((~valid).sum()), table[valid] if valid.any() else table
    with style.look():
        handles = _handles(table)
        height_in = 2.55 + 0.16 * -(-len(handles) // 4)
        fig, (speedup, agreement, staleness) = style.panels(style.PAGE_IN, height_in, columns=3)
        _speedup(speedup, table)
        _agreement(agreement, table)
        _staleness(staleness, table)
        fig.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.4, columnspacing=2)
        if left_out:
            count = f"{left_out} of {len(valid)} points"
            fig.suptitle(f"{count} were too late to count{'' if valid.any() else ', and are shown all the same'}")
    return fig


def _speedup(axes: Axes, table: pd.DataFrame) -> None:
    best = table.nlargest(1, "measured_mean").iloc[0]
    axes.set_title(f"Speed-up reaches {best['measured_mean']:.1f}\nwith {_workers(best['workers'])}")
    workers = _span(table)
    axes.plot(workers, workers, **_IDEAL)
    for series in _series(table):
        axes.plot(series.rows["workers"], series.rows["predicted"], linestyle=series.line, color=series.color)
        _measured(axes, series, series.rows["workers"])
    axes.set(xlabel="workers", ylabel="speed-up over a device\nthat only computes")
    _worker_axis(axes, table)
    _speedup_axis(axes, "y", np.append(_speedups(table), workers))


def _agreement(axes: Axes, table: pd.DataFrame) -> None:
    percent = 100 * table["error"].abs()
    axes.set_title(f"Predictions err by {percent.median():.1f}%\nin the median, {percent.max():.1f}% at most")
    values = _speedups(table)
    ends = (0.85 * values.min(), 1.15 * values.max())
    axes.plot(ends, ends, **_IDEAL)
    for series in _series(table):
        _measured(axes, series, series.rows["predicted"])
    axes.set(xlabel="predicted speed-up", ylabel="measured speed-up")
    _speedup_axis(axes, "x", values)
    _speedup_axis(axes, "y", values)
    axes.set(xlim=ends, ylim=ends)


def _staleness(axes: Axes, table: pd.DataFrame) -> None:
    gap = (table["staleness_predicted"] - table["staleness_measured"]).abs().max()
    axes.set_title(f"Mean staleness is predicted\nwithin {gap:.2g} versions")
    workers = _span(table)
    axes.plot(workers, workers - 1, **_IDEAL)
    for series in _series(table):
        rows, color = series.rows, series.color
        axes.plot(rows["workers"], rows["staleness_predicted"], linestyle=series.line, color=color)
        x, y, full = rows["workers"], rows["staleness_measured"], rows["saturated"].astype(bool)
        edge: dict[str, Any] = {"markeredgecolor": "w", "markeredgewidth": 0.3}
        axes.plot(x, y, series.marker, markersize=series.size, color=color, zorder=3, **edge)
        axes.plot(x[full], y[full], zorder=4, **_RING)
    axes.set(xlabel="workers", ylabel="mean staleness (versions)")
    _worker_axis(axes, table)
    axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1])  # so that a marker at 0 is not cut


def _measured(axes: Axes, series: _Series, x: pd.Series[float]) -> None:
    rows, mean, full = series.rows, series.rows["measured_mean"], series.rows["saturated"].astype(bool)
    spread = np.stack([mean - rows["measured_low"], rows["measured_high"] - mean]).clip(min=0)
    bars: dict[str, Any] = {
        "elinewidth": 0.9,
        "capsize": 2,
        "capthick": 0.9,
        "markeredgecolor": "w",
        "markeredgewidth": 0.6,
    }
    bars |= {"fmt": series.marker, "markersize": series.size, "color": series.color, "zorder": 3}
    axes.errorbar(x, mean, spread, **bars)
    axes.plot(x[full], mean[full], zorder=4, **_RING)


def _series(table: pd.DataFrame) -> Iterator[_Series]:
    n_syncs, groups = sorted(table["n_sync"].unique()), sorted(table["group"].unique())
    sizes = np.linspace(7, 3.5, len(n_syncs)) if len(n_syncs) > 1 else [4.5]
    for n_sync, color, size in zip(n_syncs, style.palette(len(n_syncs)), sizes, strict=True):
        for index, group in enumerate(groups):
            rows = table[(table["n_sync"] == n_sync) & (table["group"] == group)].sort_values("workers")
            if len(rows):
                yield _Series(rows, color, _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)], float(size))


def _handles(table: pd.DataFrame) -> list[Line2D]:
    n_syncs, groups = sorted(table["n_sync"].unique()), sorted(table["group"].unique())
    colors = zip(n_syncs, style.palette(len(n_syncs)), strict=True)
    handles = [Line2D([], [], color=color, linewidth=3, label=f"n_sync = {n_sync}") for n_sync, color in colors]
    for index, group in enumerate(groups):
        marker, line = _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)]
        handles.append(Line2D([], [], color="0.3", linestyle=line, label=f"{group}, predicted"))
        handles.append(Line2D([], [], color="0.3", linestyle="none", marker=marker, label=f"{group}, measured (95%)"))
    if table["saturated"].any():
        handles.append(Line2D([], [], label="saturated", **_RING))
    handles.append(Line2D([], [], label="ideal speed-up; workers − 1", **_IDEAL))
    return handles


def _span(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.geomspace(table["workers"].min(), table["workers"].max(), 50)


def _speedups(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    columns = ["predicted", "measured_mean", "measured_low", "measured_high"]
    values = table[columns].to_numpy(dtype=np.float64).ravel()
    return values[values > 0]  # an interval may reach below 0, which has no logarithm


def _worker_axis(axes: Axes, table: pd.DataFrame) -> None:
    workers = sorted(table["workers"].unique())
    axes.set_xscale("log", base=2)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(FixedLocator(workers) if len(workers) <= 7 else LogLocator(base=2, numticks=7))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _speedup_axis(axes: Axes, name: Literal["x", "y"], values: npt.NDArray[np.float64]) -> None:
    if np.floor(np.log2(values.max())) <= np.ceil(np.log2(values.min())):
        return  # fewer than two powers of two to label
    axis = axes.xaxis if name == "x" else axes.yaxis
    (axes.set_xscale if name == "x" else axes.set_yscale)("log", base=2)
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
