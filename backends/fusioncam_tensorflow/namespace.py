"""The array words over TensorFlow: array API names for what the core is written in.

They do the same eagerly, inside `tf.function` and under XLA, with static shapes. TensorFlow does not promote: both
sides of an operation have one dtype, or one of them is a Python number.
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import tensorflow as tf

bfloat16, float16, float32, float64 = tf.bfloat16, tf.float16, tf.float32, tf.float64
int32, int64 = tf.int32, tf.int64

abs, exp, log, sqrt = tf.abs, tf.exp, tf.math.log, tf.sqrt
round, isfinite, isnan = tf.round, tf.math.is_finite, tf.math.is_nan
maximum, minimum, where, logical_not = tf.maximum, tf.minimum, tf.where, tf.logical_not
reshape, broadcast_to, expand_dims = tf.reshape, tf.broadcast_to, tf.expand_dims
matrix_transpose = tf.linalg.matrix_transpose
ones_like, zeros_like = tf.ones_like, tf.zeros_like
min, max, sum, prod, mean = tf.reduce_min, tf.reduce_max, tf.reduce_sum, tf.reduce_prod, tf.reduce_mean
all, any = tf.reduce_all, tf.reduce_any

_KINDS = {
    "bool": lambda dtype: dtype.is_bool,
    "integral": lambda dtype: dtype.is_integer,
    "real floating": lambda dtype: dtype.is_floating,
    "complex floating": lambda dtype: dtype.is_complex,
    "numeric": lambda dtype: not dtype.is_bool,
}


def isdtype(dtype: tf.DType, kind: str | tuple[str, ...]) -> bool:
    """Whether the dtype is of the kind, or of one of the kinds."""
    return builtins.any(_KINDS[each](dtype) for each in (kind if isinstance(kind, tuple) else (kind,)))


def finfo(dtype: tf.DType) -> Any:
    """The limits of a floating dtype, bfloat16 among them."""
    return ml_dtypes.finfo(dtype.as_numpy_dtype)


def asarray(values: Any, /, *, dtype: tf.DType | None = None, device: str | None = None) -> tf.Tensor:
    """Numbers, NumPy arrays or tensors as a tensor, on the device named."""
    with contextlib.nullcontext() if device is None else tf.device(device):
        tensor = tf.convert_to_tensor(values if tf.is_tensor(values) else np.asarray(values))
        return tensor if dtype is None else tf.cast(tensor, dtype)


def astype(array: tf.Tensor, dtype: tf.DType, /) -> tf.Tensor:
    """The array with another dtype."""
    return tf.cast(array, dtype)


def full_like(array: tf.Tensor, value: float, /) -> tf.Tensor:
    """One value in the array's shape and dtype."""
    return tf.fill(tf.shape(array), tf.constant(value, array.dtype))  # a cast begins in float32


def concat(arrays: Sequence[tf.Tensor], /, *, axis: int = 0) -> tf.Tensor:
    """The arrays joined along an axis they have."""
    return tf.concat(list(arrays), axis)


def stack(arrays: Sequence[tf.Tensor], /, *, axis: int = 0) -> tf.Tensor:
    """The arrays joined along a new axis."""
    return tf.stack(list(arrays), axis)


def matmul(first: tf.Tensor, second: tf.Tensor, /) -> tf.Tensor:
    """The matrix product of the last two axes, over all others.

    TensorFlow is never left to broadcast: for shapes such as (8, 1, 12, 12) and (12, 48), 2.21 and earlier write out
    of bounds (tensorflow issue 117700).
    """
    if second.ndim == 2:
        lengths = _lengths(first)
        rows = tf.matmul(tf.reshape(first, (-1, lengths[-1])), second)
        return tf.reshape(rows, (*lengths[:-1], second.shape[-1]))
    lead = tf.broadcast_static_shape(first.shape[:-2], second.shape[:-2])
    return tf.matmul(*(tf.broadcast_to(each, (*lead, *each.shape[-2:])) for each in (first, second)))


