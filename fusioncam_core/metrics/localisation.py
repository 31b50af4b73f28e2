"""Whether a map lies where the object is: maps against masks, boxes, and the cells of a mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import defined, finite_maps, ground_truth_masks, quotient, require_count, require_map
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, indices_like, is_traced
from fusioncam_core.arrays.words import relu
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.metrics.removal import stable_order


def pointing_game(maps: Array, masks: Array, *, tolerance: float = 0, spatial_ndim: int = 2) -> Array:
    """Pointing game: 1 if the map's largest value lies in the mask or near it, else 0.

    Zhang et al., Top-down Neural Attention by Excitation Backprop (arXiv 1608.00507), who tolerate 15 pixels. Of equal
    values the first in reading order counts, so that a constant map points at the image's first corner.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        tolerance: the largest Euclidean distance from the mask, in pixels, that still counts.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...) of zeros and ones in the maps' dtype; NaN where a map holds NaN or infinity, or a mask is empty.

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit, a mask holds other values, or the tolerance is negative.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import pointing_game
        >>> maps, mask = np.array([[0.2, 0.9, 0.1]]), np.array([[True, False, False]])
        >>> pointing_game(maps, mask), pointing_game(maps, mask, tolerance=1)
        (array(0.), array(1.))
    """
    if not 0 <= tolerance < math.inf:
        raise InvalidValueError(f"tolerance is a number of pixels, not negative: got {tolerance!r}.")
    pixels, ground_truth, sound, xp = _check(maps, masks, spatial_ndim)
    hits = _pointing_game(pixels, ground_truth, tuple(maps.shape[-spatial_ndim:]), tolerance, xp=xp)
    return defined(hits, sound, maps, xp=xp)


def _pointing_game(maps: Array, masks: Array, size: tuple[int, ...], tolerance: float, *, xp: Namespace) -> Array:
    """(..., pixels), (..., pixels) -> (...)."""
    near = _squared_distances(_first_maximum(maps, xp=xp), size, xp=xp) <= math.floor(tolerance**2)
    return xp.astype(xp.any(near & (masks > 0), axis=-1), maps.dtype)


def _first_maximum(maps: Array, *, xp: Namespace) -> Array:
    """The place (..., 1) of the first of the largest pixels; not every library's argmax promises the first."""
    places = indices_like(np.arange(maps.shape[-1]), maps, xp)
    largest = maps == xp.max(maps, axis=-1, keepdims=True)
    return xp.min(xp.where(largest, places, xp.full_like(places, maps.shape[-1])), axis=-1, keepdims=True)


