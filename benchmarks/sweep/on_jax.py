"""JAX's part of the sweep: a layer's activations, and gradients of a zero that is added to them.

Models are pairs as the library takes them; a layer is exchanged for one that adds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Values = np.ndarray[Any, Any]


_COMPILED: dict[tuple[int, str], Any] = {}
"""By model and layer, what hears the layer."""


class UnconnectedLayerError(Exception):
    """No score depends on the layer."""


def seed() -> None:
    """Models get their keys where they are made."""


def settle(model: Any, images: Values) -> Any:
    """The model as it is; what was compiled of the one before is forgotten."""
    _COMPILED.clear()
    return model


def passes(model: Any) -> contextlib.AbstractContextManager[list[int]]:
    """Passes of compiled programs are not counted."""
    return contextlib.nullcontext([])


def parameters(model: Any) -> int:
    leaves = jax.tree.leaves(nnx.state(model) if isinstance(model, nnx.Module) else model)
    return sum(leaf.size for leaf in leaves if isinstance(leaf, jax.Array))


def outputs(model: Any, images: Values) -> Any:
    """Whether it takes such images: by its shapes, without a run."""
    return jax.eval_shape(lambda values: _run(model, values, None, None)[0], jnp.asarray(images))


def activations(model: Any, layer: str, images: Values, call: int) -> Values:
    """The output of one call of a layer."""
    # Of the same shape for one image as for several: a shape is a compilation.
    copies = jnp.concatenate([jnp.asarray(images)] * 2)
    return np.asarray(_heard(model, layer, copies)[call][:1])


def capture(
    model: Any, layer: str, images: Values, scores: Callable[[Any], Sequence[Any]]
) -> tuple[Values, list[Values], int]:
    """Activations, gradients of each score, and the call: the named one, or the last on which a score depends.

    Raises:
        UnconnectedLayerError: if no score depends on any of its calls.
    """
    name, _, number = layer.partition("#")
    values = jnp.asarray(images)
    heard = _heard(model, name, values)

    @jax.jit
    def gradients(zeros: list[Any]) -> Any:
        def summed(added: list[Any]) -> Any:
            return jnp.stack([each.sum() for each in scores(_run(model, values, name, added)[0])])

        return jax.jacrev(summed)(zeros)

    found = gradients([jnp.zeros_like(each) for each in heard])
    calls = [int(number)] if number else list(reversed(range(len(heard))))
    for call in calls:
        if bool(jnp.any(found[call] != 0)):
            return np.asarray(heard[call]), [np.asarray(row) for row in found[call]], call
    raise UnconnectedLayerError(f"no score depends on {layer}")


def _heard(model: Any, name: str, values: Any) -> list[Any]:
    key = (id(model), name)
    if key not in _COMPILED:
        _COMPILED[key] = jax.jit(lambda given: _run(model, given, name, None)[1])
    return _COMPILED[key](values)


def _run(model: Any, values: Any, name: str | None, added: list[Any] | None) -> tuple[Any, list[Any]]:
    """Outputs of a batch, and what the layer's calls returned, with something added to each."""
    heard: list[Any] = []

    def hear(output: Any) -> Any:
        heard.append(output)
        return output if added is None else output + added[len(heard) - 1]

    if isinstance(model, nnx.Module):
        return _run_nnx(model, values, name, hear), heard
    if isinstance(model, tuple):
        return _run_linen(model, values, name, hear), heard
    return _run_equinox(model, values, name, added)


def _run_nnx(model: nnx.Module, values: Any, name: str | None, hear: Callable[[Any], Any]) -> Any:
    graph, state = nnx.split(model)
    copy = nnx.merge(graph, state)
    copy.eval()
    if name is not None:
        *path, last = _parts(name)
        holder = copy
        for part in path:
            holder = holder[int(part)] if part.isdigit() else getattr(holder, part)
        layer = holder[int(last)] if last.isdigit() else getattr(holder, last)
        _exchange_nnx(holder, last, _Heard(layer, hear))
    return copy(values)


def _exchange_nnx(holder: Any, name: str, layer: Any) -> None:
    if name.isdigit():
        holder[int(name)] = layer
    else:
        object.__setattr__(holder, name, layer)


def _parts(name: str) -> list[str]:
    """The steps of a path: `blocks[3].conv` and `blocks.3.conv` alike."""
    return re.findall(r"[^.\[\]]+", name)


class _Heard:
    """A layer whose output is heard."""

    def __init__(self, layer: Any, hear: Callable[[Any], Any]):
        self._layer, self._hear = layer, hear

    def __call__(self, *values: Any, **keywords: Any) -> Any:
        return self._hear(self._layer(*values, **keywords))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _run_linen(model: tuple[Any, Any], values: Any, name: str | None, hear: Callable[[Any], Any]) -> Any:
    module, variables = model

    def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        output = call(*arguments, **keywords)
        heard = context.method_name == "__call__" and "/".join(context.module.path) == name
        return hear(output) if heard else output

    with flax.linen.intercept_methods(intercept):
        return module.apply(variables, values, train=False)


def _run_equinox(model: Any, values: Any, name: str | None, added: list[Any] | None) -> tuple[Any, list[Any]]:
    """Of one image, mapped over the batch."""
    inference = equinox.nn.inference_mode(model)

    def one(image: Any, given: list[Any] | None) -> tuple[Any, list[Any]]:
        heard: list[Any] = []

        def hear(output: Any) -> Any:
            heard.append(output)
            return output if given is None else output + given[len(heard) - 1]

        chosen = inference if name is None else _exchanged(inference, name, hear)
        return chosen(image, key=jax.random.key(0)), heard

    return jax.vmap(one)(values, added)


def _exchanged(model: Any, name: str, hear: Callable[[Any], Any]) -> Any:
    def where(tree: Any) -> Any:
        for part in _parts(name):
            tree = tree[int(part)] if part.isdigit() else getattr(tree, part)
        return tree

    return equinox.tree_at(where, model, _Heard(where(model), hear))
