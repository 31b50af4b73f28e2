"""The forward passes that are compiled: one that captures several layers serves whoever wants some of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.structure import split

KEPT = 8
"""So many shapes of inputs, and passes of each, are remembered."""


MOST = 12
"""A pass that captures more layers than these serves nobody else: to keep what they leave behind takes time."""


@dataclass
class Pass:
    """One that was compiled.

    Attributes:
        layers: that it captures.
        differentiated: whether it leaves behind what a backward pass to them takes.
        structure: of the parameters.
        places: of the layers, by each of the names that they were asked for by.
    """

    layers: tuple[str, ...]
    differentiated: bool
    structure: Any
    places: dict[str, int] = field(default_factory=dict)

    def serves(self, names: Sequence[str], differentiated: bool, structure: Any) -> bool:
        """Whether it captures those layers of a model of that structure, and not many others."""
        enough = (self.differentiated or not differentiated) and all(name in self.places for name in names)
        few = len(self.layers) <= MOST or len(names) == len(self.layers)
        return enough and few and bool(self.structure == structure)


class Passes:
    """Those of one model, by the shapes of their inputs."""

    def __init__(self) -> None:
        self._compiled: dict[Any, list[Pass]] = {}

    def of(self, inputs: Inputs, names: Sequence[str], differentiated: bool, structure: Any) -> Pass | None:
        """The latest that serves; None if there is none yet."""
        compiled = reversed(self._compiled.get(shapes_and_form(inputs), []))
        return next((each for each in compiled if each.serves(names, differentiated, structure)), None)

    def add(self, inputs: Inputs, one: Pass) -> None:
        """It is compiled for inputs of those shapes now."""
        shapes = shapes_and_form(inputs)
        while len(self._compiled) >= KEPT and shapes not in self._compiled:
            del self._compiled[next(iter(self._compiled))]
        self._compiled[shapes] = [*self._compiled.get(shapes, []), one][-KEPT:]


class Begun(NamedTuple):
    """One that runs before it is asked for.

    Attributes:
        seen: which pass.
        inputs: of it.
        parameters: it runs with these.
        made: outputs, activations, and what pulls back.
    """

    seen: Pass
    inputs: Inputs
    parameters: list[Any]
    made: tuple[Any, list[jax.Array], Any]

    def is_of(self, seen: Pass, inputs: Inputs, parameters: list[Any]) -> bool:
        """Whether it is what such a run would give: arrays do not change, so the same objects are the same values."""
        return self.seen is seen and self.inputs is inputs and same_objects(self.parameters, parameters)


class FirstArray:
    """Whether the parameters are the arrays that they were in the session before: NumPy's are put there for each.

    Attributes:
        stay: whether they are; what runs before its turn is then likely to hold.
    """

    def __init__(self) -> None:
        self.stay = False
        self._last: Callable[[], Any] = _nothing

    def look_at(self, leaves: Sequence[Any]) -> None:
        """The parameters of the session that begins; they are not kept alive."""
        of_jax = [each for each in leaves if isinstance(each, jax.Array)]
        first = of_jax[0] if len(of_jax) == len(leaves) > 0 else None  # others may be written to
        self.stay = first is not None and self._last() is first
        self._last = _nothing if first is None else weakref.ref(first)


def _nothing() -> None:
    """There was no session before."""


def same_objects(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether both are of the same objects."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def structure_of(parameters: Any) -> Any:
    """What a program is compiled anew for, if it changes."""
    return jax.tree.structure(parameters)


def shapes_and_form(inputs: Inputs) -> tuple[Any, ...]:
    """What a pass is compiled anew for, if it changes in its inputs."""
    arrays, form = split(inputs)
    return (form.key, tuple((tuple(each.shape), str(each.dtype)) for each in arrays))
