"""Which masks to run next: those whose scores tell most of the map.

A score that is not known moves the map by its slope, and it says something of the scores of masks that look alike. So
the best mask to run is the one that leaves the least variance in the map, which is not always the one that weighs most:
what is sure already need not be run. In the words of experimental design the choice is A-optimal, one by one (Chaloner
and Verdinelli, Bayesian Experimental Design, Statistical Science 10, 1995, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusioncam_core.approximation.gaussian_process import Floats, Indices, Values
from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.arrays.words import _softmax

Slopes = Callable[[Values, Values], Values]
"""(maps (C, pixels), scores (K, C)) -> (K, C, pixels): how the maps' sum moves with each channel's score."""

SMALLEST = float(np.finfo(np.float64).tiny)


def softmax_slopes(maps: Values, scores: Values) -> Values:
    """Of `sum_k softmax(s)_k A_k`: `softmax(s)_k (A_k - sum_j softmax(s)_j A_j)`."""
    weights = _softmax(scores, axis=1, xp=array_namespace(scores))
    slopes: Values = weights[:, :, None] * (maps - (weights @ maps)[:, None])
    return slopes


def relative(slopes: Values, maps: Values) -> Values:
    """Slopes (K, C, pixels) of maps (K, pixels) that are shown divided by their highest value: what moves all of a map
    alike, moves nothing. Without a value above 0 they stay as they are.
    """
    peaks = maps.argmax(axis=1)
    shapes = np.maximum(maps, 0) / np.maximum(maps.max(axis=1), SMALLEST)[:, None]
    at_peaks = slopes[np.arange(len(maps)), :, peaks]
    moved: Values = slopes - at_peaks[:, :, None] * shapes[:, None]
    return moved


def most_telling(covariance: Floats, slopes: Floats, number: int) -> Indices:
    """The numbers of those masks, one after the other, that leave least of the map's variance.

    Args:
        covariance: (m, m) of the scores of the masks to choose from, none of which is certain; of the slopes' dtype.
        slopes: (m, pixels) how the map moves with each of the scores, all targets' pixels side by side.
        number: how many to choose, at most m.
    """
    variances, told, least = np.diagonal(covariance).copy(), covariance @ slopes, np.finfo(covariance.dtype).tiny
    gains = np.square(told).sum(axis=1)
    # With every choice covariance and told become less by a product of two vectors, which are kept side by side.
    columns, rows = np.zeros((len(told), number), told.dtype), np.zeros((number, told.shape[1]), told.dtype)
    chosen: list[int] = []
    for count in range(number):
        worth = gains / np.maximum(variances, least)
        worth[chosen] = -np.inf
        best = int(np.argmax(worth))
        known, deviation = columns[best, :count], np.sqrt(max(variances[best], least))
        column = (covariance[:, best] - columns[:, :count] @ known) / deviation
        row = (told[best] - known @ rows[:count]) / deviation
        along = told @ row - columns[:, :count] @ (rows[:count] @ row)
        gains += column * (column * (row @ row) - 2 * along)
        variances -= np.square(column)
        variances[best] = np.inf
        columns[:, count], rows[count] = column, row
        chosen.append(best)
    return np.asarray(chosen, dtype=np.intp)
