"""Metrics that change the image in many ways: pixels go or come by their ranks, squares are erased, noise is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.kept import MATRICES
from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, indices_like
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.metrics.imputation import impute
from fusioncam_core.metrics.metric import Measured, Metric
from fusioncam_core.metrics.removal import area, ranks, removal_counts
from fusioncam_core.metrics.robustness import _expected, _squared_error, max_sensitivity
from fusioncam_core.models.axes import drawn_for_one, with_channels_back, with_channels_first
from fusioncam_core.models.baselines import Baseline

GRAIN = 1e-5
"""Pixels that differ by less than about this count as equal: rounding shall not decide which of them goes first."""


def _places(explained: ExplainedBatch) -> Array:
    """The ranks of the maps' pixels (B, *size)."""
    return ranks(explained.xp.round(explained.maps * (1 / GRAIN)), spatial_ndim=len(explained.size))


@dataclass(frozen=True)
class _Curve(Metric):
    """The area under the class's probability while pixels go, or come, the most salient first."""

    steps: int = 32
    baseline: Baseline = "zero"

    keeps: ClassVar[bool]

    def __post_init__(self) -> None:
        require_count(self.steps, "steps")

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The area by the trapezoid rule, and the curve."""
        xp, batch = explained.xp, int(explained.maps.shape[0])
        places = _places(explained)
        positions = int(np.prod(explained.size))
        counts = removal_counts(positions, self.steps)
        owners = np.repeat(np.arange(batch), len(counts))
        numbers = indices_like(counts, places, xp)

        def masks(chosen: Array) -> Array:
            owned = xp.take(places, chosen // len(counts), axis=0)
            count = xp.reshape(xp.take(numbers, chosen % len(counts), axis=0), (-1, *(1,) * len(explained.size)))
            kept = owned < count if self.keeps else owned >= count
            return xp.astype(kept, explained.maps.dtype)

        curves = xp.reshape(explained.under(owners, masks, self.baseline), (batch, len(counts)))
        whole = xp.all(xp.reshape(explained.maps == explained.maps, (batch, -1)), axis=1, keepdims=True)
        curves = xp.where(whole, curves, xp.full_like(curves, float("nan")))
        return Measured(area(counts / positions, curves), curves, counts / positions)


@dataclass(frozen=True)
class Deletion(_Curve):
    """Deletion: the area under the probability while the most salient pixels are erased (RISE, arXiv 1806.07421).

    Attributes:
        steps: of the curve, at most.
        baseline: what an erased pixel is: "zero" as in the paper, "blur", a number, one value a channel, or an image.
    """

    name = "deletion"
    title = "Deletion"
    paper = "arXiv 1806.07421"
    better = "lower"
    keeps = False


@dataclass(frozen=True)
class Insertion(_Curve):
    """Insertion: the area under the probability while the most salient pixels are shown (RISE, arXiv 1806.07421).

    Attributes:
        steps: of the curve, at most.
        baseline: what a pixel not yet shown is: "blur" as in the paper, "zero", a number, one value a channel, or an
            image.
    """

    baseline: Baseline = "blur"

    name = "insertion"
    title = "Insertion"
    paper = "arXiv 1806.07421"
    better = "higher"
    keeps = True


@dataclass(frozen=True)
class ROAD(Metric):
    """ROAD (arXiv 2202.00449): probabilities while pixels are imputed from their neighbours, which leaves no outline.

    Half the mean over the fractions of what the class keeps when the least salient pixels go, less what it keeps when
    the most salient ones go: as pytorch-grad-cam combines both orders. Higher is better, 0 is by chance.

    Attributes:
        fractions: of the pixels that are removed, each between 0 and 1.
        noise: of the imputation, as a share of the image's range.
        seed: of the noise.
    """

    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    noise: float = 0.01
    seed: int = 0

    name = "road"
    title = "ROAD"
    paper = "arXiv 2202.00449"
    better = "higher"

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction < 1 for fraction in self.fractions):
            raise InvalidValueError(f"fractions are shares of the pixels, between 0 and 1: got {self.fractions!r}.")

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`mean((p_least - p_most) / 2)`, and the differences."""
        xp, batch, number = explained.xp, int(explained.maps.shape[0]), len(self.fractions)
        places = _places(explained)
        positions = int(np.prod(explained.size))
        counts = indices_like(np.round(np.asarray(self.fractions) * positions), places, xp)
        owners = np.repeat(np.arange(batch), 2 * number)

        def images(chosen: Array) -> Array:
            owner = chosen // (2 * number)
            owned = xp.take(places, owner, axis=0)
            count = xp.reshape(xp.take(counts, chosen % number, axis=0), (-1, *(1,) * len(explained.size)))
            most = xp.reshape(chosen // number % 2 == 0, (-1, *(1,) * len(explained.size)))
            kept = xp.where(most, owned >= count, owned < positions - count)
            rows = xp.take(explained.images, owner, axis=0)
            return self._imputed(rows, xp.astype(kept, explained.maps.dtype), explained)

        found = xp.reshape(explained.of_others(owners, images), (batch, 2, number))
        curves = (found[:, 1, :] - found[:, 0, :]) / 2
        whole = xp.all(xp.reshape(explained.maps == explained.maps, (batch, -1)), axis=1, keepdims=True)
        curves = xp.where(whole, curves, xp.full_like(curves, float("nan")))
        return Measured(xp.mean(curves, axis=1), curves, np.asarray(self.fractions))

    def _imputed(self, images: Array, masks: Array, explained: ExplainedBatch) -> Array:
        """Noise is in the unit of each image's range, so that preprocessing does not matter."""
        xp, axes = explained.xp, tuple(range(1, images.ndim))
        low, high = xp.min(images, axis=axes, keepdims=True), xp.max(images, axis=axes, keepdims=True)
        extent = xp.where(high > low, high - low, xp.ones_like(low))
        scaled = with_channels_first((images - low) / extent, explained.channel_axis, xp=xp)
        imputed = impute(scaled, masks, noise=self.noise, seed=self.seed)
        return with_channels_back(imputed, explained.channel_axis, xp=xp) * extent + low


@dataclass(frozen=True)
class Infidelity(Metric):
    """Infidelity (arXiv 1901.09392) under the removal of squares, the map scaled by the factor that fits best.

    A perturbation erases a random square; the map's sum over it is what the map says is lost, and the probability's
    fall is what is lost.

    Attributes:
        samples: squares an image, the same for all images.
        sides: the least and the largest side of a square, as shares of the image's shorter side.
        baseline: what an erased pixel is.
        seed: of the squares.
    """

    samples: int = 50
    sides: tuple[float, float] = (0.125, 0.5)
    baseline: Baseline = "zero"
    seed: int = 0

    name = "infidelity"
    title = "Infidelity"
    paper = "arXiv 1901.09392"
    better = "lower"

    def __post_init__(self) -> None:
        require_count(self.samples, "samples")
        if not 0 < self.sides[0] <= self.sides[1] <= 1:
            raise InvalidValueError(
                f"sides are two shares of the image's side, the smaller one first: got {self.sides}."
            )

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`mean((a I . A - (p - p_I))^2)` over the squares `I`, with the best `a`."""
        xp, batch = explained.xp, int(explained.maps.shape[0])
        squares = constant_like(_squares(self.samples, explained.size, self.sides, self.seed), explained.maps, xp)
        owners = np.tile(np.arange(batch), self.samples)
        left = explained.under(owners, lambda chosen: 1 - xp.take(squares, chosen // batch, axis=0), self.baseline)
        lost = xp.expand_dims(explained.plain, axis=0) - xp.reshape(left, (self.samples, batch))
        expected, known = self._expected(explained, squares)
        return Measured(_squared_error(expected, known, lost, True, explained.maps, xp=xp))

    def _expected(self, explained: ExplainedBatch, squares: Array) -> tuple[Array, Array]:
        """What the maps say is lost with each square (samples, B), and where they are finite.

        One square at a time: what is held besides the squares is as large as the batch, whatever the samples.
        """
        xp, shape = explained.xp, tuple(explained.maps.shape)
        each = (xp.broadcast_to(squares[number, ...], (1, *shape)) for number in range(self.samples))
        sums = [_expected(explained.maps, taken, len(explained.size), xp=xp) for taken in each]
        expected, known = (xp.concat(list(rows), axis=0) for rows in zip(*sums, strict=True))
        return expected, known


@MATRICES.results
def _squares(samples: int, size: tuple[int, ...], sides: tuple[float, float], seed: int) -> np.ndarray[Any, Any]:
    """(samples, *size) ones in a random square (cube, stretch), zeros around it."""
    generator = np.random.default_rng(seed)
    squares = np.zeros((samples, *size), dtype=np.float32)
    for square in squares:
        side = max(1, round(generator.uniform(*sides) * min(size)))
        corner = [generator.integers(0, length - side + 1) for length in size]
        square[tuple(slice(start, start + side) for start in corner)] = 1
    return squares


@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """Max-sensitivity (arXiv 1901.09392): how far a map moves under noise too small to see.

    One more explanation of every image for each sample. A map of zeros that stays one did not move: 0.

    Attributes:
        samples: noisy images, with the same noise for all images.
        radius: of the uniform noise, as a share of the image's range; captum and the authors take 0.02.
        seed: of the noise.
    """

    samples: int = 10
    radius: float = 0.02
    seed: int = 0

    name = "max-sensitivity"
    title = "Max-sensitivity"
    paper = "arXiv 1901.09392"
    better = "lower"
    undefined = "the map is zero and does not stay so, or one of its maps holds NaN"

    def __post_init__(self) -> None:
        require_count(self.samples, "samples")

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max ||A(x + d) - A(x)|| / ||A(x)||`."""
        xp, images = explained.xp, explained.images
        axes = tuple(range(1, images.ndim))
        extent = xp.max(images, axis=axes, keepdims=True) - xp.min(images, axis=axes, keepdims=True)
        generator = np.random.default_rng(self.seed)
        furthest: Array | None = None
        for _ in range(self.samples):
            noise = drawn_for_one(
                lambda shape: generator.uniform(-self.radius, self.radius, shape),
                images.shape[1:],
                explained.channel_axis,
            )
            moved = xp.expand_dims(explained.explain(images + extent * constant_like(noise, images, xp)), axis=0)
            one = max_sensitivity(explained.maps, moved, spatial_ndim=len(explained.size))
            furthest = one if furthest is None else _larger(furthest, one, xp)
        return Measured(furthest)


def _larger(first: Array, second: Array, xp: Namespace) -> Array:
    """The larger value of each pair, NaN where one of them is."""
    larger = xp.where(second > first, second, first)
    return xp.where(second == second, larger, second)
