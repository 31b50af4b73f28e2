"""Listening to the layers of a Keras model while it runs, and finding them by name."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

ENDINGS = {"softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}
"""Names of functions and operations that turn logits into probabilities; `softmax_v2` is `tf.nn.softmax`."""


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


def passing(part: keras.Operation, through: Callable[[Any], Any]) -> contextlib.AbstractContextManager[None]:
    """What the layer returns goes through a function for the duration, where this thread calls it."""
    name = "call" if getattr(part, "quantization_mode", None) is None else "quantized_call"
    call, own_thread = getattr(part, name), threading.get_ident()

    @functools.wraps(call)
    def tap(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        return through(output) if threading.get_ident() == own_thread else output

    return attribute(part, name, tap)


class Logits:
    """Keeps what goes into each softmax and sigmoid that could be a model's last operation.

    Args:
        parts: layers and operations that may end a model; those that are no softmax or sigmoid are left alone.
    """

    def __init__(self, parts: list[keras.Operation]):
        self._parts = parts
        # The results are kept as well, so that no other array can get their id.
        self._kept: dict[int, tuple[Any, Any, keras.Operation]] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part in self._parts:
                name = _ending_attribute(part)
                if name is not None:
                    stack.enter_context(attribute(part, name, self._tap(part, getattr(part, name))))
            yield

    def _tap(self, part: keras.Operation, function: Callable[..., Any]) -> Callable[..., Any]:
        own_thread = threading.get_ident()

        @functools.wraps(function)
        def tap(values: Any, *arguments: Any, **keywords: Any) -> Any:
            result = function(values, *arguments, **keywords)
            if threading.get_ident() != own_thread:
                return result
            if not arguments and not any(value is not None for value in keywords.values()):  # no mask, no other axis
                self._kept[id(result)] = (result, values, part)
            return result

        return tap

    def of(self, output: Any) -> Any:
        """The logits behind an output of the model: the output itself if it is no result of those functions."""
        return self._kept[id(output)][1] if id(output) in self._kept else output

    def source(self, output: Any) -> keras.Operation | None:
        """The layer whose softmax or sigmoid the output is, or None."""
        return self._kept[id(output)][2] if id(output) in self._kept else None


def ending(part: keras.Operation) -> str | None:
    """Whether the layer ends in a "softmax" over the classes or in a "sigmoid"; None for any other."""
    if isinstance(part, keras.layers.Softmax) or not isinstance(part, keras.Layer):
        over_classes = getattr(part, "axis", -1) in (-1, 1)
        return ENDINGS.get(type(part).__name__.lower()) if over_classes else None
    return ENDINGS.get(getattr(getattr(part, "activation", None), "__name__", ""))


def _ending_attribute(part: keras.Operation) -> str | None:
    """The attribute of the layer that is its softmax or sigmoid: its activation function, or its call."""
    if ending(part) is None:
        return None
    own = isinstance(part, keras.Layer) and not isinstance(part, keras.layers.Softmax)
    return "activation" if own else "call"
