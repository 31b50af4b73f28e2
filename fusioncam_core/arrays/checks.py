"""Checks of arguments, and NaN, for that map alone, where a value is undefined."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_args

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, is_traced
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.errors import InvalidTypeError, InvalidValueError


def spatial_axes(spatial_ndim: int) -> tuple[int, ...]:
    """The axes of space, counted from the end: (-2, -1) for images."""
    return tuple(range(-spatial_ndim, 0))


def require_float(array: Array, name: str, xp: Namespace) -> Array:
    """The array itself if its dtype is a real floating one.

    Raises:
        TypeError: naming the array and its dtype otherwise.
    """
    if not xp.isdtype(array.dtype, "real floating"):
        raise InvalidTypeError(f"{name} must be of a floating-point dtype: got {array.dtype}. Convert to float32.")
    return array


def require_finite(array: Array, stage: str, xp: Namespace) -> Array:
    """The array itself if all its values are finite (not looked at while a compiler traces).

    Raises:
        ValueError: naming the stage if a value is NaN or infinite.
    """
    if not is_traced(array, xp):
        with np.errstate(all="ignore"):
            require_finite_sum(array, sum_is_finite(array, xp=xp), stage, xp)
    return array


@as_one_program
def sum_is_finite(array: Array, *, xp: Namespace) -> Array:
    """Whether the sum of the values is finite. Then all of them are, which takes five times as long to see by each."""
    return xp.isfinite(xp.sum(array))


def require_finite_sum(array: Array, sum_is_finite: Array, stage: str, xp: Namespace) -> None:
    """As `require_finite`, where it is known whether the sum is: if it is not, it may be no more than too large.

    Raises:
        ValueError: naming the stage if a value is NaN or infinite.
    """
    if not is_traced(array, xp) and not bool(sum_is_finite) and not bool(xp.all(xp.isfinite(array))):
        raise InvalidValueError(
            f"NaN or infinity in the {stage}: no map can be made of it. Look for it in the input first, then "
            "in the model (a half-precision overflow is the usual cause)."
        )


@as_one_program
def _without_ruled_out(logits: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Zeros in the place of -infinity, and whether their sum is finite."""
    others = xp.where(logits == -math.inf, xp.zeros_like(logits), logits)
    return others, sum_is_finite(others, xp=xp)


def require_scores(logits: Array, stage: str, xp: Namespace) -> Array:
    """The logits themselves if each is finite or -infinity, by which a model rules a class out.

    The probability of such a class is 0, and those of the others are defined.

    Raises:
        ValueError: naming the stage if a value is NaN or infinite.
    """
    with np.errstate(all="ignore"):
        require_finite_sum(*_without_ruled_out(logits, xp=xp), stage, xp)
    return logits


def require_map(maps: Array, name: str, spatial_ndim: int, xp: Namespace) -> Array:
    """The array itself if it is a floating map with `spatial_ndim` axes of space, none empty.

    Raises:
        TypeError: if its dtype is not floating.
        ValueError: if it has too few axes or an empty one.
    """
    require_float(maps, name, xp)
    if spatial_ndim < 1:
        raise InvalidValueError(f"spatial_ndim must be at least 1: got {spatial_ndim}.")
    if maps.ndim < spatial_ndim:
        raise InvalidValueError(
            f"{name} has shape {tuple(maps.shape)}: fewer axes than the {spatial_ndim} of space. "
            "Say how many axes are space with spatial_ndim."
        )
    if 0 in maps.shape[-spatial_ndim:]:
        raise InvalidValueError(f"{name} has shape {tuple(maps.shape)}: a map without a single pixel.")
    return maps


def require_percentage(percentage: float) -> float:
    """The percentage as a float if it lies in [0, 100].

    Raises:
        ValueError: if it does not.
    """
    if not 0 <= percentage <= 100:
        raise InvalidValueError(f"A percentile lies between 0 and 100: got {percentage}.")
    return float(percentage)


def require_count(value: Any, name: str, least: int = 1) -> int:
    """The value itself if it is a whole number of at least `least`.

    Raises:
        ValueError: naming it otherwise.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidValueError(f"{name} is a whole number of at least {least}: got {value!r}.")
    return int(value)


def require_switch(value: Any, name: str) -> bool:
    """The value, if it is True or False.

    Raises:
        TypeError: if it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidTypeError(f"{name} is True or False: got {value!r}.")
    return bool(value)


def require_size(size: Any) -> tuple[int, ...]:
    """The lengths of the spatial axes as whole numbers; none is rounded to one.

    Raises:
        ValueError: if there is none, or one is no positive whole number.
    """
    lengths = tuple(size) if isinstance(size, Iterable) else ()
    # Whatever can index is whole, the symbolic lengths of a compiler among it.
    whole = all(hasattr(each, "__index__") and not isinstance(each, bool) and each > 0 for each in lengths)
    if not lengths or not whole:
        raise InvalidValueError(
            f"size holds one positive length for each spatial axis, a whole number of pixels: got {size!r}."
        )
    return tuple(operator.index(length) for length in lengths)


def require_size_of(size: Any, axes: int) -> tuple[int, ...]:
    """The lengths as whole numbers, if they are of as many axes of space.

    Raises:
        ValueError: otherwise.
    """
    lengths = require_size(size)
    if len(lengths) != axes:
        raise InvalidValueError(
            f"Expected a size with one length for each axis of space, of which there are {axes}, got {lengths}."
        )
    return lengths


