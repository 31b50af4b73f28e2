"""What the Keras adapter asks of the framework that Keras runs on."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, to_numpy
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.adapter import Execution, Score, View
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.memory import memory_is_full

Transform = Callable[[int, Array], Array]
"""(the place of a tapped layer, its output) -> what the rest of the model sees instead."""

Run = Callable[[Inputs, Transform], tuple[Any, list[Array]]]
"""(inputs, transform) -> the model's outputs and the transformed outputs of the tapped layers."""


def unchanged(place: int, activations: Array) -> Array:
    """The transform that leaves a layer's output as it is."""
    return activations


class Captured(NamedTuple):
    """Outputs; the activations of each tapped layer; and the gradients (K, *activations.shape) for each.

    The gradients are None if no score was asked for; a layer's are if the framework can tell that no score depends on
    it.
    """

    outputs: Any
    activations: Sequence[Array]
    gradients: Sequence[Array | None] | None


class OutOfReachError(InvalidValueError):
    """A layer runs inside of something out of which its output cannot be taken."""


class Engine(ABC):
    """One framework under Keras, for one model.

    Args:
        model: a built model.
        options: the user's keywords.

    Attributes:
        namespace: the array words.
        execution: as in `ModelAdapter`.
        run_errors: what else than ValueError the framework raises for inputs that do not fit.
        other_errors: those of them that say something else.
        half: whether something in the model computes in float16, in which gradients underflow.
        out_of_reach: why a layer that did run may not have been seen to, as the end of a sentence.
    """

    namespace: ClassVar[Namespace]
    execution: Execution = Execution()
    run_errors: ClassVar[tuple[type[Exception], ...]] = ()
    other_errors: ClassVar[tuple[type[Exception], ...]] = ()
    out_of_reach: ClassVar[str] = ""

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
        self.model = model
        self.half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())

    @property
    def dtype(self) -> str:
        """The dtype of the model's floating variables: a mixed-precision model casts by itself."""
        dtypes = (variable.dtype for variable in self.model.variables)
        return next((dtype for dtype in dtypes if keras.backend.is_float_dtype(dtype)), keras.config.floatx())

    @abstractmethod
    def as_array(self, values: Any) -> Array:
        """As `ModelAdapter.as_array`."""

    def kept(self, value: Any) -> Any:
        """A variable's value for later: a copy, since the framework may write the next value into the same memory."""
        return keras.ops.copy(value)

    def begin(self, touch: Callable[[Callable[[], object]], None]) -> None:  # noqa: B027 - most need nothing
        """What the framework needs at the beginning of a session, as `ModelAdapter.begin`; the model's device, too."""

    def forget(self) -> None:  # noqa: B027 - most keep nothing
        """Leave what was compiled: the model has been told something else."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What the model is called in: nothing is assigned to its variables, seeds among them."""
        return keras.StatelessScope()

    def ran_out_of_memory(self, error: Exception) -> bool:
        """As `ModelAdapter.ran_out_of_memory`."""
        return memory_is_full(error)

    def without_gradients(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which nothing is kept for a backward pass."""
        return contextlib.nullcontext()

    def tracing(self) -> object:
        """What a compiler is recording; the same object outside of any recording."""
        return None

    def look(self, function: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """What the function of the inputs returns, which is no array. Nobody looks at the values of arrays in it."""
        with self.without_gradients():
            return function(inputs)

    def observe(
        self, run: Callable[[Inputs], tuple[Any, dict[str, Any]]], layers: tuple[str, ...], view: View, inputs: Inputs
    ) -> tuple[Any, dict[str, Any]]:
        """What the run of the inputs returns, outputs and arrays by name.

        Args:
            run: the model, of which some layers are looked at.
            layers: their names, by which and by the view a compiled run is found again.
            view: of their outputs.
            inputs: a batch.

        Raises:
            OutOfReachError: if the output of one of the layers cannot be taken out of where it runs.
        """
        with self.without_gradients():
            return run(inputs)

    def values(self, function: Callable[[Inputs], list[Array]], inputs: Inputs) -> list[np.ndarray] | None:
        """The values of the arrays that the function of the inputs returns; None if they cannot be taken out of it."""
        with self.without_gradients():
            return [to_numpy(each) for each in function(inputs)]

    def forward(self, run: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """The outputs of one run, `run` of the inputs."""
        with self.without_gradients():
            return run(inputs)

    @abstractmethod
    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: Array | None
    ) -> Captured:
        """One run, and the gradients of its scores.

        Args:
            run: the model, of which `layers` are tapped.
            layers: their names, by which and by the score a compiled run is found again.
            inputs, score, targets: as for `ModelAdapter.capture`.
        """

    @abstractmethod
    def exported(self, function: Callable[..., Any], arguments: Sequence[Array], shapes: Sequence[Shape]) -> Exported:
        """As `Exports.exported`."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As `ModelAdapter.compile`."""
        return function
