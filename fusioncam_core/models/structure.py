"""What models take, as a structure: arrays in containers, anything else beside them, and arrays that images share."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.errors import UnknownNameError

Path = tuple[int | str, ...]
"""The steps to an entry of nested containers: positions and names."""

NO_NUMBERS = "OSUMm"
"""The kinds of NumPy's dtypes whose arrays are no arrays to a model: objects, texts, dates."""


@dataclass(frozen=True, eq=False)
class Shared:
    """An array that all images share: it is neither cut by rows nor repeated for masks."""

    array: Array


def is_array(value: Any) -> bool:
    """Whether it is an array of numbers, of whatever library; a NumPy number is none."""
    kind = _kind(value)
    return kind == "array" or (kind == "perhaps" and _is_array(value))


def is_container(value: Any) -> bool:
    """Whether it is a tuple, list or mapping."""
    return _kind(value) == "container"


def _kind(value: Any) -> str:
    """What a value is, as far as its type tells."""
    of: Any = type(value)
    kind: str = _kind_of(of)
    return kind


@functools.lru_cache(maxsize=1024)  # this is asked about every argument of what is compiled
def _kind_of(of: Any) -> str:
    if issubclass(of, tuple | list | Mapping):
        return "container"
    if issubclass(of, np.generic | Shared):
        return "other"
    return "array" if hasattr(of, "dtype") and hasattr(of, "shape") and not issubclass(of, np.ndarray) else "perhaps"


def _is_array(value: Any) -> bool:
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return False
    return not (isinstance(value, np.ndarray) and value.dtype.kind in NO_NUMBERS)


def entries(container: Any) -> Iterator[tuple[Any, Any]]:
    """The steps into a container, and what is there."""
    return iter(container.items()) if isinstance(container, Mapping) else enumerate(container)


def rebuilt(container: Any, values: list[Any]) -> Any:
    """A container of the same kind, and of the same names, with other values; itself if they are the same ones."""
    if all(value is before for value, (_, before) in zip(values, entries(container), strict=True)):
        return container
    if isinstance(container, Mapping):
        named = dict(zip(container, values, strict=True))
        if type(container) is dict or not isinstance(container, MutableMapping):
            return named
        copied = copy.copy(container)
        for name, value in named.items():  # Hugging Face's mappings refuse update()
            copied[name] = value
        return copied
    return container._make(values) if hasattr(container, "_make") else type(container)(values)


def map_arrays(function: Callable[[Array], Array], value: Any) -> Any:
    """The function of every array; everything else stays as it is."""
    if is_container(value):
        return rebuilt(value, [map_arrays(function, each) for _, each in entries(value)])
    if isinstance(value, Shared):
        return Shared(function(value.array))
    return function(value) if is_array(value) else value


def map_rows(function: Callable[[Array], Array], value: Any) -> Any:
    """The function of every array that has a row an image: not of those that images share, nor of single numbers."""
    if is_container(value):
        return rebuilt(value, [map_rows(function, each) for _, each in entries(value)])
    return function(value) if is_array(value) and value.ndim else value


def bare(value: Any) -> Any:
    """The same without the marks of what is shared: what a model is called with."""
    if is_container(value):
        return rebuilt(value, [bare(each) for _, each in entries(value)])
    return value.array if isinstance(value, Shared) else value


