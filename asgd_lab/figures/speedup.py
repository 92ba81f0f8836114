"""Predicted beside measured: speed-up, the prediction's error and staleness, drawn from the comparison's table alone.

The table has one row per point: group, workers, n_sync, predicted, measured_mean, measured_low, measured_high (the 95%
interval), staleness_predicted, staleness_measured, error (relative). A row of panels is a group of devices, a colour an
n_sync; lines are predicted, points measured.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from asgd_lab.figures import style

_IDEAL: dict[str, Any] = {"linestyle": ":", "color": style.REFERENCE, "linewidth": 1}
_POINTS: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgecolor": "w", "markeredgewidth": 0.5}
_WORKERS_LABELLED = 7
_DEVICES = {"cpu": "CPU", "cuda": "GPU", "emulated": "Emulated"}

Colors = dict[Any, style.Color]


def speedup_figure(table: pd.DataFrame) -> Figure:
    """Three panels a group of devices: speed-up over workers, measured over predicted speed-up, staleness over workers.

    Points with an invalid measurement are left out, and the figure says how many.
    """
    valid = table["valid"] if "valid" in table else pd.Series(True, index=table.index)
    left_out, table = int((~valid).sum()), table[valid] if valid.any() else table
    groups, n_syncs = sorted(table["group"].unique()), sorted(table["n_sync"].unique())
    colors = dict(zip(n_syncs, style.series(n_syncs), strict=True))
    with style.look():
        handles = _handles(colors)
        height_in = 2.35 * len(groups) + 0.25 + 0.16 * -(-len(handles) // 4)
        fig = style.figure(style.PAGE_IN, height_in)
        grid = fig.subplots(len(groups), 3, squeeze=False)
        for group, (speedup, agreement, staleness) in zip(groups, grid, strict=True):
            rows = table[table["group"] == group]
            _speedup(speedup, rows, colors, str(group))
            _agreement(agreement, rows, colors)
            _staleness(staleness, rows, colors)
        fig.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.4, columnspacing=2)
        if left_out:
            count = f"{left_out} of {len(valid)} points"
            fig.suptitle(f"{count} were too late to count{'' if valid.any() else ', and are shown all the same'}")
    return fig


def _speedup(axes: Axes, table: pd.DataFrame, colors: Colors, group: str) -> None:
    best = table.nlargest(1, "measured_mean").iloc[0]
    reached = f"speed-up reaches {best['measured_mean']:.1f}\nwith {_workers(best['workers'])}"
    axes.set_title(f"{_DEVICES.get(group, group)}: {reached}")
    workers = _span(table)
    axes.plot(workers, workers, **_IDEAL)
    for n_sync, rows in table.sort_values("workers").groupby("n_sync"):
        axes.plot(rows["workers"], rows["predicted"], color=colors[n_sync])
        _measured(axes, rows, rows["workers"], colors[n_sync])
    axes.set(xlabel="workers", ylabel="speed-up over a device\nthat only computes")
    _worker_axis(axes, table)
    _speedup_axis(axes, "y", np.append(_speedups(table), workers))


def _agreement(axes: Axes, table: pd.DataFrame, colors: Colors) -> None:
    percent = 100 * table["error"].abs()
    axes.set_title(f"Predictions err by {percent.median():.1f}%\nin the median, {percent.max():.1f}% at most")
    values = _speedups(table)
    ends = (0.85 * values.min(), 1.15 * values.max())
    axes.plot(ends, ends, **_IDEAL)
    for n_sync, rows in table.groupby("n_sync"):
        _measured(axes, rows, rows["predicted"], colors[n_sync])
    axes.set(xlabel="predicted speed-up", ylabel="measured speed-up")
    _speedup_axis(axes, "x", values)
    _speedup_axis(axes, "y", values)
    axes.set(xlim=ends, ylim=ends)


def _staleness(axes: Axes, table: pd.DataFrame, colors: Colors) -> None:
    gap = (table["staleness_predicted"] - table["staleness_measured"]).abs().max()
    axes.set_title(f"Mean staleness is predicted\nwithin {gap:.2g} versions")
    workers = _span(table)
    axes.plot(workers, workers - 1, **_IDEAL)
    for n_sync, rows in table.sort_values("workers").groupby("n_sync"):
        axes.plot(rows["workers"], rows["staleness_predicted"], color=colors[n_sync])
        axes.plot(rows["workers"], rows["staleness_measured"], color=colors[n_sync], zorder=3, **_POINTS)
    axes.set(xlabel="workers", ylabel="mean staleness (versions)")
    _worker_axis(axes, table)
    axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1])  # so that a marker at 0 is not cut


def _measured(axes: Axes, rows: pd.DataFrame, x: pd.Series[float], color: style.Color) -> None:
    mean = rows["measured_mean"]
    spread = np.stack([mean - rows["measured_low"], rows["measured_high"] - mean]).clip(min=0)
    axes.errorbar(x, mean, spread, color=color, elinewidth=0.9, capsize=2, capthick=0.9, zorder=3, **_POINTS)


def _handles(colors: Colors) -> list[Line2D]:
    handles = [Line2D([], [], color=color, linewidth=3, label=f"n_sync = {n_sync}") for n_sync, color in colors.items()]
    return [
        *handles,
        Line2D([], [], color="0.3", label="predicted"),
        Line2D([], [], color="0.3", label="measured (mean and 95% interval)", **_POINTS),
        Line2D([], [], label="ideal speed-up; workers − 1", **_IDEAL),
    ]


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
    axes.xaxis.set_major_locator(
        FixedLocator(workers) if len(workers) <= _WORKERS_LABELLED else LogLocator(base=2, numticks=7)
    )
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
