"""The array words: the few operations on maps that every method is written in.

Everything here is Python array API code, batched over any number of leading axes, and takes the
namespace `xp` of its arrays: NumPy, array-api-strict, PyTorch, JAX, or the thin namespace a plugin
offers for arrays that have none (TensorFlow). A map is an array whose last `spatial_ndim` axes are
space; all axes before them are a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import (
    require_finite,
    require_float,
    require_map,
    require_percentage,
    require_scores,
    require_size,
    require_size_of,
    spatial_axes,
)
from fusioncam_core.arrays.kept import MATRICES
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like
from fusioncam_core.arrays.precision import in_float32, tamed
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.errors import InvalidValueError


@in_float32("maps")
def normalise(maps: Array, *, spatial_ndim: int = 2) -> Array:
    """Min-max normalisation N of each map to [0, 1].

    A map is constant when its range is not above the rounding error of its values; it becomes zeros,
    never NaN: a constant map says nothing about where.

    Args:
        maps: (..., *spatial), floating.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) in [0, 1], the input's dtype.

    Raises:
        TypeError, ValueError: if `maps` is not a finite floating array with that many axes.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import normalise
        >>> normalise(np.array([[2.0, 3.0, 6.0]]))
        array([[0.  , 0.25, 1.  ]])
        >>> normalise(np.array([[2.0, 2.0, 2.0]]))  # constant: it says nothing about where
        array([[0., 0., 0.]])
    """
    xp = array_namespace(maps)
    require_finite(require_map(maps, "maps", spatial_ndim, xp), "maps", xp)
    return _normalise(tamed(maps, -spatial_ndim, xp=xp), spatial_ndim, xp=xp)


def _normalise(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    return _normalised(maps, spatial_ndim, xp=xp)[0]


@as_one_program
def _normalised(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """`N` of the maps, and of each (kept axes) its lowest and highest value before."""
    low, high, extent, flat = _extent(maps, spatial_ndim, xp=xp)
    # What is divided by infinity is 0, without another pass over the pixels.
    return (maps - low) / xp.where(flat, xp.ones_like(extent) * math.inf, extent), low, high


def _normalised_about_zero(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """The maps by their largest magnitudes, in [-1, 1]: 0 stays 0; and of each its lowest and highest value before."""
    axes = spatial_axes(spatial_ndim)
    low, high = xp.min(maps, axis=axes, keepdims=True), xp.max(maps, axis=axes, keepdims=True)
    largest = xp.maximum(-low, high)
    none = largest < float(xp.finfo(maps.dtype).smallest_normal)
    return maps / xp.where(none, xp.ones_like(largest) * math.inf, largest), low, high


def _extent(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array, Array, Array]:
    """Of each map (kept axes): its minimum, its maximum, its range, and whether it is constant up to rounding."""
    axes = spatial_axes(spatial_ndim)
    low = xp.min(maps, axis=axes, keepdims=True)
    high = xp.max(maps, axis=axes, keepdims=True)
    kind = xp.finfo(maps.dtype)
    # A resize rounds each pixel of a constant map by an ulp or two: that must not be blown up to a pattern.
    rounding = 8 * float(kind.eps) * xp.maximum(xp.abs(low), xp.abs(high))
    extent = high - low
    return low, high, extent, (extent <= rounding) | (extent < float(kind.smallest_normal))


@as_one_program
def is_constant(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """Which maps are constant in the sense of `normalise`: booleans of the leading axes."""
    flat = _extent(maps, spatial_ndim, xp=xp)[-1]
    return xp.reshape(flat, tuple(maps.shape[: maps.ndim - spatial_ndim]))


@in_float32("maps")
def percentile(maps: Array, percentage: float, *, spatial_ndim: int = 2) -> Array:
    """The given percentile of each map, with linear interpolation between its sorted values.

    Args:
        maps: (..., *spatial), floating.
        percentage: in [0, 100].
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...): one value a map.

    Raises:
        TypeError, ValueError: if `maps` is no finite floating map or the percentage lies outside [0, 100].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import percentile
        >>> float(percentile(np.array([[1.0, 2.0], [3.0, 4.0]]), 50))
        2.5
    """
    xp = array_namespace(maps)
    require_finite(require_map(maps, "maps", spatial_ndim, xp), "maps", xp)
    return _percentile(maps, require_percentage(percentage), spatial_ndim, xp=xp)


@as_one_program
def _percentile(maps: Array, percentage: float, spatial_ndim: int, *, xp: Namespace) -> Array:
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])
    values = xp.sort(xp.reshape(maps, (*lead, math.prod(maps.shape[-spatial_ndim:]))), axis=-1)
    position = percentage / 100 * (values.shape[-1] - 1)
    below = math.floor(position)
    above = min(below + 1, values.shape[-1] - 1)
    lower, upper = values[..., below], values[..., above]
    # In halves, because a difference may be larger than any number.
    step = (upper * 0.5 - lower * 0.5) * (position - below)
    return xp.minimum(lower + step + step, upper)


@in_float32("maps")
def resize(maps: Array, size: Sequence[int]) -> Array:
    """Linear resize U of the last axes: half-pixel centres, edges clamped, no antialias.

    One small matrix product an axis, which agrees with the frameworks' own bilinear resizes to float32
    rounding, batches, differentiates and runs in every namespace.

    Args:
        maps: (..., *spatial), floating.
        size: the new length of each spatial axis; its length says how many axes are space.

    Returns:
        (..., *size), the input's dtype.

    Raises:
        TypeError, ValueError: if `maps` is no finite floating map or a length is no positive whole number.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import resize
        >>> resize(np.array([[0.0, 1.0]]), (1, 4))
        array([[0.  , 0.25, 0.75, 1.  ]])
    """
    xp = array_namespace(maps)
    size = require_size(size)
    require_finite(require_map(maps, "maps", len(size), xp), "maps", xp)
    return _within(maps, len(size), lambda values: _resize(values, size, xp=xp), xp=xp)


def _within(maps: Array, spatial_ndim: int, averaged: Callable[[Array], Array], *, xp: Namespace) -> Array:
    """Averages of each map's pixels, none beyond the map's own range: neither by rounding nor by overflow."""
    axes = spatial_axes(spatial_ndim)
    low, high = xp.min(maps, axis=axes, keepdims=True), xp.max(maps, axis=axes, keepdims=True)
    # A quarter of what is large loses no bit, and leaves room for the rounding of a sum.
    large = xp.maximum(xp.abs(low), xp.abs(high)) > 1
    quarter = xp.where(large, xp.full_like(low, 0.25), xp.ones_like(low))
    within = xp.minimum(xp.maximum(averaged(maps * quarter), low * quarter), high * quarter)
    # A quarter of the smallest numbers is none of them.
    return xp.minimum(xp.maximum(within / quarter, low), high)


def _resize(maps: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    for axis, length in zip(range(-1, -len(size) - 1, -1), reversed(size), strict=True):
        if maps.shape[axis] != length:
            maps = _interpolate(maps, axis, constant_like(_linear_weights(maps.shape[axis], length), maps, xp), xp)
    return maps


def product(one: Array, other: Array, *, xp: Namespace) -> Array:
    """The matrix product of finite arrays.

    The BLAS behind NumPy may compute on what lies beside small matrices, and NumPy warns then, now and then, of an
    invalid value that is in none of the results.
    """
    with np.errstate(invalid="ignore"):
        return xp.matmul(one, other)


def _interpolate(maps: Array, axis: int, weights: Array, xp: Namespace) -> Array:
    """The matrix `weights` (new, old) applied along one axis."""
    if axis == -1:
        return product(maps, xp.matrix_transpose(weights), xp=xp)
    lead, trailing = tuple(maps.shape[:axis]), tuple(maps.shape[axis + 1 :])
    rows = xp.reshape(maps, (*lead, maps.shape[axis], math.prod(trailing)))
    return xp.reshape(product(weights, rows, xp=xp), (*lead, weights.shape[0], *trailing))


@MATRICES.results
def _linear_weights(old: int, new: int) -> np.ndarray[Any, Any]:
    """The (new, old) matrix of a linear resize with half-pixel centres and clamped edges."""
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, old - 1)
    fraction = centres - below
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), below), 1 - fraction)
    np.add.at(weights, (np.arange(new), above), fraction)
    return weights


@in_float32("values")
def softmax(values: Array, *, axis: int = -1) -> Array:
    """Softmax along an axis, shifted by the maximum so that it does not overflow.

    Args:
        values: floating, any shape; each finite, or -infinity, of which the share is 0.
        axis: the axis that sums to one, not empty.

    Returns:
        An array of the same shape and dtype, in [0, 1].

    Raises:
        TypeError: if the dtype is not floating.
        ValueError: if there is no such axis or it is empty, or of values that are NaN, +infinity, or all -infinity.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import softmax
        >>> softmax(np.array([0.0, 0.0, np.log(2.0)]))
        array([0.25, 0.25, 0.5 ])
    """
    xp = array_namespace(values)
    require_float(values, "values", xp)
    if not -values.ndim <= axis < values.ndim or values.shape[axis] == 0:
        raise InvalidValueError(f"Expected an axis of values, got axis {axis} of shape {tuple(values.shape)}.")
    require_scores(values, "values", xp)
    require_finite(xp.max(values, axis=axis, keepdims=True), "largest values", xp)
    return _softmax(values, axis=axis, xp=xp)


@as_one_program
def _softmax(values: Array, *, axis: int, xp: Namespace) -> Array:
    largest = xp.max(values, axis=axis, keepdims=True)
    # In halves, because a difference may be larger than any number. `exp` of -1000 is 0 in every dtype.
    below = values * 0.5 - largest * 0.5
    exponentials = xp.exp(2 * xp.maximum(below, xp.full_like(below, -500.0)))
    return exponentials / xp.sum(exponentials, axis=axis, keepdims=True)


@as_one_program
def sigmoid(values: Array, *, xp: Namespace) -> Array:
    """The logistic function, without overflow on either side."""
    decay = xp.exp(-xp.abs(values))
    return xp.where(values >= 0, 1 / (1 + decay), decay / (1 + decay))


@in_float32("images")
def blur(images: Array, sigma: float, *, spatial_ndim: int = 2) -> Array:
    """Gaussian blur of the last axes, cut at three standard deviations, edges reflected without repeat.

    The reflection is the one OpenCV and scikit-image call "reflect 101" / "mirror".

    Args:
        images: (..., *spatial), floating.
        sigma: the standard deviation in pixels, positive.
        spatial_ndim: how many of the last axes are space.

    Returns:
        The same shape and dtype.

    Raises:
        TypeError, ValueError: if `images` is no finite floating map or sigma is not positive and finite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import blur
        >>> blur(np.array([[0.0, 0, 0, 1, 0, 0, 0]]), 1.0).round(3)
        array([[0.009, 0.054, 0.242, 0.399, 0.242, 0.054, 0.009]])
    """
    xp = array_namespace(images)
    require_finite(require_map(images, "images", spatial_ndim, xp), "images", xp)
    if not 0 < sigma < math.inf:
        raise InvalidValueError(f"The blur's sigma is a positive number of pixels: got {sigma}.")
    radius = math.ceil(3 * sigma)
    return _within(images, spatial_ndim, lambda values: _blur(values, float(sigma), radius, spatial_ndim, xp=xp), xp=xp)


def _blur(images: Array, sigma: float, radius: int, spatial_ndim: int, *, xp: Namespace) -> Array:
    for axis in spatial_axes(spatial_ndim):
        weights = constant_like(_blur_weights(images.shape[axis], sigma, radius), images, xp)
        images = _interpolate(images, axis, weights, xp)
    return images


@MATRICES.results
def _blur_weights(length: int, sigma: float, radius: int) -> np.ndarray[Any, Any]:
    """The (length, length) matrix of a Gaussian blur of a row of pixels with mirrored edges."""
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    period = max(2 * (length - 1), 1)
    sources = np.abs((np.arange(length)[:, None] + offsets) % period)
    sources = np.minimum(sources, period - sources) if length > 1 else np.zeros_like(sources)
    weights = np.zeros((length, length))
    np.add.at(weights, (np.arange(length)[:, None], sources), kernel)
    return weights


@as_one_program
def weighted_sum(weights: Array, activations: Array, *, xp: Namespace) -> Array:
    """`sum_k w_k A_k`: (B, K, C) and (B, C, *spatial) -> (B, K, *spatial)."""
    batch, channels, *spatial = activations.shape
    flat = xp.reshape(activations, (batch, channels, math.prod(spatial)))
    return xp.reshape(product(weights, flat, xp=xp), (batch, weights.shape[1], *spatial))


def relu(values: Array, *, xp: Namespace) -> Array:
    """`max(values, 0)`."""
    return xp.maximum(values, xp.zeros_like(values))


def _ratio(numerators: Array, denominators: Array, *, xp: Namespace) -> Array:
    """The quotients, 0 where the denominator is zero, or so near to it that the quotient's square were no number."""
    largest = math.sqrt(float(xp.finfo(denominators.dtype).max))
    zero = xp.abs(denominators) <= xp.abs(numerators) / largest
    quotients = numerators / xp.where(zero, xp.ones_like(denominators), denominators)
    return xp.where(zero, xp.zeros_like(quotients), quotients)


def channels_first(activations: Array, channel_axis: int, *, xp: Namespace) -> Array:
    """(B, C, *spatial) from activations whose channels are at 1 or -1.

    Raises:
        ValueError: if the channel axis is another one, or there is no axis of space.
    """
    if channel_axis not in (1, -1):
        raise InvalidValueError(f"channel_axis is 1 or -1: got {channel_axis}.")
    if activations.ndim < 3:
        raise InvalidValueError(
            f"activations have shape {tuple(activations.shape)}: a batch, channels and at least one axis of space "
            "were expected."
        )
    return activations if channel_axis == 1 else xp.moveaxis(activations, -1, 1)


def _map_size(size: Sequence[int] | None, activations: Array) -> tuple[int, ...]:
    spatial = tuple(int(length) for length in activations.shape[2:])
    if 0 in activations.shape[1:]:
        raise InvalidValueError(
            f"activations have shape {tuple(activations.shape)}, channels first: expected at least one channel and one "
            "position."
        )
    if size is None:
        return spatial
    return require_size_of(size, len(spatial))


def _over_space(values: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """(...) -> (..., 1, 1): one value a map, to be broadcast over its pixels."""
    return xp.reshape(values, (*values.shape, *(1,) * spatial_ndim))
