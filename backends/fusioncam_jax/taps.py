"""Where layers meet their listener: every module system reports a layer's output here. No framework is imported."""

from __future__ import annotations

import contextlib
import functools
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

    def convolves(self, axes: int, array: Array) -> None:
        """A convolution over so many axes of space gets this array."""


class Reaching(Protocol):
    """Takes the array out of a layer's output (`fusioncam_jax.reach.Reach`)."""

    def begin(self) -> None:
        """The model begins to run."""

    def array(self, output: Any) -> Array | None:
        """The array of the output, or None if there is not one."""

    def change(self, output: Any, change: Callable[[Array], Array]) -> tuple[Any, bool]:
        """The output with its array changed, and whether that could be reached."""


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
    activation that is no module; not inside of what `jax.checkpoint` transforms, but around it. Inside of what
    `jax.vmap` maps, the array is that of all its calls, with the mapped axis in front.
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
        outputs: the shape and dtype of its output, of each call that can be taken out, and the place of the call among
            those of all layers.
        reachable: whether that of the last call can be, which is not so inside `jax.checkpoint`, loops and branches.
        has_array: whether the last output has one floating-point array.
        returned: the last output in words, if it has not.
    """

    kind: str
    outputs: tuple[tuple[tuple[int, ...], Any, int], ...] = ()
    reachable: bool = False
    has_array: bool = False
    returned: str = ""

    @property
    def calls(self) -> int:
        """How often it ran."""
        return len(self.outputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the last output that can be taken out."""
        return self.outputs[-1][0] if self.outputs else ()


class Recorder:
    """Listens to all layers.

    Args:
        reach: into layers' outputs.
        describe: an output in words.
        mark: gives back (a layer's name, its array) so that it is found again in the program.

    Attributes:
        ran: how each layer ran, in the order of their last calls.
        convolution: the axes of space of the first convolution that tells, and the axes of the array it got.
        outputs: what the model returned, as shapes; None if it did not come so far.
        followed: the activation functions that follow layers directly, by the layers' names.
    """

    def __init__(self, reach: Reaching, describe: Callable[[Any], str], mark: Callable[[str, Array], Array]):
        self.ran: dict[str, Ran] = {}
        self.convolution: tuple[int, int] | None = None
        self.outputs: Any = None
        self.followed: dict[str, str] = {}
        self._reach = reach
        self._describe = describe
        self._place = 0
        self._mark = mark

    def begin(self) -> None:
        """The model begins to run."""
        self._place = 0
        self.ran.clear()
        self.convolution = None
        self._reach.begin()

    def wants(self, name: str) -> bool:
        return True

    def hear(self, name: str, kind: str, output: Any) -> Any:
        outputs = self.ran.pop(name, Ran(kind)).outputs
        has_array = self._reach.array(output) is not None
        found: list[tuple[tuple[int, ...], Any, int]] = []
        self._place += 1

        def note(array: Array) -> Array:
            found.append((tuple(array.shape), array.dtype, self._place - 1))
            return self._mark(name, array)

        if has_array:
            output = self._reach.change(output, note)[0]
        returned = "" if has_array else self._describe(output)
        self.ran[name] = Ran(kind, (*outputs, *found), bool(found), has_array, returned)
        return output

    def convolves(self, axes: int, array: Array) -> None:
        if self.convolution is None:
            # Axes that the model itself maps over are the array's too.
            self._reach.change(array, functools.partial(self._note_convolution, axes))
            self.convolution = self.convolution or (axes, array.ndim)

    def _note_convolution(self, axes: int, array: Array) -> Array:
        self.convolution = (axes, array.ndim)
        return array


class Exchange:
    """Listens to some layers and changes their outputs, each in one of its calls.

    Args:
        calls: the layers' names and which call of each, counted from 0.
        change: makes the new output of (the place of the layer in `calls`, the old one).
        reach: into layers' outputs.

    Attributes:
        outputs: what came of each.
    """

    def __init__(self, calls: Sequence[tuple[str, int]], change: Callable[[int, Array], Array], reach: Reaching):
        self.outputs: list[Array] = [None] * len(calls)
        self._calls = calls
        self._change = change
        self._reach = reach
        self._seen: dict[str, int] = dict.fromkeys((name for name, _ in calls), 0)

    def wants(self, name: str) -> bool:
        return name in self._seen

    def hear(self, name: str, kind: str, output: Any) -> Any:
        return self._reach.change(output, lambda array: self._changed(name, array))[0]

    def _changed(self, name: str, array: Array) -> Array:
        call = self._seen[name]
        self._seen[name] += 1
        for place, wanted in enumerate(self._calls):
            if wanted == (name, call):
                array = self.outputs[place] = self._change(place, array)
        return array

    def convolves(self, axes: int, array: Array) -> None:
        pass


class Observer:
    """Listens to some layers and keeps the output of every call that can be taken out.

    Args:
        names: of the layers.
        reach: into layers' outputs.

    Attributes:
        outputs: by the names of the calls, "name#0".
    """

    def __init__(self, names: Sequence[str], reach: Reaching):
        self.outputs: dict[str, Array] = {}
        self._calls = dict.fromkeys(names, 0)
        self._reach = reach

    def wants(self, name: str) -> bool:
        return name in self._calls

    def hear(self, name: str, kind: str, output: Any) -> Any:
        return self._reach.change(output, lambda array: self._kept(name, array))[0]

    def _kept(self, name: str, array: Array) -> Array:
        self.outputs[f"{name}#{self._calls[name]}"] = array
        self._calls[name] += 1
        return array

    def convolves(self, axes: int, array: Array) -> None:
        pass
