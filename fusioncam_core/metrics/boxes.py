"""Weakly supervised localisation: whether boxes and pixels that maps give at a threshold are those of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.checks import ground_truth_masks, require_count, require_map, require_word
from fusioncam_core.arrays.namespaces import Array, array_namespace, to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.results.objects import Components, object_boxes

Values = npt.NDArray[np.float64]

STEPS = 100
"""Thresholds between 0 and 1: hundredths, as Choe et al. take in the tests of their code."""


@dataclass(frozen=True, eq=False)
class BoxAccuracy:
    """How often the boxes of maps meet those of the objects, at each threshold.

    Attributes:
        thresholds: (T,) shares of a map's largest value.
        overlaps: (N, T) the largest IoU of a box of each map and one of its image; 0 for a map without an object.
        ious: (L,) the IoU from which on a box counts as found.
    """

    thresholds: Values
    overlaps: Values
    ious: tuple[float, ...]

    @property
    def curves(self) -> Values:
        """(L, T) of what share of the images the object is found, BoxAcc, by each IoU and threshold."""
        levels = np.asarray(self.ious)[:, None, None]
        found: Values = (self.overlaps >= levels).mean(axis=1)
        return found

    @property
    def best(self) -> Values:
        """(L,) the threshold with the most objects found by each IoU, the lowest one of equals."""
        best: Values = self.thresholds[self.curves.argmax(axis=1)]
        return best

    @property
    def value(self) -> float:
        """MaxBoxAcc: the largest BoxAcc over the thresholds, its mean over the IoUs; in [0, 1]."""
        return float(self.curves.max(axis=1).mean())

    def __repr__(self) -> str:
        return f"<MaxBoxAcc {self.value:.4f} of {len(self.overlaps)} images, IoU from {', '.join(map(str, self.ious))}>"


def max_box_acc(
    maps: Array,
    boxes: Any,
    *,
    ious: Sequence[float] = (0.5,),
    components: Components = "largest",
    steps: int = STEPS,
) -> BoxAccuracy:
    """MaxBoxAcc: of what share of the images the box around the map's largest object has an IoU of at least 1/2.

    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right (CVPR 2020, arXiv 2001.10317), section
    4.1: at the best of all thresholds, so that no method is better for how its maps are spread. That threshold is
    found on the images that are counted: compare methods by it, and take `curves` at a threshold found on other images
    for what a user can expect.

    Boxes here end where the next pixel begins, and an object's size is its number of pixels; the authors' code takes
    the upper ends in, cuts a map into 256 levels and goes by the area inside an outline, which moves an IoU a little.

    Args:
        maps: (N, height, width), floating, of any library: one target an image.
        boxes: of the objects, in the maps' pixels, `x0, y0, x1, y1` with the upper ends outside: (N, 4); or for each
            image (n, 4), which may be more or fewer. One without extent, such as zeros that fill up a batch, is none.
        ious: from which IoU on a box counts as found.
        components: "largest" looks at the box of the largest object, "all" at the best one of all boxes.
        steps: so many thresholds, evenly from 0 on, below 1.

    Returns:
        The accuracy, its curve over thresholds, and the IoU of every image.

    Raises:
        TypeError: if maps are not floating or boxes no numbers.
        ValueError: if their numbers differ, an image has no box, a map holds NaN, or an option is out of range.
        MissingExtra: if SciPy is not installed.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import max_box_acc
        >>> maps = np.zeros((1, 4, 4))
        >>> maps[0, :2, :2] = 1
        >>> accuracy = max_box_acc(maps, [[0, 0, 2, 2]])
        >>> accuracy.value, float(accuracy.overlaps.max())
        (1.0, 1.0)
    """
    require_word(components, "components", Components)
    levels = tuple(float(each) for each in ious)
    if not levels or not all(0 < each <= 1 for each in levels):
        raise InvalidValueError(f"ious are one or more shares, above 0 and at most 1: got {ious!r}.")
    thresholds = np.arange(require_count(steps, "steps")) / steps
    if maps.ndim != 3:
        raise InvalidValueError(
            f"maps have shape {tuple(maps.shape)}: (N, height, width), one map an image, was expected."
        )
    values = to_numpy(require_map(maps, "maps", 2, array_namespace(maps)))
    truth = _rows_of_boxes(boxes, len(values))
    overlaps = np.zeros((len(values), len(thresholds)))
    for number, (each, own) in enumerate(zip(values, truth, strict=True)):
        for place, threshold in enumerate(thresholds.tolist()):
            found = object_boxes(each, threshold, components=components)
            if found:
                overlaps[number, place] = box_iou(np.asarray([box.xyxy for box in found]), own).max()
    return BoxAccuracy(thresholds, overlaps, levels)


def max_box_acc_v2(maps: Array, boxes: Any, *, steps: int = STEPS) -> BoxAccuracy:
    """MaxBoxAccV2: the mean of MaxBoxAcc at IoU .3, .5 and .7, with the best of all boxes of a map.

    Choe et al., Evaluation for Weakly Supervised Object Localization: Protocol, Metrics, and Datasets (TPAMI 2022,
    arXiv 2007.04178): how exact a box must be depends on what it is for, and an image may show several objects. Choose
    this where one number is reported; `max_box_acc` compares with earlier papers.

    Args:
        maps: (N, height, width), as for `max_box_acc`.
        boxes: likewise.
        steps: likewise.

    Returns:
        As `max_box_acc`.

    Raises:
        TypeError, ValueError, MissingExtra: as `max_box_acc`.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import max_box_acc_v2
        >>> maps = np.zeros((1, 4, 4))
        >>> maps[0, :2, :2] = 1
        >>> round(max_box_acc_v2(maps, [[0, 0, 2, 3]]).value, 4)  # an IoU of 2/3: found at 0.3 and 0.5, not at 0.7
        0.6667
    """
    return max_box_acc(maps, boxes, ious=(0.3, 0.5, 0.7), components="all", steps=steps)


def box_iou(boxes: Any, others: Any) -> Values:
    """Intersection over union of every pair of boxes.

    Args:
        boxes: (n, 4) numbers, `x0, y0, x1, y1` with the upper ends outside.
        others: (m, 4), likewise.

    Returns:
        (n, m) in [0, 1], NumPy's; 0 where neither box has an extent.

    Raises:
        TypeError: if boxes are no numbers.
        ValueError: if they have not four numbers each, or end before they begin.

    Examples:
        >>> from fusioncam_core.metrics import box_iou
        >>> box_iou([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2]]).round(4)
        array([[1.    , 0.3333]])
    """
    first, second = (_checked(each) for each in (boxes, others))
    lower = np.maximum(first[:, None, :2], second[None, :, :2])
    upper = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(upper - lower, 0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - both
    shares: Values = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def _checked(boxes: Any) -> Values:
    values = np.asarray(to_numpy(boxes) if hasattr(boxes, "shape") else boxes)
    if values.dtype.kind not in "iuf":
        raise InvalidTypeError(f"boxes must be of real numbers: got {values.dtype}.")
    if values.ndim != 2 or values.shape[1] != 4:
        raise InvalidValueError(f"boxes have shape {values.shape}, and (n, 4) was expected: x0, y0, x1, y1 each.")
    if not (values[:, 2:] >= values[:, :2]).all():
        raise InvalidValueError(
            "A box ends before it begins, or is NaN: x0, y0, x1, y1 was expected, not a width and height."
        )
    return values.astype(np.float64)


def _rows_of_boxes(boxes: Any, count: int) -> list[Values]:
    """The boxes with an extent of each image."""
    rows = to_numpy(boxes) if hasattr(boxes, "shape") else boxes
    if isinstance(rows, str) or not hasattr(rows, "__len__"):
        raise InvalidTypeError(f"boxes are one (n, 4) for each image: got {type(boxes).__qualname__}.")
    if len(rows) != count:
        raise InvalidValueError(f"Boxes belong to the maps in their order: got {len(rows)} for {count} maps.")
    found = []
    for number, each in enumerate(rows):
        values = to_numpy(each) if hasattr(each, "shape") else np.asarray(each)
        own = _checked(values[None] if values.ndim == 1 else values)
        own = own[(own[:, 2:] > own[:, :2]).all(axis=1)]
        if not len(own):
            raise InvalidValueError(f"Image {number} has no box of an object: leave it and its map out.")
        found.append(own)
    return found


def pixel_average_precision(maps: Array, masks: Array, *, spatial_ndim: int = 2) -> float:
    """PxAP: the area under the precision and recall of all pixels of all images, by the maps' values as scores.

    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right (CVPR 2020, arXiv 2001.10317), section
    4.1. All images share one threshold, so that a method is better whose maps are alike in scale; every value of the
    maps is a threshold, where the authors' code has bins.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        spatial_ndim: how many of the last axes are space.

    Returns:
        In [0, 1].

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit, a mask holds other values, a map NaN, or no mask has a pixel.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import pixel_average_precision
        >>> pixel_average_precision(np.array([[0.2, 0.9, 0.6]]), np.array([[False, True, False]]))
        1.0
    """
    xp = array_namespace(maps)
    truth = to_numpy(ground_truth_masks(masks, require_map(maps, "maps", spatial_ndim, xp), spatial_ndim, xp=xp))
    scores, inside = (each.ravel() for each in np.broadcast_arrays(to_numpy(maps), truth))
    if np.isnan(scores).any():
        raise InvalidValueError("A map holds NaN: leave it and its mask out.")
    if not inside.any():
        raise InvalidValueError("No mask has a pixel: there is nothing that maps could find.")
    order = np.argsort(-scores, kind="stable")
    # Equal scores pass a threshold together: after the last one of them.
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    hits = np.cumsum(inside[order], dtype=np.float64)[last]
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / (last + 1)))
