"""Numbers in words for sentences and tables."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Three significant digits; thousands are separated."""
    if not math.isfinite(value):
        return "no number"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration in the unit in which it is easiest to read."""
    for unit, factor in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if abs(value) >= (2 if factor > 1 else 1) * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs" if value else "0 s"


def share(value: float) -> str:
    """Whole percents, and one more digit below ten percent."""
    return f"{value:.0%}" if value == 0 or abs(value) >= 0.0995 else f"{value:.1%}"


def span(low: float, high: float, written: str = ".0%") -> str:
    """The two ends, or one number if both are written alike."""
    one, other = f"{low:{written}}", f"{high:{written}}"
    return one if one == other else f"{one} to {other}"


def listed(names: list[str], most: int = 6) -> str:
    """Names with commas; the number of the others beyond `most`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
