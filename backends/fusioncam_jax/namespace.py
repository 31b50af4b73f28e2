"""The array words over JAX: `jax.numpy`, exact on every platform, and what tracing and 32-bit integers need besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.numpy import *  # noqa: F403

from fusioncam_jax.quick import SMALL, quickly
from fusioncam_jax.rows import rows_apart as rows_apart


def matmul(first: jax.Array, second: jax.Array) -> jax.Array:
    """The matrix product in the arrays' own precision: GPUs and TPUs would round its factors to fewer bits."""
    return jnp.matmul(first, second, precision=jax.lax.Precision.HIGHEST)


def is_traced(array: Any) -> bool:
    """Whether the array stands for one inside `jax.jit` or another transformation."""
    return isinstance(array, jax.core.Tracer)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays as one program: step by step each would be a program of its own, for every shape."""
    return quickly(function, SMALL)


def constant_like(values: Any, like: jax.Array) -> jax.Array:
    """NumPy values as an array of `like`'s dtype. It is bound to no device, so that it goes where `like` is."""
    # Cast on the host, and put there: on the device both are programs, for every shape.
    return jax.device_put(np.asarray(values).astype(like.dtype))


def indices_like(values: Any, like: jax.Array) -> jax.Array:
    """NumPy integers as indices: int32, or int64 where `jax_enable_x64` is set."""
    return jax.device_put(np.asarray(values, dtype=np.int64))


def to_host(arrays: Sequence[jax.Array]) -> list[np.ndarray[Any, Any]]:
    """All arrays as NumPy. Joining them first would be compiled anew for every number of arrays."""
    fetched: list[np.ndarray[Any, Any]] = jax.device_get(list(arrays))
    return fetched
