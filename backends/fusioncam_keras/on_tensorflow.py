"""Keras on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from fusioncam_core.models.adapter import Score
from fusioncam_core.models.inputs import Inputs
from fusioncam_keras.engine import Captured, Engine, Run, unchanged
from fusioncam_tensorflow import engine, namespace

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

    def as_array(self, values: Any) -> tf.Tensor:
        return engine.as_tensor(values, self.dtype, self._device)

    def begin(self, touch: Callable[[Callable[[], object]], None]) -> None:
        engine.work_on(self._device, touch)

    def tracing(self) -> object:
        return tf.compat.v1.get_default_graph()

    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: tf.Tensor | None
    ) -> Captured:
        if score is None:
            return Captured(*run(inputs, unchanged), None)
        with engine.recording(targets, half=self.half) as tape:

            def watched(place: int, activations: tf.Tensor) -> tf.Tensor:
                activations = tf.identity(activations)
                tape.watch(activations)
                return activations

            outputs, activations = run(inputs, watched)
        gradients = engine.gradients(tape, score, outputs, targets, activations, half=self.half)
        return Captured(outputs, activations, gradients)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return engine.compiled(function, jit_compile=self._jit_compile)


make_engine = TensorFlowEngine
