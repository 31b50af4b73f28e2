"""Keras on TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from fusioncam_core.models.adapter import Score, View
from fusioncam_core.models.calling import weakly
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.outputs import ClassScores
from fusioncam_core.models.structure import KEPT, split
from fusioncam_keras.engine import Captured, Engine, Run, unchanged
from fusioncam_keras.told import is_of_keras
from fusioncam_tensorflow import engine, namespace
from fusioncam_tensorflow.exporting import exported
from fusioncam_tensorflow.recording import STEPS, Recorded

OPTIONS = ("jit_compile",)


class TensorFlowEngine(Engine):
    """A gradient tape that starts at the layer, recorded once it has run often if all layers are Keras' own; masked
    images through a `tf.function`. All of it on the model's device.
    """

    namespace = namespace
    run_errors = engine.RUN_ERRORS
    out_of_reach = (
        ", or it runs inside a tf.function or tf.vectorized_map of the model's own, which cannot be looked into"
    )

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
        super().__init__(model, options)
        self._jit_compile = bool(options.get("jit_compile", False))
        self._device = engine.device_of(variable.value for variable in model.variables)
        self.execution = engine.execution(self._device)
        # One step after the other in Python, and back again, takes a hundred times as long as a loop in a graph.
        self._recurrent = any(isinstance(each, keras.layers.RNN) for each in model._flatten_layers())
        self._layers = [model, *model._flatten_layers(include_self=False)]
        inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
        # Keras has built such a model for any number of images itself.
        self._any_number = len(inputs) == 1 and inputs[0].shape[:1] == (None,) and None not in inputs[0].shape[1:]
        self._programs: dict[Any, tuple[Any, Callable[..., Any]]] = {}

    def as_array(self, values: Any) -> tf.Tensor:
        return engine.as_tensor(values, self.dtype, self._device)

    def begin(self, touch: Callable[[Callable[[], object]], None]) -> None:
        engine.work_on(self._device, touch)

    def tracing(self) -> object:
        return tf.compat.v1.get_default_graph()

    def look(self, function: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        if not self._recurrent:
            return super().look(function, inputs)
        seen = []
        arrays, form = split(inputs)

        def run(*arrays: tf.Tensor) -> None:
            seen.append(function(form.filled(arrays)))

        specs = [tf.TensorSpec(each.shape, each.dtype) for each in arrays]
        tf.function(run, autograph=False).get_concrete_function(*specs)
        return seen[0]

    def observe(
        self, run: Callable[[Inputs], tuple[Any, dict[str, Any]]], layers: tuple[str, ...], view: View, inputs: Inputs
    ) -> tuple[Any, dict[str, Any]]:
        if not self._recurrent:
            return super().observe(run, layers, view, inputs)
        make = functools.partial(engine.compiled, run, jit_compile=False)
        seen: tuple[Any, dict[str, Any]] = self._program("observe", (layers, view), make)(inputs)
        return seen

    def _program(self, kind: Any, of: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The program that `make` gives: of each kind the latest is kept, by what it is of, and of few kinds."""
        latest = self._programs.get(kind)
        if latest is None or latest[0] != of:
            self._programs.pop(kind, None)
            while len(self._programs) >= KEPT:
                del self._programs[next(iter(self._programs))]
            latest = self._programs[kind] = (of, make())
        return latest[1]

    @functools.cached_property
    def _recordable(self) -> bool:
        """Whether no users' code is among the layers: a graph would keep to what that did when it was recorded."""
        return all(map(is_of_keras, self._layers))

    def forget(self) -> None:
        self._programs.clear()
        vars(self).pop("_recordable", None)

    def forward(self, run: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """In a graph that is being recorded the network is a part, recorded once for all of which it is one."""
        if not (self._any_number and tf.is_symbolic_tensor(inputs) and self._recordable):
            return super().forward(run, inputs)
        make = functools.partial(Recorded, run, any_number=True, steps=0)
        return self._program("forward", None, make)(inputs)

    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: tf.Tensor | None
    ) -> Captured:
        looked_at = self.half and score is not None  # the scaled gradients
        if looked_at or not (self._recordable or self._recurrent):
            return Captured(*self._captured(run, score, inputs, targets))
        kind = (layers, type(score), getattr(score, "top", 1))
        make = functools.partial(self._new_capture, run, score)
        return Captured(*self._program(kind, score, make)(inputs, targets))

    def _new_capture(self, run: Run, score: Score | None) -> Recorded:
        return Recorded(
            functools.partial(weakly(self._captured), run, score),
            # Of users' functions it is not known whether they do without the number of images.
            any_number=self._any_number and (score is None or isinstance(score, ClassScores)),
            steps=0 if self._recurrent else STEPS,
        )

    def _captured(
        self, run: Run, score: Score | None, inputs: Inputs, targets: tf.Tensor | None
    ) -> tuple[Any, list[tf.Tensor], list[tf.Tensor | None] | None]:
        if score is None:
            return *run(inputs, unchanged), None
        with engine.recording(targets, half=self.half) as tape:

            def watched(place: int, activations: tf.Tensor) -> tf.Tensor:
                activations = tf.identity(activations)
                tape.watch(activations)
                return activations

            outputs, activations = run(inputs, watched)
        return outputs, activations, engine.gradients(tape, score, outputs, targets, activations, half=self.half)

    def exported(
        self, function: Callable[..., Any], arguments: Sequence[tf.Tensor], shapes: Sequence[Shape]
    ) -> Exported:
        return exported(function, arguments, shapes, self._device)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return engine.compiled(function, jit_compile=self._jit_compile)


make_engine = TensorFlowEngine
