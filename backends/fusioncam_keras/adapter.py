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
import numpy as np

from fusioncam_core.arrays.namespaces import is_traced
from fusioncam_core.errors import InvalidTypeError, InvalidValueError, NotRunError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    Ending,
    LayerCapture,
    LayerInfo,
    ModelAdapter,
    Score,
    View,
    call_name,
    call_number,
    cannot_run,
    channel_axis,
    layer_axis,
    no_array_in,
    not_a_part,
    reject_options,
    split_call,
    unknown_layer,
)
from fusioncam_core.models.calling import Caller, weakly
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, Which, leaves, rows_of
from fusioncam_core.models.memory import memory_is_full
from fusioncam_core.models.outputs import Shapes, shapes_of, unpack
from fusioncam_core.models.session import Within, in_session
from fusioncam_core.models.structure import is_container
from fusioncam_keras.endings import Listener, as_logits
from fusioncam_keras.engine import Captured, Engine, OutOfReachError, Transform
from fusioncam_keras.state import keep_attributes, plain_attributes
from fusioncam_keras.survey import (
    Call,
    Candidate,
    Survey,
    array_of,
    declared_input_axis,
    reveal,
    runs_backwards,
    survey,
    with_array,
)
from fusioncam_keras.taps import loops, parts, passing, rescales, symbolic_call
from fusioncam_keras.told import told_of

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

    gradient_cuts = "stop_gradient, NumPy"

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
        self.frameworks = ("keras", keras.backend.backend())
        self._declared_axis = declared_input_axis(self._parts)
        self.input_channel_axis = channel_axis(options.get("channels"), self._declared_axis)
        self.rescales_inputs = rescales(self._parts)
        inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
        self.input_ndim_is_declared = bool(inputs)
        self.declared_batch = next((each.shape[0] for each in inputs if each.shape and each.shape[0]), None)
        self._caller = Caller(functools.partial(_called, model), like=model.call, reserved=("training", "mask"))
        self._inference = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
        self._learned: dict[tuple[Any, ...], Survey] = {}
        self._learned_after = self.changes

    # --- the model as a whole

    @property
    def anchor(self) -> keras.Layer:
        return self._model

    def begin(self) -> None:
        every = [self._model, *(part for _, part in self._parts)]
        self.hear(functools.partial(told_of, every))
        keep_attributes(every, self.touch)
        self._engine.begin(self.touch)

    def as_array(self, values: Any) -> Any:
        return self._engine.as_array(values)

    def input_ndim(self, which: Which) -> int | None:
        """Told by the model's inputs, by what it was built on, or by its first convolution's kernel.

        A kernel has two axes less than its input, and each `TimeDistributed` around it takes one for the frames.
        """
        inputs = keras.tree.flatten(getattr(self._model, "inputs", None) or [])
        if which is not None or len(inputs) > 1:
            return None
        if inputs:
            return len(inputs[0].shape)
        built_on = (self._model.get_build_config() or {}).get("input_shape")
        if isinstance(built_on, tuple | list) and all(isinstance(each, int | None) for each in built_on):
            return len(built_on)
        ranks = ((path, getattr(part, "rank", None)) for path, part in self._parts)
        frames = {f"{path}/" for path, part in self._parts if isinstance(part, keras.layers.TimeDistributed)}
        around = ((rank, sum(map(path.startswith, frames))) for path, rank in ranks if isinstance(rank, int))
        return next((rank + 2 + wrappers for rank, wrappers in around), None)

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

    def state(self) -> dict[str, Any]:
        trained = {id(variable) for variable in self._named_variables().values()}
        others = (
            variable
            for variable in self._model.variables
            if id(variable) not in trained and keras.backend.is_float_dtype(variable.dtype)
        )
        values = {
            f"{number}/{each.name}": self._engine.kept(keras.ops.convert_to_tensor(each))
            for number, each in enumerate(others)
        }
        return {**values, **plain_attributes([self._model, *(part for _, part in self._parts)])}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, Any]) -> Iterator[None]:
        variables = self._named_variables()
        before = {name: self._engine.kept(variables[name].value) for name in weights}
        with self.session(), self.touching(functools.partial(_assign, variables, before)):
            _assign(variables, weights)
            yield

    # --- what one run tells

    def _survey(self, inputs: Inputs) -> Survey:
        """What was learned, from inputs of these shapes if the number of frames depends on them."""
        if self._learned_after != self.changes:
            self._learned_after = self.changes
            self._learned.clear()
            self._engine.forget()
        latest = next(reversed(self._learned.values()), None)
        if latest is not None and not latest.has_frames:
            return latest
        key = tuple(tuple(each.shape[1:]) for each in leaves(inputs))
        if key not in self._learned:
            if latest is not None and is_traced(leaves(inputs)[0], self.namespace):
                return latest
            self._learned[key] = self._learn(inputs)
        return self._learned[key]

    @in_session
    def _learn(self, inputs: Inputs) -> Survey:
        learned, candidates = self._look(inputs)
        if not candidates or is_traced(leaves(inputs)[0], self.namespace):
            return learned
        return reveal(learned, candidates, self._call, self._engine.values, rows_of(inputs, 0, self.rows))

    @in_session
    def _look(self, inputs: Inputs) -> tuple[Survey, list[Candidate]]:
        look = functools.partial(
            survey,
            self._parts,
            self._call,
            channel_axis=self._layer_axis,
            input_channel_axis=self.input_channel_axis,
            tracing=self._engine.tracing,
        )
        looked: tuple[Survey, list[Candidate]] = self._engine.look(look, rows_of(inputs, 0, self.rows))
        return looked

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
        return self._look(inputs)[0].layers

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """The softmax or sigmoid that makes the explained output and is left out of what `forward` returns."""
        return getattr(unpack(self._survey(inputs).outputs, output), "ending", None)

    # --- its layers

    def find(self, layer: Any) -> str:
        if isinstance(layer, keras.KerasTensor):
            return self._find_maker(layer)
        if isinstance(layer, int | np.integer):
            raise self._no_index(layer)
        if not isinstance(layer, str):
            for path, part in self._parts:
                if part is layer:
                    self._require_readable(path, part)
                    return path
            raise not_a_part(layer, self.model_name)
        name, call = split_call(layer)
        found = [each for each in self._parts if each[0] == name]
        found = found or [each for each in self._parts if each[0].endswith(f"/{name}")]
        if not found:
            same_name = [path for path, _ in self._parts if path.rpartition("[")[0].rpartition("/")[2] == name]
            if same_name:
                raise _ambiguous(name, same_name, self.model_name)
            if self._saved_function is not None:
                raise self._no_layers()
            raise unknown_layer(layer, dict.fromkeys(path for path, _ in self._parts), self.model_name)
        if any(part is not found[0][1] for _, part in found):
            raise _ambiguous(name, [path for path, _ in found], self.model_name)
        self._require_readable(*found[0])
        return found[0][0] if call is None else f"{found[0][0]}#{call}"

    def _find_maker(self, tensor: keras.KerasTensor) -> str:
        """The name of the layer, with its call, that makes a symbolic tensor of the model."""
        part = tensor._keras_history.operation
        path = next((path for path, each in self._parts if each is part), None)
        if path is None:
            raise InvalidValueError(
                f"The KerasTensor {tensor.name!r} given as layer is made by no layer of {self.model_name}; an input is "
                "none either. Give a layer of it, or the name of one."
            )
        call, calls = symbolic_call(tensor, [self._model, *(part for _, part in self._parts)])
        return path if calls == 1 else f"{path}#{call}"

    def _no_index(self, index: int) -> InvalidTypeError:
        layers = getattr(self._model, "layers", [])
        meant = f" layers[{index}] is {layers[index].name!r}." if -len(layers) <= index < len(layers) else ""
        return InvalidTypeError(
            f"A layer of {self.model_name} is given by its name or as the layer itself: got the number {index}.{meant} "
            "explainer.layers(images) lists all names."
        )

    @property
    def _saved_function(self) -> str | None:
        """The path of a part that is a SavedModel's function; the model's own name if it is one."""
        everything = [(self.model_name, self._model), *self._parts]
        return next((path for path, part in everything if isinstance(part, keras.layers.TFSMLayer)), None)

    def _no_layers(self) -> InvalidTypeError:
        return InvalidTypeError(
            f"{self._saved_function!r} of {self.model_name} is a TFSMLayer: a SavedModel's compiled function, without "
            "the layers that it was made of. Give the Keras model from which it was exported (a .keras file), or take "
            "a method that needs no layer, such as RISE."
        )

    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        """The error for a model in which no layer can be explained."""
        return super().no_default_layer(inputs, gradients) if self._saved_function is None else self._no_layers()

    def _part(self, layer: str, learned: Survey) -> tuple[keras.Operation, Call]:
        """A layer, and the call that its name means.

        Raises:
            InvalidValueError: if it did not run, or as often; or no map can be read off what it returns.
        """
        path, _ = split_call(layer)
        part = next(part for name, part in self._parts if name == path)
        self._require_readable(path, part)
        calls = learned.calls.get(id(part), [])
        if not calls:
            raise NotRunError(
                f"The layer {path!r} of {self.model_name} did not run on these inputs{self._engine.out_of_reach}."
            )
        return part, calls[call_number(layer, len(calls), self.model_name)]

    def _require_readable(self, path: str, part: keras.Operation) -> None:
        """Refuse a layer off whose outputs no map can be read, whatever the inputs."""
        loop = loops(self._parts).get(id(part))
        if loop is not None:
            raise InvalidValueError(
                f"The layer {path!r} of {self.model_name} runs once for each step of {loop!r}, inside of a loop out of "
                f"which its outputs cannot be taken. Take {loop!r} itself, which returns all steps with "
                "return_sequences=True, or a layer before it."
            )
        if runs_backwards(part):
            raise InvalidValueError(
                f"The layer {path!r} of {self.model_name} goes backwards (go_backwards=True): the first of its outputs "
                f"belongs to the last step, and a map would be the wrong way round. {self._way_round(path)}"
            )

    def _way_round(self, path: str) -> str:
        around, _, _ = path.rpartition("/")
        if any(name == around and isinstance(part, keras.layers.Bidirectional) for name, part in self._parts):
            return f"Take the Bidirectional {around!r} around it."
        return "Take a layer before it, or one behind that turns its outputs round."

    # --- running it

    @in_session
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: Any | None) -> Capture:
        learned, names = self._survey(inputs), tuple(layers)
        tapped = [self._part(layer, learned) for layer in names]
        run = functools.partial(weakly(self._run_tapped), names)
        captured: Captured = self._engine.capture(run, names, inputs, score, targets)
        activations, gradients = iter(captured.activations), iter(captured.gradients or ())
        axes, otherwise = learned.channel_axes, self._layer_axis
        found = {}
        for layer, (part, call) in zip(names, tapped, strict=True):
            mine = [next(activations) for _ in call.numbers]
            gradient = None
            if score is not None:
                gradient = _together([next(gradients) for _ in call.numbers], call, 2)
                if gradient is None and len(names) == 1:
                    self._refuse_endings(layer, part, learned)
            found[layer] = LayerCapture(_together(mine, call, 1), gradient, axes.get(id(part), otherwise))
        return Capture(captured.outputs, found)

    def _refuse_endings(self, layer: str, part: keras.Operation, learned: Survey) -> None:
        kind = next((each.kind for each in learned.sources if each is not None and each.part is part), None)
        if kind is not None:
            raise UnconnectedError(
                f"The layer {layer!r} of {self.model_name} makes an output by a {kind}, and the scores are the logits "
                "that go into it: they do not depend on what the layer returns. Take a layer before it."
            )

    def _run_tapped(self, layers: tuple[str, ...], inputs: Inputs, through: Transform) -> tuple[Any, list[Any]]:
        """The outputs, and what became of the layers' outputs: one array for each call, frame by frame."""
        learned, taps, first = self._survey(inputs), [], 0
        with contextlib.ExitStack() as stack:
            for layer in layers:
                part, call = self._part(layer, learned)
                taps.append(_Tap(call.numbers, first, through))
                first += len(call.numbers)
                stack.enter_context(passing(part, taps[-1]))
            outputs = self._run(inputs)
        for layer, tap in zip(layers, taps, strict=True):
            if any(array is None for array in tap.arrays):
                raise no_array_in(layer, self.model_name, tap.other)
        return outputs, [array for tap in taps for array in tap.arrays]

    @in_session
    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        self._survey(inputs)
        try:
            return self._observed(inputs, tuple(layers), view)
        except OutOfReachError:
            pass
        # One of several is out of reach: each by itself, and those out of reach not at all.
        found = [each for layer in layers if (each := self._observed_or_none(inputs, layer, view)) is not None]
        seen = {call: values for _, each in found for call, values in each.items()}
        return (found[0][0] if found else self.forward(inputs)), seen

    def _observed_or_none(self, inputs: Inputs, layer: str, view: View) -> tuple[Any, dict[str, Any]] | None:
        try:
            return self._observed(inputs, (layer,), view)
        except OutOfReachError:
            return None

    def _observed(self, inputs: Inputs, names: tuple[str, ...], view: View) -> tuple[Any, dict[str, Any]]:
        run = functools.partial(weakly(self._run_observed), names, view)
        outputs, seen = self._engine.observe(run, names, view, inputs)
        return outputs, seen

    def _run_observed(self, layers: tuple[str, ...], view: View, inputs: Inputs) -> tuple[Any, dict[str, Any]]:
        learned = self._survey(inputs)
        named = dict(reversed(self._parts))
        calls = {
            call_name(layer, number): call
            for layer in layers
            if not runs_backwards(named[layer])
            for number, call in enumerate(learned.calls[id(named[layer])])
        }
        outputs, arrays = self._run_tapped(tuple(calls), inputs, lambda place, array: array)
        left = iter(arrays)
        kept = {name: _together([next(left) for _ in call.numbers], call, 1) for name, call in calls.items()}
        return outputs, {name: view(name, array, self.namespace) for name, array in kept.items()}

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        self._survey(inputs)
        if self._model_session.exporting:
            with self._engine.without_gradients():
                return self._run(inputs)
        return self._engine.forward(weakly(self._run), inputs)

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: Any) -> Any:
        _, call = self._part(layer, self._survey(inputs))

        def replaced(place: int, array: Any) -> Any:
            return keras.ops.cast(_apart(activations, call)[place], array.dtype)

        with self._engine.without_gradients():
            return self._run_tapped((layer,), inputs, replaced)[0]

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.remade(lambda: self._engine.compile(function))

    @in_session
    def exported(self, function: Callable[..., Any], arguments: Sequence[Any], shapes: Sequence[Shape]) -> Exported:
        def recorded(*given: Any) -> Any:  # also later, when the session is over
            with self.session(), self.exporting():
                return function(*given)

        return self._engine.exported(recorded, arguments, shapes)

    def _run(self, inputs: Inputs) -> Any:
        """The outputs, those that a softmax or sigmoid makes as the logits that go into it."""
        return self._restored(self._logits(inputs), inputs, self._logits)

    def _logits(self, inputs: Inputs) -> Any:
        sources = self._survey(inputs).sources
        listener = Listener((source.part, source.inside) for source in sources if source is not None)
        with listener.listening():
            outputs = self._call(inputs)
        flat = keras.tree.flatten(outputs)
        logits = [
            as_logits(output, source, listener, self.model_name) for output, source in zip(flat, sources, strict=True)
        ]
        return keras.tree.pack_sequence_as(outputs, logits)

    def _call(self, inputs: Inputs) -> Any:
        called = functools.partial(self._caller, _as_declared(self._model, inputs), **self._inference)
        try:
            return Within(self._engine.scope())(called)()  # an interrupt must not leave Keras in the scope
        except (ValueError, *self._engine.run_errors) as error:
            if isinstance(error, self._engine.other_errors) or memory_is_full(error):
                raise
            raise cannot_run(self.model_name, inputs, _gist(error)) from error


