"""A Keras 3 model and one of its layers, seen through the narrow waist; the frameworks differ in `Engine` only."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from fusioncam_core.errors import InvalidValueError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    Ending,
    LayerInfo,
    ModelAdapter,
    Score,
    no_spatial_layer,
    reject_options,
    unknown_layer,
)
from fusioncam_core.models.inputs import Inputs, Which, leaves, map_leaves
from fusioncam_core.models.outputs import unpack
from fusioncam_keras.engine import Engine, Transform
from fusioncam_keras.state import AttributeState
from fusioncam_keras.survey import Survey, array_of, declared_input_axis, survey, with_array
from fusioncam_keras.taps import Logits, parts, passing

ENGINES = {"tensorflow": "on_tensorflow", "torch": "on_torch", "jax": "on_jax"}
"""The module for each of Keras's own backends that can differentiate."""

CHANNELS = {"first": 1, "last": -1}


class KerasAdapter(ModelAdapter):
    """Taps a layer while the model runs, by its `call`; the framework that Keras runs on differentiates.

    Before anything else the model runs once on one image: that tells the order of the layers, where their
    channels are, and whether an output is a softmax or sigmoid. Such an output is given as its logits, which are
    taken from what goes into the last activation.

    Args:
        model: a built model or layer: Functional, Sequential or subclassed.
        layer: a path such as "mobilenetv2/out_relu", the end of one that is unique, a layer, or None.
        options: `channels`, "first" or "last": where the channels of the model's inputs are (by default where the
            model's first layer with a `data_format` has them); on TensorFlow also `jit_compile`.

    Raises:
        ValueError: if the model is not built, it has no such layer or several, or Keras runs on a backend that
            does not differentiate.
        TypeError: for another option.
    """

    def __init__(self, model: keras.Layer, layer: str | keras.Operation | None, options: Mapping[str, Any]):
        self.model_name = model.name
        self._model = model
        self._engine = _engine(model, options)
        self._parts = parts(model)
        if not model.built:
            raise InvalidValueError(
                f"The model {model.name!r} is not built: its layers have no variables yet. Call it on a batch of "
                "images first, or give it an Input."
            )
        self.namespace = self._engine.namespace
        self.fixed_chunks = self._engine.fixed_chunks
        self.batch_size = self._engine.batch_size
        self.memory_errors = self._engine.memory_errors
        self.input_channel_axis = _channel_axis(options.get("channels")) or declared_input_axis(self._parts)
        self._path, self._layer = (None, None) if layer is None else self._find(layer)
        self._state = AttributeState([model, *(part for _, part in self._parts if isinstance(part, keras.Layer))])
        self._learned: Survey | None = None

    def _find(self, layer: str | keras.Operation) -> tuple[str, keras.Operation]:
        if not isinstance(layer, str):
            for path, part in self._parts:
                if part is layer:
                    return path, part
            raise InvalidValueError(
                f"The {type(layer).__qualname__} given as layer is not a part of {self.model_name}."
            )
        found = [each for each in self._parts if each[0] == layer]
        found = found or [each for each in self._parts if each[0].endswith(f"/{layer}")]
        if not found:
            raise unknown_layer(layer, dict.fromkeys(path for path, _ in self._parts), self.model_name)
        if any(part is not found[0][1] for _, part in found):
            raise _ambiguous(layer, [path for path, _ in found], self.model_name)
        return found[0]

    @property
    def layer_name(self) -> str:
        if self._path is None:
            raise InvalidValueError("The default layer is found when the model runs: call capture or layers first.")
        return self._path

    @property
    def activation_channel_axis(self) -> int:
        """Told by the run: the `data_format` of the layer or of the last layer before it that has one."""
        known = {} if self._learned is None else self._learned.channel_axes
        return known.get(id(self._layer), self.input_channel_axis)

    def as_array(self, values: Any) -> Any:
        return self._engine.as_array(values)

    def input_ndim(self, which: Which) -> int | None:
        """Told by the model's inputs, or by the first convolution: two axes more than its kernel has in space."""
        inputs = keras.tree.flatten(getattr(self._model, "inputs", None) or [])
        if which is not None or len(inputs) > 1:
            return None
        if inputs:
            return len(inputs[0].shape)
        ranks = (getattr(part, "rank", None) for _, part in self._parts)
        return next((rank + 2 for rank in ranks if isinstance(rank, int)), None)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        with self._state, self._engine.session():
            yield

    def ran_out_of_memory(self, error: Exception) -> bool:
        return self._engine.ran_out_of_memory(error)

    # --- what one run tells

    def _survey(self, inputs: Inputs) -> Survey:
        if self._learned is None:
            self._learned = self._look(inputs)
        return self._learned

    def _look(self, inputs: Inputs) -> Survey:
        first = map_leaves(lambda each: each[:1], inputs)
        look = functools.partial(
            survey, self._parts, self._call, channel_axis=self.input_channel_axis, tracing=self._engine.tracing
        )
        with self.session():
            learned: Survey = self._engine.look(look, first)
        return learned

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        return self._look(inputs).layers

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """The softmax or sigmoid that makes the explained output and is left out of what `forward` returns."""
        return getattr(unpack(self._survey(inputs).outputs, output), "ending", None)

    def _resolve(self, inputs: Inputs) -> tuple[keras.Operation, int]:
        """The layer and the number of its last call."""
        learned = self._survey(inputs)
        if self._layer is None:
            default = next((layer.name for layer in learned.layers if layer.default), None)
            if default is None:
                raise no_spatial_layer(self.model_name)
            self._path, self._layer = self._find(default)
        if not learned.calls[id(self._layer)]:
            raise InvalidValueError(
                f"The layer {self._path!r} of {self.model_name} did not run on these inputs{self._engine.out_of_reach}."
            )
        return self._layer, learned.calls[id(self._layer)]

    # --- the waist

    def capture(self, inputs: Inputs, score: Score | None, targets: Any | None) -> Capture:
        self._resolve(inputs)
        with self.session():
            outputs, activations, gradients = self._engine.capture(self._run_tapped, inputs, score, targets)
        if score is not None and gradients is None:
            raise UnconnectedError(
                f"The scores of {self.model_name} do not depend on the layer {self._path!r}. Take a layer on the way "
                "to the outputs."
            )
        return Capture(outputs, activations, gradients)

    def _run_tapped(self, inputs: Inputs, through: Transform) -> tuple[Any, Any]:
        """The outputs, and what became of the layer's output; of the last call, if it runs several times."""
        layer, call = self._resolve(inputs)
        tap = _Tap(call, through)
        with passing(layer, tap):
            outputs = self._run(inputs)
        if tap.array is None:
            raise InvalidValueError(f"The layer {self._path!r} of {self.model_name} returned no floating-point array.")
        return outputs, tap.array

    def forward(self, inputs: Inputs) -> Any:
        self._survey(inputs)
        with self.session(), self._engine.without_gradients():
            return self._run(inputs)

    def forward_with(self, inputs: Inputs, activations: Any) -> Any:
        self._resolve(inputs)
        with self.session(), self._engine.without_gradients():
            return self._run_tapped(inputs, lambda array: keras.ops.cast(activations, array.dtype))[0]

    def _named_variables(self) -> dict[str, Any]:
        """The trained floating variables by the paths of their layers, "block/conv/kernel"."""
        named: dict[str, Any] = {}
        owned: set[int] = set()
        for path, part in reversed(self._parts):  # a part comes after what it lies in, and is where its variables are
            if isinstance(part, keras.Layer):
                for variable in part.trainable_variables:
                    if id(variable) not in owned and keras.backend.is_float_dtype(variable.dtype):
                        owned.add(id(variable))
                        named[f"{path}/{variable.name}"] = variable
        order = {id(variable): place for place, variable in enumerate(self._model.trainable_variables)}
        return dict(sorted(named.items(), key=lambda item: order.get(id(item[1]), len(order))))

    def weights(self) -> dict[str, Any]:
        named = self._named_variables()
        return {name: self._engine.kept(keras.ops.convert_to_tensor(variable)) for name, variable in named.items()}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, Any]) -> Iterator[None]:
        variables = self._named_variables()
        before = {name: self._engine.kept(variables[name].value) for name in weights}
        try:
            for name, values in weights.items():
                variables[name].assign(values)
            yield
        finally:
            for name, values in before.items():
                variables[name].assign(values)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = self._engine.compile(function)

        def run(*arguments: Any) -> Any:
            with self.session():
                return compiled(*arguments)

        return run

    def _run(self, inputs: Inputs) -> Any:
        """The outputs, those that a softmax or sigmoid makes as the logits that go into it."""
        logits = Logits(self._survey(inputs).endings)
        with logits.listening():
            outputs = self._call(inputs)
        return keras.tree.map_structure(logits.of, outputs)

    def _call(self, inputs: Inputs) -> Any:
        arguments, keywords = _arguments(self._model, inputs)
        try:
            with self._engine.scope():
                return self._model(*arguments, **keywords)
        except (ValueError, *self._engine.run_errors) as error:
            if isinstance(error, self._engine.other_errors):
                raise
            shapes = ", ".join(
                f"{tuple(each.shape)} ({keras.backend.standardize_dtype(each.dtype)})" for each in leaves(inputs)
            )
            raise InvalidValueError(
                f"{self.model_name} cannot run on inputs of shape {shapes}: {_gist(error)}"
            ) from error


