"""One look for all figures, sized for a paper's column; the caller's matplotlib settings and backend stay.

Figures are made inside `with look():` from Figure objects, never from pyplot's state.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asgd_lab.record import atomic_files

COLUMN_IN = 3.5
PAGE_IN = 7.16
INLINE_DPI = 110  # in a notebook
REFERENCE = "0.45"  # the grey of reference lines

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


def palette(count: int) -> list[tuple[float, float, float]]:
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
