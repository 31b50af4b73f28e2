"""What is worked out between a network's passes, in one thread.

Threads of OpenBLAS and of OpenMP stay awake for some milliseconds after their work, in case more of it comes. On a
processor the framework's or the engine's next pass meets them there: Fusion-CAM within a budget of 32 masks took half
as long again, and an engine's pass of one image, behind PyTorch's arithmetic on one map, 10 in place of 7 ms. Maps, and
the matrices of a budget, are so small that one thread is enough.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

_Numbers = list[tuple[Any, int]]
"""Libraries and their numbers of threads."""

_lock = threading.Lock()
_of_thread = threading.local()
_before: dict[int, _Numbers] = {}
"""By each thread that is in a context, the numbers of threads that it puts back."""


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """A context in which linear algebra, and whatever OpenMP shares out, runs in the thread that asks for it.

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
        known = {each.filepath: number for each, number in next(iter(_before.values()), ())}
        blas, openmp = (_libraries(len(sys.modules), kind) for kind in ("blas", "openmp"))
        own = [(each, known.get(each.filepath, each.get_num_threads())) for each in blas]
        own += [(each, each.get_num_threads()) for each in openmp]  # each thread has a number of its own
        _before[threading.get_ident()] = own
        for library, _ in own:
            library.set_num_threads(1)


def _put_back() -> None:
    """By each thread that was in a context: OpenBLAS keeps a number for each thread beside that of the process."""
    with _lock:
        for library, number in _before.pop(threading.get_ident(), ()):  # none of an interrupt before it was limited
            library.set_num_threads(number)


@functools.lru_cache(maxsize=2)
def _libraries(modules: int, kind: Literal["blas", "openmp"]) -> list[Any]:
    """Those that are loaded, looked for anew once there are more `modules`; none without threadpoolctl."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return []
    controller = importlib.import_module("threadpoolctl").ThreadpoolController().select(user_api=kind)
    return list(controller.lib_controllers)