class _Tap:
    """Changes a layer's output in one of its calls, and keeps what became of it."""

    def __init__(self, call: int, through: Transform):
        self.array: Any | None = None
        self._left = call
        self._through = through

    def __call__(self, output: Any) -> Any:
        self._left -= 1
        array = array_of(output)
        if self._left or array is None:
            return output
        self.array = self._through(array)
        return with_array(output, self.array)


def _engine(model: keras.Layer, options: Mapping[str, Any]) -> Engine:
    """The engine of the framework that Keras runs on in this process."""
    backend = keras.config.backend()
    if backend not in ENGINES:
        raise InvalidValueError(
            f"{model.name} runs on Keras's backend {backend!r}, which does not differentiate. Set KERAS_BACKEND to "
            f"{', '.join(list(ENGINES)[:-1])} or {list(ENGINES)[-1]} before Keras is imported."
        )
    module = importlib.import_module(f"fusioncam_keras.{ENGINES[backend]}")
    reject_options(options, ("channels", *module.OPTIONS), f"Keras on {backend}")
    engine: Engine = module.make_engine(model, options)
    return engine


def _channel_axis(channels: object) -> int | None:
    if channels is None:
        return None
    if channels not in CHANNELS:
        raise InvalidValueError(f"channels is 'first' or 'last', and {channels!r} came.")
    return CHANNELS[str(channels)]