def _squared_distances(places: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    """(..., 1) places in reading order -> (..., pixels), each pixel's squared distance from there; whole numbers."""
    total, stride = 0, math.prod(size)
    for length, coordinates in zip(size, np.indices(size), strict=True):
        stride //= length
        offsets = indices_like(coordinates.ravel(), places, xp) - places // stride % length
        total = total + offsets * offsets
    return total


def energy_in_mask(maps: Array, masks: Array, *, spatial_ndim: int = 2) -> Array:
    """Energy-based pointing game: the share of the map inside the mask.

    Wang et al., Score-CAM (arXiv 1910.01279), whose maps are not negative; of others the positive values count.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...) in [0, 1]; NaN where a map is positive nowhere or holds NaN or infinity, or a mask is empty.

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit or a mask holds other values.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import energy_in_mask
        >>> energy_in_mask(np.array([[0.25, 0.5, 0.25]]), np.array([[True, True, False]]))
        array(0.75)
    """
    pixels, ground_truth, sound, xp = _check(maps, masks, spatial_ndim)
    return defined(_energy_in_mask(pixels, ground_truth, xp=xp), sound, maps, xp=xp)


def _energy_in_mask(maps: Array, masks: Array, *, xp: Namespace) -> Array:
    """(..., pixels), (..., pixels) -> (...)."""
    energy = relu(maps, xp=xp)
    return quotient(xp.sum(energy * masks, axis=-1), xp.sum(energy, axis=-1), xp=xp)


def iou(maps: Array, masks: Array, *, threshold: float = 0.5, spatial_ndim: int = 2) -> Array:
    """Intersection over union of the mask and the map's pixels that reach the threshold.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        threshold: in the maps' unit; a pixel equal to it counts.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...) in [0, 1]; NaN where a map holds NaN or infinity, or a mask is empty.

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit, a mask holds other values, or the threshold is not finite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import iou
        >>> iou(np.array([[0.2, 0.9, 0.6]]), np.array([[False, True, False]]))  # one pixel of two
        array(0.5)
    """
    if not math.isfinite(threshold):
        raise InvalidValueError(f"threshold is a number in the maps' unit: got {threshold!r}.")
    pixels, ground_truth, sound, xp = _check(maps, masks, spatial_ndim)
    return defined(_iou(pixels, ground_truth, threshold, xp=xp), sound, maps, xp=xp)


def _iou(maps: Array, masks: Array, threshold: float, *, xp: Namespace) -> Array:
    """(..., pixels), (..., pixels) -> (...)."""
    chosen = xp.astype(maps >= threshold, maps.dtype)
    both = xp.sum(chosen * masks, axis=-1)
    return quotient(both, xp.sum(chosen, axis=-1) + xp.sum(masks, axis=-1) - both, xp=xp)


def iou_curve(maps: Array, masks: Array, *, thresholds: Sequence[float] | None = None, spatial_ndim: int = 2) -> Array:
    """Intersection over union of the mask and the map's pixels that reach each of several thresholds.

    Choose this where no threshold is agreed on: one that suits a method's maps may not suit another's. The mean of it
    over thresholds is the metric `iou-curve`.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        thresholds: (T,) in the maps' unit; None for hundredths from 0 to 1.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., T) in [0, 1]; NaN where a map holds NaN or infinity, or a mask is empty.

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit, a mask holds other values, or a threshold is not finite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import iou_curve
        >>> maps, mask = np.array([[0.2, 0.9, 0.6]]), np.array([[False, True, False]])
        >>> iou_curve(maps, mask, thresholds=[0.0, 0.5, 0.8]).round(4)
        array([0.3333, 0.5   , 1.    ])
    """
    levels = [step / 100 for step in range(101)] if thresholds is None else [float(each) for each in thresholds]
    if not levels or not all(map(math.isfinite, levels)):
        raise InvalidValueError(f"thresholds are one or more numbers in the maps' unit: got {thresholds!r}.")
    pixels, ground_truth, sound, xp = _check(maps, masks, spatial_ndim)
    curve = xp.stack([_iou(pixels, ground_truth, level, xp=xp) for level in levels], axis=-1)
    return defined(curve, xp.expand_dims(sound, axis=-1), maps, xp=xp)


def roc_auc(maps: Array, masks: Array, *, spatial_ndim: int = 2) -> Array:
    """The area under the ROC curve of the pixels as scores: how often a pixel of the mask exceeds one outside.

    The Mann-Whitney statistic over its largest value; equal pixels count half.

    Args:
        maps: (..., *spatial), floating.
        masks: of zeros and ones or booleans, 1 on the object; of the maps' shape or one that broadcasts with it; of
            their library or NumPy.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...) in [0, 1]; NaN where a map holds NaN or infinity, or a mask is empty or full.

    Raises:
        TypeError: if the maps are not floating, or the masks of another library.
        ValueError: if the shapes do not fit or a mask holds other values.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import roc_auc
        >>> roc_auc(np.array([[0.2, 0.9, 0.6]]), np.array([[False, True, False]]))
        array(1.)
    """
    pixels, ground_truth, sound, xp = _check(maps, masks, spatial_ndim)
    shape = np.broadcast_shapes(tuple(pixels.shape), tuple(ground_truth.shape))
    return defined(
        _roc_auc(*(xp.broadcast_to(each, shape) for each in (pixels, ground_truth)), xp=xp), sound, maps, xp=xp
    )


def _roc_auc(maps: Array, masks: Array, *, xp: Namespace) -> Array:
    """(..., pixels), (..., pixels) -> (...): `1/2 + n / (2 P N) sum_i m_i x_i`, `P` of `n` pixels inside, `N` outside.

    `x` are the mean ranks, from -1 to 1. Sorted upwards and downwards, equal pixels come in opposite orders, so that
    the mean of both places is their mean rank. What both orders have inside cancels before it is summed: however large
    the mask, little is lost to rounding.
    """
    number = int(maps.shape[-1])
    inside = xp.sum(masks, axis=-1)
    rank = constant_like((2 * np.arange(number) + 1 - number) / number, maps, xp)
    upwards, downwards = (xp.take_along_axis(masks, stable_order(each, xp=xp), axis=-1) for each in (maps, -maps))
    area = xp.sum(rank * (upwards - downwards), axis=-1) / 2
    return 0.5 + quotient(number * area, 2 * inside * (number - inside), xp=xp)


def _check(maps: Array, masks: Array, spatial_ndim: int) -> tuple[Array, Array, Array, Namespace]:
    """Maps and masks as (..., pixels), where the maps are finite and the masks not empty (...), and the namespace."""
    xp = array_namespace(maps)
    require_map(maps, "maps", spatial_ndim, xp)
    ground_truth = ground_truth_masks(masks, maps, spatial_ndim, xp=xp)
    values, finite = finite_maps(maps, spatial_ndim, xp=xp)
    pixels, ground_truth = (_flat(each, spatial_ndim, xp=xp) for each in (values, ground_truth))
    return pixels, ground_truth, finite & (xp.sum(ground_truth, axis=-1) > 0), xp


def _flat(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])
    return xp.reshape(maps, (*lead, math.prod(maps.shape[-spatial_ndim:])))