def require_flag(value: Any, name: str) -> bool:
    """The value itself if it is True or False.

    Raises:
        TypeError: naming it otherwise.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidTypeError(f"{name} is True or False: got {value!r}.")
    return bool(value)


Word = TypeVar("Word", bound=str)


def require_word(value: Word, name: str, known: Any) -> Word:
    """The value itself if it is one of the words of a `Literal`.

    Raises:
        ValueError: naming it and the words otherwise.
    """
    *others, last = map(repr, get_args(known))
    if value not in get_args(known):
        raise InvalidValueError(f"{name} is {', '.join(others)} or {last}: got {value!r}.")
    return value


def require_shares(values: Array, name: str, xp: Namespace) -> Array:
    """The values themselves if they are floating and in [0, 1] up to rounding, or NaN (not looked at while traced).

    Raises:
        TypeError: if the dtype is not floating.
        ValueError: if a value lies outside.
    """
    require_float(values, name, xp)
    if is_traced(values, xp):
        return values
    rounding = 8 * float(xp.finfo(values.dtype).eps)
    if bool(xp.any((values < -rounding) | (values > 1 + rounding))):
        raise InvalidValueError(
            f"{name} lies in [0, 1]: got values from {float(xp.min(values))} to {float(xp.max(values))}: "
            "fractions were expected, not percent, and probabilities, not logits."
        )
    return values


def require_broadcast(**arrays: Array) -> None:
    """Nothing, if the arrays' shapes can be broadcast to one.

    Raises:
        ValueError: naming the arrays and their shapes if they cannot.
    """
    shapes = [tuple(array.shape) for array in arrays.values()]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        described = " and ".join(f"{name} {shape}" for name, shape in zip(arrays, shapes, strict=True))
        raise InvalidValueError(f"The shapes are {described}: they must be equal, or broadcast to one.") from None


def require_shape(array: Array, name: str, expected: Sequence[int], meaning: str) -> None:
    """Nothing, if the array has the shape.

    Raises:
        ValueError: naming the array, its shape, the expected one and what that means.
    """
    if tuple(array.shape) != tuple(expected):
        raise InvalidValueError(
            f"{name} have shape {tuple(array.shape)}, and {tuple(expected)} was expected: {meaning}."
        )


def of_dtype(values: Array, dtype: Any, *, xp: Namespace) -> Array:
    """The values in that dtype: the very array if that is its own, which `astype` copies."""
    return values if values.dtype == dtype else xp.astype(values, dtype)


def widened(values: Array, *, xp: Namespace) -> Array:
    """The values in float32 at least: the sum of a map's pixels does not fit into half precision."""
    return values if xp.finfo(values.dtype).bits >= 32 else xp.astype(values, xp.float32)


def at_least_float32(values: Array, *, xp: Namespace) -> Array:
    """Numbers of any kind as floating ones: float64 stays what it is, all others become float32."""
    return widened(values, xp=xp) if xp.isdtype(values.dtype, "real floating") else xp.astype(values, xp.float32)


def of_one_dtype(arrays: Sequence[Array], *, xp: Namespace) -> list[Array]:
    """Numbers of any kind as floating ones of one dtype: float64 where any of them is, else float32."""
    wide = [at_least_float32(each, xp=xp) for each in arrays]
    widest = max((each.dtype for each in wide), key=lambda dtype: int(xp.finfo(dtype).bits))
    return [of_dtype(each, widest, xp=xp) for each in wide]


def finite_maps(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array]:
    """The maps in float32 at least, zeros in place of each one with NaN or infinity; and which ones had none (...).

    Zeros go through any formula without a warning, and `defined` makes NaN of what comes out.
    """
    wide = widened(maps, xp=xp)
    finite = xp.all(xp.isfinite(wide), axis=spatial_axes(spatial_ndim), keepdims=True)
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])
    return xp.where(finite, wide, xp.zeros_like(wide)), xp.reshape(finite, lead)


def known(values: Array, *, xp: Namespace) -> Array:
    """Where the values are no NaN."""
    return xp.logical_not(xp.isnan(values))


def defined(values: Array, where: Array, like: Array, *, xp: Namespace) -> Array:
    """The values in the dtype of `like`, NaN but where the condition holds."""
    return xp.astype(xp.where(where, values, xp.full_like(values, float("nan"))), like.dtype)


def quotient(numerators: Array, denominators: Array, *, xp: Namespace) -> Array:
    """The quotients, NaN where the denominator is zero."""
    zero = denominators == 0
    quotients = numerators / xp.where(zero, xp.ones_like(denominators), denominators)
    return xp.where(zero, xp.full_like(quotients, float("nan")), quotients)


def ground_truth_masks(masks: Array, maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """Masks of the maps' library, or NumPy's, as zeros and ones of the maps' dtype, in float32 at least.

    Raises:
        TypeError: if they are of a third library.
        ValueError: if their space is another one, they do not broadcast, or a value is neither 0 nor 1.
    """
    if tuple(masks.shape[-spatial_ndim:]) != tuple(maps.shape[-spatial_ndim:]):
        raise InvalidValueError(
            f"masks have shape {tuple(masks.shape)} and maps {tuple(maps.shape)}: the last {spatial_ndim} axes, space, "
            "must be equal. Resize the maps to the masks' size."
        )
    require_broadcast(maps=maps, masks=masks)
    if not isinstance(masks, np.ndarray):
        array_namespace(maps, masks)
    like = widened(maps, xp=xp)
    ground_truth = constant_like(masks, like, xp) if isinstance(masks, np.ndarray) else xp.astype(masks, like.dtype)
    if not is_traced(ground_truth, xp) and not bool(xp.all((ground_truth == 0) | (ground_truth == 1))):
        raise InvalidValueError("masks hold 0 and 1, or booleans: got other values. Compare them with a threshold.")
    return ground_truth
