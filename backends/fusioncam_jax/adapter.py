"""A JAX model, seen through the narrow waist; the module systems differ in `Network` only."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core.errors import InvalidValueError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    Execution,
    LayerCapture,
    LayerInfo,
    ModelAdapter,
    Score,
    call_number,
    cannot_run,
    channel_axis,
    layer_axis,
    mark_default,
    no_array_in,
    no_spatial_layer,
    not_an_array,
    reject_options,
    split_call,
    unconnected_words,
    unknown_layer,
)
from fusioncam_core.models.inputs import Inputs, Which, leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_core.models.outputs import Shapes, shapes_of
from fusioncam_core.models.session import Within, in_session
from fusioncam_core.models.structure import split
from fusioncam_jax import namespace
from fusioncam_jax.network import Network, Parameters
from fusioncam_jax.programs import Program, Programs
from fusioncam_jax.taps import Exchange, Listener, Ran, Recorder, listening, nobody_listens

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # before JAX 0.10 it was there
    from jax.core import get_opaque_trace_state

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What an error of XLA's starts with when the device's memory is full."""

EXECUTION = Execution(fixed_shapes=True, memory_errors=(jax.errors.JaxRuntimeError,))
"""How JAX likes to work."""

PARAMETERS = "parameters"
"""What a session shares of a model's parameters, while it is open."""

