"""The metrics as objects: a name, a direction, options, and the value of every map of a batch."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from fusioncam_core.arrays import Array, constant_like, indices_like, require_count
from fusioncam_core.masking import Baseline
from fusioncam_core.metrics.agreement import adcc, coherency, complexity
from fusioncam_core.metrics.confidence import drop, gain, increase
from fusioncam_core.metrics.imputation import impute
from fusioncam_core.metrics.judge import Judge
from fusioncam_core.metrics.localisation import energy_in_mask, iou, pointing_game, roc_auc
from fusioncam_core.metrics.removal import area, ranks, removal_counts
from fusioncam_core.metrics.robustness import infidelity, max_sensitivity

Better = Literal["higher", "lower"]


class Measured(NamedTuple):
    """The values (B,) of a batch's maps, and of metrics that follow a curve the curves (B, n) at the fractions (n,)."""

    values: Array
    curves: Array | None = None
    fractions: np.ndarray[Any, Any] | None = None


class Metric(ABC):
    """A metric of maps. One value a map; what is undefined is NaN.

    Attributes:
        name: by which it is asked for.
        title: as the papers write it.
        better: whether "higher" or "lower" values are.
        needs_truth: whether it compares maps with masks of the object.
        undefined: when a value is NaN, in words.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Better]
    needs_truth: ClassVar[bool] = False
    undefined: ClassVar[str] = "the map holds NaN"

    @abstractmethod
    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The values of the judge's maps.

        Args:
            judge: of the batch.
            truth: (B, *size) masks of the objects, for metrics that need them.
        """


@dataclass(frozen=True)
class AverageDrop(Metric):
    """Average drop: what share of the class's probability is lost under the map (Grad-CAM++, arXiv 1710.11063)."""

    name = "average-drop"
    title = "Average drop"
    better = "lower"
    undefined = "the class has probability 0, or the map holds NaN"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max(0, p - o) / p`."""
        return Measured(drop(judge.plain, judge.masked))


@dataclass(frozen=True)
class AverageIncrease(Metric):
    """Average increase: of how many images the probability rises under the map (Grad-CAM++, arXiv 1710.11063)."""

    name = "average-increase"
    title = "Average increase"
    better = "higher"
    undefined = "the class has probability 0, or the map holds NaN"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """1 where `o > p`."""
        return Measured(increase(judge.plain, judge.masked))


@dataclass(frozen=True)
class AverageGain(Metric):
    """Average gain: how much of the probability that was missing is gained (Opti-CAM, arXiv 2301.07002)."""

    name = "average-gain"
    title = "Average gain"
    better = "higher"
    undefined = "the class has probability 1, or the map holds NaN"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max(0, o - p) / (1 - p)`."""
        return Measured(gain(judge.plain, judge.masked))


GRAIN = 1e-5
"""Pixels that differ by less than about this count as equal: rounding shall not decide which of them goes first."""


def _places(judge: Judge) -> Array:
    """The ranks of the maps' pixels (B, *size)."""
    return ranks(judge.xp.round(judge.maps * (1 / GRAIN)), spatial_ndim=len(judge.size))


