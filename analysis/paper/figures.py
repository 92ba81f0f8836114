"""Figures 1 to 4 of Paine et al. 2013, redrawn from the tables that `collect` wrote; bands are ranges over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from cells import COSTS, FITS, OPTIMUM, PASS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from asgd_lab.figures import style

ALPHA = 0.18
WHOSE = {"replicas own": "replicas, own minibatches", "server train": "server, training samples"}


def figure_1(curves: pd.DataFrame) -> Figure:
    """Test and training error by passes of a client, and by virtual days."""
    labels = {
        "figure-1": "8 clients",
        "figure-1-with-schedule": "8 clients, rate divided as 1 client's",
        "figure-1-one-client": "1 client",
    }
    chosen = curves[curves["experiment"].isin(labels)].assign(passes=curves["steps"] / PASS, days=curves["hours"] / 24)
    with style.look():
        fig, (left, right) = style.panels(style.PAGE_IN, 2.7, 2)
        colors = dict(zip(labels.values(), style.palette(3), strict=True))
        for axes, x in ((left, "passes"), (right, "days")):
            for experiment, label in labels.items():
                for whose, line in (("server test", "-"), ("server train", ":"), ("replicas' test", "--")):
                    rows = chosen[(chosen["experiment"] == experiment) & (chosen["whose"] == whose)]
                    if len(rows):
                        named = f"{label}, {whose.replace('server ', '')} error"
                        _band(axes, rows, x, color=colors[label], linestyle=line, label=named)
            axes.set(xlabel={"passes": "passes over the data, per client", "days": "virtual days"}[x])
        _finish(fig, left, "8 clients with n_sync 600, and 1 client's whole schedule")
    return fig


def figure_2(curves: pd.DataFrame) -> Figure:
    """The cold start, at each cost of a synchronisation."""
    chosen = curves[(curves["experiment"] == "figure-2") & (curves["whose"] == "replicas own")]
    fits = [fit for fit in FITS if fit in set(chosen["costs"])]
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.7, len(fits))
        for axes, fit in zip(panels, fits, strict=True):
            _family(axes, chosen[chosen["costs"] == fit], "workers", "clients")
            axes.set_title(fit.removeprefix("paine-2013-").replace("software", "90-passes").replace("-", " "))
        _finish(fig, panels[0], None)
    return fig


def figure_3(curves: pd.DataFrame) -> Figure:
    """After the warm start: n_sync with 8 clients, and the number of clients at n_sync 100; replicas and server."""
    chosen = _experiment_3(curves)
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.7, 4)
        for axes, (whose, column) in zip(
            panels, [(whose, column) for whose in WHOSE for column in ("n_sync", "workers")], strict=True
        ):
            fixed = {"n_sync": ("workers", 8), "workers": ("n_sync", 100)}[column]
            rows = chosen[(chosen["whose"] == whose) & (chosen[fixed[0]] == fixed[1])]
            _family(axes, rows, column, {"n_sync": "n_sync", "workers": "clients"}[column])
            axes.set_title(f"{whose.split()[0]}, {'8 clients' if column == 'n_sync' else 'n_sync 100'}")
        _finish(fig, panels[0], None)
    return fig


def figure_4(runs: pd.DataFrame) -> Figure:
    """Error after 24 hours against n_sync, by clients; bars are 95% intervals over seeds. The crossed one is new."""
    chosen = runs[(runs["experiment"] == "figures-3-and-4") & (runs["costs"] == COSTS)]
    rates = sorted(chosen["lr"].unique())
    with style.look():
        fig, panels = style.panels(style.PAGE_IN, 2.9, 2 * len(rates))
        for place, (lr, column) in enumerate((lr, column) for lr in rates for column in ("own", "server train")):
            axes, rows = panels[place], chosen[np.isclose(chosen["lr"], lr)]
            workers = sorted(rows["workers"].unique())
            sns.lineplot(
                rows, x="n_sync", y=column, hue="workers", style="workers", palette=style.palette(len(workers)),
                dashes=False, markers=["o", "s", "D", "^"][: len(workers)], err_style="bars", ax=axes,
                errorbar=lambda values: _interval(values), legend=place == 0,
            )  # fmt: skip
            missing = rows[(rows["workers"] == 2) & (rows["n_sync"] == 300)]
            axes.plot(missing["n_sync"].unique(), [missing[column].mean()] if len(missing) else [], "kx", markersize=7)
            axes.set_title(f"{'replicas' if column == 'own' else 'server'}, {lr / OPTIMUM:.0f} x lr")
            axes.set(xticks=sorted(rows["n_sync"].unique()), ylabel="")
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].get_legend().remove()
        fig.legend(
            handles, [f"{label} client{'s'[: label != '1']}" for label in labels], loc="outside lower center", ncols=4
        )
        _finish(fig, panels[0], None)
        for axes in panels:
            axes.set_xlabel("n_sync")
    return fig


def _experiment_3(curves: pd.DataFrame) -> pd.DataFrame:
    rows = curves[(curves["experiment"] == "figures-3-and-4") & (curves["costs"] == COSTS)]
    return rows[np.isclose(rows["lr"], OPTIMUM)]


def _family(axes: Axes, rows: pd.DataFrame, column: str, title: str) -> None:
    values = sorted(rows[column].unique())
    for value, color in zip(values, style.palette(len(values)), strict=True):
        _band(axes, rows[rows[column] == value], "hours", color=color, label=str(value))
    axes.set_xlabel("virtual hours")
    axes.legend(title=title)


def _band(axes: Axes, rows: pd.DataFrame, x: str, **look: object) -> None:
    """The mean over seeds, and their range."""
    placed = rows.assign(place=rows.groupby("run").cumcount()).groupby("place")
    at, errors = placed[x].mean(), placed["error"]
    axes.plot(at, errors.mean(), **look)  # type: ignore[arg-type]
    axes.fill_between(at, errors.min(), errors.max(), color=look["color"], alpha=ALPHA, linewidth=0)  # type: ignore[arg-type]


def _interval(values: pd.Series) -> tuple[float, float]:
    from asgd_lab.record.replications import estimate

    found = estimate(values.tolist())
    half = 0.0 if np.isnan(found.half_width) else found.half_width
    return found.mean - half, found.mean + half


def _finish(fig: Figure, first: Axes, title: str | None) -> None:
    limits = [axes.get_ylim() for axes in fig.axes]
    for axes in fig.axes:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    first.set_ylabel("error")
    if title is not None:
        handles, labels = first.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=3)
        first.set_title(title)


FIGURES: Mapping[str, str] = {
    "paper-figure-1": "figure_1",
    "paper-figure-2": "figure_2",
    "paper-figure-3": "figure_3",
    "paper-figure-4": "figure_4",
}
