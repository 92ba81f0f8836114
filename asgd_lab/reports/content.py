"""The content of a report before it has a form: sections of sentences, tables and plots.

A plot is stated once: `static_svg` draws it for print and for readers without JavaScript, `interactive` for browsers.
Colours are names of variables of the page's style sheet, so that the page decides on light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Mark = Literal["line", "points", "steps", "bar", "span", "reference"]
"""The form of a series: reference is a dotted line of comparison; span is a rectangle along the horizontal axis."""

SERIES_COLORS = 8  # of the style sheet: s0 to s7


class Axis(NamedTuple):
    """An axis: its title with the unit, and its scale."""

    title: str
    log: bool = False
    percent: bool = False
    from_zero: bool = False
    categories: tuple[str, ...] = ()  # names of the places 0, 1, ..., for values that are no numbers
    values: tuple[float, ...] = ()  # the ticks, if they are stated


@dataclass(frozen=True, slots=True)
class Series:
    """One line, set of points or set of rectangles; `low` and `high` are the ends of an interval at each point.

    A bar lies on its `base`; a span begins at `x`, has a `length` and lies in the lane `y`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    mark: Mark = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    length: Sequence[float] = ()
    base: Sequence[float] = ()
    notes: Sequence[str] = ()  # on each point, shown under the pointer
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with a title that says what is seen."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    wide: bool = False  # over the full width of the page
    height: int = 320


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; its first column names the row."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    is_text: bool = False  # words rather than numbers


class Trace(NamedTuple):
    """A run's trace.json for a viewer of traces; packed (gzip, base64) where it is small, else chosen by the reader."""

    path: str
    title: str
    packed: str = ""


@dataclass(slots=True)
class Section:
    """The answer to one question: one sentence; `is_answered` is False where the sentence says why there is none."""

    answer: str
    is_answered: bool = True
    parts: list[Plot | Table | Trace] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def unanswered(cls, why: str) -> Section:
        """A section without an answer."""
        return cls(why, is_answered=False)