def _lengths(array: tf.Tensor) -> list[Any]:
    """Of its axes; where they are not known while a function is recorded, what they will be."""
    if array.shape.is_fully_defined():
        return list(array.shape)
    return [
        now if known is None else known for known, now in zip(array.shape, tf.unstack(tf.shape(array)), strict=True)
    ]


def moveaxis(array: tf.Tensor, source: int, destination: int, /) -> tf.Tensor:
    """One axis moved to another place."""
    order = [axis for axis in range(array.ndim) if axis != source % array.ndim]
    order.insert(destination % array.ndim, source % array.ndim)
    return tf.transpose(array, order)


def sort(array: tf.Tensor, /, *, axis: int = -1, descending: bool = False) -> tf.Tensor:
    """The values in order along an axis."""
    return tf.sort(array, axis=axis, direction="DESCENDING" if descending else "ASCENDING")


def argmax(array: tf.Tensor, /, *, axis: int, keepdims: bool = False) -> tf.Tensor:
    """The place of the largest value along an axis, as int64."""
    place = tf.argmax(array, axis=axis, output_type=tf.int64)
    return tf.expand_dims(place, axis) if keepdims else place


def argsort(array: tf.Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> tf.Tensor:
    """The places that put the values in order along an axis, as int64; equal values stay as they came."""
    direction = "DESCENDING" if descending else "ASCENDING"
    return tf.cast(tf.argsort(array, axis=axis, direction=direction, stable=stable), tf.int64)


def take(array: tf.Tensor, indices: tf.Tensor, /, *, axis: int) -> tf.Tensor:
    """The entries at the indices (n,) along an axis."""
    return tf.gather(array, indices, axis=axis)


def take_along_axis(array: tf.Tensor, indices: tf.Tensor, /, *, axis: int = -1) -> tf.Tensor:
    """The entries at the indices along an axis; the other axes of both have the same lengths."""
    last = array.ndim - 1
    taken = tf.gather(moveaxis(array, axis, last), moveaxis(indices, axis, last), axis=last, batch_dims=last)
    return moveaxis(taken, last, axis)


class _SVD(NamedTuple):
    U: tf.Tensor
    S: tf.Tensor
    Vh: tf.Tensor


def _svd(array: tf.Tensor, /, *, full_matrices: bool = True) -> _SVD:
    """Singular values first and the third factor transposed is TensorFlow's order, not the standard's."""
    values, left, right = tf.linalg.svd(array, full_matrices=full_matrices)
    return _SVD(left, values, tf.linalg.adjoint(right))


linalg = SimpleNamespace(svd=_svd)


def is_traced(array: tf.Tensor) -> bool:
    """Whether a `tf.function` is being recorded, so that the array has no values to look at."""
    return tf.is_symbolic_tensor(array)


def constant_like(values: Any, like: tf.Tensor) -> tf.Tensor:
    """NumPy values as a tensor of `like`'s dtype on its device."""
    return _beside(like, np.asarray(values).astype(like.dtype.as_numpy_dtype))


def indices_like(values: Any, like: tf.Tensor) -> tf.Tensor:
    """NumPy integers as int64 indices on `like`'s device."""
    return _beside(like, np.asarray(values, dtype=np.int64))


def rows_apart(arrays: Sequence[tf.Tensor]) -> Iterable[tuple[tf.Tensor, ...]]:
    """Each row by itself. A slice takes a fifth of a millisecond, as long as the network for a small image."""
    return zip(*(tf.split(array, array.shape[0]) for array in arrays), strict=True)


def _beside(like: tf.Tensor, values: np.ndarray[Any, Any]) -> tf.Tensor:
    if is_traced(like):  # where it runs is decided when the function does
        return tf.constant(values)
    with tf.device(like.device):
        return tf.constant(values)
