"""Learning curves and staleness of recorded runs, one colour per run; read from run directories alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary

_X_LABELS = {"minibatches": "minibatches (all workers)", "time_s": "time (s)"}


def error_curves(
    runs: Mapping[str, Path | str],
    metric: str = "error",
    split: str = "test",
    x: Literal["minibatches", "time_s"] = "minibatches",
) -> Figure:
    """One metric over the runs (by label): thick for the server's parameters, thin for the replicas' mean and range.

    ScenarioError for a run without evaluations of that metric.
    """
    curves = {label: _evaluations(Path(run), metric, split) for label, run in runs.items()}
    with style.look():
        fig, (axes,) = style.panels(style.COLUMN_IN, 2.9)
        colors = style.palette(len(curves))
        for rows, color in zip(curves.values(), colors, strict=True):
            _curve(axes, rows, x, color)
        axes.set(xlabel=_X_LABELS[x], ylabel=f"{split} {metric}")
        if metric == "error":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_title(_curves_title(curves, metric, split))
        handles = [Line2D([], [], color=color, label=label) for label, color in zip(curves, colors, strict=True)]
        handles += _whose(pd.concat(curves.values())["parameters"])
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def staleness_histogram(runs: Mapping[str, Path | str]) -> Figure:
    """The share of applied pushes at each staleness, by run, with the mean as a dashed line."""
    histograms = {label: read_summary(run)["staleness"] for label, run in runs.items()}
    with style.look():
        fig, (axes,) = style.panels(style.COLUMN_IN, 2.7)
        colors = style.palette(len(histograms))
        for staleness, color in zip(histograms.values(), colors, strict=True):
            if staleness["histogram"]:
                shares, edges = _shares(staleness["histogram"])
                axes.stairs(shares, edges, fill=True, color=color, alpha=0.25)
                axes.stairs(shares, edges, color=color, linewidth=1.2)
                axes.axvline(staleness["mean"], color=color, linestyle="--", linewidth=1)
        axes.set(xlabel="staleness (versions)", ylabel="share of pushes")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        means = [staleness["mean"] for staleness in histograms.values()]
        axes.set_title(_staleness_title(means))
        handles: list[Patch | Line2D] = [
            Patch(facecolor=(*color, 0.25), edgecolor=color, label=label)
            for label, color in zip(histograms, colors, strict=True)
        ]
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=1, label="mean"))
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def _evaluations(run_dir: Path, metric: str, split: str) -> pd.DataFrame:
    evals = tables.read(run_dir, "evals")
    rows = evals[(evals["metric"] == metric) & (evals["split"] == split)]
    if rows.empty:
        known = sorted(set(evals["split"] + " " + evals["metric"]))
        raise ScenarioError(f"{run_dir}: has no evaluations of {split} {metric}; it has {', '.join(known) or 'none'}")
    return rows


def _curve(axes: Axes, rows: pd.DataFrame, x: str, color: tuple[float, float, float]) -> None:
    server = rows[rows["parameters"] == "server"].sort_values(x)
    axes.plot(server[x], server["value"], color=color, linewidth=1.4)
    if len(server) == 1:
        axes.plot(server[x], server["value"], "o", color=color)
    replicas = rows[rows["parameters"].str.startswith("replica-")].sort_values(x)
    nth = replicas.groupby("parameters").cumcount()  # the nth evaluations of all replicas are close in time
    band = replicas.groupby(nth)["value"].agg(["mean", "min", "max"]).set_index(replicas.groupby(nth)[x].mean())
    axes.plot(band.index, band["mean"], color=color, linewidth=0.7)
    axes.fill_between(band.index.to_numpy(), band["min"], band["max"], color=color, alpha=0.2, linewidth=0)


def _whose(parameters: pd.Series[str]) -> list[Line2D]:
    handles = [Line2D([], [], color="0.3", linewidth=1.4, label="server")]
    if parameters.str.startswith("replica-").any():
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, label="replicas: mean, range"))
    return handles


def _curves_title(curves: Mapping[str, pd.DataFrame], metric: str, split: str) -> str:
    ends = {}
    for label, rows in curves.items():
        server = rows[rows["parameters"] == "server"].sort_values("minibatches")
        if len(server):
            ends[label] = float(server["value"].iloc[-1])
    if not ends:
        return f"{split} {metric} of the replicas".capitalize()
    low, high = (_written(value, metric) for value in (min(ends.values()), max(ends.values())))
    name = f"{split} {metric}".capitalize()
    return f"{name} ends at {low}" if low == high else f"{name} ends between {low} and {high}"


def _written(value: float, metric: str) -> str:
    return f"{100 * value:.1f}%" if metric == "error" else f"{value:.3g}"


def _staleness_title(means: list[float]) -> str:
    low, high = f"{min(means):.1f}", f"{max(means):.1f}"
    return f"Mean staleness is {low} versions" if low == high else f"Mean staleness from {low} to {high} versions"


def _shares(histogram: Mapping[str, int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shares of the staleness 0, 1, ..., up to the largest, and the edges of their bins."""
    counts = {int(staleness): count for staleness, count in histogram.items()}
    edges = np.arange(max(counts) + 2, dtype=np.float64) - 0.5
    shares = np.zeros(max(counts) + 1)
    shares[list(counts)] = list(counts.values())
    shares /= shares.sum()
    return shares, edges
