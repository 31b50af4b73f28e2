"""A model given as two TensorFlow functions, seen through the narrow waist."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from fusioncam_core.errors import InvalidValueError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    LayerInfo,
    ModelAdapter,
    Score,
    mark_default,
    no_spatial_layer,
    reject_options,
    unknown_layer,
)
from fusioncam_core.models.inputs import Inputs, Which, leaves, map_leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_tensorflow import engine, namespace
from fusioncam_tensorflow.state import VariableState

LAYER = "features"
"""The one layer of a pair: what its first function returns."""

HEAD = "head"
"""What the second function is called among the weights."""

AXES = {"first": 1, "last": -1}


class PairAdapter(ModelAdapter):
    """A pair `(features, head)`: `head(features(images))` are the model's outputs, `features(images)` the activations.

    Each is a `tf.Module`, a `tf.function` or a plain function, called with `training=False` where it takes that.

    Args:
        pair: the two functions.
        layer: "features" or None; there is no other.
        options: `channels`, "last" (the default) or "first": where the channels of images and activations are;
            `jit_compile`, whether masked images are scored through XLA; `framework`, which is "tensorflow".

    Raises:
        ValueError: if the layer or an option has another value.
        TypeError: for another option.
    """

    namespace = namespace
    fixed_chunks = True
    memory_errors = engine.MEMORY_ERRORS

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], layer: Any, options: Mapping[str, Any]):
        reject_options(options, ("channels", "jit_compile", "framework"), "TensorFlow")
        channels = options.get("channels", "last")
        if channels not in AXES:
            raise InvalidValueError(f"channels is 'first' or 'last', and {channels!r} came.")
        self.input_channel_axis = AXES[channels]
        self._jit_compile = bool(options.get("jit_compile", False))
        self._features, self._head = (_at_inference(function) for function in pair)
        self.model_name = f"({', '.join(_name(function) for function in pair)})"
        if layer not in (None, LAYER):
            raise unknown_layer(layer, [LAYER], self.model_name)
        modules = [part for function in pair for part in _modules(function)]
        self._variables = [variable for module in modules for variable in module.variables]
        self._device = engine.device_of(self._variables)
        self.batch_size = engine.batch_size(self._device)
        self._state = VariableState(self._variables)

    @property
    def layer_name(self) -> str:
        return LAYER

    @property
    def activation_channel_axis(self) -> int:
        return self.input_channel_axis

    def as_array(self, values: Any) -> tf.Tensor:
        dtype = next((variable.dtype for variable in self._variables if variable.dtype.is_floating), tf.float32)
        return engine.as_tensor(values, dtype, self._device)

    def input_ndim(self, which: Which) -> int | None:
        return None

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        with self._state, engine.on(self._device):
            yield

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        with self.session():
            activations = self._activations(map_leaves(lambda each: each[:1], inputs))
        images = max(leaves(inputs), key=lambda each: each.ndim)
        spatial = has_space(activations.shape, spatial_size(images, self.input_channel_axis))
        return mark_default([LayerInfo(LAYER, "function", tuple(activations.shape), spatial)])

    def capture(self, inputs: Inputs, score: Score | None, targets: tf.Tensor | None) -> Capture:
        with self.session():
            activations = self._activations(inputs)
            if len(activations.shape) < 3:
                raise no_spatial_layer(self.model_name)
            if score is None:
                return Capture(self._run(self._head, activations), activations, None)
            with engine.recording(targets) as tape:
                tape.watch(activations)
                outputs = self._run(self._head, activations)
            gradients = engine.gradients(tape, score, outputs, targets, activations)
        if gradients is None:
            raise UnconnectedError(f"The scores of {self.model_name} do not depend on what its first function returns.")
        return Capture(outputs, activations, gradients)

    def forward(self, inputs: Inputs) -> Any:
        with self.session():
            return self._run(self._head, self._activations(inputs))

    def forward_with(self, inputs: Inputs, activations: tf.Tensor) -> Any:
        with self.session():
            return self._run(self._head, activations)

    def _named_variables(self) -> dict[str, tf.Variable]:
        """The trained floating variables, by "features/" or "head/", their number and their own name."""
        named = {}
        for part, function in zip((LAYER, HEAD), (self._features, self._head), strict=True):
            own = [variable for module in _modules(_bare(function)) for variable in module.variables]
            for number, variable in enumerate(engine.floating(own)):
                named[f"{part}/{number}/{variable.name}"] = variable
        return named

    def weights(self) -> dict[str, tf.Tensor]:
        return {name: variable.read_value() for name, variable in self._named_variables().items()}

    def with_weights(self, weights: Mapping[str, tf.Tensor]) -> contextlib.AbstractContextManager[None]:
        variables = self._named_variables()
        return engine.assigned({variables[name].ref(): values for name, values in weights.items()})

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = engine.compiled(function, jit_compile=self._jit_compile)

        def run(*arguments: Any) -> Any:
            with self.session():
                return compiled(*arguments)

        return run

    def _activations(self, inputs: Inputs) -> tf.Tensor:
        activations = self._run(self._features, inputs)
        if not tf.is_tensor(activations) or not activations.dtype.is_floating:
            raise InvalidValueError(
                f"The first function of {self.model_name} returned a {type(activations).__qualname__}, and a "
                "floating-point tensor of activations was expected."
            )
        return activations

    def _run(self, function: Callable[..., Any], inputs: Inputs) -> Any:
        try:
            if isinstance(inputs, Mapping):
                return function(**inputs)
            return function(*inputs) if isinstance(inputs, tuple) else function(inputs)
        except engine.RUN_ERRORS as error:
            shapes = ", ".join(f"{tuple(each.shape)} ({each.dtype.name})" for each in leaves(inputs))
            raise InvalidValueError(
                f"{self.model_name} cannot run on inputs of shape {shapes}: {error.message.splitlines()[0]}"
            ) from error


def _at_inference(function: Callable[..., Any]) -> Callable[..., Any]:
    call = function.__call__ if isinstance(function, tf.Module) else function
    return functools.partial(function, training=False) if "training" in inspect.signature(call).parameters else function


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, without the `training=False` that was bound to it."""
    return function.func if isinstance(function, functools.partial) else function


def _modules(function: Callable[..., Any]) -> list[tf.Module]:
    """The module that the function is, or whose method it is."""
    return [part for part in (function, getattr(function, "__self__", None)) if isinstance(part, tf.Module)]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__qualname__)
