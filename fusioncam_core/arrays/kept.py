"""Arrays of NumPy that were made once and are kept for the next call: the latest ones, within a number of bytes."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec

import numpy as np

P = ParamSpec("P")

Values = np.ndarray[Any, Any]


class Kept:
    """Arrays by what they were made from; those that were asked for longest ago go first.

    Threads may share one. Two that ask for the same array at once may both make it.

    Args:
        limit: the most bytes of all arrays together. One that is larger by itself is not kept.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._arrays: OrderedDict[Hashable, Values] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays that are kept now."""
        with self._lock:
            return self._total()

    def _total(self) -> int:
        return sum(each.nbytes for each in self._arrays.values())

    def of(self, key: Hashable, make: Callable[[], Values]) -> Values:
        """The array of a key, read-only, made if it is not there."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        made = make()
        made.flags.writeable = False
        if made.nbytes > self.limit:
            return made
        with self._lock:
            self._arrays[key] = made
            self._arrays.move_to_end(key)
            while self._total() > self.limit:
                self._arrays.popitem(last=False)
        return made

    def results(self, function: Callable[P, Values]) -> Callable[P, Values]:
        """The function, whose results are kept; its arguments are hashable."""

        @functools.wraps(function)
        def kept(*arguments: P.args, **keywords: P.kwargs) -> Values:
            key = (function.__qualname__, arguments, tuple(sorted(keywords.items())))
            return self.of(key, lambda: function(*arguments, **keywords))

        return kept


MATRICES = Kept(32 << 20)
"""Of resizes and blurs.

The matrices from 7 to 224 and from 224 to 224 take 12 and 400 KB: 32 MB hold those of many sizes of usual images. Those
of large ones take less time to make than the product with them.
"""
