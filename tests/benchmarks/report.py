"""How a benchmark states a number: median, quartiles and sample size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], scale: float = 1.0, unit: str = "") -> str:
    """Median with the quartiles and the sample size."""
    low, middle, high = (np.percentile(values, q) * scale for q in (25, 50, 75))
    return f"{middle:.3g} {unit} [{low:.3g}, {high:.3g}] n={len(values)}"
