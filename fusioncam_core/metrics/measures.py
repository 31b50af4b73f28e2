"""Metrics that look at the map and the image under it, or at masks of the objects; and all metrics by name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like, to_numpy
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.metrics.agreement import adcc, coherency, complexity
from fusioncam_core.metrics.boxes import STEPS, box_iou
from fusioncam_core.metrics.confidence import drop, gain, increase
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.metrics.localisation import energy_in_mask, iou, iou_curve, pointing_game, roc_auc
from fusioncam_core.metrics.metric import Measured, Metric
from fusioncam_core.metrics.removal import area
from fusioncam_core.results.objects import THRESHOLD, object_boxes


@dataclass(frozen=True)
class AverageDrop(Metric):
    """Average drop: what share of the class's probability is lost under the map (Grad-CAM++, arXiv 1710.11063)."""

    name = "average-drop"
    title = "Average drop"
    paper = "arXiv 1710.11063"
    better = "lower"
    undefined = "the class has probability 0, or the map holds NaN"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max(0, p - o) / p`."""
        return Measured(drop(explained.plain, explained.masked))


@dataclass(frozen=True)
class AverageIncrease(Metric):
    """Average increase: of how many images the probability rises under the map (Grad-CAM++, arXiv 1710.11063).

    It is defined at probability 0 as well, from which it can only rise.
    """

    name = "average-increase"
    title = "Average increase"
    paper = "arXiv 1710.11063"
    better = "higher"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """1 where `o > p`."""
        return Measured(increase(explained.plain, explained.masked))


@dataclass(frozen=True)
class AverageGain(Metric):
    """Average gain: how much of the probability that was missing is gained (Opti-CAM, arXiv 2301.07002)."""

    name = "average-gain"
    title = "Average gain"
    paper = "arXiv 2301.07002"
    better = "higher"
    undefined = "the class has probability 1, or the map holds NaN"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`max(0, o - p) / (1 - p)`."""
        return Measured(gain(explained.plain, explained.masked))


@dataclass(frozen=True)
class Coherency(Metric):
    """Coherency: whether the image under its map has the same map again (ADCC, arXiv 2104.10252)."""

    name = "coherency"
    title = "Coherency"
    paper = "arXiv 2104.10252"
    better = "higher"
    undefined = "the map, or the one of the image under it, is constant or holds NaN"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`(1 + r) / 2`, one more explanation of every image."""
        return Measured(coherency(explained.maps, explained.again, spatial_ndim=len(explained.size)))


@dataclass(frozen=True)
class Complexity(Metric):
    """Complexity: the mean of the map (ADCC, arXiv 2104.10252)."""

    name = "complexity"
    title = "Complexity"
    paper = "arXiv 2104.10252"
    better = "lower"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The mean of the map's absolute values."""
        return Measured(complexity(explained.maps, spatial_ndim=len(explained.size)))


@dataclass(frozen=True)
class ADCC(Metric):
    """ADCC (arXiv 2104.10252): the harmonic mean of coherency, what complexity leaves, and what the drop leaves."""

    name = "adcc"
    title = "ADCC"
    paper = "arXiv 2104.10252"
    better = "higher"
    undefined = "one of its three terms is"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """`3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))`, one more explanation of every image."""
        terms = (each.measure(explained).values for each in (Coherency(), Complexity(), AverageDrop()))
        return Measured(adcc(*terms))


def _required(ground_truth: np.ndarray[Any, Any] | None, title: str) -> np.ndarray[Any, Any]:
    if ground_truth is None:
        raise InvalidValueError(f"{title} compares maps with masks of the objects: got none. Give masks=.")
    return ground_truth


@dataclass(frozen=True)
class _Localisation(Metric):
    """A metric that compares the map with a mask of the object."""

    better = "higher"
    needs_ground_truth = True
    undefined = "the mask is empty, or the map holds NaN"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """Of maps and masks."""
        masks = _required(ground_truth, self.title)
        return Measured(self._compared(explained.maps, masks, len(explained.size)))

    @abstractmethod
    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
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
    paper = "arXiv 1608.00507"

    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return pointing_game(maps, ground_truth, tolerance=self.tolerance, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class EnergyInMask(_Localisation):
    """Energy in the mask: the share of the map on the object (Score-CAM, arXiv 1910.01279)."""

    name = "energy-in-mask"
    title = "Energy in the mask"
    paper = "arXiv 1910.01279"
    undefined = "the mask is empty, or the map is zero or holds NaN"

    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return energy_in_mask(maps, ground_truth, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class IoU(_Localisation):
    """Intersection over union of the object and the map's pixels that reach a threshold."""

    threshold: float = 0.5

    name = "iou"
    title = "IoU"

    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return iou(maps, ground_truth, threshold=self.threshold, spatial_ndim=spatial_ndim)


@dataclass(frozen=True)
class IoUCurve(Metric):
    """The mean intersection over union of the object and the map's pixels that reach a threshold, over thresholds.

    Attributes:
        steps: of the curve, from a threshold of 0 to one of 1.
    """

    steps: int = STEPS

    name = "iou-curve"
    title = "IoU over thresholds"
    better = "higher"
    needs_ground_truth = True
    undefined = "the mask is empty, or the map holds NaN"
    axes = ("threshold", "IoU")

    def __post_init__(self) -> None:
        require_count(self.steps, "steps")

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The area under the IoU over thresholds, and the curve."""
        masks = _required(ground_truth, self.title)
        thresholds = np.arange(self.steps + 1) / self.steps
        curves = iou_curve(explained.maps, masks, thresholds=thresholds.tolist(), spatial_ndim=len(explained.size))
        return Measured(area(thresholds, curves), curves, thresholds)


@dataclass(frozen=True)
class BoxIoU(_Localisation):
    """Intersection over union of boxes: around the map's largest object, and around an object of the mask.

    Of several objects in the mask the one that fits best counts. Over many images, at the best threshold, the share of
    those from 1/2 on is `max_box_acc` (Choe et al., CVPR 2020, arXiv 2001.10317).

    Attributes:
        threshold: a share of the map's largest value, that its object's pixels reach; Zhou et al. (arXiv 1512.04150)
            take 0.2.
    """

    threshold: float = THRESHOLD

    name = "box-iou"
    title = "Box IoU"
    paper = "arXiv 2001.10317"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidValueError(f"threshold is a share of the map's largest value: got {self.threshold!r}.")

    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return _box_iou(maps, ground_truth, self.threshold, spatial_ndim)


def _box_iou(maps: Array, ground_truth: np.ndarray[Any, Any], threshold: float, spatial_ndim: int) -> Array:
    """(B,): 0 for a map without an object, NaN for one with NaN or a mask without an object."""
    if spatial_ndim != 2:
        raise InvalidValueError(f"Boxes lie in images, with two axes of space: got maps with {spatial_ndim}.")
    found = np.full(len(ground_truth), np.nan)
    for row, (values, mask) in enumerate(zip(to_numpy(maps), ground_truth, strict=True)):
        # With a margin a mask that is full is no constant map, which has no object.
        truth = object_boxes(np.pad(mask, 1).astype(np.float32), 1)
        if truth and np.isfinite(values).all():
            shift = np.asarray([box.xyxy for box in truth]) - 1
            own = object_boxes(values, threshold, components="largest")
            found[row] = box_iou(np.asarray([box.xyxy for box in own]), shift).max() if own else 0.0
    return constant_like(found, maps, array_namespace(maps))


@dataclass(frozen=True)
class MaskAUC(_Localisation):
    """The area under the ROC curve of the map's values, as scores of being on the object."""

    name = "mask-auc"
    title = "Mask AUC"
    undefined = "the mask is empty or full, or the map holds NaN"

    def _compared(self, maps: Array, ground_truth: np.ndarray[Any, Any], spatial_ndim: int) -> Array:
        return roc_auc(maps, ground_truth, spatial_ndim=spatial_ndim)


FAITHFULNESS = ("average-drop", "average-increase", "insertion", "deletion")
"""What is measured if nothing else is asked for."""
