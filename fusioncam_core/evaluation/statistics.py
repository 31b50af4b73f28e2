"""Means with intervals, and differences between paired values with p-values, corrected where there are many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Known = npt.NDArray[np.float64]

Found = TypeVar("Found")

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
"""Of the resamples: the same numbers give the same interval."""

DRAWN_AT_ONCE = 2**21
"""Indices that are drawn together: 16 MiB of them, and as much of the values that they choose."""

KEPT = 4096
"""Intervals and p-values that are remembered: tables, pictures and files of one evaluation ask for the same ones."""

EXACT = 13
"""Differences up to so many have all their signs tried, 8192: no more than are drawn for others."""

ROUNDING = 1e-12
"""A share of a sum of differences: sums that differ by less are equal."""

FEW = 20
"""Images below which intervals are too narrow: those of 5, 10 and 20 values held the mean in 83, 89 and 92 % of 400
draws from a normal distribution, and in 80, 90 and 92 % from a skewed one (beta of 1/2 and 3/2), instead of in 95 %."""


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
        p: of no difference, by `p_value`; not corrected for other comparisons.
    """

    difference: Interval
    better: int
    equal: int
    worse: int
    p: float = float("nan")


def interval(values: npt.NDArray[Any]) -> Interval:
    """The mean of the values (n,) that are no NaN, and its bootstrap interval over images.

    What is held meanwhile does not grow with n, and equal values are resampled once.
    """
    known = np.ascontiguousarray(values[~np.isnan(values)], dtype=np.float64)
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    return Interval(float(known.mean()), *_remembered(_ends, known, _resampled), len(known))


_ends: dict[bytes, tuple[float, float]] = {}
"""The ends of intervals by digests of their values: a function's memory, which changes nothing but its time."""

_probabilities: dict[bytes, float] = {}
"""P-values, likewise."""


def _remembered(memory: dict[bytes, Found], known: Known, function: Callable[[Known], Found]) -> Found:
    """What the function gives for values (n,)."""
    name = hashlib.sha256(known.tobytes()).digest()
    if name not in memory:
        while len(memory) >= KEPT:
            memory.pop(next(iter(memory)), None)
        memory[name] = function(known)
    return memory[name]


def _resampled(known: Known) -> tuple[float, float]:
    """The ends of the interval of the mean of values (n,)."""
    generator = np.random.default_rng(SEED)
    rows = max(1, DRAWN_AT_ONCE // len(known))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        chunk = means[start : start + rows]
        chunk[:] = known.take(generator.integers(0, len(known), (len(chunk), len(known)))).mean(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def compare(first: npt.NDArray[Any], second: npt.NDArray[Any], better: str) -> Comparison:
    """Two methods on the same images (n,); images for which one has no value are left out."""
    differences = first.astype(np.float64) - second
    known = differences[~np.isnan(differences)]
    gains = known if better == "higher" else -known
    above, even, below = (int(each.sum()) for each in (gains > 0, gains == 0, gains < 0))
    return Comparison(interval(differences), above, even, below, p_value(differences))


def p_value(differences: npt.NDArray[Any]) -> float:
    """How often the mean of paired differences (n,) would be as far from zero if their signs were chance.

    The paired permutation test (Fisher's randomisation test; Good, Permutation Tests, 2005), two-sided: it asks about
    the mean that the tables have, and of values that are 0 or 1 it is McNemar's exact test. All signs are tried of up
    to `EXACT` differences that are not zero, others are drawn, with a fixed seed. The least value is two over all signs
    there are: .06 of five images, .002 of ten.

    Args:
        differences: NaN is left out.

    Returns:
        In (0, 1]; NaN if there is none.
    """
    known = np.ascontiguousarray(differences[~np.isnan(differences)], dtype=np.float64)
    if not len(known):
        return float("nan")
    return _remembered(_probabilities, known, _by_signs)


def _by_signs(known: Known) -> float:
    sizes = np.abs(known[known != 0])
    if not len(sizes):
        return 1.0
    # Signs as drawn against those that were found, in units in which no sum is lost to rounding.
    bound = abs(known.sum()) - ROUNDING * sizes.sum()
    if len(sizes) <= EXACT:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1)
        return float((np.abs(signs @ sizes) >= bound).mean())
    generator = np.random.default_rng(SEED)
    rows, beyond, whole = max(1, DRAWN_AT_ONCE // len(sizes)), 0, sizes.sum()
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(0, 2, (min(rows, RESAMPLES - start), len(sizes)))
        # The sum with the drawn signs; by a product of matrices it takes up to ten times as long.
        sums = whole - 2.0 * np.einsum("ij,j->i", drawn, sizes)
        beyond += int((np.abs(sums) >= bound).sum())
    # The signs that were found are among those that could have been drawn.
    return (beyond + 1) / (RESAMPLES + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method (Scandinavian Journal of Statistics 6, 1979).

    Those below a level are all of real differences, with a probability of one less the level, whatever depends on what.

    Args:
        p_values: NaN is no comparison, stays, and does not count.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    steps = np.arange(len(order), 0, -1) * values[order]
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    found: list[float] = corrected.tolist()
    return found
