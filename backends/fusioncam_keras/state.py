"""Puts the attributes of a model's layers back as they were."""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import Any

import keras

CONTAINERS = (list, dict, set)


class AttributeState:
    """A context after which every layer has the attributes it had before, also after an exception.

    Running a model sets some: that it has been called, its losses, or what a subclass keeps of its last call, which
    inside `tf.function` and `jax.jit` would be a tensor without values. Containers get their entries back, too.
    Variables need no such care: a `keras.StatelessScope` holds back what is assigned to them. The context can be
    entered again inside itself; the outermost exit restores.
    """

    def __init__(self, layers: list[keras.Layer]):
        self._layers = layers
        self._depth = 0
        self._before: list[dict[str, Any]] = []
        self._entries: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._before = [dict(vars(layer)) for layer in self._layers]
        containers = [value for before in self._before for value in before.values() if _is_container(value)]
        self._entries = [(container, _copy(container)) for container in containers]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        for layer, before in zip(self._layers, self._before, strict=True):
            _put_back(vars(layer), before)
        for container, entries in self._entries:
            _refill(container, entries)
        self._before, self._entries = [], []


def _is_container(value: Any) -> bool:
    return isinstance(value, CONTAINERS) and not isinstance(value, OrderedDict)  # that one has to guard its order


def _copy(container: Any) -> Any:
    """The entries in a plain container: Keras's own ones watch what is put into them."""
    return next(kind(container) for kind in CONTAINERS if isinstance(container, kind))


def _refill(container: Any, entries: Any) -> None:
    """Give a container its entries again, past the watch of Keras's own ones, and only if it has others now."""
    if isinstance(container, dict):
        _put_back(container, entries)
    elif isinstance(container, list):
        if [id(each) for each in container] != [id(each) for each in entries]:
            list.__setitem__(container, slice(None), entries)
    elif container != entries:
        set.clear(container)
        set.update(container, entries)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    if now.keys() == before.keys() and all(now[name] is value for name, value in before.items()):
        return
    dict.clear(now)
    dict.update(now, before)
