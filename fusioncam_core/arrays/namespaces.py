"""The libraries of arrays: one set of names over all of them, and values brought from and to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import array_api_compat
import numpy as np

from fusioncam_core.errors import InvalidTypeError

Array = Any
"""An array of any supported namespace."""


Axes = int | tuple[int, ...] | None
"""One axis, several, or all of them."""


class LinearAlgebra(Protocol):
    """The words of a namespace's `linalg`."""

    def svd(self, array: Array, /, *, full_matrices: bool = True) -> tuple[Array, Array, Array]:
        """(..., m, n) -> `U` (..., m, k), `S` (..., k) in falling order and `Vh` (..., k, n); `k` is the less of both.

        With `full_matrices` `U` and `Vh` are square.
        """


class Namespace(Protocol):
    """Every word that the core asks of an array library: a module or object with the array API's names.

    The words mean what they mean in the array API (version 2023.12, with `take_along_axis` of 2024.12), and are called
    as they stand here: arrays by position, everything else by name. Arrays that meet in one call have one dtype. Of
    Python's operators, arrays know arithmetic and comparison with each other and with Python numbers, `&` and `|` of
    booleans, and indexing with integers, slices and `...`.
    """

    # Dtypes

    @property
    def float32(self) -> Any:
        """The dtype that narrower ones are widened to."""

    def isdtype(self, dtype: Any, kind: str | tuple[str, ...], /) -> bool:
        """Whether a dtype is "bool", "integral" or "real floating", or of one of several kinds."""

    def finfo(self, dtype: Any, /) -> Any:
        """The limits of a floating dtype: `bits`, `eps`, `max` and `smallest_normal`."""

    def astype(self, array: Array, dtype: Any, /) -> Array:
        """The values in another dtype."""

    # New arrays

    def asarray(self, values: Any, /, *, dtype: Any = None, device: Any = None) -> Array:
        """Numbers, a NumPy array or an array of the library as an array of the library."""

    def zeros_like(self, array: Array, /) -> Array:
        """Zeros of the array's shape and dtype."""

    def ones_like(self, array: Array, /) -> Array:
        """Ones of the array's shape and dtype."""

    def full_like(self, array: Array, value: float, /) -> Array:
        """One value, NaN and infinity among them, in the array's shape and dtype."""

    # One element at a time: (...) -> (...)

    def abs(self, array: Array, /) -> Array:
        """The magnitudes."""

    def exp(self, array: Array, /) -> Array:
        """`e` to the power of the values."""

    def log(self, array: Array, /) -> Array:
        """The natural logarithms."""

    def sqrt(self, array: Array, /) -> Array:
        """The square roots."""

    def round(self, array: Array, /) -> Array:
        """The nearest integers in the array's dtype; halves go to the even one."""

    def isfinite(self, array: Array, /) -> Array:
        """Where the values are neither NaN nor infinite."""

    def isnan(self, array: Array, /) -> Array:
        """Where the values are NaN."""

    def logical_not(self, array: Array, /) -> Array:
        """The opposite of booleans."""

    # Two or three arrays, broadcast to one shape

    def maximum(self, first: Array, second: Array, /) -> Array:
        """The larger of two values."""

    def minimum(self, first: Array, second: Array, /) -> Array:
        """The smaller of two values."""

    def where(self, condition: Array, first: Array, second: Array, /) -> Array:
        """The first value where the condition holds, the second elsewhere."""

    # Over axes, which go or stay as length 1

    def sum(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """The sums."""

    def prod(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """The products."""

    def mean(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """The means."""

    def max(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """The largest values."""

    def min(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """The smallest values."""

    def all(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """Whether all booleans hold."""

    def any(self, array: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
        """Whether one of the booleans holds."""

    # Order, and places: indices are of the dtype that `indices_like` gives

    def argmax(self, array: Array, /, *, axis: int, keepdims: bool = False) -> Array:
        """The place of the largest value along an axis, the first of equal ones."""

    def sort(self, array: Array, /, *, axis: int = -1) -> Array:
        """The values along an axis in rising order."""

    def argsort(self, array: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
        """The places that put the values along an axis in order; equal ones stay as they came."""

    def take(self, array: Array, indices: Array, /, *, axis: int) -> Array:
        """The entries along an axis at the indices (n,)."""

    def take_along_axis(self, array: Array, indices: Array, /, *, axis: int) -> Array:
        """The entries along an axis at indices of as many axes, whose other axes are as long as the array's."""

    # Shapes

    def reshape(self, array: Array, shape: tuple[int, ...], /) -> Array:
        """The values, the last axis running fastest, in another shape."""

    def broadcast_to(self, array: Array, shape: tuple[int, ...], /) -> Array:
        """The values repeated along axes of length 1, and along new ones in front."""

    def expand_dims(self, array: Array, /, *, axis: int) -> Array:
        """An axis of length 1 at that place of the result."""

    def moveaxis(self, array: Array, source: int, destination: int, /) -> Array:
        """One axis moved to another place; the others keep their order."""

    def concat(self, arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
        """The arrays joined along an axis they have."""

    def stack(self, arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
        """The arrays joined along a new axis."""

    # Matrices, in the last two axes

    def matmul(self, first: Array, second: Array, /) -> Array:
        """The matrix products, the axes before the last two broadcast, in the full precision of the dtype."""

    def matrix_transpose(self, array: Array, /) -> Array:
        """(..., m, n) -> (..., n, m)."""

    @property
    def linalg(self) -> LinearAlgebra:
        """The words of linear algebra."""


class OptionalWords(Protocol):
    """Words that a namespace may have besides, each for itself, where its library needs help."""

    def is_traced(self, array: Array, /) -> bool:
        """Whether a compiler is recording, so that the array has no values to look at. Without it: never."""

    def constant_like(self, values: Any, like: Array, /) -> Array:
        """NumPy values as an array of `like`'s dtype, on its device. Without it: by `asarray`."""

    def indices_like(self, values: Any, like: Array, /) -> Array:
        """NumPy integers as indices on `like`'s device. Without it: as int64, by `asarray`."""

    def compiled(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """A function of arrays, nested in tuples, as one program. Without it: its steps one by one."""

    def kept(self, scores: Array, /) -> Any:
        """A chunk's scores as they are best kept until all are there. Without it: as they are."""

    def to_host(self, arrays: Sequence[Array], /) -> list[np.ndarray[Any, Any]]:
        """Several arrays as NumPy's. Without it they are joined first, which JAX would compile for each number."""

    def rows_apart(self, arrays: Sequence[Array], /) -> Iterable[Sequence[Array]]:
        """Of each row its part (1, ...) of every array (B, ...). Without it: by a slice each."""


def _names(protocol: type) -> frozenset[str]:
    return frozenset(name for name in vars(protocol) if not name.startswith("_"))


WORDS = (_names(Namespace) - {"linalg"}) | {f"linalg.{name}" for name in _names(LinearAlgebra)}
"""What a namespace must have, read off `Namespace`: "abs", ..., "linalg.svd"."""


OPTIONAL_WORDS = _names(OptionalWords)
"""What it may have besides, read off `OptionalWords`."""


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
        A module or object with the words of `Namespace`.

    Raises:
        TypeError: if one is no array, if nobody knows its library, or if they are of several libraries.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import array_namespace
        >>> array_namespace(np.zeros(3)).sum is np.sum
        True
    """
    if not arrays:
        raise InvalidTypeError("array_namespace() needs at least one array.")
    found = [_namespace_of(array) for array in arrays]
    if any(each is not found[0] for each in found):
        names = " and ".join(sorted({_type_name(array) for array in arrays}))
        raise InvalidTypeError(f"Expected arrays of one library, got {names} together. Convert them to one.")
    return found[0]


def _namespace_of(array: Array) -> Namespace:
    for find in () if isinstance(array, np.ndarray) else _finders:
        namespace = find(array)
        if namespace is not None:
            return namespace
    try:
        return cast(Namespace, array_api_compat.array_namespace(array))
    except TypeError:
        raise InvalidTypeError(
            f"Expected an array, got a {_type_name(array)}. NumPy arrays, PyTorch tensors, JAX arrays, "
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


def rows_apart(arrays: Sequence[Array]) -> Iterator[Sequence[Array]]:
    """Of each row its part (1, ...) of every array (B, ...), in the arrays' order; there is a row at least."""
    namespaces = [array_namespace(array) for array in arrays]
    if all(each is namespaces[0] for each in namespaces):
        return iter(_rows_apart(arrays, namespaces[0]))
    each = [_rows_apart([array], xp) for array, xp in zip(arrays, namespaces, strict=True)]
    return ([part for (part,) in row] for row in zip(*each, strict=True))


def _rows_apart(arrays: Sequence[Array], xp: Namespace) -> Iterable[Sequence[Array]]:
    own = getattr(xp, "rows_apart", None)
    if own is not None:
        found: Iterable[Sequence[Array]] = own(arrays)
        return found
    return ([array[row : row + 1, ...] for array in arrays] for row in range(int(arrays[0].shape[0])))


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


def dtype_name(dtype: Any) -> str:
    """What a dtype of any library is called: "float32"."""
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2]
