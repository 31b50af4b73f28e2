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
Floats = npt.NDArray[np.floating[Any]]
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
        covariance: of the masks of some numbers, none of which was run, in a dtype: (m,) -> (m, m). Float32 takes half
            of the time, and with the noise that is in it no rounding comes near to what it tells apart.
        steepness: (n, K) how much a score rises with what the covariance is of; 1 if that is the scores themselves.
    """

    mean: Values
    deviation: Values
    scale: Values
    covariance: Callable[[Indices, type[np.floating[Any]]], Floats]
    steepness: Values

    def draws(self, chosen: Indices, noise: Values) -> Values:
        """Scores (draws, n, K) that could be true, from standard normal noise (draws, len(chosen), K).

        Only the masks `chosen`, none of which was run, differ from the mean; they differ together.
        """
        factor = np.linalg.cholesky(self.covariance(chosen, np.float32))
        drawn = np.repeat(self.mean[None], len(noise), axis=0)
        drawn[:, chosen] += np.sqrt(self.scale) * (factor @ noise.astype(np.float32))
        return drawn


class _Known:
    """The masks that were run, in independent parts: a Cholesky factor that grows by a block with each round of masks.

    Args:
        kernel: the covariance of masks (m, pixels) and (n, pixels).
        masks: (n, pixels), all of them.

    Attributes:
        run: the numbers of those that were run.
        rows: (len(run), n) the covariance of each independent part with each mask's score.
    """

    def __init__(self, kernel: Callable[[Floats, Floats], Floats], masks: Values):
        self._kernel, self._masks = kernel, masks
        self._blocks: list[tuple[Floats, Floats]] = []
        self.run: Indices = np.zeros(0, dtype=np.intp)
        self.rows: Values = np.zeros((0, len(masks)))

    def add(self, new: Indices) -> None:
        """These were run as well."""
        before = self.rows[:, new]
        across = self._kernel(self._masks[new], self._masks) - before.T @ self.rows
        factor = np.linalg.cholesky(across[:, new] + NOISE * np.eye(len(new)))
        self._blocks.append((before, factor))
        self.rows = np.concatenate([self.rows, np.linalg.solve(factor, across)])
        self.run = np.concatenate([self.run, new])

    def parts(self, values: Values) -> Values:
        """(len(run), K) values of the masks that were run as values of the independent parts, each of variance 1."""
        found = np.zeros_like(values)
        done = 0
        for before, factor in self._blocks:
            here = slice(done, done + len(factor))
            found[here] = np.linalg.solve(factor, values[here] - before.T @ found[:done])
            done = here.stop
        return found


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
        self._width = float(WIDTH * np.median(squared_distances(some, some))) or 1.0
        self._known = _Known(self._kernel, self._masks)

    def _kernel(self, first: Floats, second: Floats) -> Floats:
        covariance = squared_distances(first, second)
        covariance *= -1 / (2 * self._width)
        return np.exp(covariance, out=covariance)

    def prediction(self, run: Indices, scores: npt.NDArray[Any]) -> Prediction:
        """The scores of all masks, given those (len(run), K) of the masks `run`.

        It is quickest where they begin with those of the prediction before.
        """
        known = self._of(run)
        scores, rows = scores.astype(np.float64), known.rows
        trend = self._trend(run, scores)
        parts = known.parts(scores - trend[run])
        scale = np.maximum(np.square(parts).sum(axis=0) / _freedom(len(run)), np.finfo(np.float64).tiny)
        mean = trend + rows.T @ parts
        variance = np.maximum(1 + NOISE - np.square(rows).sum(axis=0), 0)
        mean[run], variance[run] = scores, 0

        def covariance(chosen: Indices, dtype: type[np.floating[Any]]) -> Floats:
            some, told = self._masks[chosen].astype(dtype), rows[:, chosen].astype(dtype)
            posterior = self._kernel(some, some)
            posterior -= told.T @ told
            posterior[np.diag_indices_from(posterior)] += dtype(NOISE)
            return posterior

        return Prediction(mean, np.sqrt(variance[:, None] * scale), scale, covariance, np.ones_like(mean))

    def _of(self, run: Indices) -> _Known:
        """What is known of the masks that were run: what was before, with those that are new."""
        before = len(self._known.run)
        if not np.array_equal(run[:before], self._known.run):
            self._known, before = _Known(self._kernel, self._masks), 0
        if len(run) > before:
            self._known.add(run[before:])
        return self._known

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


def squared_distances(first: Floats, second: Floats) -> Floats:
    """(n, m) between points (n, d) and (m, d), not below 0."""
    # In place: an array of some megabytes that is made anew costs more than what is worked out in it.
    distances: Floats = first @ second.T
    distances *= -2
    distances += np.square(first).sum(axis=1)[:, None]
    distances += np.square(second).sum(axis=1)
    return np.maximum(distances, 0, out=distances)