def found(value: Any, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every array, or its mark, with its path."""
    if is_container(value):
        for step, each in entries(value):
            yield from found(each, (*prefix, step))
    elif isinstance(value, Shared) or is_array(value):
        yield prefix, value


def at(value: Any, path: Path) -> Any:
    """What is at the path.

    Raises:
        LookupError: if nothing is.
    """
    for step in path:
        if not is_container(value) or (not isinstance(value, Mapping) and not (isinstance(step, int) and step >= 0)):
            raise UnknownNameError(f"There is nothing at {path!r}.")
        value = value[step]
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """The same with something else at the path."""
    if not path:
        return new
    return rebuilt(value, [replaced(each, path[1:], new) if step == path[0] else each for step, each in entries(value)])


def named(path: Path) -> int | str | Path:
    """A path as users write it: a single step stands for itself."""
    return path[0] if len(path) == 1 else path


# --- what a compiler takes: arrays alone


class _Slot:
    """Stands where an array was."""


_ROWS, _SHARED = _Slot(), _Slot()


@dataclass(frozen=True)
class Form:
    """All of a structure but its arrays: containers, values that are no arrays, and which arrays are shared.

    Attributes:
        key: equal for forms that a compiler need not tell apart.
        slots: for each array, whether it is shared.
    """

    key: Any
    slots: tuple[bool, ...]
    _emptied: Any

    def filled(self, arrays: Any) -> Any:
        """The structure with these arrays."""
        return _filled(self._emptied, iter(arrays))


def split(value: Any) -> tuple[list[Array], Form]:
    """The arrays of a structure, and everything else of it.

    What is no array is part of the form by its value, or, if it has no hash, as the object it is.
    """
    arrays: list[Array] = []
    slots: list[bool] = []
    emptied = _emptied(value, arrays, slots)
    return arrays, Form(_key(emptied), tuple(slots), emptied)


def _emptied(value: Any, arrays: list[Array], slots: list[bool]) -> Any:
    if value is None:
        return None
    if is_container(value):
        return rebuilt(value, [_emptied(each, arrays, slots) for _, each in entries(value)])
    shared = isinstance(value, Shared)
    if not shared and not is_array(value):
        return value
    arrays.append(value.array if shared else value)
    slots.append(shared)
    return _SHARED if shared else _ROWS


def _filled(emptied: Any, arrays: Iterator[Array]) -> Any:
    if emptied is _ROWS:
        return next(arrays)
    if emptied is _SHARED:
        return Shared(next(arrays))
    if is_container(emptied):
        return rebuilt(emptied, [_filled(each, arrays) for _, each in entries(emptied)])
    return emptied


def _key(emptied: Any) -> Any:
    if emptied is None or isinstance(emptied, _Slot):
        return emptied
    if is_container(emptied):
        steps = tuple(emptied) if isinstance(emptied, Mapping) else None
        return type(emptied), steps, tuple(_key(each) for _, each in entries(emptied))
    try:
        hash(emptied)
    except TypeError:
        return id(emptied)  # the form holds the object: no other one can get its id
    return type(emptied), emptied


def _plain(arguments: tuple[Any, ...]) -> tuple[Any, list[Array]]:
    """Which arguments are None, and the others, if they are arrays; None if one is anything else: its form tells more.

    Most calls are like that, and this is what is quick to find out.
    """
    missing: list[bool] = []
    arrays: list[Array] = []
    for each in arguments:
        if each is not None:
            if _kind(each) != "array":
                return None, []
            arrays.append(each)
        missing.append(each is None)
    return tuple(missing), arrays


KEPT = 8
"""So many programs of one function are kept for different forms: a number that changes from call to call must not fill
the memory."""


class ByForm:
    """A function of structures by way of compiled functions of their arrays: one for each form.

    Args:
        compiled: makes a compiled function of (a function of arrays).
        function: of the structures.
        leading: so many arguments before the structures are left to the compiler as they are.
    """

    def __init__(
        self,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]],
        function: Callable[..., Any],
        *,
        leading: int = 0,
    ):
        self._compiled = compiled
        self._function = function
        self._leading = leading
        self._made: dict[Any, tuple[Form, Callable[..., Any]]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        before, structures = arguments[: self._leading], arguments[self._leading :]
        key, arrays = _plain(structures)
        made = None if key is None else self._made.get(key)
        if made is not None:
            return made[1](*before, *arrays)
        arrays, form = split(structures)
        key = form.key if key is None else key
        made = self._made.get(key)
        if made is None:
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            made = self._made[key] = (form, self._compiled(self._of_arrays(form)))
        return made[1](*before, *arrays)

    def _of_arrays(self, form: Form) -> Callable[..., Any]:
        # No lambda: TensorFlow counts traces by code, and would warn of explainers that trace the same one.
        return functools.partial(_filled_call, self._function, self._leading, form)


def _filled_call(function: Callable[..., Any], leading: int, form: Form, *given: Any) -> Any:
    return function(*given[:leading], *form.filled(given[leading:]))