def _ambiguous(layer: str, paths: list[str], model_name: str) -> ValueError:
    distinct = list(dict.fromkeys(paths))
    if len(distinct) == 1:
        return InvalidValueError(
            f"{model_name} has {len(paths)} layers of the path {layer!r}. Give the layer itself instead of its name."
        )
    return InvalidValueError(
        f"{model_name} has {len(distinct)} layers of the name {layer!r}: {', '.join(map(repr, distinct))}. "
        "Give the whole path of the one you mean."
    )


def _arguments(model: keras.Layer, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model is called with: its inputs as one structure, unless its `call` takes them one by one."""
    taken = inspect.signature(model.call).parameters
    keywords = {"training": False} if "training" in taken else {}
    named = {name: each for name, each in taken.items() if each.kind is not inspect.Parameter.VAR_KEYWORD}
    if isinstance(inputs, Mapping) and inputs.keys() <= named.keys():
        return (), {**inputs, **keywords}
    if isinstance(inputs, tuple):
        required = [each for each in named.values() if each.default is inspect.Parameter.empty]
        return (inputs, keywords) if len(required) == len(inputs) > 1 else ((list(inputs),), keywords)
    structure = model.input if hasattr(model, "operations") else None  # of a Functional model
    if isinstance(structure, Mapping) and not isinstance(inputs, Mapping):
        return (dict.fromkeys(structure, inputs),), keywords
    return (inputs,), keywords


def _gist(error: Exception) -> str:
    """The sentence in an error of Keras, which surrounds it with a heading, escape codes and the arguments."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line for line in text.splitlines() if line and not line.startswith("Exception encountered")]
    return lines[0] if lines else type(error).__name__
