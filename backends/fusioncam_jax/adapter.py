"""A JAX model, seen through the narrow waist; the module systems differ in `Network` only."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core.errors import FusionCamError, InvalidValueError
from fusioncam_core.models.adapter import (
    Capture,
    Execution,
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
    not_an_array,
    reject_options,
    split_call,
    unknown_layer,
)
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.calling import weakly
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, Which, batch_length, leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.outputs import Shapes, shapes_of
from fusioncam_core.models.session import Within, in_session
from fusioncam_core.models.structure import split
from fusioncam_jax import namespace
from fusioncam_jax.exporting import exported
from fusioncam_jax.following import activations_behind, mark
from fusioncam_jax.half import passes_float16, scaled_pull_back
from fusioncam_jax.lanes import execution, several_lanes
from fusioncam_jax.network import Network, Parameters
from fusioncam_jax.passes import Begun, FirstArray, Pass, Passes, same_objects, shapes_and_form, structure_of
from fusioncam_jax.programs import Program, Programs, of_leaves
from fusioncam_jax.reach import Reach, describe, is_floating, outside
from fusioncam_jax.taps import Exchange, Listener, Observer, Ran, Recorder, listening, nobody_listens

PARAMETERS = "parameters"
"""What a session shares of a model's parameters, while it is open."""

DOES_NOT_FIT = (TypeError, ValueError, IndexError, AssertionError, RuntimeError)
"""What models raise for arrays of a shape that is not theirs."""

RECORDS = 8
"""For how many shapes of inputs it is remembered how the layers run."""

SHAPES = 8
"""For how many shapes of inputs the backward pass of one score is kept."""

Calls = list[tuple[str, int]]
"""Layers' names, and which call of each, counted from 0."""


@dataclass
class _Known:
    """What is kept of a model until it is told something else.

    Attributes:
        programs: compiled.
        passes: forward passes that capture.
        records: by the shapes of parameters and inputs, their structure and how the layers run.
        foreseen: inputs that are captured after those that come next.
        begun: their pass, once it is under way.
    """

    programs: Programs = field(default_factory=Programs)
    passes: Passes = field(default_factory=Passes)
    records: dict[Any, tuple[Any, Recorder]] = field(default_factory=dict)
    foreseen: Inputs | None = None
    begun: Begun | None = None


