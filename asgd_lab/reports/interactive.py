"""A plot as a figure of Plotly: plain data that the page's script passes to the library in the browser.

Colours stay names of the style sheet's variables, which the script replaces. Texts are escaped, since
Plotly reads a few tags.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from asgd_lab.reports.content import Axis, Plot, Series

_FEW = 40  # points of a line that are marked


def figure(plot: Plot) -> dict[str, Any]:
    """Data and layout for `Plotly.react`."""
    lanes = any(series.mark == "span" for series in plot.series)
    several = len([series for series in plot.series if series.name]) > 1
    layout: dict[str, Any] = {
        "height": plot.height,
        "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--muted)", "font": {"color": "var(--ink)"}},
        "hovermode": "closest",
        "barmode": "overlay",
        "bargap": 0.2,
        "showlegend": several or any(series.mark == "reference" for series in plot.series),
        "legend": {"orientation": "h", "x": 0, "yanchor": "top"},
        "xaxis": _axis(plot.x),
        "yaxis": _axis(plot.y) | ({"fixedrange": True, "showgrid": False} if lanes else {}),
    }
    return {"data": [_trace(plot, series) for series in plot.series], "layout": layout}


def escaped(text: str) -> str:
    """The text, without a tag that Plotly would take for one of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": {"text": escaped(axis.title), "standoff": 8},
        "automargin": True,
        "gridcolor": "var(--line)",
        "linecolor": "var(--muted)",
        "zeroline": False,
        "tickfont": {"size": 12},
    }
    if axis.categories:
        places = list(range(len(axis.categories)))
        texts = [escaped(name if len(name) <= 30 else f"{name[:29]}…") for name in axis.categories]
        found |= {"tickvals": places, "ticktext": texts, "range": [-0.6, len(places) - 0.4]}
    elif axis.values:
        found |= {"tickvals": list(axis.values), "ticktext": [f"{value:g}" for value in axis.values]}
    if axis.log:
        found["type"] = "log"
    elif axis.from_zero:
        found["rangemode"] = "tozero"
    if axis.percent:
        found["tickformat"] = ".2~%"
    return found


def _trace(plot: Plot, series: Series) -> dict[str, Any]:
    color = f"var(--{series.color})"
    found: dict[str, Any] = {"name": escaped(series.name), "showlegend": bool(series.name)}
    value = ":.1%" if plot.y.percent else ":.4~g"
    told = f"{escaped(plot.x.title)}: %{{x}}<br>{escaped(plot.y.title)}: %{{y{value}}}"
    if series.notes:
        found["text"] = [escaped(note) for note in series.notes]
        told = "%{text}"
    found["hovertemplate"] = f"{told}<extra>%{{fullData.name}}</extra>" if series.name else f"{told}<extra></extra>"
    if series.mark in ("bar", "span"):
        marker = {"color": color, "line": {"color": "var(--card)", "width": 0.5 if series.mark == "bar" else 0}}
        found |= {"type": "bar", "marker": marker, "textposition": "none"}
        if series.mark == "span":
            lanes = {"base": _plain(series.x), "x": _plain(series.length), "y": _plain(series.y)}
            return found | lanes | {"orientation": "h", "width": 0.8}
        base = {"base": _plain(series.base)} if series.base else {}
        return found | {"x": _plain(series.x), "y": _plain(series.y)} | base
    lined = "lines+markers" if series.mark == "line" and len(series.x) <= _FEW else "lines"
    dash = "dot" if series.mark == "reference" else "dash" if series.dashed else "solid"
    found |= {
        "type": "scatter",
        "mode": "markers" if series.mark == "points" else lined,
        "x": _plain(series.x),
        "y": _plain(series.y),
        "line": {"color": color, "dash": dash, "width": 2, "shape": "hv" if series.mark == "steps" else "linear"},
        "marker": {"color": color, "size": 8},
    }
    if series.low and any(low is not None for low in _plain(series.low)):
        above = [high - y for high, y in zip(series.high, series.y, strict=True)]
        below = [y - low for low, y in zip(series.low, series.y, strict=True)]
        found["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": _plain(above),
            "arrayminus": _plain(below),
            "color": color,
            "thickness": 1.2,
        }
    return found


def _plain(values: Iterable[float] | Sequence[float]) -> list[float | None]:
    """The numbers, with null for those that JSON has not; seven digits are more than a screen shows."""
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]
