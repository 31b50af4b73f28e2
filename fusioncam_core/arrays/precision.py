"""The range of numbers: half precision worked on in float32, and values too large or too small to be multiplied."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(*names: str, calls: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a public function work in float32 on what comes in half precision, and give back the dtype that came.

    A sum over an image's pixels does not fit into float16, and its steps near 1 are a thousandth. Arrays of several
    dtypes meet in the widest of them, which is then the result's.

    Args:
        *names: of the parameters that are arrays, or lists or tuples of arrays.
        calls: the parameter that is a function of the user's: it is called with arrays of the dtype that came.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function)

        @functools.wraps(function)
        def wide(*arguments: P.args, **keywords: P.kwargs) -> R:
            given = parameters.bind(*arguments, **keywords)
            arrays = [each for name in names for each in _arrays(given.arguments.get(name))]
            xp = array_namespace(*arrays) if arrays else None
            if xp is None or not _differ(arrays, xp):
                return function(*arguments, **keywords)
            came, work = _dtypes(arrays, xp)
            for name in names:
                given.arguments[name] = _cast(given.arguments.get(name), work, xp)
            if calls is not None and callable(given.arguments.get(calls)):
                given.arguments[calls] = _asked_in(given.arguments[calls], came, work, xp)
            result: R = _cast(function(*given.args, **given.kwargs), came, xp)
            return result

        return wide

    return decorate


def _arrays(value: Any) -> Iterator[Array]:
    """The arrays in a parameter's value."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _arrays(each)
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        yield value


def _differ(arrays: list[Array], xp: Namespace) -> bool:
    """Whether there is something to cast; of what is no floating array the function itself has to complain."""
    kinds = [each.dtype for each in arrays]
    if not all(xp.isdtype(kind, "real floating") for kind in kinds):
        return False
    return xp.finfo(kinds[0]).bits < 32 or any(kind != kinds[0] for kind in kinds)


def _dtypes(arrays: list[Array], xp: Namespace) -> tuple[Any, Any]:
    """The widest dtype that came, the first of equal ones, and the one to work in."""
    came = max((each.dtype for each in arrays), key=lambda kind: xp.finfo(kind).bits)
    return came, came if xp.finfo(came).bits >= 32 else xp.float32


def _asked_in(function: Callable[..., Array], came: Any, work: Any, xp: Namespace) -> Callable[..., Array]:
    """A user's function, asked in one dtype and heard in another; integers go through as they are."""

    def asked(*arrays: Array) -> Array:
        answer = function(*(_cast(each, came, xp) for each in arrays))
        own = array_namespace(answer) if hasattr(answer, "dtype") else None
        if own is xp:
            return _cast(answer, work, xp)
        return answer if own is None else _cast(answer, own.float32, own)

    return asked


def _cast(value: Any, dtype: Any, xp: Namespace) -> Any:
    """The value with its floating arrays in the dtype: an array, or a list, tuple, dict or dataclass of them."""
    if isinstance(value, list | tuple):
        return type(value)(_cast(each, dtype, xp) for each in value)
    if isinstance(value, dict):
        return {name: _cast(each, dtype, xp) for name, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: _cast(getattr(value, each.name), dtype, xp) for each in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if not hasattr(value, "dtype") or value.dtype == dtype or not xp.isdtype(value.dtype, "real floating"):
        return value
    return xp.astype(_held(value, dtype, xp), dtype)


def _held(value: Array, dtype: Any, xp: Namespace) -> Array:
    """The values cut at the largest number of a narrower dtype, which would make infinities of them."""
    largest = float(xp.finfo(dtype).max)
    if float(xp.finfo(value.dtype).max) <= largest:
        return value
    bound = xp.full_like(value, largest)
    return xp.minimum(xp.maximum(value, -bound), bound)


def unit(values: Array, axes: tuple[int, ...], *, xp: Namespace) -> Array:
    """What to divide values by (kept axes) before they are multiplied with others, so that nothing overflows.

    It is 1, which changes no bit, unless the largest of them lies beyond the cube root of the dtype's range, 2e-13 to
    4e12 in float32; then it is about that largest one, and no larger than what has a normal reciprocal, by which some
    compilers multiply. Below the smallest normal number it is 1: there some libraries and compilers take all values for
    zero, so that the others do as well.
    """
    largest = xp.max(xp.abs(values), axis=axes, keepdims=True)
    smallest = float(xp.finfo(values.dtype).smallest_normal)
    usual = (largest >= smallest ** (1 / 3)) & (largest <= smallest ** (-1 / 3))
    most = xp.full_like(largest, 0.25 / smallest)
    return xp.where(usual | (largest < smallest), xp.ones_like(largest), xp.minimum(largest, most))


def tamed(values: Array, first: int, *, xp: Namespace) -> Array:
    """The values in their `unit`, over the axes from `first` on: for formulas to which a factor does not matter."""
    return in_unit(values, first, xp=xp)[0]


def in_unit(values: Array, first: int, *, xp: Namespace) -> tuple[Array, Array]:
    """The values in their `unit`, over the axes from `first` on, and that unit (kept axes)."""
    own = unit(values, tuple(range(first % values.ndim, values.ndim)), xp=xp)
    return values / own, own