class JaxAdapter(ModelAdapter):
    """Runs the network as a compiled function of its parameters, and differentiates by perturbations of the layers.

    A perturbation is zero and added to a layer's output in one of its calls, so the backward pass ends there.
    The numbers of the calls and the shapes of their outputs come from an abstract run, which costs no arithmetic.

    Args:
        network: of any module system.
        options: `channels`, "first", "last", "none" or the number of their axis in a batch: where the channels of the
            model's inputs are (for plain functions, of the activations too, if first or last). Flax and functions
            have them last, Equinox first. `framework` says that plain functions are JAX's.

    Raises:
        InvalidTypeError: for another option.
    """

    namespace = namespace
    gradient_cuts = "stop_gradient, integers"
    input_ndim_is_declared = False

    def __init__(self, network: Network, options: Mapping[str, Any]):
        reject_options(options, ("channels", "framework"), "JAX")
        self.input_channel_axis = channel_axis(options.get("channels"), network.input_channel_axis)
        self.model_name = network.name
        self.frameworks = ("jax", *network.libraries)
        self._network = network
        self._of_now, self._after = _Known(), self.changes
        self._arrays = FirstArray()
        self._takes_batches = not network.per_image
        self._batch_ndims: dict[Any, int | None] = {}

    # --- inputs

    def as_array(self, values: Any) -> jax.Array:
        if not isinstance(values, np.ndarray | jax.Array):
            raise not_an_array(values, "a JAX array")
        arrays = [leaf for leaf in jax.tree.leaves(self._current()) if isinstance(leaf, jax.Array)]
        # A copy: JAX may share a NumPy array's memory, and its owner may write to it.
        array = _beside(np.array(values) if isinstance(values, np.ndarray) else values, arrays)
        return array.astype(_dtype(arrays, array.dtype)) if is_floating(array) else array

    def input_ndim(self, which: Which) -> int | None:
        """As the model's structure suggests them; `batch_ndim` knows better."""
        return self._network.input_ndim if which is None else None

    @in_session
    def batch_ndim(self, images: jax.Array) -> int | None:
        """Found out by running the model, without arithmetic, on the images as a batch and as one image."""
        key = (tuple(images.shape), str(images.dtype))
        if key not in self._batch_ndims:
            self._batch_ndims[key] = self._measured_ndim(images)
        return self._batch_ndims[key]

    def _measured_ndim(self, images: jax.Array) -> int | None:
        told = None
        shapes = (images.shape, (1, *images.shape))
        either = (jax.ShapeDtypeStruct(shape, images.dtype) for shape in shapes)
        likely_first = sorted(either, key=lambda each: each.ndim != self._network.input_ndim)
        for batch in likely_first:
            recorder = self._recorder()
            if batch.ndim > 2 and self._reads(batch, recorder):
                return batch.ndim
            told = told or recorder.convolution
        # It runs on neither: what is wrong is said by the number of axes, or else by the model itself.
        return told[0] + 2 if told else self._network.input_ndim

    def _reads(self, batch: jax.ShapeDtypeStruct, recorder: Recorder) -> bool:
        """Whether the model takes the array for a batch.

        It runs on others too: Flax's convolutions take an array that has one axis less for one image, or one more for
        several batches. Then the mean over "the spatial axes" goes over others.
        """
        try:
            recorder = self._record_with(recorder, self._current(), batch)
        except (*DOES_NOT_FIT, *self._network.errors):
            return False
        batch_axes = None if recorder.convolution is None else recorder.convolution[1] - recorder.convolution[0] - 1
        return batch_axes == 1 or (batch_axes != 0 and _has_rows(recorder.outputs, batch.shape[0]))

    # --- the model's parameters: arguments of everything that is compiled

    @property
    def anchor(self) -> Any:
        return self._network.anchor

    @property
    def execution(self) -> Execution:  # type: ignore[override]
        return execution()

    @property
    def _known(self) -> _Known:
        if self._after != self.changes:
            self._of_now, self._after = _Known(), self.changes
        return self._of_now

    def begin(self) -> None:
        self.hear(self._network.told, self._network.known_by)
        parameters = self._network.parameters()
        self.hear_if_converted(lambda: _in_words(parameters), lambda: _in_words(self._network.parameters()))
        shared = self._model_session.shared
        self.touch(lambda: shared.pop(PARAMETERS, None))
        self.touch(nobody_listens)
        shared[PARAMETERS] = parameters
        self._arrays.look_at(jax.tree.leaves(parameters))

    def _current(self) -> Parameters:
        shared = self._model_session.shared
        mine = self._model_session.is_mine and PARAMETERS in shared
        return shared[PARAMETERS] if mine else self._network.parameters()

    @contextlib.contextmanager
    def _with(self, parameters: Parameters) -> Iterator[None]:
        """Inside the session, the model has these parameters for all its adapters."""
        shared = self._model_session.shared
        before = shared[PARAMETERS]
        with self.touching(lambda: shared.update({PARAMETERS: before})):
            shared[PARAMETERS] = parameters
            yield

    def weights(self) -> dict[str, jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(self._current())
        named = ((self._network.weight_name(path), leaf) for path, leaf in leaves if is_floating(leaf))
        return {name: leaf for name, leaf in named if name is not None}

    def state(self) -> dict[str, jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(self._current())
        others = ((path, leaf) for path, leaf in leaves if self._network.weight_name(path) is None)
        return {jax.tree_util.keystr(path): leaf for path, leaf in others if is_floating(leaf)}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, jax.Array]) -> Iterator[None]:
        def exchanged(path: Any, leaf: Any) -> Any:
            return weights.get(self._network.weight_name(path) or "", leaf)

        with self.session(), self._with(jax.tree_util.tree_map_with_path(exchanged, self._current())):
            yield

    # --- its layers

    def find(self, layer: Any) -> str:
        if not isinstance(layer, str):
            return self._network.find(layer)
        name, call = split_call(layer)
        found = self._network.find(name)
        return found if call is None else f"{found}#{call}"

    @in_session
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        recorder = self._record(self._current(), inputs)
        taken = {name: each for name, each in recorder.ran.items() if each.reachable}
        listed = [self._info(name, each, inputs) for name, each in taken.items()]
        return mark_default([replace(each, followed_by=recorder.followed.get(each.name, "")) for each in listed])

    @in_session
    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        ran = self._record(self._current(), inputs).ran
        hidden = [name for name, each in ran.items() if each.has_array and not each.reachable]
        if hidden:
            return self._unreachable(hidden[-1])
        return InvalidValueError(f"{no_spatial_layer(self.model_name)} {self._network.without_layers}".strip())

    @property
    def _activation_axis(self) -> int:
        own = self._network.activation_channel_axis
        return layer_axis(self.input_channel_axis, self._network.input_channel_axis) if own is None else own

    # --- running it

    @in_session
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: jax.Array | None) -> Capture:
        seen = self._pass(inputs, layers, differentiated=score is not None)
        outputs, activations, pull_back = self._run_pass(seen, inputs)
        places = tuple(seen.places[layer] for layer in layers)
        gradients = [None] * len(places)
        if score is not None:
            gradients = self._gradients(score, places)(pull_back, outputs, targets)
        self._go_ahead(seen, inputs)
        each = zip(layers, (activations[place] for place in places), gradients, strict=True)
        return Capture(outputs, {name: LayerCapture(*arrays, self._activation_axis) for name, *arrays in each})

    @in_session
    def gradients_once(self, inputs: Inputs, layers: Sequence[str], score: Score) -> dict[str, jax.Array | None]:
        seen = self._pass(inputs, layers, differentiated=True)
        outputs, _, pull_back = self._run_pass(seen, inputs)
        places = tuple(seen.places[layer] for layer in layers)
        gradients = self._gradients(score, places, once=True)(pull_back, outputs, None)
        return dict(zip(layers, gradients, strict=True))

    def _gradients(self, score: Score, places: tuple[int, ...], *, once: bool = False) -> Program:
        """(what pulls back, outputs, targets) -> the gradients of the score at those of the pass's layers."""
        kind = ("back", places, type(score), getattr(score, "top", 1), once)
        make = functools.partial(_Gradients, score, places)
        return self._known.programs.of(kind, score, make, once=once, short=True, structures=SHAPES)

    def _pass(self, inputs: Inputs, layers: Sequence[str], *, differentiated: bool) -> Pass:
        """A forward pass that captures these layers, perhaps among others for which it is compiled already."""
        parameters = self._current()
        structure = structure_of(parameters)
        found = self._known.passes.of(inputs, layers, differentiated, structure)
        if found is not None:
            return found
        exact = [call_name(split_call(each)[0], self._call(each, parameters, inputs)[1]) for each in layers]
        found = self._known.passes.of(inputs, exact, differentiated, structure)
        if found is None:
            found = Pass(tuple(layers), differentiated, structure)
            found.places.update((name, place) for place, name in enumerate(exact))
            self._known.passes.add(inputs, found)
        found.places.update((name, found.places[call]) for name, call in zip(layers, exact, strict=True))
        return found

    @property
    def foresees(self) -> bool:
        return several_lanes() and self._arrays.stay

    def foresee(self, inputs: Inputs | None) -> Callable[[], bool] | None:
        self._known.foreseen = inputs
        if inputs is None:
            self._known.begun = None
            return None
        return functools.partial(self._is_still, jax.tree.leaves(self._current()), self.changes)

    def _is_still(self, parameters: list[Any], changes: int) -> bool:
        """Whether the model has these parameters, and has been told nothing else since."""
        return changes == self.changes and same_objects(jax.tree.leaves(self._current()), parameters)

    def _go_ahead(self, seen: Pass, after: Inputs) -> None:
        """Begin with the pass of what was foreseen, if it is the same one: others would have to be compiled."""
        known = self._known
        if known.begun is not None and known.begun.inputs is after:
            known.begun = None
        inputs = known.foreseen
        if inputs is None or shapes_and_form(inputs) != shapes_and_form(after):
            return
        known.foreseen = None
        if inputs is not after:
            known.begun = Begun(seen, inputs, jax.tree.leaves(self._current()), self._run_pass(seen, inputs))

    def _run_pass(self, seen: Pass, inputs: Inputs) -> tuple[Any, list[jax.Array], Any]:
        begun = self._known.begun
        if begun is not None and begun.is_of(seen, inputs, jax.tree.leaves(self._current())):
            return begun.made
        program = self._known.programs.of(
            ("capture", seen.layers, seen.differentiated),
            None,
            lambda: functools.partial(weakly(self._capture), seen.layers, seen.differentiated),
        )
        outputs, activations, pull_back = program(self._current(), inputs)
        return outputs, activations, pull_back

    @in_session
    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        names = tuple(layers)
        program = self._known.programs.of(
            ("observe",), (names, view), lambda: functools.partial(weakly(self._observe), names, view), once=True
        )
        outputs, seen = program(self._current(), inputs)
        return outputs, seen

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        seen = self._known_pass(inputs)
        if seen is not None:
            return self._run_pass(seen, inputs)[0]
        return self._known.programs.of(("forward",), None, lambda: weakly(self._run))(self._current(), inputs)

    @in_session
    def has_pass(self, inputs: Inputs) -> bool:
        return self._known_pass(inputs) is not None

    def _known_pass(self, inputs: Inputs) -> Pass | None:
        """One that is compiled for such inputs; none inside of another program, which would compile it again."""
        return self._known.passes.of(inputs, (), False, structure_of(self._current())) if outside() else None

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: jax.Array) -> Any:
        make = functools.partial(functools.partial, weakly(self._run_with), layer)
        program = self._known.programs.of(("with", layer), None, make)
        return program(self._current(), inputs, activations)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(parameters: Parameters, *arguments: Any) -> Any:
            with self._with(parameters):
                return function(*arguments)

        def make() -> Callable[..., Any]:
            program = Program(compiled)
            return lambda *arguments: program(self._current(), *arguments)

        return self.remade(make)

    @in_session
    def exported(
        self, function: Callable[..., Any], arguments: Sequence[jax.Array], shapes: Sequence[Shape]
    ) -> Exported:
        parameters = self._current()

        def with_parameters(*given: jax.Array) -> Any:
            with self.session(), self._with(parameters), self.exporting():
                return function(*given)

        return exported(with_parameters, arguments, shapes)

    # --- what is compiled

    def _capture(
        self, layers: tuple[str, ...], differentiated: bool, parameters: Parameters, inputs: Inputs
    ) -> tuple[Any, list[jax.Array], Any]:
        """Outputs, the layers' activations, and what pulls cotangents of the outputs back to these."""
        ran = [self._call(layer, parameters, inputs) for layer in layers]
        calls = [(split_call(layer)[0], number) for layer, (_, number) in zip(layers, ran, strict=True)]
        outputs = (each.outputs[number] for each, number in ran)
        still = [jnp.zeros(self._batched(shape, inputs), dtype) for shape, dtype, _ in outputs]

        def run(perturbations: list[jax.Array]) -> tuple[Any, list[jax.Array]]:
            return self._exchanged(calls, operator.add, parameters, inputs, perturbations)

        if not differentiated:
            return *run(still), None
        outputs, pull_back, activations = jax.vjp(run, still, has_aux=True)
        return outputs, activations, pull_back

    def _observe(
        self, layers: tuple[str, ...], view: View, parameters: Parameters, inputs: Inputs
    ) -> tuple[Any, dict[str, Any]]:
        def run(parameters: Parameters, inputs: Inputs) -> tuple[Any, dict[str, jax.Array]]:
            observer = Observer(layers, Reach())
            return self._outputs(parameters, inputs, observer), observer.outputs

        outputs, seen = self._over_batch(run, parameters, inputs)
        return outputs, {call: view(call, output, namespace) for call, output in seen.items()}

    def _run_with(self, layer: str, parameters: Parameters, inputs: Inputs, activations: jax.Array) -> Any:
        _, number = self._call(layer, parameters, inputs)

        def replace(output: jax.Array, activations: jax.Array) -> jax.Array:
            return activations.astype(output.dtype)

        return self._exchanged([(split_call(layer)[0], number)], replace, parameters, inputs, [activations])[0]

    def _exchanged(
        self,
        calls: Calls,
        change: Callable[[jax.Array, jax.Array], jax.Array],
        parameters: Parameters,
        inputs: Inputs,
        values: list[jax.Array],
    ) -> tuple[Any, list[jax.Array]]:
        """The outputs, and the layers' outputs in those calls after `change(output, values)`."""

        def run(parameters: Parameters, inputs: Inputs, values: list[jax.Array]) -> tuple[Any, list[jax.Array]]:
            exchange = Exchange(calls, lambda place, output: change(output, values[place]), Reach())
            return self._outputs(parameters, inputs, exchange), exchange.outputs

        outputs, made = self._over_batch(run, parameters, inputs, values)
        return self._with_batch_axis(outputs, parameters, inputs), made

    def _run(self, parameters: Parameters, inputs: Inputs) -> Any:
        return self._with_batch_axis(self._run_plain(parameters, inputs), parameters, inputs)

    def _run_plain(self, parameters: Parameters, inputs: Inputs) -> Any:
        return self._over_batch(lambda *arguments: self._outputs(*arguments, None), parameters, inputs)

    def _with_batch_axis(self, outputs: Any, parameters: Parameters, inputs: Inputs) -> Any:
        return self._restored(outputs, inputs, lambda two: self._abstract(self._run_plain, parameters, two))

    def _abstract(self, function: Callable[..., Any], parameters: Parameters, inputs: Inputs) -> Any:
        """What the function of parameters and inputs returns, as shapes alone: it costs no arithmetic."""
        return jax.eval_shape(*self._of_arrays(function, parameters, inputs))

    def _of_arrays(self, function: Callable[..., Any], parameters: Parameters, inputs: Inputs) -> tuple[Any, Any, Any]:
        """The function as one of the parameters' leaves and the inputs' arrays, and these."""
        leaves, structure = jax.tree.flatten(parameters)
        arrays, form = split(inputs)

        def of_arrays(leaves: list[Any], arrays: list[jax.Array]) -> Any:
            return function(structure.unflatten(leaves), form.filled(arrays))

        return of_arrays, leaves, arrays

    @in_session
    def output_shapes(self, inputs: Inputs) -> Shapes:
        return shapes_of(self._abstract(self._run, self._current(), inputs))

    def _record(self, parameters: Parameters, inputs: Inputs) -> Recorder:
        """Every layer as it runs, found without arithmetic."""
        return self._record_with(self._recorder(), parameters, inputs)

    def _recorder(self) -> Recorder:
        return Recorder(Reach(), describe, mark)

    def _record_with(self, recorder: Recorder, parameters: Parameters, inputs: Inputs) -> Recorder:
        """The recorder of such a run, an earlier one if there was one of these shapes."""
        leaves, structure = jax.tree.flatten((parameters, inputs))
        shapes = tuple((getattr(leaf, "shape", None), str(getattr(leaf, "dtype", leaf))) for leaf in leaves)
        records = self._known.records
        known, before = records.get(shapes, (None, None))
        if before is not None and known == structure:
            return before
        self._run_abstractly(recorder, parameters, inputs)
        if len(records) >= RECORDS:
            records.clear()
        records[shapes] = (structure, recorder)
        return recorder

    def _run_abstractly(self, recorder: Recorder, parameters: Parameters, inputs: Inputs) -> None:
        def run(parameters: Parameters, inputs: Inputs) -> Any:
            recorder.begin()
            return self._outputs(parameters, inputs, recorder)

        of_arrays, *arrays = self._of_arrays(functools.partial(self._over_batch, run), parameters, inputs)
        program, recorder.outputs = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        recorder.followed = activations_behind(program.jaxpr)

    def _over_batch(self, function: Callable[..., Any], parameters: Parameters, inputs: Inputs, *more: Any) -> Any:
        """The function of a batch, whatever the model takes; its complaints about shapes in our words."""
        mapped = functools.partial(_mapped, function)
        try:
            return (function if self._takes_batches else mapped)(parameters, inputs, *more)
        except FusionCamError:
            raise
        except (TypeError, ValueError, *self._network.errors) as error:
            if not self._takes_batches and self._maps_itself(parameters, inputs):
                self._takes_batches = True
                return function(parameters, inputs, *more)
            raise self._network.sentence(error) or cannot_run(self.model_name, inputs, str(error)) from error

    def _maps_itself(self, parameters: Parameters, inputs: Inputs) -> bool:
        """Whether a model that does not run on one image, as others of its kind do, takes a batch."""
        leaves, structure = jax.tree.flatten(parameters)
        run = of_leaves(lambda parameters, inputs: self._outputs(parameters, inputs, None), structure)
        try:
            outputs = jax.eval_shape(run, leaves, inputs)
        except (*DOES_NOT_FIT, *self._network.errors):
            return False
        return _has_rows(outputs, batch_length(inputs), axes=2)

    def _outputs(self, parameters: Parameters, inputs: Inputs, listener: Listener | None) -> Any:
        # Functions that the model has compiled itself run as Python, or their taps would be passed over when cached.
        inline = contextlib.nullcontext() if listener is None else jax.disable_jit()
        run = functools.partial(self._network.run, parameters, inputs, listener)
        return _as_pytree(Within(listening(listener), inline)(run)())

    def _call(self, layer: str, parameters: Parameters, inputs: Inputs) -> tuple[Ran, int]:
        """How a layer ran, and the number of the call that its name means, counted from 0."""
        name, call = split_call(layer)
        ran = self._record(parameters, inputs).ran
        if name not in ran and name not in self._network.parts:
            raise unknown_layer(layer, ran, self.model_name)
        found = ran.get(name)
        if found is not None and not found.has_array:
            raise self._no_array_in(layer, found)
        if found is not None and not found.reachable and (call is None or not found.calls):
            raise self._unreachable(layer)
        return found or Ran(""), call_number(layer, found.calls if found else 0, self.model_name)

    def _no_array_in(self, layer: str, ran: Ran) -> InvalidValueError:
        return InvalidValueError(
            f"The layer {layer!r} of {self.model_name} returned {ran.returned}, and one floating-point array was "
            "expected. Take a layer inside of it, or name the array that is meant with fusioncam_jax.tap."
        )

    def _unreachable(self, layer: str) -> InvalidValueError:
        return InvalidValueError(
            f"The layer {layer!r} of {self.model_name} runs inside a transformation (jax.checkpoint, nn.remat, a loop "
            "or a branch), out of which its output cannot be taken. Take the layer around the transformation, or name "
            "what the transformation returns with fusioncam_jax.tap."
        )

    def _info(self, name: str, ran: Ran, inputs: Inputs) -> LayerInfo:
        images = max(leaves(inputs), key=lambda each: each.ndim)
        shape = self._batched(ran.shape, inputs)
        # Windows of attention stand in the batch axis: no longer one image, so nowhere in it.
        whole = shape[:1] == images.shape[:1]
        spatial = whole and has_space(shape, spatial_size(images, self.input_channel_axis))
        runs = tuple(
            LayerRun(number, place, self._batched(each, inputs)) for number, (each, _, place) in enumerate(ran.outputs)
        )
        return LayerInfo(name, ran.kind, shape, spatial, channel_axis=self._activation_axis, calls=ran.calls, runs=runs)

    def _batched(self, shape: tuple[int, ...], inputs: Inputs) -> tuple[int, ...]:
        return shape if self._takes_batches else (batch_length(inputs), *shape)


