"""A model given as two TensorFlow functions, seen through the narrow waist."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from fusioncam_core.errors import FusionCamError, InvalidValueError
from fusioncam_core.models.adapter import (
    Capture,
    LayerCapture,
    LayerInfo,
    LayerRun,
    ModelAdapter,
    Score,
    View,
    call_name,
    call_number,
    cannot_run,
    channel_axis,
    layer_axis,
    mark_default,
    no_spatial_layer,
    reject_options,
    split_call,
    unknown_layer,
)
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, Which, leaves, rows_of
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.memory import memory_is_full
from fusioncam_core.models.session import in_session
from fusioncam_core.models.told import heard
from fusioncam_tensorflow import engine, namespace
from fusioncam_tensorflow.exporting import exported
from fusioncam_tensorflow.state import assign, keep_values

LAYER = "features"
"""The one layer of a pair: what its first function returns."""

HEAD = "head"
"""What the second function is called among the weights."""


class PairAdapter(ModelAdapter):
    """A pair `(features, head)`: `head(features(images))` are the model's outputs, `features(images)` the activations.

    Each is a `tf.Module`, a `tf.function` or a plain function, called with `training=False` where it takes that.

    Args:
        pair: the two functions.
        options: `channels`, "last" (the default) or "first": where the channels of images and activations are; "none"
            or the number of their axis in a batch, where those of images are, and activations have them last;
            `jit_compile`, whether masked images are scored through XLA; `framework`, which is "tensorflow".

    Raises:
        InvalidValueError: if an option has another value.
        InvalidTypeError: for another option.
    """

    namespace = namespace
    gradient_cuts = "stop_gradient, NumPy"
    frameworks = ("tensorflow",)

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], options: Mapping[str, Any]):
        reject_options(options, ("channels", "jit_compile", "framework"), "TensorFlow")
        self.input_channel_axis = channel_axis(options.get("channels"), -1)
        self._jit_compile = bool(options.get("jit_compile", False))
        self._pair = pair
        self._features, self._head = (_at_inference(function) for function in pair)
        self._call_features, self._call_head = Caller(self._features), Caller(self._head)
        self.model_name = f"({', '.join(_name(function) for function in pair)})"
        modules = [part for function in pair for part in _modules(function)]
        self._variables = [variable for module in modules for variable in module.variables]
        self._device = engine.device_of(self._variables)
        self.execution = engine.execution(self._device)

    # --- the model as a whole

    @property
    def anchor(self) -> Any:
        """The first variable, however the pair's functions were put together; without any, the first function."""
        features = self._pair[0]
        return self._variables[0] if self._variables else getattr(features, "__self__", features)

    def begin(self) -> None:
        self.hear(lambda: [_told(function) for function in self._pair], tuple(map(id, self._pair)))
        keep_values(self._variables, self.touch)
        engine.work_on(self._device, self.touch)

    def ran_out_of_memory(self, error: Exception) -> bool:
        return memory_is_full(error)

    def as_array(self, values: Any) -> tf.Tensor:
        dtype = next((variable.dtype for variable in self._variables if variable.dtype.is_floating), tf.float32)
        return engine.as_tensor(values, dtype, self._device)

    def input_ndim(self, which: Which) -> int | None:
        return None

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

    def state(self) -> dict[str, tf.Tensor]:
        trained = {variable.ref() for variable in self._named_variables().values()}
        others = (each for each in self._variables if each.dtype.is_floating and each.ref() not in trained)
        return {f"{number}/{each.name}": each.read_value() for number, each in enumerate(others)}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, tf.Tensor]) -> Iterator[None]:
        variables = self._named_variables()
        before = {variables[name].ref(): variables[name].read_value() for name in weights}
        with self.session(), self.touching(functools.partial(assign, before)):
            assign({variables[name].ref(): values for name, values in weights.items()})
            yield

    # --- its layer

    def find(self, layer: Any) -> str:
        if not isinstance(layer, str) or split_call(layer)[0] != LAYER:
            raise unknown_layer(layer, [LAYER], self.model_name)
        call_number(layer, 1, self.model_name)
        return layer

    @in_session
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        activations = self._activations(rows_of(inputs, 0, self.rows))
        images = max(leaves(inputs), key=lambda each: each.ndim)
        spatial = has_space(activations.shape, spatial_size(images, self.input_channel_axis))
        axis = layer_axis(self.input_channel_axis, -1)
        shape = tuple(activations.shape)
        runs = (LayerRun(0, 0, shape),)
        return mark_default([LayerInfo(LAYER, "function", shape, spatial, channel_axis=axis, runs=runs)])

    # --- running it

    @in_session
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: tf.Tensor | None) -> Capture:
        activations = self._activations(inputs)
        if len(activations.shape) < 3:
            raise no_spatial_layer(self.model_name)
        if score is None:
            return self._captured(layers, self._outputs(activations, inputs), activations, None)
        half = tf.float16 in (activations.dtype, *(variable.dtype for variable in self._variables))
        with engine.recording(targets, half=half) as tape:
            tape.watch(activations)
            outputs = self._outputs(activations, inputs)
        (gradients,) = engine.gradients(tape, score, outputs, targets, [activations], half=half)
        return self._captured(layers, outputs, activations, gradients)

    def _captured(self, layers: Sequence[str], outputs: Any, activations: tf.Tensor, gradients: Any) -> Capture:
        captured = LayerCapture(activations, gradients, layer_axis(self.input_channel_axis, -1))
        return Capture(outputs, dict.fromkeys(layers, captured))

    @in_session
    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        activations, call = self._activations(inputs), call_name(LAYER, 0)
        seen = {call: view(call, activations, namespace)} if LAYER in layers else {}
        return self._outputs(activations, inputs), seen

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        return self._outputs(self._activations(inputs), inputs)

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: tf.Tensor) -> Any:
        return self._outputs(activations, inputs)

    def _outputs(self, activations: tf.Tensor, inputs: Inputs) -> Any:
        def run(inputs: Inputs) -> Any:
            return self._run(self._call_head, self._activations(inputs))

        return self._restored(self._run(self._call_head, activations), inputs, run)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.remade(lambda: engine.compiled(function, jit_compile=self._jit_compile))

    @in_session
    def exported(
        self, function: Callable[..., Any], arguments: Sequence[tf.Tensor], shapes: Sequence[Shape]
    ) -> Exported:
        with self.exporting():
            return exported(function, arguments, shapes, self._device)

    def _activations(self, inputs: Inputs) -> tf.Tensor:
        activations = self._run(self._call_features, inputs)
        if not tf.is_tensor(activations) or not activations.dtype.is_floating:
            raise InvalidValueError(
                f"The first function of {self.model_name} must return a floating-point tensor of activations: got a "
                f"{type(activations).__qualname__}."
            )
        return activations

    def _run(self, call: Caller, inputs: Inputs) -> Any:
        try:
            return call(inputs)
        except FusionCamError:
            raise
        except engine.RUN_ERRORS as error:
            raise cannot_run(self.model_name, inputs, error.message) from error
        except ValueError as error:  # of shapes, while a graph is recorded
            raise cannot_run(self.model_name, inputs, str(error)) from error
        except TypeError as error:
            if call.binds(inputs):
                raise
            raise cannot_run(self.model_name, inputs, str(error)) from error


def _at_inference(function: Callable[..., Any]) -> Callable[..., Any]:
    call = function.__call__ if isinstance(function, tf.Module) else function
    return functools.partial(function, training=False) if "training" in inspect.signature(call).parameters else function


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, without the `training=False` that was bound to it."""
    return function.func if isinstance(function, functools.partial) else function


def _modules(function: Callable[..., Any]) -> list[tf.Module]:
    """The module that the function is, or whose method it is."""
    return [part for part in (function, getattr(function, "__self__", None)) if isinstance(part, tf.Module)]


def _told(function: Callable[..., Any]) -> list[Any]:
    """What a function of the pair goes by beside its variables: attributes of modules, and what is around it."""
    modules = [part for module in _modules(function) for part in (module, *module.submodules)]
    attributes = [(name, heard(value)) for part in modules for name, value in vars(part).items()]
    functions = [function, *(vars(type(part)).get("__call__") for part in modules)]
    return [*attributes, *(heard(getattr(each, "python_function", each)) for each in functions)]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__qualname__)
