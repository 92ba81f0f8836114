"""A plot as a picture of lines, rectangles and texts: the places of everything, for the template that writes SVG.

It is what a reader without JavaScript sees, and what is printed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asgd_lab.reports.content import Axis, Plot, Series

WIDTH, WIDE = 560.0, 1140.0
LEFT, RIGHT, TOP, BELOW = 64.0, 14.0, 12.0, 52.0
LINE_HEIGHT, CHARACTER = 20.0, 7.4  # of the legend and the labels, with letters of 13 units
MOST_LABEL = 30  # characters
TICKS = 6
_MARGIN = 0.04  # of an axis, at both its ends

Scale = Callable[[float], float]


class Label(NamedTuple):
    """A text and its place; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


class Shape(NamedTuple):
    """A path, with the name of its colour; `kind` is the class of the style sheet: line, dashed, reference or fill."""

    path: str
    color: str
    kind: str


class Key(NamedTuple):
    """An entry of the legend."""

    x: float
    y: float
    text: str
    color: str
    kind: str


@dataclass(slots=True)
class Picture:
    """All parts of the drawing, in the units of its view box."""

    width: float
    height: float
    x_title: Label
    y_title: Label
    grid: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


def picture(plot: Plot) -> Picture:
    """All shapes and texts of the plot, with their places."""
    width = WIDE if plot.wide else WIDTH
    names = [_cut(name) for name in plot.y.categories]
    left = max(LEFT, 14 + CHARACTER * max(map(len, names), default=0))
    keys, legend_height = _legend(plot.series, left, width)
    bottom = TOP + plot.height - BELOW
    x_title = Label((left + width - RIGHT) / 2, bottom + 40, plot.x.title)
    y_title = Label(14, (TOP + bottom) / 2, plot.y.title)
    found = Picture(width, plot.height + legend_height, x_title, y_title)
    x_range, y_range = _range(plot, plot.x, "x"), _range(plot, plot.y, "y")
    across = _scale(plot.x, x_range, left, width - RIGHT)
    up = _scale(plot.y, y_range, bottom, TOP)
    for value, text in _ticks(plot.y, y_range):
        at = up(value)
        found.grid.append(f"M{left:.1f} {at:.1f}H{width - RIGHT:.1f}")
        found.labels.append(Label(left - 8, at + 4.5, text, "end"))
    last = -math.inf
    for value, text in _ticks(plot.x, x_range):
        at = across(value)
        if at - len(text) * CHARACTER / 2 < last + 6:  # it would run into the label before it
            continue
        last = at + len(text) * CHARACTER / 2
        found.labels.append(Label(at, bottom + 19, text))
    found.grid.append(f"M{left:.1f} {bottom:.1f}H{width - RIGHT:.1f}")
    for series in plot.series:
        found.shapes.extend(_shapes(series, across, up, _bar_width(plot, across)))
    found.keys = [key._replace(y=key.y + plot.height + 2) for key in keys]
    return found


