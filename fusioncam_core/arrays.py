"""The array words: the few operations on maps that every method is written in.

Everything here is Python array API code, batched over any number of leading axes, and takes the
namespace `xp` of its arrays: NumPy, array-api-strict, PyTorch, JAX, or the thin namespace a plugin
offers for arrays that have none (TensorFlow). A map is an array whose last `spatial_ndim` axes are
space; all axes before them are a batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

import array_api_compat
import numpy as np

from fusioncam_core.plugins import ask_for_namespace

Array = Any
"""An array of any supported namespace."""

Namespace = Any
"""A module or object with the array API's names (its version 2023.12 suffices)."""


def array_namespace(*arrays: Array) -> Namespace:
    """The namespace of the arrays: array API names for their library.

    Args:
        *arrays: one or more, all of one library.

    Returns:
        A module or object with the array API's names.

    Raises:
        TypeError: if one is no array, if nobody knows its library, or if they are of several libraries.
    """
    if not arrays:
        raise TypeError("array_namespace() needs at least one array.")
    found = [_namespace_of(array) for array in arrays]
    if any(each is not found[0] for each in found):
        names = " and ".join(sorted({_type_name(array) for array in arrays}))
        raise TypeError(f"Arrays of one library were expected, and {names} came together. Convert them to one.")
    return found[0]


def _namespace_of(array: Array) -> Namespace:
    if isinstance(array, np.ndarray):
        return array_api_compat.array_namespace(array)
    namespace = ask_for_namespace(array)
    if namespace is not None:
        return namespace
    try:
        return array_api_compat.array_namespace(array)
    except TypeError:
        raise TypeError(
            f"An array was expected, and a {_type_name(array)} came. NumPy arrays, PyTorch tensors, JAX arrays, "
            "TensorFlow tensors (with the tensorflow extra) and array API objects are understood."
        ) from None


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_traced(array: Array, xp: Namespace) -> bool:
    """Whether the array has no values yet because a compiler is recording (`jax.jit`, `tf.function`).

    Checks of values are left out then; a namespace says so with a function of this name.
    """
    traced = getattr(xp, "is_traced", None)
    return bool(traced is not None and traced(array))


def constant_like(values: np.ndarray[Any, Any] | Sequence[float], like: Array, xp: Namespace) -> Array:
    """NumPy values as an array of `like`'s library, dtype and device."""
    own = getattr(xp, "constant_like", None)
    if own is not None:
        return own(values, like)
    return xp.asarray(values, dtype=like.dtype, device=array_api_compat.device(like))


def indices_like(values: np.ndarray[Any, Any] | Sequence[int], like: Array, xp: Namespace) -> Array:
    """NumPy integers as an int64 array of `like`'s library and device."""
    own = getattr(xp, "indices_like", None)
    if own is not None:
        return own(values, like)
    return xp.asarray(np.asarray(values, dtype=np.int64), device=array_api_compat.device(like))


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """The array's values on the host, as NumPy; bfloat16, which NumPy lacks, as float32."""
    if isinstance(array, np.ndarray):
        return array
    if "bfloat16" in str(getattr(array, "dtype", "")):
        xp = array_namespace(array)
        array = xp.astype(array, xp.float32)
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)


def require_float(array: Array, name: str, xp: Namespace) -> Array:
    """The array itself if its dtype is a real floating one.

    Raises:
        TypeError: naming the array and its dtype otherwise.
    """
    if not xp.isdtype(array.dtype, "real floating"):
        raise TypeError(f"{name} must be of a floating-point dtype, and {array.dtype} came. Convert to float32.")
    return array


def require_finite(array: Array, stage: str, xp: Namespace) -> Array:
    """The array itself if all its values are finite (not looked at while a compiler traces).

    Raises:
        ValueError: naming the stage if a value is NaN or infinite.
    """
    if not is_traced(array, xp) and not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"NaN or infinity in the {stage}: no map can be made of it. Look for it in the input first, then "
            "in the model (a half-precision overflow is the usual cause)."
        )
    return array


