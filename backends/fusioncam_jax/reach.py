"""Into a layer's output, and out of the transformations that a model calls its layers in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # before JAX 0.10 it was there
    from jax.core import get_opaque_trace_state

Change = Callable[[jax.Array], jax.Array]


class Reach:
    """Takes the array out of a layer's output, and changes it outside of `jax.vmap`, with the mapped axes in front.

    What `jax.checkpoint`, a loop or a branch holds cannot be taken out. One is made for each run of a model.
    """

    def __init__(self) -> None:
        self._outside = level()

    def begin(self) -> None:
        """The model begins to run, and no transformation of its own is under way."""
        self._outside = level()

    def array(self, output: Any) -> jax.Array | None:
        """The floating-point array of a layer's output, or None if that holds none, or several."""
        leaves = jax.tree.leaves(output)
        place = _place(output, leaves)
        return None if place is None else leaves[place]

    def change(self, output: Any, change: Change) -> tuple[Any, bool]:
        """The output with its array changed, and whether it could be reached; as it is where it could not."""
        leaves, structure = jax.tree.flatten(output)
        place = _place(output, leaves)
        if place is None:
            return output, False
        changed, reached = self._outside_of_maps(leaves[place], change)
        if not reached:
            return output, False
        leaves[place] = changed
        return structure.unflatten(leaves), True

    def _outside_of_maps(self, array: jax.Array, change: Change) -> tuple[jax.Array, bool]:
        """A function's own rule for `jax.vmap` gets the array of all mapped calls, one transformation further out."""
        state = {"reached": False, "over": False}

        @jax.custom_batching.custom_vmap
        def mapped(values: jax.Array) -> jax.Array:
            return values

        @mapped.def_vmap
        def further_out(size: int, is_mapped: list[bool], values: jax.Array) -> tuple[jax.Array, bool]:
            return go_out(values), True

        def go_out(values: jax.Array) -> jax.Array:
            if state["over"]:  # what is only traced now runs later, when nobody waits for it
                return values
            if level() != self._outside:
                result: jax.Array = mapped(values)
                return result
            state["reached"] = True
            return change(values)

        changed = go_out(array)
        state["over"] = True
        return changed, state["reached"]


def describe(output: Any) -> str:
    """A layer's output in words, where there is not one array to take."""
    paths = [path for path, leaf in jax.tree_util.tree_leaves_with_path(output) if is_floating(leaf)]
    kind = type(output).__qualname__
    return f"a {kind} of {len(paths)} arrays ({', '.join(map(jax.tree_util.keystr, paths))})" if paths else f"a {kind}"


def is_floating(value: Any) -> bool:
    """Whether it is an array of floating-point numbers."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


def _place(output: Any, leaves: list[Any]) -> int | None:
    """Which leaf of an output is meant: the first entry of a tuple or list, or the only array of any container."""
    if isinstance(output, tuple | list) and output and is_floating(output[0]):
        return 0
    floating = [place for place, leaf in enumerate(leaves) if is_floating(leaf)]
    return floating[0] if len(floating) == 1 else None


def level() -> Any:
    """Which transformation is under way, to be compared with another."""
    return get_opaque_trace_state(convention="fusioncam")


_OUTSIDE = level()
"""Of all transformations."""


def outside() -> bool:
    """Whether no program is being traced, and nothing transformed."""
    return bool(level() == _OUTSIDE)
