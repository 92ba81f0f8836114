"""One look for all figures, sized for a paper's column; the caller's matplotlib settings and backend stay.

Figures are made inside `with look():` from Figure objects, never from pyplot's state.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from asgd_lab.record import atomic_files

COLUMN_IN = 3.5
PAGE_IN = 7.16
INLINE_DPI = 110  # in a notebook
REFERENCE = "0.45"  # the grey of reference lines

Color = tuple[float, float, float]
_LIGHTEST = 0.66  # of the ordered colours, 0 to 1
_DISTINCT = ("#0173b2", "#d55e00", "#117733", "#882255", "#7a7a7a", "#aa4499", "#8f6b00", "#000000")
_WIDE = 8.0  # of numbers on an axis, above which it is logarithmic
_UNITS = {
    "_bytes_per_s": "bytes/s",
    "_bytes": "bytes",
    "_s": "s",
    "n_sync": "minibatches",
    "n_fetch": "minibatches",
    "n_push": "minibatches",
}
"""The unit of a key by its ending; a name that is all ending stays."""

_SIZES = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


@contextmanager
def look() -> Iterator[None]:
    """Use our matplotlib settings inside."""
    settings: Any = {
        **sns.axes_style("whitegrid"),
        **_SIZES,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "0.9",
        "legend.frameon": False,
        "pdf.fonttype": 42,  # text stays text in the file
    }
    with matplotlib.rc_context(settings):
        yield


def palette(count: int) -> list[Color]:
    """`count` colours that colour-blind readers can tell apart; they repeat after ten."""
    return list(sns.color_palette("colorblind", count))


class Inline(Figure):
    """A figure that a notebook shows by itself, without pyplot and its backends."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        with look():
            self.savefig(png, format="png", dpi=INLINE_DPI)
        return png.getvalue()


def figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of that size."""
    return Inline(figsize=(width_in, height_in), layout="constrained")


def series(values: Sequence[Any]) -> list[Color]:
    """A colour for each line of a panel: from dark to light where the values are numbers, else distinct ones.

    Each has a contrast of at least 3 to a white ground.
    """
    if len(values) > 1 and all(is_number(value) for value in values):
        shades = matplotlib.colormaps["plasma"](np.linspace(0.0, _LIGHTEST, len(values)))
        ranks = np.argsort(np.argsort(np.array(values, dtype=np.float64)))
        return [(float(red), float(green), float(blue)) for red, green, blue, _ in shades[ranks]]
    return [to_rgb(_DISTINCT[index % len(_DISTINCT)]) for index in range(len(values))]


def contrast(one: Any, other: Any) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.1, section 1.4.3)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def ink(ground: Any) -> str:
    """Black or white, whichever is easier to read on the ground; its contrast is at least 4.5."""
    return max(("k", "w"), key=lambda color: contrast(color, ground))


def _luminance(color: Any) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return float(np.dot((0.2126, 0.7152, 0.0722), parts))


def is_number(value: Any) -> bool:
    """Whether a swept value is a number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def plain(text: str) -> str:
    """Text of the user as matplotlib shows it literally: without mathematics between dollars, and with a leading
    underscore, by which a legend leaves an entry out.
    """
    return re.sub(r"^(?=_)", " ", re.sub(r"(?<!\\)\$", r"\$", text))


def name(key: str) -> str:
    """The last part of a dotted key."""
    return plain(key.rpartition(".")[2])


def labelled(key: str) -> str:
    """The name of a key for an axis, with its unit."""
    last = name(key)
    ending = next((ending for ending in _UNITS if last.endswith(ending)), None)
    unit = _UNITS[ending] if ending is not None else ""
    return f"{last.removesuffix(ending or '') or last} ({unit})" if unit else last


def value(swept: Any) -> str:
    """A swept value as text."""
    return f"{swept:g}" if is_number(swept) else plain(str(swept))


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def wrapped(text: str, width: int = 18) -> str:
    """The text in lines of that width, at most three."""
    lines = textwrap.wrap(text, width, break_long_words=True)
    return "\n".join(lines[:3]) + ("..." if len(lines) > 3 else "")


def number_axis(axes: Axes, values: Sequence[float]) -> None:
    """Label these values of the horizontal axis, which is logarithmic where they span a wide range."""
    if values[0] > 0 and values[-1] / values[0] >= _WIDE:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def panels(width_in: float, height_in: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with one row of independent panels."""
    fig = figure(width_in, height_in)
    return fig, list(fig.subplots(1, columns, squeeze=False)[0])


def save(fig: Figure, path: Path | str) -> list[Path]:
    """Write PATH.png (200 dpi) and PATH.pdf, and return their paths; a suffix .png or .pdf of `path` is dropped."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".pdf") else path
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    with look(), atomic_files.replacing(files[0]) as png, atomic_files.replacing(files[1]) as pdf:
        fig.savefig(png, format="png", dpi=200)
        fig.savefig(pdf, format="pdf", metadata={"CreationDate": None})  # equal figures are equal bytes
    return files