def spatial_axes(spatial_ndim: int) -> tuple[int, ...]:
    """The axes of space, counted from the end: (-2, -1) for images."""
    return tuple(range(-spatial_ndim, 0))


def require_map(maps: Array, name: str, spatial_ndim: int, xp: Namespace) -> Array:
    """The array itself if it is a floating map with `spatial_ndim` axes of space, none empty.

    Raises:
        TypeError: if its dtype is not floating.
        ValueError: if it has too few axes or an empty one.
    """
    require_float(maps, name, xp)
    if spatial_ndim < 1:
        raise ValueError(f"spatial_ndim must be at least 1, and {spatial_ndim} came.")
    if maps.ndim < spatial_ndim:
        raise ValueError(
            f"{name} has shape {tuple(maps.shape)}: fewer axes than the {spatial_ndim} of space. "
            "Say how many axes are space with spatial_ndim."
        )
    if 0 in maps.shape[-spatial_ndim:]:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}: a map without a single pixel.")
    return maps


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
        TypeError, ValueError: if `maps` is not a floating array with that many axes.
    """
    xp = array_namespace(maps)
    return _normalise(require_map(maps, "maps", spatial_ndim, xp), spatial_ndim, xp=xp)


def _normalise(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    low, extent, flat = _extent(maps, spatial_ndim, xp=xp)
    scaled = (maps - low) / xp.where(flat, xp.ones_like(extent), extent)
    return xp.where(flat, xp.zeros_like(maps), scaled)


def _extent(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Of each map (kept axes): its minimum, its range, and whether it is constant up to rounding."""
    axes = spatial_axes(spatial_ndim)
    low = xp.min(maps, axis=axes, keepdims=True)
    high = xp.max(maps, axis=axes, keepdims=True)
    kind = xp.finfo(maps.dtype)
    # A resize rounds each pixel of a constant map by an ulp or two: that must not be blown up to a pattern.
    rounding = 8 * float(kind.eps) * xp.maximum(xp.abs(low), xp.abs(high))
    extent = high - low
    return low, extent, (extent <= rounding) | (extent < float(kind.smallest_normal))


