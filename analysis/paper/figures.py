"""Figures 1 to 4 of Paine et al. 2013, and one of jags, from the tables that `collect` wrote.

Both measures are in each, the server's and the replicas'.

Bands are ranges over seeds, bars 95% intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from cells import COSTS, FITS, N_SYNC, OWN, OWN_CURVE, PASS, RATE, SERVER
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, PercentFormatter

from asgd_lab.figures import style
from asgd_lab.record.replications import estimate

ALPHA = 0.18
WHOSE = {OWN_CURVE: "replicas", SERVER: "server"}
CLIENTS = (1, 2, 4, 8)


def figure_1(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Test and training error by passes of a client, and test error by virtual days."""
    labels = {
        "figure-1": "8 clients",
        "figure-1-with-schedule": "8 clients, rate divided as 1 client's",
        "figure-1-one-client": "1 client",
    }
    chosen = curves[curves["experiment"].isin(labels)].assign(passes=curves["steps"] / PASS, days=curves["hours"] / 24)
    lines = {"server test": "-", "replicas' test": "--", "server train": ":", "replicas' train": "-."}
    with style.look():
        fig, (left, right) = style.panels(style.PAGE_IN, 3.0, 2)
        colors = dict(zip(labels.values(), style.palette(3), strict=True))
        for axes, x in ((left, "passes"), (right, "days")):
            for experiment, label in labels.items():
                for whose, line in lines.items():
                    rows = chosen[(chosen["experiment"] == experiment) & (chosen["whose"] == whose)]
                    if len(rows) and (axes is left or whose.endswith("test")):
                        _band(axes, rows, x, color=colors[label], linestyle=line)
            axes.set(xlabel={"passes": "passes over the data, per client", "days": "virtual days"}[x])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        lowest = chosen.loc[chosen["whose"] == "server test", "error"].min()
        right.set_ylim(lowest - 0.01, lowest + 0.12)
        left.set_ylabel("test and training error")
        right.set_ylabel("test error")
        keys = [Line2D([], [], color=color, label=label) for label, color in colors.items()]
        keys += [Line2D([], [], color="0.3", linestyle=line, label=whose) for whose, line in lines.items()]
        fig.legend(handles=keys, loc="outside lower center", ncols=4)
    return fig


def figure_2(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """The cold start, at each cost of a synchronisation."""
    chosen = curves[curves["experiment"] == "figure-2"]
    fits = [fit for fit in FITS if fit in set(chosen["costs"])]
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.7, 2 * len(fits))
        for axes, (whose, fit) in zip(panels, [(whose, fit) for whose in WHOSE for fit in fits], strict=True):
            _family(axes, chosen[(chosen["costs"] == fit) & (chosen["whose"] == whose)], "workers")
            axes.set_title(f"{WHOSE[whose]},\n{FITS[fit]}")
        _shared(panels)
        _one_legend(fig, panels, "clients")
    return fig