def _mapped(function: Callable[..., Any], parameters: Parameters, *structures: Any) -> Any:
    """The function of one image, mapped over the rows of the arrays that have a row an image."""
    arrays, form = split(structures)
    pairs = zip(arrays, form.slots, strict=True)
    axes = [None if shared or not array.ndim else 0 for array, shared in pairs]

    def of_arrays(parameters: Parameters, *arrays: jax.Array) -> Any:
        return function(parameters, *form.filled(arrays))

    return jax.vmap(of_arrays, in_axes=(None, *axes))(parameters, *arrays)


def _in_words(parameters: Parameters) -> str:
    """A digest of their structure; the structure itself may hold the model alive, and has a hash without the values."""
    return hashlib.sha256(repr(structure_of(parameters)).encode()).hexdigest()


def _has_rows(outputs: Any, length: int, axes: int = 1) -> bool:
    """Whether one of the model's outputs, of so many axes or more, has so many rows."""
    return any(len(each.shape) >= axes and each.shape[0] == length for each in jax.tree.leaves(outputs))


@dataclass(frozen=True)
class _Gradients:
    """Of a score at layers, the gradients (K, ...) of each; None of one that does not matter.

    A program of its own, behind the forward pass: so that one pass serves every score, and masked images as well.

    Attributes:
        score: of the outputs.
        places: of the layers, among those that the forward pass captured.
    """

    score: Score
    places: tuple[int, ...]

    def __call__(self, pull_back: Callable[[Any], Any], outputs: Any, targets: Any) -> list[jax.Array | None]:
        scores, to_outputs = jax.vjp(lambda outputs: self.score(outputs, targets), outputs)

        def to_layers(columns: jax.Array) -> list[jax.Array]:
            (perturbations,) = pull_back(*to_outputs(columns))
            return [perturbations[place] for place in self.places]

        backward = jax.make_jaxpr(to_layers)(scores).jaxpr
        depend = _depend(backward)
        # Images do not meet in inference: one pull-back of a target's column keeps each image's own gradient.
        targets_apart = jnp.eye(scores.shape[1], dtype=scores.dtype)[:, None, :]
        columns = jnp.broadcast_to(targets_apart, (scores.shape[1], *scores.shape))
        all_to_layers = jax.vmap(to_layers)
        pull_back_all = (
            functools.partial(scaled_pull_back, all_to_layers) if passes_float16(backward) else all_to_layers
        )
        gradients = pull_back_all(columns)
        return [each if on else None for each, on in zip(gradients, depend, strict=True)]


