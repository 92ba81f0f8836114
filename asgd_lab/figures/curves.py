"""Learning curves and staleness of recorded runs, one colour per run; read from run directories alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from asgd_lab.errors import ScenarioError, either, shortened
from asgd_lab.figures import style
from asgd_lab.figures.evaluations import common_metric
from asgd_lab.record import tables
from asgd_lab.record.run import read_results

_MOST_PANELS = 4
_SHOWN_PUSHES = 0.98  # of a histogram: the tail beyond is off the axis
_WIDE_RANGE = 30.0
_X_LABELS = {"minibatches": "minibatches (all workers)", "time_s": "time (s)"}


def error_curves(
    runs: Mapping[str, Path | str],
    metric: str | None = None,
    split: str | None = None,
    x: Literal["minibatches", "time_s"] = "minibatches",
) -> Figure:
    """One metric over the runs (by label): thick for the server's parameters, thin for the replicas' mean and range.

    Where it is not stated, held-out data come first, and error before loss before others. ScenarioError for a run
    without evaluations of that metric.
    """
    if x not in _X_LABELS:
        raise ScenarioError(f"x: must be {either(_X_LABELS)}; got {shortened(repr(x), 40)}")
    evals = {label: tables.read(Path(run), "evals") for label, run in runs.items()}
    split, metric = common_metric(list(evals.values()), split, metric)
    curves = {label: _evaluations(Path(runs[label]), rows, metric, split) for label, rows in evals.items()}
    with style.look():
        fig, (axes,) = style.panels(style.COLUMN_IN, 2.9)
        colors = style.palette(len(curves))
        for rows, color in zip(curves.values(), colors, strict=True):
            _curve(axes, rows, x, color)
        axes.set(xlabel=_X_LABELS[x], ylabel=style.plain(f"{split} {metric}"))
        if metric == "error":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_title(style.plain(_curves_title(curves, metric, split)))
        handles = [
            Line2D([], [], color=color, label=style.plain(label)) for label, color in zip(curves, colors, strict=True)
        ]
        handles += _whose(pd.concat(curves.values())["parameters"])
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def learning_curves(runs: Mapping[Any, Sequence[Path]], title: str | None = None) -> Figure:
    """The held-out error, else the loss, of the server's parameters over minibatches and over time; a colour a label.

    A label has one run, or replications: their mean and range. The mean and the range of the replicas are drawn thin
    where they were evaluated in a single run. `title` is the swept key whose values are the labels. ScenarioError if
    the runs have no evaluation in common, or one each, which are no curves.
    """
    tabled = {label: [tables.read(path, "evals") for path in paths] for label, paths in runs.items()}
    split, metric = common_metric([rows for each in tabled.values() for rows in each])
    chosen = {
        label: [rows[(rows["metric"] == metric) & (rows["split"] == split)] for rows in each]
        for label, each in tabled.items()
    }
    if all(rows.groupby("parameters").size().max() < 2 for each in chosen.values() for rows in each):
        raise ScenarioError("a curve needs several evaluations during the run; give evaluate")
    with style.look():
        labels = [style.value(label) for label in chosen]
        across = 1 if max(map(len, labels)) > 44 else 2 if max(map(len, labels)) > 16 else 4
        legend_in = 0.17 * -(-(len(labels) + 2) // across)
        fig, panels = style.panels(style.PAGE_IN, 2.6 + legend_in, columns=2)
        colors = style.series(list(chosen))
        lines: list[dict[str, Any]] = [  # a colour that comes again is dashed
            {"color": color, "linestyle": "--" if color in colors[:place] else "-"}
            for place, color in enumerate(colors)
        ]
        for axes, x in zip(panels, _X_LABELS, strict=True):
            for rows, line in zip(chosen.values(), lines, strict=True):
                if len(rows) == 1:
                    _curve(axes, rows[0], x, **line)
                else:
                    _mean_curve(axes, rows, x, **line)
            _value_axis(axes, metric)
            axes.set_xlabel(_X_LABELS[x])
        panels[0].set_ylabel(style.plain(f"{split} {metric}"))
        panels[0].set_title(_curves_title({label: pd.concat(rows) for label, rows in chosen.items()}, metric, split))
        panels[1].set_title("The same over the run's clock")
        handles = [
            Line2D([], [], label=shortened(label, 90), **line) for label, line in zip(labels, lines, strict=True)
        ]
        whose = _whose(pd.concat([rows for each in chosen.values() for rows in each])["parameters"])
        handles += whose if len(whose) > 1 else []  # the server's alone need no name
        named = None if title is None else style.labelled(title)
        fig.legend(handles=handles, loc="outside lower center", ncols=across, title=named)
    return fig


def _mean_curve(axes: Axes, runs: Sequence[pd.DataFrame], x: str, color: style.Color, linestyle: str = "-") -> None:
    """The mean and the range of the nth evaluations of several runs; a run that ended earlier ends all."""
    servers = [rows[rows["parameters"] == "server"].sort_values(x) for rows in runs]
    shortest = min(map(len, servers))
    at, values = (np.stack([rows[name].to_numpy()[:shortest] for rows in servers]) for name in (x, "value"))
    axes.plot(at.mean(0), values.mean(0), color=color, linestyle=linestyle, linewidth=1.4)
    axes.fill_between(at.mean(0), values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)


def _value_axis(axes: Axes, metric: str) -> None:
    """Errors in percent from 0; other metrics on a logarithmic axis where they span a wide range."""
    if metric == "error":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_ylim(bottom=0)
        return
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > _WIDE_RANGE * values.min():
        axes.set_yscale("log")


def staleness_histograms(panels: Mapping[str, Mapping[str, Sequence[Path]]]) -> Figure:
    """Shares of applied pushes by staleness: a panel a label, a colour a second label; replications count together."""
    shown = dict(list(panels.items())[:_MOST_PANELS])
    lines = [*dict.fromkeys(line for panel in shown.values() for line in panel)]
    colors = dict(zip(lines, style.series(lines), strict=True))
    with style.look():
        width_in = style.COLUMN_IN if len(shown) == 1 else style.PAGE_IN
        across = 2 if width_in == style.COLUMN_IN else 4
        fig, axes = style.panels(width_in, 2.4 + 0.17 * -(-(len(lines) + 1) // across), columns=len(shown))
        for (label, runs), each in zip(shown.items(), axes, strict=True):
            means, most, last = [], 1, 0
            for line, paths in runs.items():
                counts = Counter[int]()
                for path in paths:
                    histogram = read_results(path)["staleness"]["histogram"]
                    counts.update({int(staleness): count for staleness, count in histogram.items()})
                if counts:
                    shares, edges = _shares({str(staleness): count for staleness, count in counts.items()})
                    mean = float(np.average(list(counts), weights=list(counts.values())))
                    each.stairs(shares, edges, color=colors[line], linewidth=1.3)
                    each.axvline(mean, color=colors[line], linestyle="--", linewidth=0.8)
                    means.append(mean)
                    most = max(most, int(np.searchsorted(np.cumsum(shares), _SHOWN_PUSHES)))
                    last = max(last, len(shares) - 1)
            low, high = (f"{value:.1f}" for value in (min(means, default=0.0), max(means, default=0.0)))
            said = f"mean {low}" if low == high else f"means {low} to {high}"
            each.set_title(f"{style.plain(label)}\n{said}" if label else said)
            cut = f", up to {last}" if last > most else ""
            each.set(xlabel=f"staleness (versions{cut})", xlim=(-0.8, most + 0.8), ylim=(0, None))
            each.xaxis.set_major_locator(MaxNLocator(integer=True))
            each.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes[0].set_ylabel("share of pushes")
        handles = [
            Line2D([], [], color=color, label=style.plain(shortened(line, 60))) for line, color in colors.items()
        ]
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=0.8, label="mean"))
        fig.legend(handles=handles, loc="outside lower center", ncols=across)
        if len(shown) < len(panels):
            fig.suptitle(f"The first {len(shown)} of {len(panels)}")
    return fig


def staleness_histogram(runs: Mapping[str, Path | str]) -> Figure:
    """The share of applied pushes at each staleness, by run, with the mean as a dashed line."""
    histograms = {label: read_results(run)["staleness"] for label, run in runs.items()}
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
            Patch(facecolor=(*color, 0.25), edgecolor=color, label=style.plain(label))
            for label, color in zip(histograms, colors, strict=True)
        ]
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=1, label="mean"))
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def _evaluations(run_dir: Path, evals: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    rows = evals[(evals["metric"] == metric) & (evals["split"] == split)]
    if rows.empty:
        known = sorted(set(evals["split"] + " " + evals["metric"]))
        raise ScenarioError(f"{run_dir}: has no evaluations of {split} {metric}; it has {', '.join(known) or 'none'}")
    return rows


def _curve(axes: Axes, rows: pd.DataFrame, x: str, color: style.Color, linestyle: str = "-") -> None:
    server = rows[rows["parameters"] == "server"].sort_values(x)
    axes.plot(server[x], server["value"], color=color, linestyle=linestyle, linewidth=1.4)
    if len(server) == 1:
        axes.plot(server[x], server["value"], "o", color=color)
    replicas = rows[rows["parameters"].str.startswith("replica-")].sort_values(x)
    nth = replicas.groupby("parameters").cumcount()  # the nth evaluations of all replicas are close in time
    band = replicas.groupby(nth)["value"].agg(["mean", "min", "max"]).set_index(replicas.groupby(nth)[x].mean())
    axes.plot(band.index, band["mean"], color=color, linestyle=linestyle, linewidth=0.7)
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
