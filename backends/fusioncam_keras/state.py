"""Puts the attributes of a model's layers back as they were."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from fusioncam_core.models.told import PLAIN

CONTAINERS = (list, dict, set)

COUNTED = ("name", "built")
"""What Keras counts and notes itself."""

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


def keep_attributes(parts: Sequence[Any], touch: Touch) -> None:
    """The layers and operations have their present attributes again once what `touch` is told is done.

    Running a model sets some: that it has been called, its losses, or what a subclass keeps of its last call, which
    inside `tf.function` and `jax.jit` would be a tensor without values; and we set some to listen. Containers get their
    entries back, too. Variables need no such care: a `keras.StatelessScope` holds back what is assigned to them.
    """
    before = [(vars(part), dict(vars(part))) for part in parts]
    containers = [value for _, attributes in before for value in attributes.values() if _is_container(value)]
    entries = [(container, _copy(container)) for container in containers]
    touch(functools.partial(_put_all_back, before, entries))


def _put_all_back(before: list[tuple[dict[str, Any], dict[str, Any]]], entries: list[tuple[Any, Any]]) -> None:
    for now, attributes in before:
        _put_back(now, attributes)
    for container, own in entries:
        _refill(container, own)


def _is_container(value: Any) -> bool:
    return isinstance(value, CONTAINERS) and not isinstance(value, OrderedDict)  # that one has to guard its order


def _copy(container: Any) -> Any:
    """The entries in a plain container: Keras's own ones watch what is put into them."""
    return next(kind(container) for kind in CONTAINERS if isinstance(container, kind))


def _refill(container: Any, entries: Any) -> None:
    """Give a container its entries again, past the watch of Keras's own ones, and only if it has others now."""
    if isinstance(container, dict):
        _put_back(container, entries)
        if list(container) != list(entries):
            dict.clear(container)
            dict.update(container, entries)
    elif isinstance(container, list):
        if [id(each) for each in container] != [id(each) for each in entries]:
            list.__setitem__(container, slice(None), entries)
    elif container != entries:
        set.clear(container)
        set.update(container, entries)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Entry by entry: other threads look at a layer's attributes meanwhile."""
    for name, value in before.items():
        if name not in now or now[name] is not value:
            dict.__setitem__(now, name, value)
    for name in [name for name in list(now) if name not in before]:
        dict.pop(now, name, None)


def plain_attributes(parts: list[Any]) -> dict[str, Any]:
    """Of every part its class, and its attributes that are numbers, words, tuples of them or functions by their names.

    Private attributes are left out, and what Keras counts and notes: names, and whether a part was built.
    """
    found: dict[str, Any] = {}
    for number, part in enumerate(parts):
        found[f"{number}:"] = type(part).__qualname__
        for attribute, value in sorted(vars(part).items()):
            told = getattr(value, "__name__", None) if callable(value) else value
            if not attribute.startswith("_") and attribute not in COUNTED and _is_told(told):
                found[f"{number}:{attribute}"] = told
    return found


def _is_told(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_told, value))
    return isinstance(value, PLAIN)
