"""The response to doses of staleness: a metric over the realised mean staleness, a line per learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from asgd_lab.figures import style


def response(curves: Mapping[float, Sequence[tuple[float, float, float]]], metric: str) -> Figure:
    """Each curve has (staleness, mean, half-width of the interval); a value that is not finite is left out."""
    with style.look():
        fig, (axes,) = style.panels(style.COLUMN_IN, 2.7)
        for (rate, points), color in zip(curves.items(), style.series(list(curves)), strict=True):
            found = np.array([point for point in points if np.isfinite(point[1])]).reshape(-1, 3)
            half = np.nan_to_num(found[:, 2])
            axes.errorbar(
                found[:, 0], found[:, 1], yerr=half, color=color, marker="o", capsize=2, label=f"rate {rate:g}"
            )
        axes.set(xlabel="realised mean staleness (versions)", ylabel=metric.replace("_", " "))
        axes.set_title("Same order, same minibatches, later fetches")
        if len(curves) > 1:
            fig.legend(loc="outside lower center", ncols=4)
    return fig
