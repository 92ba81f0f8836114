"""Results of a sweep over one of its values: a row of panels a metric, a line a second value, a column a third.

Drawn from the table of a sweep alone: a row has the swept values, `metric`, `mean`, `low` and `high` (the 95% interval
over seeds, or NaN). Colours are ordered where the values of the lines are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style

_MOST_FACETS = 4
_WIDE_RANGE = 30.0  # of a metric, above which its axis is logarithmic


class Measure(NamedTuple):
    """A metric, its axis label with its unit, and whether the title names its largest or its smallest value.

    Where neither is known to be better, `best` is None and the title names both.
    """

    metric: str
    label: str
    best: str | None = "max"
    is_share: bool = False
    ideal: bool = False  # in proportion to the number of workers


class _Plan(NamedTuple):
    x: str
    line: str | None
    column: str | None


def over_values(table: pd.DataFrame, measures: Sequence[Measure], x: str | None = None) -> Figure:
    """Each measure over the swept key `x`, else over the swept numbers with the most values.

    ScenarioError if nothing is swept, or no row has one of the measures.
    """
    keys = {key: list(table[key].unique()) for key in table.columns[: list(table.columns).index("metric")]}
    keys = {key: values for key, values in keys.items() if len(values) > 1}
    measures = [measure for measure in measures if table.loc[table["metric"] == measure.metric, "mean"].notna().any()]
    if not keys:
        raise ScenarioError("compares the points of a sweep, and there is one point")
    if not measures:
        raise ScenarioError("has nothing to draw: no point has a number for it")
    plan, table = _planned(keys, table, x)
    lines = [None] if plan.line is None else list(table[plan.line].unique())
    columns = [None] if plan.column is None else list(table[plan.column].unique())
    shown = columns[:_MOST_FACETS]
    with style.look():
        handles = _handles(plan, lines, measures)
        width_in = style.COLUMN_IN if len(shown) * len(measures) == 1 else style.PAGE_IN
        rows, across = (len(measures), len(shown)) if len(shown) > 1 else (1, len(measures))
        legend_in = 0.18 * -(-len(handles) // (2 if width_in == style.COLUMN_IN else 4))
        fig = style.figure(width_in, 2.3 * rows + 0.3 + legend_in)
        grid = fig.subplots(rows, across, squeeze=False, sharey="row" if len(shown) > 1 else False)
        for place, (measure, column) in enumerate((m, c) for m in measures for c in shown):
            axes = grid.flat[place]
            everywhere = table[table["metric"] == measure.metric]
            rows_of = everywhere if column is None else everywhere[everywhere[plan.column] == column]
            _panel(axes, rows_of, plan, lines, measure)
            first = place % across == 0 or len(shown) == 1
            axes.set_ylabel(measure.label if first else "")
            head = f"{style.name(plan.column)} = {style.value(column)}\n" if plan.column is not None else ""
            axes.set_title(head + _finding(rows_of, plan, measure))
        # Panels of a row share their axis: it is set when all of them have their lines.
        # Panels of a row share their axis: it is set when all of them have their lines.
        for place, measure in enumerate(measure for measure in measures for _ in shown):
            numbers = table.loc[table["metric"] == measure.metric, ["mean", "low", "high"]].to_numpy(dtype=np.float64)
            _y_axis(grid.flat[place], numbers[np.isfinite(numbers)], measure)
        if handles:
            title = None if plan.line is None else style.labelled(plan.line)
            fig.legend(
                handles=handles, loc="outside lower center", ncols=4 if width_in > style.COLUMN_IN else 2, title=title
            )
        if len(shown) < len(columns):
            fig.suptitle(f"The first {len(shown)} of {len(columns)} values of {style.name(str(plan.column))}")
    return fig


def _planned(keys: dict[str, list[Any]], table: pd.DataFrame, x: str | None) -> tuple[_Plan, pd.DataFrame]:
    """The keys of the axis, the lines and the columns; several keys of columns are joined into one."""
    numbers = [key for key, values in keys.items() if all(style.is_number(value) for value in values)]
    if x is None or x not in keys:
        candidates = numbers or list(keys)
        x = max(candidates, key=lambda key: (len(keys[key]), list(keys).index(key)))
    others = sorted((key for key in keys if key != x), key=lambda key: len(keys[key]), reverse=True)
    if len(others) <= 2:
        return _Plan(x, *others, *[None] * (2 - len(others))), table
    rest = others[1:]
    joined = table[rest].apply(lambda row: ", ".join(f"{style.name(k)}={style.value(row[k])}" for k in rest), axis=1)
    name = " and ".join(style.name(key) for key in rest)
    return _Plan(x, others[0], name), table.assign(**{name: joined})


def _panel(axes: Axes, rows: pd.DataFrame, plan: _Plan, lines: Sequence[Any], measure: Measure) -> None:
    values = list(rows[plan.x].unique())
    is_numeric = all(style.is_number(value) for value in values)
    places = {value: float(value) if is_numeric else float(index) for index, value in enumerate(values)}
    for line, color in zip(lines, style.series(lines), strict=True):
        mine = rows if line is None else rows[rows[plan.line] == line]
        at = np.array([places[value] for value in mine[plan.x]])
        order = np.argsort(at)
        mean, low, high = (mine[name].to_numpy(dtype=np.float64)[order] for name in ("mean", "low", "high"))
        spread = np.nan_to_num(np.stack([mean - low, high - mean])).clip(min=0)
        style_of_line = "-" if is_numeric else "none"
        axes.errorbar(at[order], mean, spread, fmt="o", linestyle=style_of_line, color=color, capsize=2, elinewidth=0.9)
    if measure.ideal:
        span = np.geomspace(min(places.values()), max(places.values()), 50)
        axes.plot(span, span / span[0], linestyle=":", color=style.REFERENCE, linewidth=1)
    _x_axis(axes, plan.x, values, is_numeric)


def _x_axis(axes: Axes, key: str, values: Sequence[Any], is_numeric: bool) -> None:
    axes.set_xlabel(style.labelled(key))
    if is_numeric:
        style.number_axis(axes, sorted(map(float, values)))
    else:
        axes.set_xticks(range(len(values)), labels=[style.wrapped(style.value(value)) for value in values])
        axes.tick_params(axis="x", labelrotation=90 if len(values) > 4 else 0)
    axes.margins(x=0.08)


def _y_axis(axes: Axes, numbers: Any, measure: Measure) -> None:
    if measure.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    positive = numbers[numbers > 0]
    if measure.ideal and len(positive) and positive.max() > 4 * positive.min():
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif len(positive) == len(numbers) and len(numbers) and numbers.max() > _WIDE_RANGE * numbers.min():
        axes.set_yscale("log")
    elif not measure.is_share or (len(numbers) and numbers.min() >= 0):
        axes.set_ylim(bottom=0)


def _finding(rows: pd.DataFrame, plan: _Plan, measure: Measure) -> str:
    """The best value, and the values of the sweep that it belongs to."""
    known = rows[rows["mean"].notna()]
    if known.empty:
        return "no point has it"
    form = ".1%" if measure.is_share else ".3g"
    if measure.best is None:
        return f"from {known['mean'].min():{form}} to {known['mean'].max():{form}}"
    best = known.sort_values("mean", ascending=measure.best == "min", kind="stable").iloc[0]
    said = f"{best['mean']:{form}}"
    at = [plan.x, *([plan.line] if plan.line is not None else [])]
    where = ", ".join(f"{style.name(key)} {style.value(best[key])}" for key in at)
    return f"{'highest' if measure.best == 'max' else 'lowest'}: {said}\nat {style.shortened(where, 40)}"


def _handles(plan: _Plan, lines: Sequence[Any], measures: Sequence[Measure]) -> list[Line2D]:
    handles = []
    if plan.line is not None:
        for line, color in zip(lines, style.series(lines), strict=True):
            handles.append(Line2D([], [], color=color, marker="o", label=style.shortened(style.value(line), 40)))
    if any(measure.ideal for measure in measures):
        handles.append(Line2D([], [], linestyle=":", color=style.REFERENCE, linewidth=1, label="ideal"))
    return handles