Calls = list[tuple[str, int]]
"""Layers' names, and which call of each, counted from 0."""


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
    execution = EXECUTION
    input_ndim_is_declared = False

    def __init__(self, network: Network, options: Mapping[str, Any]):
        reject_options(options, ("channels", "framework"), "JAX")
        self.input_channel_axis = channel_axis(options.get("channels"), network.input_channel_axis)
        self.model_name = network.name
        self._network = network
        self._programs = Programs()

    # --- inputs

    def as_array(self, values: Any) -> jax.Array:
        if not isinstance(values, np.ndarray | jax.Array):
            raise not_an_array(values, "a JAX array")
        arrays = [leaf for leaf in jax.tree.leaves(self._current()) if isinstance(leaf, jax.Array)]
        # A copy: JAX may share a NumPy array's memory, and its owner may write to it.
        array = _beside(np.array(values) if isinstance(values, np.ndarray) else values, arrays)
        return array.astype(_dtype(arrays, array.dtype)) if _is_floating(array) else array

    def input_ndim(self, which: Which) -> int | None:
        """Told by the model's convolutions: two axes more than a kernel has in space."""
        return self._network.input_ndim if which is None else None

    # --- the model's parameters: arguments of everything that is compiled

    @property
    def anchor(self) -> Any:
        return self._network.anchor

    def begin(self) -> None:
        shared = self._model_session.shared
        self.touch(lambda: shared.pop(PARAMETERS, None))
        self.touch(nobody_listens)
        shared[PARAMETERS] = self._network.parameters()

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
        named = ((self._network.weight_name(path), leaf) for path, leaf in leaves if _is_floating(leaf))
        return {name: leaf for name, leaf in named if name is not None}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, jax.Array]) -> Iterator[None]:
        def exchanged(path: Any, leaf: Any) -> Any:
            return weights.get(self._network.weight_name(path) or "", leaf)

        with self.session(), self._with(jax.tree_util.tree_map_with_path(exchanged, self._current())):
            yield

    def ran_out_of_memory(self, error: Exception) -> bool:
        return OUT_OF_MEMORY in str(error)

    # --- its layers

    def find(self, layer: Any) -> str:
        if not isinstance(layer, str):
            return self._network.find(layer)
        name, call = split_call(layer)
        found = self._network.find(name)
        return found if call is None else f"{found}#{call}"

    @in_session
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        ran = self._record(self._current(), inputs)
        taken = {name: each for name, each in ran.items() if each.dtype is not None and each.reachable}
        return mark_default([self._info(name, each, inputs) for name, each in taken.items()])

    @in_session
    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        ran = self._record(self._current(), inputs)
        hidden = [name for name, each in ran.items() if self._info(name, each, inputs).spatial and not each.reachable]
        return self._unreachable(hidden[-1]) if hidden else no_spatial_layer(self.model_name)

    @property
    def _activation_axis(self) -> int:
        own = self._network.activation_channel_axis
        return layer_axis(self.input_channel_axis, self._network.input_channel_axis) if own is None else own

    # --- running it

    @in_session
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: jax.Array | None) -> Capture:
        names = tuple(layers)
        program = self._programs.of(
            (names, type(score), getattr(score, "top", 1)),
            score,
            lambda: functools.partial(self._capture, names, score),
        )
        outputs, activations, gradients = program(self._current(), inputs, targets)
        each = zip(names, activations, gradients or [None] * len(names), strict=True)
        return Capture(outputs, {name: LayerCapture(*arrays, self._activation_axis) for name, *arrays in each})

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        return self._programs.of(("forward",), None, lambda: self._run)(self._current(), inputs)

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: jax.Array) -> Any:
        program = self._programs.of(("with", layer), None, lambda: functools.partial(self._run_with, layer))
        return program(self._current(), inputs, activations)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(parameters: Parameters, *arguments: Any) -> Any:
            with self._with(parameters):
                return function(*arguments)

        program = Program(compiled)
        return lambda *arguments: self.session()(lambda: program(self._current(), *arguments))()

    # --- what is compiled

    def _capture(
        self, layers: tuple[str, ...], score: Score | None, parameters: Parameters, inputs: Inputs, targets: Any
    ) -> tuple[Any, list[jax.Array], list[jax.Array] | None]:
        """Outputs, and of each layer the activations and the gradients (K, ...)."""
        ran = [self._call(layer, parameters, inputs) for layer in layers]
        calls = [(split_call(layer)[0], number) for layer, (_, number) in zip(layers, ran, strict=True)]

        def scored(perturbations: list[jax.Array]) -> tuple[jax.Array | None, tuple[Any, list[jax.Array]]]:
            kept = self._exchanged(calls, operator.add, parameters, inputs, perturbations)
            return None if score is None else score(kept[0], targets), kept

        still = [jnp.zeros(self._batched(each.shape, inputs), each.dtype) for each, _ in ran]
        if score is None:
            return *scored(still)[1], None
        scores, pull_back, (outputs, activations) = jax.vjp(scored, still, has_aux=True)
        for layer, depends in zip(layers, _depend(pull_back, scores), strict=True):
            if not depends:
                raise UnconnectedError(unconnected_words(layer, self.model_name, "stop_gradient, integers"))
        # Images do not meet in inference: one pull-back of a target's column keeps each image's own gradient.
        targets_apart = jnp.eye(scores.shape[1], dtype=scores.dtype)[:, None, :]
        columns = jnp.broadcast_to(targets_apart, (scores.shape[1], *scores.shape))
        return outputs, activations, jax.vmap(pull_back)(columns)[0]

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
            exchange = Exchange(calls, lambda place, output: change(output, values[place]))
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
        leaves, structure = jax.tree.flatten(parameters)
        arrays, form = split(inputs)

        def of_arrays(leaves: list[Any], arrays: list[jax.Array]) -> Any:
            return function(structure.unflatten(leaves), form.filled(arrays))

        return jax.eval_shape(of_arrays, leaves, arrays)

    @in_session
    def output_shapes(self, inputs: Inputs) -> Shapes:
        return shapes_of(self._abstract(self._run, self._current(), inputs))

    def _record(self, parameters: Parameters, inputs: Inputs) -> dict[str, Ran]:
        """Every layer as it runs, found without arithmetic."""
        recorder = Recorder(_is_floating, functools.partial(get_opaque_trace_state, convention="fusioncam"))

        def run(parameters: Parameters, inputs: Inputs) -> Any:
            recorder.begin()
            return self._outputs(parameters, inputs, recorder)

        self._abstract(functools.partial(self._over_batch, run), parameters, inputs)
        return recorder.ran

    def _over_batch(self, function: Callable[..., Any], parameters: Parameters, inputs: Inputs, *more: Any) -> Any:
        """The function of a batch, whatever the model takes; its complaints about shapes in our words."""
        if self._network.per_image:
            function = functools.partial(_mapped, function)
        try:
            return function(parameters, inputs, *more)
        except (TypeError, ValueError, *self._network.errors) as error:
            raise cannot_run(self.model_name, inputs, str(error)) from error

    def _outputs(self, parameters: Parameters, inputs: Inputs, listener: Listener | None) -> Any:
        # Functions that the model has compiled itself run as Python, or their taps would be passed over when cached.
        inline = contextlib.nullcontext() if listener is None else jax.disable_jit()
        run = functools.partial(self._network.run, parameters, inputs, listener)
        return _as_pytree(Within(listening(listener), inline)(run)())

    def _call(self, layer: str, parameters: Parameters, inputs: Inputs) -> tuple[Ran, int]:
        """How a layer ran, and the number of the call that its name means, counted from 0."""
        name, _ = split_call(layer)
        ran = self._record(parameters, inputs)
        if name not in ran and name not in self._network.parts:
            raise unknown_layer(layer, ran, self.model_name)
        number = call_number(layer, ran[name].calls if name in ran else 0, self.model_name)
        if ran[name].dtype is None:
            raise no_array_in(layer, self.model_name)
        if not ran[name].reachable:
            raise self._unreachable(layer)
        return ran[name], number

    def _unreachable(self, layer: str) -> InvalidValueError:
        return InvalidValueError(
            f"The layer {layer!r} of {self.model_name} runs inside a transformation (jax.checkpoint, nn.remat, "
            "jax.vmap), out of which its output cannot be taken. Take the layer around the transformation, or name "
            "what the transformation returns with fusioncam_jax.tap."
        )

    def _info(self, name: str, ran: Ran, inputs: Inputs) -> LayerInfo:
        images = max(leaves(inputs), key=lambda each: each.ndim)
        shape = self._batched(ran.shape, inputs)
        # Windows of attention stand in the batch axis: no longer one image, so nowhere in it.
        whole = shape[:1] == images.shape[:1]
        spatial = whole and has_space(shape, spatial_size(images, self.input_channel_axis))
        return LayerInfo(name, ran.kind, shape, spatial, channel_axis=self._activation_axis, calls=ran.calls)

    def _batched(self, shape: tuple[int, ...], inputs: Inputs) -> tuple[int, ...]:
        return (leaves(inputs)[0].shape[0], *shape) if self._network.per_image else shape


