"""Probabilities and contributions as people read them: never rounded to a number that they are not."""

from __future__ import annotations

import math

_DECIMALS = 4
_MOST_DECIMALS = 7
"""Of a float32 near 1; fewer than that, it would be another number."""


def probability_text(value: float) -> str:
    """A probability with four decimals, or as many as two significant digits from 0 or 1 take: 0.00041, 0.99987."""
    if not 0.0 <= value <= 1.0:
        return value_text(value)
    gap = min(value, 1.0 - value)
    if gap == 0.0:
        return f"{value:.0f}"
    if gap >= 10.0**-3:
        return f"{value:.{_DECIMALS}f}"
    decimals = 1 - math.floor(math.log10(gap))
    if decimals <= _MOST_DECIMALS or value > 0.5:
        return f"{value:.{min(decimals, _MOST_DECIMALS)}f}".rstrip("0")
    return f"{value:.1e}"


def value_text(value: float) -> str:
    """A number of any size with a true minus: four decimals, two significant digits if it is small, four if large."""
    size = abs(value)
    if value == 0.0 or not math.isfinite(value):
        text = f"{size:.0f}" if value == 0.0 else f"{value}"
    elif size < 10.0**-3:
        decimals = 1 - math.floor(math.log10(size))
        text = f"{value:.{decimals}f}" if decimals <= _MOST_DECIMALS else f"{value:.1e}"
    else:
        text = f"{value:.{_DECIMALS}f}" if size < 10 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")
