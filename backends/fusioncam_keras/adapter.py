"""A Keras 3 model, seen through the narrow waist; the frameworks differ in `Engine` only."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from fusioncam_core.errors import InvalidValueError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    Ending,
    LayerCapture,
    LayerInfo,
    ModelAdapter,
    Score,
    call_number,
    cannot_run,
    channel_axis,
    layer_axis,
    no_array_in,
    not_a_part,
    reject_options,
    split_call,
    unconnected_words,
    unknown_layer,
)
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.inputs import Inputs, Which, rows_of
from fusioncam_core.models.outputs import Shapes, shapes_of, unpack
from fusioncam_core.models.session import Within, in_session
from fusioncam_core.models.structure import is_container
from fusioncam_keras.engine import Captured, Engine, Transform
from fusioncam_keras.state import keep_attributes
from fusioncam_keras.survey import Survey, array_of, declared_input_axis, survey, with_array
from fusioncam_keras.taps import Logits, parts, passing

ENGINES = {"tensorflow": "on_tensorflow", "torch": "on_torch", "jax": "on_jax"}
"""The module for each of Keras's own backends that can differentiate."""


class KerasAdapter(ModelAdapter):
    """Taps layers while the model runs, by their `call`; the framework that Keras runs on differentiates.

    Before anything else the model runs once on one image: that tells the order of the layers, where their
    channels are, and whether an output is a softmax or sigmoid. Such an output is given as its logits, which are
    taken from what goes into the last activation.

    Args:
        model: a built model or layer: Functional, Sequential or subclassed.
        options: `channels`, "first", "last", "none" or the number of their axis in a batch: where the channels of the
            model's inputs are (by default where the model's first layer with a `data_format` has them); on TensorFlow
            also `jit_compile`.

    Raises:
        InvalidValueError: if the model is not built, or Keras runs on a backend that does not differentiate.
        InvalidTypeError: for another option.
    """

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
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
        self.execution = self._engine.execution
        self._declared_axis = declared_input_axis(self._parts)
        self.input_channel_axis = channel_axis(options.get("channels"), self._declared_axis)
        inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
        self.input_ndim_is_declared = bool(inputs)
        self.declared_batch = next((each.shape[0] for each in inputs if each.shape and each.shape[0]), None)
        self._caller = Caller(functools.partial(_called, model), like=model.call, reserved=("training", "mask"))
        self._inference = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
        self._learned: Survey | None = None

    # --- the model as a whole

    @property
    def anchor(self) -> keras.Layer:
        return self._model

    def begin(self) -> None:
        keep_attributes([self._model, *(part for _, part in self._parts)], self.touch)
        self._engine.begin(self.touch)

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

    def ran_out_of_memory(self, error: Exception) -> bool:
        return self._engine.ran_out_of_memory(error)

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
        with self.session(), self.touching(functools.partial(_assign, variables, before)):
            _assign(variables, weights)
            yield

    # --- what one run tells

    def _survey(self, inputs: Inputs) -> Survey:
        if self._learned is None:
            self._learned = self._look(inputs)
        return self._learned

    @in_session
    def _look(self, inputs: Inputs) -> Survey:
        look = functools.partial(
            survey,
            self._parts,
            self._call,
            channel_axis=self._layer_axis,
            input_channel_axis=self.input_channel_axis,
            tracing=self._engine.tracing,
        )
        learned: Survey = self._engine.look(look, rows_of(inputs, 0, self.rows))
        return learned

    @property
    def _layer_axis(self) -> int:
        """Where layers that do not say otherwise have their channels."""
        return layer_axis(self.input_channel_axis, self._declared_axis)

    @in_session
    def output_shapes(self, inputs: Inputs) -> Shapes:
        def shapes(given: Inputs) -> Shapes:
            return shapes_of(self._restored(self._call(given), given, self._call))

        found: Shapes = self._engine.look(shapes, inputs)
        return found

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        return self._look(inputs).layers

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """The softmax or sigmoid that makes the explained output and is left out of what `forward` returns."""
        return getattr(unpack(self._survey(inputs).outputs, output), "ending", None)

    # --- its layers

    def find(self, layer: Any) -> str:
        if not isinstance(layer, str):
            for path, part in self._parts:
                if part is layer:
                    return path
            raise not_a_part(layer, self.model_name)
        name, call = split_call(layer)
        found = [each for each in self._parts if each[0] == name]
        found = found or [each for each in self._parts if each[0].endswith(f"/{name}")]
        if not found:
            same_name = [path for path, _ in self._parts if path.rpartition("[")[0].rpartition("/")[2] == name]
            if same_name:
                raise _ambiguous(name, same_name, self.model_name)
            raise unknown_layer(layer, dict.fromkeys(path for path, _ in self._parts), self.model_name)
        if any(part is not found[0][1] for _, part in found):
            raise _ambiguous(name, [path for path, _ in found], self.model_name)
        return found[0][0] if call is None else f"{found[0][0]}#{call}"

    def _part(self, layer: str, learned: Survey) -> tuple[keras.Operation, int]:
        """A layer, and the number of the call that its name means, counted from 0."""
        path, _ = split_call(layer)
        part = next(part for name, part in self._parts if name == path)
        calls = learned.calls[id(part)]
        if not calls:
            raise InvalidValueError(
                f"The layer {path!r} of {self.model_name} did not run on these inputs{self._engine.out_of_reach}."
            )
        return part, call_number(layer, calls, self.model_name)

    # --- running it

    @in_session
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: Any | None) -> Capture:
        learned, names = self._survey(inputs), tuple(layers)
        tapped = [self._part(layer, learned) for layer in names]
        run = functools.partial(self._run_tapped, names)
        captured: Captured = self._engine.capture(run, names, inputs, score, targets)
        gradients = captured.gradients or [None] * len(names)
        for layer, gradient in zip(names, gradients, strict=True):
            if score is not None and gradient is None:
                raise UnconnectedError(unconnected_words(layer, self.model_name, "stop_gradient, NumPy"))
        each = zip(names, captured.activations, gradients, tapped, strict=True)
        axes, otherwise = learned.channel_axes, self._layer_axis
        return Capture(
            captured.outputs,
            {
                layer: LayerCapture(activations, gradient, axes.get(id(part), otherwise))
                for layer, activations, gradient, (part, _) in each
            },
        )

    def _run_tapped(self, layers: tuple[str, ...], inputs: Inputs, through: Transform) -> tuple[Any, list[Any]]:
        """The outputs, and what became of the layers' outputs."""
        learned = self._survey(inputs)
        taps = []
        with contextlib.ExitStack() as stack:
            for place, layer in enumerate(layers):
                part, call = self._part(layer, learned)
                taps.append(_Tap(call, functools.partial(through, place)))
                stack.enter_context(passing(part, taps[-1]))
            outputs = self._run(inputs)
        for layer, tap in zip(layers, taps, strict=True):
            if tap.array is None:
                raise no_array_in(layer, self.model_name)
        return outputs, [tap.array for tap in taps]

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        self._survey(inputs)
        with self._engine.without_gradients():
            return self._run(inputs)

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: Any) -> Any:
        def replaced(place: int, array: Any) -> Any:
            return keras.ops.cast(activations, array.dtype)

        with self._engine.without_gradients():
            return self._run_tapped((layer,), inputs, replaced)[0]

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = self._engine.compile(function)
        return lambda *arguments: self.session()(compiled)(*arguments)

    def _run(self, inputs: Inputs) -> Any:
        """The outputs, those that a softmax or sigmoid makes as the logits that go into it."""
        return self._restored(self._logits(inputs), inputs, self._logits)

    def _logits(self, inputs: Inputs) -> Any:
        logits = Logits(self._survey(inputs).endings)
        with logits.listening():
            outputs = self._call(inputs)
        return keras.tree.map_structure(logits.of, outputs)

    def _call(self, inputs: Inputs) -> Any:
        called = functools.partial(self._caller, _as_declared(self._model, inputs), **self._inference)
        try:
            return Within(self._engine.scope())(called)()  # an interrupt must not leave Keras in the scope
        except (ValueError, *self._engine.run_errors) as error:
            if isinstance(error, self._engine.other_errors):
                raise
            raise cannot_run(self.model_name, inputs, _gist(error)) from error


