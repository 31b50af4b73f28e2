"""The libraries of arrays: one set of names over all of them, and values brought from and to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from fusioncam_core.errors import InvalidTypeError

Array = Any
"""An array of any supported namespace."""


Namespace = Any
"""A module or object with the array API's names (its version 2023.12 suffices)."""


Finder = Callable[[Any], "Namespace | None"]
"""Gives the namespace of an array that it knows, None of any other."""

_finders: list[Finder] = []


def register_finder(find: Finder) -> None:
    """Ask `find` about arrays from now on: plugins register theirs here, and arrays need not know of plugins."""
    _finders.append(find)


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
        raise InvalidTypeError("array_namespace() needs at least one array.")
    found = [_namespace_of(array) for array in arrays]
    if any(each is not found[0] for each in found):
        names = " and ".join(sorted({_type_name(array) for array in arrays}))
        raise InvalidTypeError(f"Arrays of one library were expected, and {names} came together. Convert them to one.")
    return found[0]


def _namespace_of(array: Array) -> Namespace:
    if isinstance(array, np.ndarray):
        return array_api_compat.array_namespace(array)
    for find in _finders:
        namespace = find(array)
        if namespace is not None:
            return namespace
    try:
        return array_api_compat.array_namespace(array)
    except TypeError:
        raise InvalidTypeError(
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
