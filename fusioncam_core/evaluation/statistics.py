"""Means with intervals, and differences between paired values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
"""Of the resamples: the same numbers give the same interval."""


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
    """The mean of the values (n,) that are no NaN, and its bootstrap interval over images."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(SEED).integers(0, len(known), (RESAMPLES, len(known)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known[drawn].mean(axis=1), [tail, 1 - tail])
    return Interval(float(known.mean()), float(low), float(high), len(known))


def compare(first: npt.NDArray[Any], second: npt.NDArray[Any], better: str) -> Comparison:
    """Two methods on the same images (n,); images for which one has no value are left out."""
    differences = first.astype(np.float64) - second
    known = differences[~np.isnan(differences)]
    gains = known if better == "higher" else -known
    return Comparison(interval(differences), int((gains > 0).sum()), int((gains == 0).sum()), int((gains < 0).sum()))
