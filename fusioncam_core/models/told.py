"""What a model is told beside its weights, as far as it can be compared with what it is told later.

A program that is compiled keeps to what the code it was made of went by at that time: attributes, entries of lists,
what functions have from around them. Backends whose programs would not hear of a change compare it at the beginning of
a session (`ModelAdapter.hear`).
"""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, str, type(None))
"""The kinds of values by which layers are told what to do."""

DEEP = 3
"""So far down in lists in lists it is listened."""

LARGE = 4096
"""Bytes of an array whose values are no longer looked at."""

LONG = 1024
"""Entries of what is no longer looked into."""

UNHEARD = "…"
"""In the place of a value that tells nothing that can be compared: a layer, a tensor, what another program holds."""


def heard(value: Any, depth: int = DEEP, *, arrays: bool = False) -> Any:
    """What can be compared of a value, or `UNHEARD`.

    Args:
        value: of any kind.
        depth: so far down it is listened.
        arrays: whether arrays of frameworks are told apart by what object they are. Layers may keep those of their last
            call, which say nothing; what a function has from around it are weights.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return (value.shape, value.dtype.str, value.tobytes()) if value.nbytes <= LARGE else (value.shape, id(value))
    if depth == 0:
        return UNHEARD
    if isinstance(value, list | tuple | dict | set | frozenset) and len(value) > LONG:
        return len(value), id(value)
    if isinstance(value, list | tuple):
        return [heard(each, depth - 1, arrays=arrays) for each in value]
    if isinstance(value, dict):
        return {name: heard(each, depth - 1, arrays=arrays) for name, each in value.items() if isinstance(name, PLAIN)}
    if isinstance(value, set | frozenset):
        return {each for each in value if isinstance(each, PLAIN)}
    if isinstance(value, FunctionType | MethodType):
        return _of_function(value, depth)
    return id(value) if callable(value) or (arrays and _is_array(type(value))) else UNHEARD


def _is_array(kind: type) -> bool:
    """By the class: an object might do anything when it is asked for what it lacks."""
    return hasattr(kind, "shape") and hasattr(kind, "dtype")


def _of_function(function: FunctionType | MethodType, depth: int) -> Any:
    """The function's code, whose method it is, and what it has from around it."""
    if isinstance(function, MethodType):
        return id(function.__self__), heard(function.__func__, depth)
    code, around = function.__code__, function.__globals__
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    named = {name: around[name] for name in code.co_names if name in around and not callable(around[name])}
    defaults = list(function.__defaults__ or ())
    return code, *(heard(each, depth, arrays=True) for each in (cells, defaults, named))


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where there is none
    except ValueError:
        return False
    return True