def _shapes(series: Series, across: Scale, up: Scale, bar_width: float) -> Iterator[Shape]:
    if series.mark in ("bar", "span"):
        yield Shape(" ".join(_rectangles(series, across, up, bar_width)), series.color, "fill")
        return
    points = [(across(x), up(y)) for x, y in zip(series.x, series.y, strict=True) if _drawable(x, y)]
    if series.mark == "steps":
        points = [corner for one, two in itertools.pairwise(points) for corner in (one, (two[0], one[1]))]
    if series.mark != "points" and len(points) > 1:
        kind = "reference" if series.mark == "reference" else "dashed" if series.dashed else "line"
        yield Shape("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), series.color, kind)
    if series.mark == "points" or (series.mark == "line" and len(points) <= TICKS * 2):
        dots = (f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0" for x, y in points)
        yield Shape(" ".join(dots), series.color, "fill")
    whiskers = [
        f"M{across(x):.1f} {up(low):.1f}V{up(high):.1f}"
        for x, low, high in zip(series.x, series.low, series.high, strict=False)
        if _drawable(x, low) and _drawable(x, high) and high > low
    ]
    if whiskers:
        yield Shape(" ".join(whiskers), series.color, "line")


def _rectangles(series: Series, across: Scale, up: Scale, bar_width: float) -> Iterator[str]:
    if series.mark == "span":
        for x, lane, length in zip(series.x, series.y, series.length, strict=True):
            left, right = across(x), across(x + length)
            top, low = up(lane + 0.4), up(lane - 0.4)
            yield f"M{left:.1f} {top:.1f}H{max(right, left + 0.4):.1f}V{low:.1f}H{left:.1f}Z"
        return
    bases = series.base or [0.0] * len(series.x)
    for x, height, base in zip(series.x, series.y, bases, strict=True):
        if _drawable(x, height) and height:
            left, top, low = across(x) - bar_width / 2, up(base + height), up(base)
            yield f"M{left:.1f} {top:.1f}h{bar_width:.1f}V{low:.1f}h{-bar_width:.1f}Z"


def _bar_width(plot: Plot, across: Scale) -> float:
    places = sorted({across(x) for series in plot.series if series.mark == "bar" for x in series.x})
    gaps = [two - one for one, two in itertools.pairwise(places)]
    return 0.8 * min(gaps, default=80.0)


def _legend(series: Sequence[Series], left: float, width: float) -> tuple[list[Key], float]:
    """Its entries in lines, from y = 0 on, and its height."""
    named = [each for each in series if each.name]
    if len(named) < 2 and all(each.mark != "reference" for each in named):
        return [], 0.0
    keys, x, y = [], left, LINE_HEIGHT - 6
    for each in named:
        text = _cut(each.name, 60)
        needed = 26 + CHARACTER * len(text) + 16
        if x > left and x + needed > width - RIGHT:
            x, y = left, y + LINE_HEIGHT
        kind = "fill" if each.mark in ("bar", "span", "points") else "reference" if each.mark == "reference" else ""
        keys.append(Key(x, y, text, each.color, kind or ("dashed" if each.dashed else "line")))
        x += needed
    return keys, y + 8


def _cut(text: str, most: int = MOST_LABEL) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _range(plot: Plot, axis: Axis, name: str) -> tuple[float, float]:
    """The ends of an axis, with a margin; of a logarithmic one as logarithms."""
    if axis.categories:
        return -0.6, len(axis.categories) - 0.4
    values = [value for series in plot.series for value in _values(series, name) if math.isfinite(value)]
    if axis.log:
        logs = [math.log10(value) for value in values if value > 0] or [0.0, 1.0]
        margin = _MARGIN * (max(logs) - min(logs)) or 0.3
        return min(logs) - margin, max(logs) + margin
    low, high = min(values, default=0.0), max(values, default=1.0)
    if axis.from_zero:
        low = min(low, 0.0)
    margin = _MARGIN * (high - low) or abs(high) * 0.1 or 0.5
    return (low if axis.from_zero and low == 0 else low - margin), high + margin


def _values(series: Series, name: str) -> Iterator[float]:
    if name == "x":
        yield from series.x
        yield from (x + length for x, length in zip(series.x, series.length, strict=False))
        return
    yield from series.low
    yield from series.high
    if series.base:
        yield from (y + base for y, base in zip(series.y, series.base, strict=True))
    yield from series.y


def _scale(axis: Axis, ends: tuple[float, float], begin: float, end: float) -> Scale:
    low, high = ends

    def place(value: float) -> float:
        at = (math.log10(value) if value > 0 else low) if axis.log else value
        return begin + (at - low) / (high - low) * (end - begin)

    return place


def _ticks(axis: Axis, ends: tuple[float, float]) -> list[tuple[float, str]]:
    low, high = ends
    if axis.categories:
        every = -(-len(axis.categories) // 24)
        return [(float(at), _cut(name)) for at, name in enumerate(axis.categories) if at % every == 0]
    if axis.values:
        return [(value, f"{value:g}") for value in axis.values]
    if axis.log:
        decades = range(math.ceil(low), math.floor(high) + 1)
        steps = (1, 2, 5) if len(decades) < 3 else (1,)
        found = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in steps]
        return [(value, _number(axis, value)) for value in found if low <= math.log10(value) <= high]
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, _number(axis, number * step)) for number in count]


def _number(axis: Axis, value: float) -> str:
    return f"{100 * value:.4g}%" if axis.percent else f"{value:.6g}"


def _drawable(x: float, y: float) -> bool:
    return math.isfinite(x) and math.isfinite(y)
