"""Arrays of many images, taken apart into those of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

MANY = 64
"""Rows for which a program that cuts them is worth its compilation, of a tenth of a second: as long as they take on the
host."""


def rows_apart(arrays: Sequence[jax.Array]) -> Iterator[Sequence[jax.Array]]:
    """Each row by itself: many by one program, whose call has the rows of all arrays; few on the host, if that is where
    they are. A slice would be the call of a program for each array.
    """
    count = arrays[0].shape[0]
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return ([array[row : row + 1, ...] for array in arrays] for row in range(count))
    places = {device for array in arrays for device in array.devices()}
    if count < MANY and all(each.platform == "cpu" for each in places):
        return zip(*map(_put_apart, arrays), strict=True)
    if len(places) > 1:
        return ([array[row : row + 1, ...] for array in arrays] for row in range(count))
    return (_row(tuple(arrays), np.int32(row)) for row in range(count))


def _put_apart(array: jax.Array) -> list[jax.Array]:
    values = np.asarray(array)
    rows = [values[row : row + 1, ...] for row in range(len(values))]
    put: list[jax.Array] = jax.device_put(rows, array.sharding) if array.committed else jax.device_put(rows)
    return put


@jax.jit
def _row(arrays: tuple[jax.Array, ...], row: jax.Array) -> list[jax.Array]:
    return [jax.lax.dynamic_slice_in_dim(array, row, 1) for array in arrays]