def figure_3(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """After the warm start: 1 to 8 clients at each n_sync; replicas above, the server below."""
    chosen = curves[(curves["experiment"] == "figures-3-and-4") & (curves["costs"] == COSTS)]
    chosen = chosen[np.isclose(chosen["lr"], RATE)]
    with style.look():
        fig = Figure(figsize=(style.PAGE_IN, 4.2), layout="constrained")
        grid = fig.subplots(2, len(N_SYNC), sharex=True, sharey=True)
        for row, whose in zip(grid, WHOSE, strict=True):
            for axes, n in zip(row, N_SYNC, strict=True):
                _family(axes, chosen[(chosen["whose"] == whose) & (chosen["n_sync"] == n)], "workers")
                axes.set_title(f"{WHOSE[whose]}, n_sync {n}")
                axes.set_xlabel("virtual hours" if whose == SERVER else "")
        _shared([*grid.flat])
        _one_legend(fig, [*grid.flat], "clients")
        grid[1][0].set_ylabel("training error")
    return fig


def jags(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """One client's curve, smoothed as the paper's, and the server's: with stale updates, and in lock-step."""
    chosen = curves[np.isclose(curves["lr"], 2 * RATE) & (curves["workers"] == 8) & (curves["seed"] == 0)]
    chosen = chosen[(chosen["costs"] == COSTS) & (chosen["hours"] > 12)]
    cells = {"figures-3-and-4": "", "without-staleness": ", lock-step"}
    lines = {"client 0, smoothed": "one client, means of 400 minibatches", "server test": "server, test error"}
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.3, 4)
        shown = [(experiment, n) for experiment in cells for n in (100, 900)]
        for axes, (experiment, n) in zip(panels, shown, strict=True):
            rows = chosen[(chosen["experiment"] == experiment) & (chosen["n_sync"] == n)]
            for (whose, label), color in zip(lines.items(), style.palette(2), strict=True):
                line = rows[rows["whose"] == whose]
                axes.plot(line["hours"], line["error"], color=color, label=label, linewidth=0.9)
            axes.set_title(f"n_sync {n}{cells[experiment]}")
            axes.set_xlabel("virtual hours")
        _shared(panels)
        panels[0].set_ylabel("error")
        _one_legend(fig, panels)
    return fig


def figure_4(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Error after 24 hours against n_sync, by clients. The crossed point is one that the paper lacks."""
    chosen = runs[(runs["experiment"] == "figures-3-and-4") & (runs["costs"] == COSTS)]
    rates = sorted(chosen["lr"].unique())
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.9, 2 * len(rates))
        for axes, (lr, whose) in zip(panels, [(lr, whose) for lr in rates for whose in (OWN, SERVER)], strict=True):
            for place, (count, color) in enumerate(zip(CLIENTS, style.palette(len(CLIENTS)), strict=True)):
                rows = chosen[np.isclose(chosen["lr"], lr) & (chosen["workers"] == count)]
                found = {n: estimate(cell[whose].tolist()) for n, cell in rows.groupby("n_sync")}
                at = np.array([*found]) + 20 * (place - 1.5)  # beside each other
                means, halves = ([getattr(each, part) for each in found.values()] for part in ("mean", "half_width"))
                axes.errorbar(at, means, np.nan_to_num(halves), color=color, marker="osD^"[place], markersize=4,
                              label=f"{count} client{'s'[: count != 1]}")  # fmt: skip
                if count == 2 and 300 in found:
                    axes.plot(at[[*found].index(300)], found[300].mean, "kx", markersize=7)
            axes.set_title(f"{'replicas' if whose == OWN else 'server'}, rate {lr:g}")
            axes.set(xticks=N_SYNC, xlabel="n_sync")
        _shared(panels)
        _one_legend(fig, panels)
    return fig


FIGURES: Mapping[str, Callable[[pd.DataFrame, pd.DataFrame], Figure]] = {
    "paper-figure-1": figure_1,
    "paper-figure-2": figure_2,
    "paper-figure-3": figure_3,
    "paper-figure-4": figure_4,
    "paper-jags": jags,
}


def _family(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    values = sorted(rows[column].unique())
    for value, color in zip(values, style.palette(len(values)), strict=True):
        _band(axes, rows[rows[column] == value], "hours", color=color, label=str(value))
    axes.set_xlabel("virtual hours")


def _band(axes: Axes, rows: pd.DataFrame, x: str, **look: object) -> None:
    """The mean over seeds, and their range."""
    placed = rows.assign(place=rows.groupby("run").cumcount()).groupby("place")
    at, errors = placed[x].mean(), placed["error"]
    axes.plot(at, errors.mean(), **look)  # type: ignore[arg-type]
    axes.fill_between(at, errors.min(), errors.max(), color=look["color"], alpha=ALPHA, linewidth=0)  # type: ignore[arg-type]


def _one_legend(fig: Figure, panels: Sequence[Axes], title: str | None = None) -> None:
    handles, names = panels[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=5, title=title)


def _shared(panels: Sequence[Axes]) -> None:
    """One scale of errors for all."""
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axes.yaxis.set_major_locator(MultipleLocator(0.05))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[0].set_ylabel("training error")