def _depend(program: Any) -> list[bool]:
    """Of each array that a program of one argument returns, whether it is computed from that at all."""
    reached = {id(variable) for variable in program.invars}
    for equation in program.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return [id(variable) in reached for variable in program.outvars]


def _beside(values: Any, arrays: list[jax.Array]) -> jax.Array:
    """The values as an array where the parameters are; on several devices, whole on each of them."""
    committed = next((array for array in arrays if array.committed), None)
    if committed is None:
        return jax.device_put(values)
    if isinstance(values, jax.Array) and values.sharding.device_set == committed.sharding.device_set:
        return values
    if isinstance(committed.sharding, jax.sharding.NamedSharding):
        mesh = committed.sharding.mesh
        return jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    return jax.device_put(values, committed.sharding) if len(committed.devices()) == 1 else jnp.asarray(values)


def _dtype(arrays: list[jax.Array], otherwise: Any) -> Any:
    """The dtype of the parameter with the most axes: norms keep float32 in models of fewer bits."""
    floating = [array for array in arrays if is_floating(array)]
    return max(floating, key=lambda array: array.ndim).dtype if floating else otherwise


def _as_pytree(outputs: Any) -> Any:
    """The outputs as compiled functions can return them: of an object that is no pytree, its logits."""
    logits = getattr(outputs, "logits", None)
    return {"logits": logits} if logits is not None and jax.tree.leaves(outputs) == [outputs] else outputs
