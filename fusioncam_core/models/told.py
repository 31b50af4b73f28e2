"""What a model is told beside its weights, as far as it can be compared with what it is told later.

A program that is compiled keeps to what the code it was made of went by at that time: attributes, entries of lists,
what functions have from around them. Backends whose programs would not hear of a change compare it at the beginning of
a session (`ModelAdapter.hear`).
"""

from __future__ import annotations

import functools
import weakref
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, str, type(None))
"""The kinds of values by which layers are told what to do."""

DEEP = 3
"""So far down in lists in lists it is listened."""

LARGE = 4096
"""Bytes of an array whose values are no longer looked at."""

LONG = 1024
"""Entries of a list that are looked into."""

UNHEARD = "…"
"""In the place of a value that tells nothing that can be compared, such as an object of a user's class."""


class Same:
    """Equal to that of the same object alone, which it does not keep alive: another one may come to its address."""

    def __init__(self, value: Any):
        try:
            self._reference: Any = weakref.ref(value)
        except TypeError:  # of few classes, whose objects live on in their modules
            self._reference = functools.partial(_itself, value)

    def __eq__(self, other: object) -> bool:
        own = self._reference()
        return own is not None and isinstance(other, Same) and own is other._reference()

    __hash__ = None  # type: ignore[assignment]


def _itself(value: Any) -> Any:
    return value


def heard(value: Any, depth: int = DEEP) -> Any:
    """What can be compared of a value, so far down in what is nested, or `UNHEARD`.

    Numbers, words and small arrays of NumPy by what they are; other arrays and what can be called by which object they
    are; lists, dictionaries and functions by what is in them and around them.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.nbytes <= LARGE:
        return value.shape, value.dtype.str, value.tobytes()
    if depth == 0:
        return UNHEARD
    if isinstance(value, list | tuple):
        return len(value), [heard(each, depth - 1) for each in value[:LONG]]
    if isinstance(value, dict):
        entries = ((name, each) for name, each in list(value.items())[:LONG] if isinstance(name, PLAIN))
        return len(value), {name: heard(each, depth - 1) for name, each in entries}
    if isinstance(value, set | frozenset):
        return {each for each in value if isinstance(each, PLAIN)}
    return _of_function(value, depth) if isinstance(value, FUNCTIONS) else _of_object(value)


def _of_object(value: Any) -> Any:
    return Same(value) if callable(value) or _is_array(type(value)) else UNHEARD


def _is_array(kind: type) -> bool:
    """By the class: an object might do anything when it is asked for what it lacks."""
    return hasattr(kind, "shape") and hasattr(kind, "dtype")


FUNCTIONS = (FunctionType, MethodType, functools.partial)


def _of_function(function: Any, depth: int) -> Any:
    """A function's code and what it has from around it; whose method it is; what is bound to it."""
    if isinstance(function, MethodType):
        return Same(function.__self__), heard(function.__func__, depth)
    if isinstance(function, functools.partial):
        return [heard(each, depth) for each in (function.func, function.args, function.keywords)]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    defaults = (function.__defaults__, function.__kwdefaults__)
    around = function.__globals__
    named = {name: around[name] for name in _names(function.__code__) if name in around}
    globals_named = {name: each for name, each in named.items() if not callable(each)}
    return function.__code__, *(heard(each, depth) for each in (cells, defaults, globals_named))


@functools.lru_cache(maxsize=1024)
def _names(code: CodeType) -> tuple[str, ...]:
    """The names that the code looks up, and the functions and comprehensions in it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return tuple(dict.fromkeys([*code.co_names, *(name for each in inner for name in _names(each))]))


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where there is none
    except ValueError:
        return False
    return True