@dataclass(frozen=True)
class _Curve(Metric):
    """The area under the class's probability while pixels go, or come, the most salient first."""

    steps: int = 32
    substrate: Baseline = "zero"

    keeps: ClassVar[bool]

    def __post_init__(self) -> None:
        require_count(self.steps, "steps")

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The area by the trapezoid rule, and the curve."""
        xp, batch = judge.xp, int(judge.maps.shape[0])
        places = _places(judge)
        positions = int(np.prod(judge.size))
        counts = removal_counts(positions, self.steps)
        owners = np.repeat(np.arange(batch), len(counts))
        numbers = indices_like(counts, places, xp)

        def masks(chosen: Array) -> Array:
            owned = xp.take(places, chosen // len(counts), axis=0)
            count = xp.reshape(xp.take(numbers, chosen % len(counts), axis=0), (-1, *(1,) * len(judge.size)))
            kept = owned < count if self.keeps else owned >= count
            return xp.astype(kept, judge.maps.dtype)

        curves = xp.reshape(judge.under(owners, masks, self.substrate), (batch, len(counts)))
        whole = xp.all(xp.reshape(judge.maps == judge.maps, (batch, -1)), axis=1, keepdims=True)
        curves = xp.where(whole, curves, xp.full_like(curves, float("nan")))
        return Measured(area(counts / positions, curves), curves, counts / positions)


@dataclass(frozen=True)
class Deletion(_Curve):
    """Deletion: the area under the probability while the most salient pixels are erased (RISE, arXiv 1806.07421).

    Attributes:
        steps: of the curve, at most.
        substrate: what an erased pixel is: "zero" as in the paper, "blur", a number, one value a channel, or an image.
    """

    name = "deletion"
    title = "Deletion"
    better = "lower"
    keeps = False


@dataclass(frozen=True)
class Insertion(_Curve):
    """Insertion: the area under the probability while the most salient pixels are shown (RISE, arXiv 1806.07421).

    Attributes:
        steps: of the curve, at most.
        substrate: what a pixel not yet shown is: "blur" as in the paper, "zero", a number, one value a channel, or an
            image.
    """

    substrate: Baseline = "blur"

    name = "insertion"
    title = "Insertion"
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
    better = "higher"

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction < 1 for fraction in self.fractions):
            raise ValueError(f"fractions are shares of the pixels, between 0 and 1, and {self.fractions!r} came.")

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`mean((p_least - p_most) / 2)`, and the differences."""
        xp, batch, number = judge.xp, int(judge.maps.shape[0]), len(self.fractions)
        places = _places(judge)
        positions = int(np.prod(judge.size))
        counts = indices_like(np.round(np.asarray(self.fractions) * positions), places, xp)
        owners = np.repeat(np.arange(batch), 2 * number)

        def images(chosen: Array) -> Array:
            owner = chosen // (2 * number)
            owned = xp.take(places, owner, axis=0)
            count = xp.reshape(xp.take(counts, chosen % number, axis=0), (-1, *(1,) * len(judge.size)))
            most = xp.reshape(chosen // number % 2 == 0, (-1, *(1,) * len(judge.size)))
            kept = xp.where(most, owned >= count, owned < positions - count)
            rows = xp.take(judge.images, owner, axis=0)
            return self._imputed(rows, xp.astype(kept, judge.maps.dtype), judge)

        found = xp.reshape(judge.of_others(owners, images), (batch, 2, number))
        curves = (found[:, 1, :] - found[:, 0, :]) / 2
        whole = xp.all(xp.reshape(judge.maps == judge.maps, (batch, -1)), axis=1, keepdims=True)
        curves = xp.where(whole, curves, xp.full_like(curves, float("nan")))
        return Measured(xp.mean(curves, axis=1), curves, np.asarray(self.fractions))

    def _imputed(self, images: Array, masks: Array, judge: Judge) -> Array:
        """Noise is in the unit of each image's range, so that preprocessing does not matter."""
        xp, axes = judge.xp, tuple(range(1, images.ndim))
        low, high = xp.min(images, axis=axes, keepdims=True), xp.max(images, axis=axes, keepdims=True)
        extent = xp.where(high > low, high - low, xp.ones_like(low))
        scaled = impute(
            (images - low) / extent, masks, noise=self.noise, seed=self.seed, channel_axis=judge.channel_axis
        )
        return scaled * extent + low


@dataclass(frozen=True)
class Coherency(Metric):
    """Coherency: whether the image under its map has the same map again (ADCC, arXiv 2104.10252)."""

    name = "coherency"
    title = "Coherency"
    better = "higher"
    undefined = "the map, or the one of the image under it, is constant or holds NaN"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`(1 + r) / 2`, one more explanation of every image."""
        return Measured(coherency(judge.maps, judge.again, spatial_ndim=len(judge.size)))


@dataclass(frozen=True)
class Complexity(Metric):
    """Complexity: the mean of the map (ADCC, arXiv 2104.10252)."""

    name = "complexity"
    title = "Complexity"
    better = "lower"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The mean of the map's absolute values."""
        return Measured(complexity(judge.maps, spatial_ndim=len(judge.size)))


@dataclass(frozen=True)
class ADCC(Metric):
    """ADCC (arXiv 2104.10252): the harmonic mean of coherency, what complexity leaves, and what the drop leaves."""

    name = "adcc"
    title = "ADCC"
    better = "higher"
    undefined = "one of its three terms is"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))`, one more explanation of every image."""
        terms = (each.measure(judge).values for each in (Coherency(), Complexity(), AverageDrop()))
        return Measured(adcc(*terms))


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
    better = "lower"

    def __post_init__(self) -> None:
        require_count(self.samples, "samples")
        if not 0 < self.sides[0] <= self.sides[1] <= 1:
            raise ValueError(f"sides are two shares of the image's side, the smaller one first, and {self.sides} came.")

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`mean((a I . A - (p - p_I))^2)` over the squares `I`, with the best `a`."""
        xp, batch = judge.xp, int(judge.maps.shape[0])
        squares = constant_like(_squares(self.samples, judge.size, self.sides, self.seed), judge.maps, xp)
        owners = np.tile(np.arange(batch), self.samples)
        left = judge.under(owners, lambda chosen: 1 - xp.take(squares, chosen // batch, axis=0), self.baseline)
        lost = xp.expand_dims(judge.plain, axis=0) - xp.reshape(left, (self.samples, batch))
        taken = xp.broadcast_to(xp.expand_dims(squares, axis=1), (self.samples, batch, *judge.size))
        return Measured(infidelity(judge.maps, taken, lost, normalise=True, spatial_ndim=len(judge.size)))


@functools.lru_cache(maxsize=4)
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

    One more explanation of every image for each sample.

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
    better = "lower"
    undefined = "the map is zero or holds NaN"

    def __post_init__(self) -> None:
        require_count(self.samples, "samples")

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max ||A(x + d) - A(x)|| / ||A(x)||`."""
        xp, images = judge.xp, judge.images
        axes = tuple(range(1, images.ndim))
        extent = xp.max(images, axis=axes, keepdims=True) - xp.min(images, axis=axes, keepdims=True)
        generator = np.random.default_rng(self.seed)
        channels = int(images.shape[judge.channel_axis])
        moved = []
        for _ in range(self.samples):
            noise = generator.uniform(-self.radius, self.radius, (channels, *judge.size))
            noise = noise if judge.channel_axis == 1 else np.moveaxis(noise, 0, -1)
            moved.append(judge.explain(images + extent * constant_like(noise[None], images, xp)))
        return Measured(max_sensitivity(judge.maps, xp.stack(moved, axis=0), spatial_ndim=len(judge.size)))


@dataclass(frozen=True)
class _Localisation(Metric):
    """A metric that compares the map with a mask of the object."""

    better = "higher"
    needs_truth = True
    undefined = "the mask is empty, or the map holds NaN"

    def measure(self, judge: Judge, truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """Of maps and masks."""
        if truth is None:
            raise ValueError(f"{self.title} compares maps with masks of the objects, and none came. Give masks=.")
        return Measured(self._compared(judge.maps, truth, len(judge.size)))

    @abstractmethod
    def _compared(self, maps: Array, truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        """(B,)."""


@dataclass(frozen=True)
class PointingGame(_Localisation):
    """Pointing game (arXiv 1608.00507): whether the map's largest value lies on the object.

    Attributes:
        tolerance: the distance in pixels that still counts; the paper takes 15 on photographs.
    """

    tolerance: float = 0

    name = "pointing-game"
    title = "Pointing game"

    def _compared(self, maps: Array, truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return pointing_game(maps, truth, tolerance=self.tolerance, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class EnergyInMask(_Localisation):
    """Energy in the mask: the share of the map on the object (Score-CAM, arXiv 1910.01279)."""

    name = "energy-in-mask"
    title = "Energy in the mask"
    undefined = "the mask is empty, or the map is zero or holds NaN"

    def _compared(self, maps: Array, truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return energy_in_mask(maps, truth, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class IoU(_Localisation):
    """Intersection over union of the object and the map's pixels that reach a threshold."""

    threshold: float = 0.5

    name = "iou"
    title = "IoU"

    def _compared(self, maps: Array, truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return iou(maps, truth, threshold=self.threshold, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class MaskAUC(_Localisation):
    """The area under the ROC curve of the map's values, as scores of being on the object."""

    name = "mask-auc"
    title = "Mask AUC"
    undefined = "the mask is empty or full, or the map holds NaN"

    def _compared(self, maps: Array, truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return roc_auc(maps, truth, spatial_ndim=spatial_ndim)


METRICS: Mapping[str, type[Metric]] = {
    each.name: each
    for each in (
        AverageDrop,
        AverageIncrease,
        AverageGain,
        Insertion,
        Deletion,
        ROAD,
        Coherency,
        Complexity,
        ADCC,
        Infidelity,
        MaxSensitivity,
        PointingGame,
        EnergyInMask,
        IoU,
        MaskAUC,
    )
}
"""All metrics of single images, by name."""

FAITHFULNESS = ("average-drop", "average-increase", "insertion", "deletion")
"""What is measured if nothing else is asked for."""


def find_metric(metric: str | Metric) -> Metric:
    """A metric with its default options, of its name; or the one given.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        raise TypeError(f"A metric is a name or a Metric, and a {type(metric).__qualname__} came.")
    if metric not in METRICS:
        raise ValueError(f"A metric is one of {', '.join(map(repr, METRICS))}, and {metric!r} came.")
    return METRICS[metric]()