def box_masks(boxes: Array, size: tuple[int, int]) -> Array:
    """Masks of boxes: a pixel is inside if its centre is.

    Args:
        boxes: (..., 4) numbers, `x0, y0, x1, y1` in pixels, with `x` to the right, `y` down and the upper ends outside.
            A box without extent, such as one of zeros that fills up a batch, has no pixel.
        size: (height, width) of the masks.

    Returns:
        (..., height, width) booleans.

    Raises:
        TypeError: if the boxes are no numbers.
        ValueError: if they have not four numbers each, or an upper end lies below the lower one.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import box_masks
        >>> box_masks(np.array([[0, 0, 2, 1]]), (2, 3))
        array([[[ True,  True, False],
                [False, False, False]]])
    """
    xp = array_namespace(boxes)
    if not xp.isdtype(boxes.dtype, ("integral", "real floating")):
        raise InvalidTypeError(f"boxes must be of real numbers: got {boxes.dtype}.")
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InvalidValueError(
            f"boxes have shape {tuple(boxes.shape)}, and (..., 4) was expected: x0, y0, x1, y1 each."
        )
    ends = boxes if xp.isdtype(boxes.dtype, "real floating") else xp.astype(boxes, xp.float32)
    if not is_traced(ends, xp) and not bool(xp.all(ends[..., 2:] >= ends[..., :2])):
        raise InvalidValueError(
            "A box ends before it begins, or is NaN: x0, y0, x1, y1 was expected, not a width and height."
        )
    return _box_masks(ends, require_size(size), xp=xp)


def _box_masks(boxes: Array, size: tuple[int, int], *, xp: Namespace) -> Array:
    y, x = (constant_like(np.arange(length) + 0.5, boxes, xp) for length in size)
    x0, y0, x1, y1 = (boxes[..., index, None] for index in range(4))
    across, down = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
    return xp.expand_dims(down, axis=-1) & xp.expand_dims(across, axis=-2)


def union_masks(masks: Array, *, spatial_ndim: int = 2) -> Array:
    """One mask of several, such as the boxes of one image: inside where any of them is.

    Args:
        masks: (..., n, *spatial), booleans or numbers.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) booleans.

    Raises:
        ValueError: if there is no axis before space.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import union_masks
        >>> union_masks(np.array([[[True, False]], [[False, False]]]))
        array([[ True, False]])
    """
    xp = array_namespace(masks)
    if masks.ndim <= spatial_ndim:
        raise InvalidValueError(
            f"masks have shape {tuple(masks.shape)}, and (..., n, *spatial), with {spatial_ndim} axes of space, was "
            "expected."
        )
    inside = masks if xp.isdtype(masks.dtype, "bool") else masks != 0
    return xp.any(inside, axis=-spatial_ndim - 1)


