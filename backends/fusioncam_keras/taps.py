"""Listening to the layers of a Keras model while it runs, and finding them by name."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras


def parts(model: keras.Layer) -> list[tuple[str, keras.Operation]]:
    """All layers and operations in the model with their paths, each model or block before what is in it.

    A path holds the names of the models around the layer and its own, with "/" between; the explained model's
    own name is left out. A layer that is used in several places has a path for each; several layers of one path are
    told apart by a number behind it, "conv[0]" and "conv[1]".
    """
    found = list(_parts(model, "", (model,)))
    distinct: dict[str, list[keras.Operation]] = {}
    for path, part in found:
        owners = distinct.setdefault(path, [])
        if not any(part is each for each in owners):
            owners.append(part)
    return [(_numbered(path, part, distinct[path]), part) for path, part in found]


def _numbered(path: str, part: keras.Operation, owners: list[keras.Operation]) -> str:
    if len(owners) == 1:
        return path
    return f"{path}[{next(number for number, each in enumerate(owners) if each is part)}]"


def _parts(owner: keras.Operation, prefix: str, around: tuple[Any, ...]) -> Iterator[tuple[str, keras.Operation]]:
    for part in _children(owner):
        if not isinstance(part, keras.layers.InputLayer) and not any(part is each for each in around):
            yield prefix + part.name, part
            yield from _parts(part, f"{prefix}{part.name}/", (*around, part))


def _children(owner: keras.Operation) -> list[keras.Operation]:
    """The layers of a model or layer, and the operations of a Functional one (`keras.ops.relu(x)` is no layer)."""
    operations = list(getattr(owner, "operations", ()))
    layers = owner._flatten_layers(include_self=False, recursive=False) if isinstance(owner, keras.Layer) else []
    return operations + [layer for layer in layers if not any(layer is each for each in operations)]


ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}
"""The operations of which `keras.applications.*.preprocess_input` consists inside of a model."""


def rescales(parts: list[tuple[str, keras.Operation]]) -> bool:
    """Whether the model brings raw images into its range itself: by a layer, or arithmetic before its first weights."""
    if any(isinstance(part, keras.layers.Rescaling | keras.layers.Normalization) for _, part in parts):
        return True
    for _, part in parts:
        if isinstance(part, keras.Layer) and part.weights and not isinstance(part, keras.Model):
            return False
        name = getattr(getattr(part, "function", None), "__name__", "")
        if name == "preprocess_input" or (type(part).__name__ in ARITHMETIC and not isinstance(part, keras.Layer)):
            return True
    return False


def loops(parts: list[tuple[str, keras.Operation]]) -> dict[int, str]:
    """The path of the recurrent layer around each part that runs once for each of its steps, by the part's id."""
    around = [path for path, part in parts if isinstance(part, keras.layers.RNN)]
    return {id(part): loop for path, part in parts for loop in around if path.startswith(f"{loop}/")}


def symbolic_call(tensor: keras.KerasTensor, owners: list[keras.Operation]) -> tuple[int, int]:
    """In which of its maker's calls, counted from 0, a symbolic tensor is made, and how many calls there are.

    A Functional model runs its calls from the inputs on, by their distance from the outputs. Of a tensor of another
    model the calls are not known: as if there were one.

    Args:
        tensor: made by a layer.
        owners: the models that it may be of.
    """
    part, node_index, _ = tensor._keras_history
    node = part._inbound_nodes[node_index]
    for owner in owners:
        by_depth = getattr(getattr(owner, "_functional", None) or owner, "_nodes_by_depth", {})
        ran = [each for depth in sorted(by_depth, reverse=True) for each in by_depth[depth] if each.operation is part]
        if any(each is node for each in ran):
            return next(call for call, each in enumerate(ran) if each is node), len(ran)
    return 0, 1


@contextlib.contextmanager
def attribute(owner: object, name: str, value: Any) -> Iterator[None]:
    """The instance has another attribute for the duration; its class, and how Keras tracks it, are left alone."""
    there, before = name in vars(owner), vars(owner).get(name)
    vars(owner)[name] = value
    try:
        yield
    finally:
        if there:
            vars(owner)[name] = before
        else:
            del vars(owner)[name]


def passing(
    part: keras.Operation, through: Callable[[Any], Any], before: Callable[..., object] | None = None
) -> contextlib.AbstractContextManager[None]:
    """What the layer returns goes through a function for the duration, where this thread calls it.

    `before`, if there is one, is called with the layer's arguments first.
    """
    name = "call" if getattr(part, "quantization_mode", None) is None else "quantized_call"
    call, own_thread = getattr(part, name), threading.get_ident()

    @functools.wraps(call)
    def tap(*arguments: Any, **keywords: Any) -> Any:
        heard = threading.get_ident() == own_thread
        if heard and before is not None:
            before(*arguments, **keywords)
        output = call(*arguments, **keywords)
        return through(output) if heard else output

    return attribute(part, name, tap)
