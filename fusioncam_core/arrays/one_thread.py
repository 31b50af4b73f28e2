"""NumPy's linear algebra beside a framework's threads.

OpenBLAS keeps its threads awake for some milliseconds after a product, in case another one comes. On a processor the
framework's or the engine's next pass meets them there: Fusion-CAM within a budget of 32 masks took half as long again,
and its matrices are so small that one thread is enough.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_of_thread = threading.local()
_before: dict[int, list[int]] = {}
"""By each thread that is in a context, the numbers of threads before the first of them was."""


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """A context in which linear algebra runs in the thread that asks for it.

    Without threadpoolctl, which the extras of frameworks bring, nothing changes.
    """
    depth = getattr(_of_thread, "depth", 0)
    try:
        _of_thread.depth = depth + 1
        if depth == 0:
            _limit()
        yield
    finally:
        _of_thread.depth = depth
        if depth == 0:
            _put_back()


def _limit() -> None:
    with _lock:
        known = next(iter(_before.values()), None)
        _before[threading.get_ident()] = known or [each.get_num_threads() for each in _libraries()]
        for library in _libraries():
            library.set_num_threads(1)


def _put_back() -> None:
    """By each thread that was in a context: OpenBLAS keeps a number for each thread beside that of the process."""
    with _lock:
        for library, number in zip(_libraries(), _before.get(threading.get_ident(), ()), strict=False):
            library.set_num_threads(number)  # none of an interrupt that came before anything was limited
        _before.pop(threading.get_ident(), None)


@functools.cache
def _libraries() -> list[Any]:
    """Those of linear algebra that are loaded when they are first asked for; none without threadpoolctl."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return []
    controller = importlib.import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    return list(controller.lib_controllers)