def _mapped(function: Callable[..., Any], parameters: Parameters, *structures: Any) -> Any:
    """The function of one image, mapped over the rows of the arrays that have a row an image."""
    arrays, form = split(structures)
    pairs = zip(arrays, form.slots, strict=True)
    axes = [None if shared or not array.ndim else 0 for array, shared in pairs]

    def of_arrays(parameters: Parameters, *arrays: jax.Array) -> Any:
        return function(parameters, *form.filled(arrays))

    return jax.vmap(of_arrays, in_axes=(None, *axes))(parameters, *arrays)


def _depend(function: Callable[[jax.Array], Any], argument: jax.Array) -> list[bool]:
    """Of each array that the function returns, whether it is computed from the argument at all."""
    program = jax.make_jaxpr(function)(argument).jaxpr
    reached = {id(variable) for variable in program.invars}
    for equation in program.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return [id(variable) in reached for variable in program.outvars]


def _is_floating(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


def _beside(values: Any, arrays: list[jax.Array]) -> jax.Array:
    """The values as an array where the parameters are; on several devices, whole on each of them."""
    committed = next((array for array in arrays if array.committed), None)
    if committed is None:
        return jnp.asarray(values)
    if isinstance(values, jax.Array) and values.sharding.device_set == committed.sharding.device_set:
        return values
    if isinstance(committed.sharding, jax.sharding.NamedSharding):
        mesh = committed.sharding.mesh
        return jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    return jax.device_put(values, committed.sharding) if len(committed.devices()) == 1 else jnp.asarray(values)


def _dtype(arrays: list[jax.Array], otherwise: Any) -> Any:
    """The dtype of the parameter with the most axes: norms keep float32 in models of fewer bits."""
    floating = [array for array in arrays if _is_floating(array)]
    return max(floating, key=lambda array: array.ndim).dtype if floating else otherwise


def _as_pytree(outputs: Any) -> Any:
    """The outputs as compiled functions can return them: of an object that is no pytree, its logits."""
    logits = getattr(outputs, "logits", None)
    return {"logits": logits} if logits is not None and jax.tree.leaves(outputs) == [outputs] else outputs
