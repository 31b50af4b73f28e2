"""Compiled functions, of which no more are kept than are likely to be run again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax


class Programs:
    """The latest compiled function of each kind.

    JAX keeps what is compiled, with the objects that it was compiled for, as long as the function lives that was given
    to `jax.jit`. So each score has a function of its own, and a new score takes the place of the one before it.
    """

    def __init__(self) -> None:
        self._latest: dict[Hashable, tuple[Any, Callable[..., Any]]] = {}

    def of(self, kind: Hashable, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The compiled function of that kind for the key, made by `make` if the latest one was for another."""
        latest = self._latest.get(kind)
        if latest is None or latest[0] != key:
            latest = self._latest[kind] = (key, jax.jit(make()))
        return latest[1]