def mosaic(images: Array, rows: int, columns: int, *, channel_axis: int = 1) -> Array:
    """Images side by side as one, for the grid pointing game: each cell holds an image of another class.

    Böhle et al., Convolutional Dynamic Alignment Networks (arXiv 2104.00032), the localisation metric, on grids of
    2 x 2 and 3 x 3 images.

    Args:
        images: (B * rows * columns, C, h, w) or, with `channel_axis=-1`, (B * rows * columns, h, w, C); those of one
            mosaic follow each other, in reading order.
        rows: of the grid.
        columns: of the grid.
        channel_axis: 1 or -1.

    Returns:
        (B, C, rows * h, columns * w) or (B, rows * h, columns * w, C), the input's dtype.

    Raises:
        ValueError: if the images are no such batch, or do not fill their grids.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import mosaic
        >>> mosaic(np.array([1.0, 2.0]).reshape(2, 1, 1, 1), 1, 2)
        array([[[[1., 2.]]]])
    """
    xp = array_namespace(images)
    cells = require_count(rows, "rows") * require_count(columns, "columns")
    if channel_axis not in (1, -1):
        raise InvalidValueError(f"channel_axis is 1 or -1: got {channel_axis}.")
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[0] % cells:
        raise InvalidValueError(
            f"images have shape {tuple(images.shape)}: a batch with channels and two axes of space was expected, of "
            f"{cells} images for each mosaic of {rows} x {columns}."
        )
    return _mosaic(images, rows, columns, channel_axis, xp=xp)


def _mosaic(images: Array, rows: int, columns: int, channel_axis: int, *, xp: Namespace) -> Array:
    number, first, second, third = (int(length) for length in images.shape)
    batch = number // (rows * columns)
    grid = xp.reshape(images, (batch, rows, columns, first, second, third))
    if channel_axis == -1:
        return xp.reshape(xp.moveaxis(grid, 2, 3), (batch, rows * first, columns * second, third))
    return xp.reshape(xp.moveaxis(xp.moveaxis(grid, 3, 1), 3, 4), (batch, first, rows * second, columns * third))


def cell_masks(rows: int, columns: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The masks of a mosaic's cells, in reading order.

    Args:
        rows: of the grid.
        columns: of the grid.
        size: (height, width) of the mosaic, multiples of the numbers of rows and columns.

    Returns:
        (rows * columns, height, width) booleans of NumPy's, which maps of any library are compared with.

    Raises:
        ValueError: if an argument is no positive whole number, or the size no multiple.

    Examples:
        >>> from fusioncam_core.metrics import cell_masks
        >>> cell_masks(1, 2, (1, 4))[0]  # of the left half
        array([[ True,  True, False, False]])
    """
    height, width = require_size(size)
    if height % require_count(rows, "rows") or width % require_count(columns, "columns"):
        raise InvalidValueError(
            f"A mosaic of {rows} x {columns} equal cells was expected, and its size is {height} x {width}."
        )
    cells = np.eye(rows * columns, dtype=bool).reshape(rows * columns, rows, columns)
    return cells.repeat(height // rows, axis=1).repeat(width // columns, axis=2)


def grid_share(maps: Array, cells: Array) -> Array:
    """Grid pointing game: the share of the positive map in its class's own cell; by chance, one over the cells.

    Böhle et al., Convolutional Dynamic Alignment Networks (arXiv 2104.00032), the localisation metric. The same as
    `energy_in_mask` of the cells' masks.

    Args:
        maps: (..., height, width), floating: the maps of the cells' classes, for the mosaic.
        cells: the mask of each map's own cell; of the maps' shape or one that broadcasts with it, such as
            `cell_masks` gives for maps (B, rows * columns, height, width); of their library or NumPy.

    Returns:
        (...) in [0, 1]; NaN where a map is positive nowhere (the authors' code has 0) or holds NaN or infinity.

    Raises:
        TypeError: if the maps are not floating, or the cells of another library.
        ValueError: if the shapes do not fit or a mask holds other values than 0 and 1.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import grid_share
        >>> maps = np.array([[[0.75, 0.25]], [[0.5, 0.5]]])  # of two classes, in a mosaic of 1 x 2
        >>> grid_share(maps, np.array([[[True, False]], [[False, True]]]))
        array([0.75, 0.5 ])
    """
    return energy_in_mask(maps, cells)


def require_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width if they are two positive whole numbers.

    Raises:
        ValueError: if they are not.
    """
    if len(size) != 2:
        raise InvalidValueError(f"size is (height, width): got {size!r}.")
    return require_count(size[0], "height"), require_count(size[1], "width")
