"""Means with intervals, and differences between paired values."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
"""Of the resamples: the same numbers give the same interval."""

DRAWN_AT_ONCE = 2**21
"""Indices that are drawn together: 16 MiB of them, and as much of the values that they choose."""

KEPT = 4096
"""Intervals that are remembered: tables, pictures and files of one evaluation ask for the same ones."""


class Interval(NamedTuple):
    """A mean, its bootstrap interval, and of how many values it is.

    Attributes:
        mean: NaN if there is no value.
        low, high: the percentile interval (Efron and Tibshirani 1993, section 13.3) of 95 %.
        n: the values that are no NaN.
    """

    mean: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """The differences between paired values of two methods.

    Attributes:
        difference: their mean with its interval; positive where the first is larger.
        better, equal, worse: on how many images the first is that, by the metric's direction.
    """

    difference: Interval
    better: int
    equal: int
    worse: int


def interval(values: npt.NDArray[Any]) -> Interval:
    """The mean of the values (n,) that are no NaN, and its bootstrap interval over images.

    What is held meanwhile does not grow with n, and equal values are resampled once.
    """
    known = np.ascontiguousarray(values[~np.isnan(values)], dtype=np.float64)
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    name = hashlib.sha256(known.tobytes()).digest()
    if name not in _ends:
        while len(_ends) >= KEPT:
            _ends.pop(next(iter(_ends)), None)
        _ends[name] = _resampled(known)
    return Interval(float(known.mean()), *_ends[name], len(known))


_ends: dict[bytes, tuple[float, float]] = {}
"""The ends of intervals by digests of their values: a function's memory, which changes nothing but its time."""


def _resampled(known: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the interval of the mean of values (n,)."""
    generator = np.random.default_rng(SEED)
    rows = max(1, DRAWN_AT_ONCE // len(known))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        chunk = means[start : start + rows]
        chunk[:] = known[generator.integers(0, len(known), (len(chunk), len(known)))].mean(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def compare(first: npt.NDArray[Any], second: npt.NDArray[Any], better: str) -> Comparison:
    """Two methods on the same images (n,); images for which one has no value are left out."""
    differences = first.astype(np.float64) - second
    known = differences[~np.isnan(differences)]
    gains = known if better == "higher" else -known
    return Comparison(interval(differences), int((gains > 0).sum()), int((gains == 0).sum()), int((gains < 0).sum()))