def _assign(variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        variables[name].assign(value)


class _Tap:
    """Changes a layer's outputs in some of its calls, counted from 0, and keeps what became of them.

    Args:
        calls: the numbers of the calls.
        first: the place of the first of them among all that are tapped.
        through: (place, array) -> what the rest of the model sees instead.

    Attributes:
        arrays: what became of the outputs, one for each of the calls; None for what was no array.
        other: the latest output that was none.
    """

    def __init__(self, calls: Sequence[int], first: int, through: Transform):
        self.arrays: list[Any] = [None] * len(calls)
        self.other: Any = None
        self._places = {call: place for place, call in enumerate(calls)}
        self._first = first
        self._through = through
        self._heard = 0

    def __call__(self, output: Any) -> Any:
        place, array = self._places.get(self._heard), array_of(output)
        self._heard += 1
        if array is None:
            self.other = output
        if place is None or array is None:
            return output
        self.arrays[place] = self._through(self._first + place, array)
        return with_array(output, self.arrays[place])


def _together(arrays: Sequence[Any], call: Call, axis: int) -> Any:
    """The arrays of one call, one for each frame, as one array; those that are None as zeros, or None if all are."""
    like = next((array for array in arrays if array is not None), None)
    if like is None or not call.frames:
        return like
    stacked = keras.ops.stack([keras.ops.zeros_like(like) if array is None else array for array in arrays], axis=axis)
    return keras.ops.reshape(stacked, (*like.shape[:axis], *call.frames, *like.shape[axis:]))


def _apart(activations: Any, call: Call) -> list[Any]:
    """The activations (B, ...) of one call, one array for each frame."""
    if not call.frames:
        return [activations]
    own = tuple(activations.shape[1 + len(call.frames) :])
    flat = keras.ops.reshape(activations, (-1, len(call.numbers), *own))
    return [flat[:, place] for place in range(len(call.numbers))]


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
