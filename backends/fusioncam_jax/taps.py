"""Where layers meet their listener: every module system reports a layer's output here. No framework is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

Array = Any


class Listener(Protocol):
    """Hears the outputs of layers while a model is traced, and may change them."""

    def wants(self, name: str) -> bool:
        """Whether the layer should report at all; a model is left alone elsewhere."""

    def hear(self, name: str, kind: str, output: Any) -> Any:
        """Takes a layer's output and returns what the model goes on with."""


_listener: ContextVar[Listener | None] = ContextVar("fusioncam_jax_listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Lets the listener hear every `tap` inside the context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def nobody_listens() -> None:
    """As outside of every `listening`."""
    _listener.set(None)


def tap(name: str, values: Array) -> Array:
    """Name an array inside a model, so that `layer=name` explains it.

    Write `x = tap("features", x)` in a JAX function, or in a method of a Flax or Equinox module behind an
    activation that is no module; not inside of what `jax.checkpoint` or `jax.vmap` transforms, but around it.
    While nobody explains the model it returns `values` as they are.

    Args:
        name: what `layer=` takes; of an array tapped several times it means the last call, and `name#0`, `name#1`, ...
            each of them.
        values: (batch, *spatial, channels) or as the model has them; inside a function of one image, without batch.

    Returns:
        The values, or what an explanation puts in their place.
    """
    listener = _listener.get()
    return values if listener is None or not listener.wants(name) else listener.hear(name, "tap", values)


@dataclass(frozen=True)
class Ran:
    """How a layer ran.

    Attributes:
        kind: its class, or the name of a function.
        shape: of its output.
        dtype: of its output, None if that is no floating-point array.
        calls: how often it ran.
        reachable: whether its output can be taken out, which is not so inside `jax.checkpoint` or `jax.vmap`.
        runs: the number of each call whose output is a floating-point array that can be taken out, its place among all
            calls of all layers, and the output's shape.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: Any
    calls: int
    reachable: bool
    runs: tuple[tuple[int, int, tuple[int, ...]], ...] = ()


class Recorder:
    """Listens to all layers; `ran` has them in the order of their last calls.

    Args:
        is_array: whether a layer's output is an array to be explained.
        level: tells, comparably, which transformation is under way.
    """

    def __init__(self, is_array: Callable[[Any], bool], level: Callable[[], Any]):
        self.ran: dict[str, Ran] = {}
        self._is_array = is_array
        self._level = level
        self._outer: Any = None
        self._place = 0

    def begin(self) -> None:
        """The model begins to run, and no transformation of its own is under way."""
        self._outer = self._level()

    def wants(self, name: str) -> bool:
        return True

    def hear(self, name: str, kind: str, output: Any) -> Any:
        array = _first(output)
        shape, dtype = (tuple(array.shape), array.dtype) if self._is_array(array) else ((), None)
        before = self.ran.pop(name, None)
        calls = 1 + (before.calls if before else 0)
        reachable = self._level() == self._outer
        runs = before.runs if before else ()
        if dtype is not None and reachable:
            runs = (*runs, (calls - 1, self._place, shape))
        self._place += 1
        self.ran[name] = Ran(kind, shape, dtype, calls, reachable, runs)
        return output


class Exchange:
    """Listens to some layers and changes their outputs, each in one of its calls.

    Args:
        calls: the layers' names and which call of each, counted from 0.
        change: makes the new output of (the place of the layer in `calls`, the old one).

    Attributes:
        outputs: what came of each.
    """

    def __init__(self, calls: Sequence[tuple[str, int]], change: Callable[[int, Array], Array]):
        self.outputs: list[Array] = [None] * len(calls)
        self._calls = calls
        self._change = change
        self._seen: dict[str, int] = dict.fromkeys((name for name, _ in calls), 0)

    def wants(self, name: str) -> bool:
        return name in self._seen

    def hear(self, name: str, kind: str, output: Any) -> Any:
        call = self._seen[name]
        self._seen[name] += 1
        for place, wanted in enumerate(self._calls):
            if wanted == (name, call):
                self.outputs[place] = self._change(place, _first(output))
                output = _with_first(output, self.outputs[place])
        return output


class Observer:
    """Listens to some layers and keeps the output of every call that is an array and can be taken out.

    Args:
        names: of the layers.
        is_array: whether a layer's output is an array to be explained.
        level: tells, comparably, which transformation is under way.

    Attributes:
        outputs: by the names of the calls, "name#0".
    """

    def __init__(self, names: Sequence[str], is_array: Callable[[Any], bool], level: Callable[[], Any]):
        self.outputs: dict[str, Array] = {}
        self._calls = dict.fromkeys(names, -1)
        self._is_array = is_array
        self._level = level
        self._outer = level()

    def wants(self, name: str) -> bool:
        return name in self._calls

    def hear(self, name: str, kind: str, output: Any) -> Any:
        self._calls[name] += 1
        array = _first(output)
        if self._is_array(array) and self._level() == self._outer:
            self.outputs[f"{name}#{self._calls[name]}"] = array
        return output


def _first(output: Any) -> Any:
    """The array of a layer's output: of a tuple or list, its first entry."""
    return output[0] if isinstance(output, tuple | list) and output else output


def _with_first(output: Any, array: Array) -> Any:
    if not isinstance(output, tuple | list):
        return array
    entries = [array, *output[1:]]
    return output._make(entries) if hasattr(output, "_make") else type(output)(entries)
