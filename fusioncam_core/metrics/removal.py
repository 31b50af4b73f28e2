"""Which pixels go first: the masks of insertion and deletion, and the area under their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import (
    defined,
    finite_maps,
    known,
    require_count,
    require_float,
    require_map,
    spatial_axes,
    widened,
)
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, indices_like, is_traced
from fusioncam_core.errors import InvalidValueError


def removal_counts(positions: int, steps: int) -> np.ndarray[Any, Any]:
    """How many pixels are removed at each point of a curve: none, then equally many more each time, and all.

    Petsiuk et al., RISE (arXiv 1806.07421). A step has `ceil(positions / steps)` pixels and the last one
    what remains, as in torch-cam, so that there are at most `steps + 1` points. Divided by `positions` they are the
    fractions that `area` takes.

    Args:
        positions: the number of pixels.
        steps: the most steps from none to all.

    Returns:
        (n,) int64, increasing from 0 to `positions`.

    Raises:
        ValueError: if an argument is no whole number of at least 1.

    Examples:
        >>> from fusioncam_core.metrics import removal_counts
        >>> removal_counts(10, 4)
        array([ 0,  3,  6,  9, 10])
    """
    positions, steps = require_count(positions, "positions"), require_count(steps, "steps")
    return np.array([*range(0, positions, -(-positions // steps)), positions], dtype=np.int64)


def ranks(maps: Array, *, spatial_ndim: int = 2) -> Array:
    """Each pixel's place in its map: 0 for the most salient; of equal ones the first in reading order comes first.

    Args:
        maps: (..., *spatial), floating; NaN counts as the least.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) integers, each from 0 to the number of pixels less one, once.

    Raises:
        TypeError, ValueError: if `maps` is no floating array with that many axes.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import ranks
        >>> ranks(np.array([[0.1, 0.9, 0.5]]))
        array([[2, 0, 1]])
    """
    xp = array_namespace(maps)
    return _ranks(require_map(maps, "maps", spatial_ndim, xp), spatial_ndim, xp=xp)


def _ranks(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])
    values = xp.reshape(maps, (*lead, math.prod(maps.shape[-spatial_ndim:])))
    order = stable_order(xp.where(known(values, xp=xp), -values, xp.full_like(values, float("inf"))), xp=xp)
    return xp.reshape(xp.argsort(order, axis=-1, stable=True), tuple(maps.shape))


def stable_order(values: Array, *, xp: Namespace) -> Array:
    """The indices that sort the last axis upwards, equal values as they came."""
    # Some sorts put -0.0 before 0.0, and a relu or a change of sign makes it.
    return xp.argsort(xp.where(values == 0, xp.zeros_like(values), values), axis=-1, stable=True)


def removal_masks(maps: Array, counts: int | Sequence[int] | np.ndarray[Any, Any], *, spatial_ndim: int = 2) -> Array:
    """1 where a pixel stays when the `count` most salient ones are removed, else 0: deletion's masks.

    Petsiuk et al., RISE (arXiv 1806.07421). One less them are the masks of insertion, which keep the
    `count` most salient pixels. Of equal pixels the first in reading order goes first.

    Args:
        maps: (..., *spatial), floating.
        counts: of removed pixels, such as `removal_counts` gives, each from 0 to the number of pixels.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) of zeros and ones in the maps' dtype for one count, (n, ..., *spatial) for n of them; NaN
        throughout for a map that holds NaN.

    Raises:
        TypeError: if `maps` is not floating.
        ValueError: if it has too few axes, or a count is no whole number from 0 to the number of pixels.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import removal_masks
        >>> removal_masks(np.array([[0.1, 0.9, 0.5]]), 2)  # without the two most salient ones
        array([[1., 0., 0.]])
    """
    xp = array_namespace(maps)
    places = _ranks(require_map(maps, "maps", spatial_ndim, xp), spatial_ndim, xp=xp)
    numbers = _check_counts(counts, math.prod(maps.shape[-spatial_ndim:]))
    each = indices_like(numbers.reshape(*numbers.shape, *(1,) * maps.ndim), places, xp)
    masks = _removal_masks(places, each, maps, xp=xp)
    whole = xp.all(known(maps, xp=xp), axis=spatial_axes(spatial_ndim), keepdims=True)
    return defined(masks, whole, maps, xp=xp)


def _removal_masks(places: Array, counts: Array, like: Array, *, xp: Namespace) -> Array:
    """Ranks and counts that broadcast with them -> masks of `like`'s dtype."""
    return xp.astype(places >= counts, like.dtype)


def _check_counts(counts: Any, positions: int) -> np.ndarray[Any, Any]:
    numbers = np.asarray(counts)
    whole = numbers.ndim < 2 and numbers.size > 0 and np.issubdtype(numbers.dtype, np.integer)
    if not whole or numbers.min() < 0 or numbers.max() > positions:
        raise InvalidValueError(
            f"counts is a whole number of removed pixels, or several, from 0 to {positions}: got {counts!r}."
        )
    return numbers


def area(fractions: Array | Sequence[float], values: Array) -> Array:
    """The area under curves by the trapezoid rule: insertion's and deletion's value.

    Petsiuk et al., RISE (arXiv 1806.07421): of the class's probability over the fraction of the pixels
    that is removed (deletion, lower is better) or shown (insertion, higher is better).

    Args:
        fractions: (n,) for all curves, or (..., n) one row a curve; not decreasing. NumPy's or a sequence will do for
            values of any library.
        values: (..., n), floating, with n at least 2.

    Returns:
        (...): one area a curve; NaN for a curve with NaN or infinity.

    Raises:
        TypeError: if the values are not floating, or the arrays of different libraries.
        ValueError: if there is one point only, the shapes do not fit, or fractions decrease.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import area
        >>> area([0.0, 0.5, 1.0], np.array([1.0, 0.5, 0.0]))
        array(0.5)
    """
    xp = array_namespace(values)
    like = widened(require_float(values, "values", xp), xp=xp)
    if isinstance(fractions, np.ndarray | Sequence):
        fractions = constant_like(np.asarray(fractions), like, xp)
    array_namespace(fractions, values)
    if values.ndim < 1 or values.shape[-1] < 2 or tuple(fractions.shape) not in _shapes(values):
        raise InvalidValueError(
            f"values have shape {tuple(values.shape)} and fractions {tuple(fractions.shape)}: (..., n) with at least "
            "two points a curve and (n,) or (..., n) were expected."
        )
    widths = xp.astype(fractions[..., 1:] - fractions[..., :-1], like.dtype)
    if not is_traced(widths, xp) and not bool(xp.all(widths >= 0)):
        raise InvalidValueError(
            "fractions must not decrease along a curve, and must not be NaN. Sort the points by them."
        )
    return _area(widths, values, xp=xp)


def _shapes(values: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(values.shape), tuple(values.shape[-1:])


def _area(widths: Array, values: Array, *, xp: Namespace) -> Array:
    curves, finite = finite_maps(values, 1, xp=xp)
    heights = (curves[..., 1:] + curves[..., :-1]) / 2
    return defined(xp.sum(widths * heights, axis=-1), finite, values, xp=xp)
