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
from fusioncam_core.models.structure import split
from fusioncam_keras.engine import Captured, Engine, Run, unchanged
from fusioncam_tensorflow import engine, namespace
from fusioncam_tensorflow.exporting import exported

OPTIONS = ("jit_compile",)


class TensorFlowEngine(Engine):
    """A gradient tape that starts at the layer; masked images through a `tf.function`, on the model's device."""

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
        seen: tuple[Any, dict[str, Any]] = self._program("observe", (layers, view), run)(inputs)
        return seen

    def _program(self, kind: Any, of: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function in a graph: of each kind the latest is kept, by what it is of."""
        latest = self._programs.get(kind)
        if latest is None or latest[0] != of:
            latest = self._programs[kind] = (of, engine.compiled(function, jit_compile=False))
        return latest[1]

    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: tf.Tensor | None
    ) -> Captured:
        if score is None:
            return Captured(*run(inputs, unchanged), None)
        if not self._recurrent or self.half:  # whose scaled gradients are looked at
            return Captured(*self._captured(run, score, inputs, targets))
        kind = (layers, type(score), getattr(score, "top", 1))
        program = self._program(kind, score, functools.partial(weakly(self._captured), run, score))
        return Captured(*program(inputs, targets))

    def _captured(
        self, run: Run, score: Score, inputs: Inputs, targets: tf.Tensor | None
    ) -> tuple[Any, list[tf.Tensor], list[tf.Tensor | None]]:
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
