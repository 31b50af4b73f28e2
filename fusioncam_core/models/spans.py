"""The parts of arrays that spans of work take, with few programs where a namespace compiles every step by itself."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, indices_like
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.models.batch_size import Span


class SpanIndices:
    """Indices (n,) on the device, of which each span takes its part.

    They are brought there at once. Where a namespace compiles every step, to cut them there would be a program for each
    length, and each span brings its own.

    Args:
        indices: on the host, padded.
        like: an array of the device.
        xp: the namespace.
    """

    def __init__(self, indices: np.ndarray[Any, Any], like: Array, xp: Namespace):
        self._each = functools.partial(indices_like, like=like, xp=xp)
        self._cut_there = getattr(xp, "compiled", None) is None
        self._indices = self._each(indices) if self._cut_there else indices

    def of(self, span: Span) -> Array:
        """The span's part, padding included."""
        part = span.of(self._indices)
        return part if self._cut_there else self._each(part)


@as_one_program
def taken_maps(maps: Array, rows: Array, *, xp: Namespace) -> Array:
    """(n, *spatial) of maps (B, C, *spatial), by their numbers (n,) among the B x C."""
    return xp.take(xp.reshape(maps, (-1, *maps.shape[2:])), rows, axis=0)