def _assign(variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        variables[name].assign(value)


class _Tap:
    """Changes a layer's output in one of its calls, counted from 0, and keeps what became of it."""

    def __init__(self, call: int, through: Callable[[Any], Any]):
        self.array: Any | None = None
        self._left = call
        self._through = through

    def __call__(self, output: Any) -> Any:
        self._left -= 1
        array = array_of(output)
        if self._left != -1 or array is None:
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


def _ambiguous(layer: str, paths: list[str], model_name: str) -> ValueError:
    distinct = list(dict.fromkeys(paths))
    return InvalidValueError(
        f"{model_name} has {len(distinct)} layers of the name {layer!r}: {', '.join(map(repr, distinct))}. "
        "Give the whole path of the one you mean."
    )


def _called(model: keras.Layer, *arguments: Any, **keywords: Any) -> Any:
    """The outputs; Keras lets nothing but arrays come by position, so what holds anything else comes by its name."""
    if all(each is None or keras.ops.is_tensor(each) for each in keras.tree.flatten(arguments)):
        return model(*arguments, **keywords)
    return model(**dict(zip(inspect.signature(model.call).parameters, arguments, strict=False)), **keywords)


def _as_declared(model: keras.Layer, inputs: Inputs) -> Inputs:
    """The inputs; a single array by its name, for a Functional model that is made of a mapping."""
    structure = model.input if hasattr(model, "operations") else None
    single = isinstance(structure, Mapping) and not is_container(inputs)
    return (dict.fromkeys(structure, inputs),) if single else inputs


def _gist(error: Exception) -> str:
    """The sentence in an error of Keras, which surrounds it with a heading, escape codes and the arguments."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line for line in text.splitlines() if line and not line.startswith("Exception encountered")]
    return lines[0] if lines else type(error).__name__