def is_constant(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """Which maps are constant in the sense of `normalise`: booleans of the leading axes."""
    flat = _extent(maps, spatial_ndim, xp=xp)[2]
    return xp.reshape(flat, tuple(maps.shape[: maps.ndim - spatial_ndim]))


def percentile(maps: Array, percentage: float, *, spatial_ndim: int = 2) -> Array:
    """The given percentile of each map, with linear interpolation between its sorted values.

    Args:
        maps: (..., *spatial), floating.
        percentage: in [0, 100].
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...): one value a map.

    Raises:
        TypeError, ValueError: if `maps` is no floating map or the percentage lies outside [0, 100].
    """
    xp = array_namespace(maps)
    require_map(maps, "maps", spatial_ndim, xp)
    return _percentile(maps, require_percentage(percentage), spatial_ndim, xp=xp)


def require_percentage(percentage: float) -> float:
    """The percentage as a float if it lies in [0, 100].

    Raises:
        ValueError: if it does not.
    """
    if not 0 <= percentage <= 100:
        raise ValueError(f"A percentile lies between 0 and 100, and {percentage} came.")
    return float(percentage)


def require_count(value: Any, name: str, least: int = 1) -> int:
    """The value itself if it is a whole number of at least `least`.

    Raises:
        ValueError: naming it otherwise.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, and {value!r} came.")
    return int(value)


Word = TypeVar("Word", bound=str)


def require_word(value: Word, name: str, known: Any) -> Word:
    """The value itself if it is one of the words of a `Literal`.

    Raises:
        ValueError: naming it and the words otherwise.
    """
    *others, last = map(repr, get_args(known))
    if value not in get_args(known):
        raise ValueError(f"{name} is {', '.join(others)} or {last}, and {value!r} came.")
    return value


def _percentile(maps: Array, percentage: float, spatial_ndim: int, *, xp: Namespace) -> Array:
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])
    values = xp.sort(xp.reshape(maps, (*lead, math.prod(maps.shape[-spatial_ndim:]))), axis=-1)
    position = percentage / 100 * (values.shape[-1] - 1)
    below = math.floor(position)
    above = min(below + 1, values.shape[-1] - 1)
    return values[..., below] + (values[..., above] - values[..., below]) * (position - below)


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
        TypeError, ValueError: if `maps` is no floating map or a length is not positive.
    """
    xp = array_namespace(maps)
    size = tuple(int(length) for length in size)
    if not size or min(size) < 1:
        raise ValueError(f"size holds one positive length for each spatial axis, and {size} came.")
    return _resize(require_map(maps, "maps", len(size), xp), size, xp=xp)


def _resize(maps: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    for axis, length in zip(range(-1, -len(size) - 1, -1), reversed(size), strict=True):
        if maps.shape[axis] != length:
            maps = _interpolate(maps, axis, constant_like(_linear_weights(maps.shape[axis], length), maps, xp), xp)
    return maps


def _interpolate(maps: Array, axis: int, weights: Array, xp: Namespace) -> Array:
    """The matrix `weights` (new, old) applied along one axis."""
    if axis == -1:
        return xp.matmul(maps, xp.matrix_transpose(weights))
    lead, trailing = tuple(maps.shape[:axis]), tuple(maps.shape[axis + 1 :])
    rows = xp.reshape(maps, (*lead, maps.shape[axis], math.prod(trailing)))
    return xp.reshape(xp.matmul(weights, rows), (*lead, weights.shape[0], *trailing))


@functools.lru_cache(maxsize=256)
def _linear_weights(old: int, new: int) -> np.ndarray[Any, Any]:
    """The (new, old) matrix of a linear resize with half-pixel centres and clamped edges."""
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, old - 1)
    fraction = centres - below
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), below), 1 - fraction)
    np.add.at(weights, (np.arange(new), above), fraction)
    weights.flags.writeable = False
    return weights


def softmax(values: Array, *, axis: int = -1) -> Array:
    """Softmax along an axis, shifted by the maximum so that it does not overflow.

    Args:
        values: floating, any shape.
        axis: the axis that sums to one.

    Returns:
        An array of the same shape and dtype, in [0, 1].

    Raises:
        TypeError: if the dtype is not floating.
    """
    xp = array_namespace(values)
    return _softmax(require_float(values, "values", xp), axis, xp=xp)


def _softmax(values: Array, axis: int, *, xp: Namespace) -> Array:
    exponentials = xp.exp(values - xp.max(values, axis=axis, keepdims=True))
    return exponentials / xp.sum(exponentials, axis=axis, keepdims=True)


def sigmoid(values: Array, *, xp: Namespace) -> Array:
    """The logistic function, without overflow on either side."""
    decay = xp.exp(-xp.abs(values))
    return xp.where(values >= 0, 1 / (1 + decay), decay / (1 + decay))


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
        TypeError, ValueError: if `images` is no floating map or sigma is not positive.
    """
    xp = array_namespace(images)
    require_map(images, "images", spatial_ndim, xp)
    if not sigma > 0:
        raise ValueError(f"The blur's sigma is a positive number of pixels, and {sigma} came.")
    return _blur(images, float(sigma), math.ceil(3 * sigma), spatial_ndim, xp=xp)


def _blur(images: Array, sigma: float, radius: int, spatial_ndim: int, *, xp: Namespace) -> Array:
    for axis in spatial_axes(spatial_ndim):
        weights = constant_like(_blur_weights(images.shape[axis], sigma, radius), images, xp)
        images = _interpolate(images, axis, weights, xp)
    return images


@functools.lru_cache(maxsize=64)
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
    weights.flags.writeable = False
    return weights
