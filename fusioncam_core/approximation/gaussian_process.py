"""What masks not yet run would score: a Gaussian process over the masks of one image.

Score-CAM's scores are a smooth function of the mask: masks that look alike score alike, and larger ones score more,
by less and less: they are nearer to linear in the root of the area than in the area.
So those that were run predict the others, and say how sure they are. All of it is NumPy on the host: some hundred
masks of some dozen pixels each take milliseconds, where running them takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

NOISE = 0.1
"""The part of a score's variance that its mask does not explain. Anything from 0.02 to 0.3 serves as well."""

WIDTH = 0.7
"""The kernel's squared width, as a share of the masks' median squared distance. 0.35 to 1 serve as well."""

RIDGE = 5e-2
"""Holds the slope of the mean back where few masks were run."""

TREND = ("level", "slope")
"""What is fitted before the variance is: so many scores say nothing of it."""

LOWEST_TENTH = -1.2815515655446004
"""The tenth percentile of the standard normal distribution."""

WIDTH_SAMPLE = 256
"""As many masks tell the kernel's width; between 2048 of them there would be four million distances."""


@dataclass(frozen=True)
class Prediction:
    """The scores of all masks of an image, as far as they are known.

    Attributes:
        mean: (n, K) the scores of the masks that were run, and what the others are expected to score.
        deviation: (n, K) the standard deviations of the others' scores; 0 where they are known.
        scale: (K,) the variances in units of which the covariance is; not the likeliest ones, but those that are
            not exceeded with a probability of nine tenths: few scores tell little of how they vary.
        covariance: of the masks of some numbers, (m,) -> (m, m).
        steepness: (n, K) how much a score rises with what the covariance is of; 1 if that is the scores themselves.
    """

    mean: Values
    deviation: Values
    scale: Values
    covariance: Callable[[Indices], Values]
    steepness: Values

    def draws(self, chosen: Indices, noise: Values) -> Values:
        """Scores (draws, n, K) that could be true, from standard normal noise (draws, len(chosen), K).

        Only the masks `chosen`, none of which was run, differ from the mean; they differ together.
        """
        factor = np.linalg.cholesky(self.covariance(chosen))
        drawn = np.repeat(self.mean[None], len(noise), axis=0)
        drawn[:, chosen] += np.sqrt(self.scale) * (factor @ noise)
        return drawn


class GaussianProcess:
    """A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) from masks to scores.

    Its mean is linear in the root of the mask's area. Its kernel is a Gaussian of the distance between masks, nearly as
    wide as their median distance; its variance is told by how the known scores vary.

    Args:
        masks: (n, pixels) in [0, 1], not constant.
    """

    def __init__(self, masks: npt.NDArray[Any]):
        self._masks = masks.astype(np.float64)
        lengths = np.sqrt(self._masks.mean(axis=1))
        self._lengths = (lengths - lengths.mean()) / (lengths.std() or 1)
        some = self._masks[:: 1 + len(masks) // WIDTH_SAMPLE]
        self._width = WIDTH * np.median(squared_distances(some, some)) or 1.0

    def _kernel(self, first: Values, second: Values) -> Values:
        covariance = squared_distances(first, second)
        covariance *= -1 / (2 * self._width)
        return np.exp(covariance, out=covariance)

    def prediction(self, run: Indices, scores: npt.NDArray[Any]) -> Prediction:
        """The scores of all masks, given those (len(run), K) of the masks `run`."""
        scores = scores.astype(np.float64)
        trend = self._trend(run, scores)
        residuals = scores - trend[run]
        across = self._kernel(self._masks, self._masks[run])
        among = across[run] + NOISE * np.eye(len(run))
        solved = np.linalg.solve(among, np.concatenate([residuals, across.T], axis=1))
        fitted, explained = solved[:, : scores.shape[1]], solved[:, scores.shape[1] :]
        scale = np.maximum((residuals * fitted).sum(axis=0) / _freedom(len(run)), np.finfo(np.float64).tiny)
        mean = trend + across @ fitted
        variance = np.maximum(1 + NOISE - (across * explained.T).sum(axis=1), 0)
        mean[run], variance[run] = scores, 0

        def covariance(chosen: Indices) -> Values:
            some = self._masks[chosen]
            posterior = self._kernel(some, some)
            posterior[np.diag_indices_from(posterior)] += NOISE
            posterior -= across[chosen] @ explained[:, chosen]
            return posterior

        return Prediction(mean, np.sqrt(variance[:, None] * scale), scale, covariance, np.ones_like(mean))

    def _trend(self, run: Indices, scores: Values) -> Values:
        """(n, K) the line through the scores as a function of the area's root, by ridge regression."""
        design = np.stack([np.ones_like(self._lengths), self._lengths], axis=1)
        seen = design[run]
        penalty = np.diag([0.0, RIDGE * len(run)])
        predicted: Values = design @ np.linalg.solve(seen.T @ seen + penalty, seen.T @ scores)
        return predicted


def _freedom(scores: int) -> float:
    """What a sum of squares is divided by for a variance that is exceeded with a probability of one tenth.

    The tenth percentile of a chi-squared distribution, by the approximation of Wilson and Hilferty (1931).
    """
    degrees = max(scores - len(TREND), 1)
    return float(degrees * (1 - 2 / (9 * degrees) + LOWEST_TENTH * math.sqrt(2 / (9 * degrees))) ** 3)


def squared_distances(first: Values, second: Values) -> Values:
    """(n, m) between points (n, d) and (m, d), not below 0."""
    # In place: an array of some megabytes that is made anew costs more than what is worked out in it.
    distances: Values = first @ second.T
    distances *= -2
    distances += np.square(first).sum(axis=1)[:, None]
    distances += np.square(second).sum(axis=1)
    return np.maximum(distances, 0, out=distances)
