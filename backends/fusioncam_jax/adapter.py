"""A JAX model and one of its layers, seen through the narrow waist; the module systems differ in `Network` only."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core.errors import InvalidTypeError, InvalidValueError, UnconnectedError
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
from fusioncam_core.models.inputs import Inputs, Which, leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_jax import namespace
from fusioncam_jax.network import Network, Parameters
from fusioncam_jax.taps import Exchange, Listener, Ran, Recorder, listening

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # before JAX 0.10 it was there
    from jax.core import get_opaque_trace_state

AXES = {"first": 1, "last": -1}

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What an error of XLA's starts with when the device's memory is full."""


class JaxAdapter(ModelAdapter):
    """Runs the network as a compiled function of its parameters, and differentiates by a perturbation of the layer.

    The perturbation is zero and added to the layer's output in its last call, so the backward pass ends there.
    The number of that call and the shape of its output come from an abstract run, which costs no arithmetic.

    Args:
        network: of any module system.
        layer: what `network.find` takes, or None. A name may also be one that `fusioncam_jax.tap` gave.
        options: `channels`, "first" or "last": where the channels of the model's inputs are (for plain functions,
            of the activations too). Flax and functions have them last, Equinox first. `framework` says that plain
            functions are JAX's.

    Raises:
        TypeError: for another option, or a layer that is neither a name nor of the model's kind.
        ValueError: if the layer given is not a part of the model.
    """

    namespace = namespace
    fixed_chunks = True
    memory_errors = (jax.errors.JaxRuntimeError,)

    def __init__(self, network: Network, layer: Any, options: Mapping[str, Any]):
        reject_options(options, ("channels", "framework"), "JAX")
        channels = options.get("channels")
        if channels not in (None, *AXES):
            raise InvalidValueError(f"channels is 'first' or 'last', and {channels!r} came.")
        self.input_channel_axis = AXES[channels] if channels else network.input_channel_axis
        self.model_name = network.name
        self._network = network
        self._layer = None if layer is None else network.find(layer)
        self._parameters: Parameters | None = None
        self._jit_forward = jax.jit(self._run)
        self._jit_forward_with = jax.jit(self._run_with, static_argnums=0)
        self._jit_capture = jax.jit(self._run_and_score, static_argnums=(0, 1))

    @property
    def layer_name(self) -> str:
        if self._layer is None:
            raise InvalidValueError("The default layer is found when the model runs: call capture or layers first.")
        return self._layer

    @property
    def activation_channel_axis(self) -> int:
        return self._network.activation_channel_axis or self.input_channel_axis

    # --- inputs

    def as_array(self, values: Any) -> jax.Array:
        if not isinstance(values, np.ndarray | jax.Array):
            raise InvalidTypeError(
                f"Images are a NumPy array or a JAX array, and a {type(values).__module__}."
                f"{type(values).__qualname__} came."
            )
        arrays = [leaf for leaf in jax.tree.leaves(self._current()) if isinstance(leaf, jax.Array)]
        # A copy: JAX may share a NumPy array's memory, and its owner may write to it.
        array = _beside(np.array(values) if isinstance(values, np.ndarray) else values, arrays)
        return array.astype(_dtype(arrays, array.dtype)) if _is_floating(array) else array

    def input_ndim(self, which: Which) -> int | None:
        """Told by the model's convolutions: two axes more than a kernel has in space."""
        return self._network.input_ndim if which is None else None

    # --- the model's parameters: arguments of everything that is compiled

    def _current(self) -> Parameters:
        return self._network.parameters() if self._parameters is None else self._parameters

    @contextlib.contextmanager
    def _with(self, parameters: Parameters) -> Iterator[None]:
        before, self._parameters = self._parameters, parameters
        try:
            yield
        finally:
            self._parameters = before

    def session(self) -> contextlib.AbstractContextManager[None]:
        return self._with(self._current())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @jax.jit
        def compiled(parameters: Parameters, *arguments: Any) -> Any:
            with self._with(parameters):
                return function(*arguments)

        return lambda *arguments: compiled(self._current(), *arguments)

    def ran_out_of_memory(self, error: Exception) -> bool:
        return OUT_OF_MEMORY in str(error)

    # --- the waist

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        ran = self._record(self._current(), inputs)
        taken = {name: each for name, each in ran.items() if each.dtype is not None and each.reachable}
        return mark_default([self._info(name, each, inputs) for name, each in taken.items()])

    def capture(self, inputs: Inputs, score: Score | None, targets: jax.Array | None) -> Capture:
        layer = self._resolve(inputs)
        return Capture(*self._jit_capture(layer, score, self._current(), inputs, targets))

    def forward(self, inputs: Inputs) -> Any:
        return self._jit_forward(self._current(), inputs)

    def forward_with(self, inputs: Inputs, activations: jax.Array) -> Any:
        layer = self._resolve(inputs)
        return self._jit_forward_with(layer, self._current(), inputs, activations)

    def _resolve(self, inputs: Inputs) -> str:
        """The layer's name; the default one is found by an abstract run, once."""
        if self._layer is None:
            self._layer = next((layer.name for layer in self.layers(inputs) if layer.default), None)
        if self._layer is None:
            raise self._no_layer(inputs)
        return self._layer

    def _no_layer(self, inputs: Inputs) -> ValueError:
        ran = self._record(self._current(), inputs)
        hidden = [name for name, each in ran.items() if self._info(name, each, inputs).spatial and not each.reachable]
        return self._unreachable(hidden[-1]) if hidden else no_spatial_layer(self.model_name)

    def weights(self) -> dict[str, jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(self._current())
        named = ((self._network.weight_name(path), leaf) for path, leaf in leaves if _is_floating(leaf))
        return {name: leaf for name, leaf in named if name is not None}

    def with_weights(self, weights: Mapping[str, jax.Array]) -> contextlib.AbstractContextManager[None]:
        def exchanged(path: Any, leaf: Any) -> Any:
            return weights.get(self._network.weight_name(path) or "", leaf)

        return self._with(jax.tree_util.tree_map_with_path(exchanged, self._current()))

    # --- what is compiled

    def _run_and_score(
        self, layer: str, score: Score | None, parameters: Parameters, inputs: Inputs, targets: jax.Array | None
    ) -> tuple[Any, jax.Array, jax.Array | None]:
        ran = self._last_call(layer, parameters, inputs)

        def scored(perturbation: jax.Array) -> tuple[jax.Array | None, tuple[Any, jax.Array]]:
            kept = self._exchanged(layer, ran.calls, operator.add, parameters, inputs, perturbation)
            return None if score is None else score(kept[0], targets), kept

        still = jnp.zeros(self._batched(ran.shape, inputs), ran.dtype)
        if score is None:
            return *scored(still)[1], None
        scores, pull_back, (outputs, activations) = jax.vjp(scored, still, has_aux=True)
        if not _depends(pull_back, scores):
            raise UnconnectedError(
                f"The scores of {self.model_name} do not depend on the layer {layer!r}, or the model cuts the gradient "
                "behind it (stop_gradient, integers). Take a layer on the way to the outputs."
            )
        # Images do not meet in inference: one pull-back of a target's column keeps each image's own gradient.
        targets_apart = jnp.eye(scores.shape[1], dtype=scores.dtype)[:, None, :]
        columns = jnp.broadcast_to(targets_apart, (scores.shape[1], *scores.shape))
        return outputs, activations, jax.vmap(pull_back)(columns)[0]

    def _run_with(self, layer: str, parameters: Parameters, inputs: Inputs, activations: jax.Array) -> Any:
        ran = self._last_call(layer, parameters, inputs)

        def replace(output: jax.Array, activations: jax.Array) -> jax.Array:
            return activations.astype(output.dtype)

        return self._exchanged(layer, ran.calls, replace, parameters, inputs, activations)[0]

    def _exchanged(
        self,
        layer: str,
        number: int,
        change: Callable[[jax.Array, jax.Array], jax.Array],
        parameters: Parameters,
        inputs: Inputs,
        values: jax.Array,
    ) -> tuple[Any, jax.Array]:
        """The outputs, and the layer's output in its call of that number after `change(output, values)`."""

        def run(parameters: Parameters, inputs: Inputs, values: jax.Array) -> tuple[Any, jax.Array]:
            exchange = Exchange(layer, number, lambda output: change(output, values))
            return self._outputs(parameters, inputs, exchange), exchange.output

        return self._over_batch(run, parameters, inputs, values)

    def _run(self, parameters: Parameters, inputs: Inputs) -> Any:
        return self._over_batch(lambda *arguments: self._outputs(*arguments, None), parameters, inputs)

    def _record(self, parameters: Parameters, inputs: Inputs) -> dict[str, Ran]:
        """Every layer as it runs, found without arithmetic."""
        recorder = Recorder(_is_floating, functools.partial(get_opaque_trace_state, convention="fusioncam"))

        def run(parameters: Parameters, inputs: Inputs) -> Any:
            recorder.begin()
            return self._outputs(parameters, inputs, recorder)

        jax.eval_shape(functools.partial(self._over_batch, run), parameters, inputs)
        return recorder.ran

    def _over_batch(self, function: Callable[..., Any], parameters: Parameters, inputs: Inputs, *more: Any) -> Any:
        """The function of a batch, whatever the model takes; its complaints about shapes in our words."""
        if self._network.per_image:
            function = jax.vmap(function, in_axes=(None, *(0,) * (1 + len(more))))
        try:
            return function(parameters, inputs, *more)
        except (TypeError, ValueError, *self._network.errors) as error:
            shapes = ", ".join(f"{tuple(each.shape)} ({each.dtype})" for each in leaves(inputs))
            first_line = str(error).partition("\n")[0]
            raise InvalidValueError(
                f"{self.model_name} cannot run on inputs of shape {shapes}: {first_line}"
            ) from error

    def _outputs(self, parameters: Parameters, inputs: Inputs, listener: Listener | None) -> Any:
        # Functions that the model has compiled itself run as Python, or their taps would be passed over when cached.
        inline = contextlib.nullcontext() if listener is None else jax.disable_jit()
        with listening(listener), inline:
            return _as_pytree(self._network.run(parameters, inputs, listener))

    # --- layers

    def _last_call(self, layer: str, parameters: Parameters, inputs: Inputs) -> Ran:
        ran = self._record(parameters, inputs)
        if layer not in ran:
            if layer in self._network.parts:
                raise InvalidValueError(f"The layer {layer!r} of {self.model_name} did not run on these inputs.")
            raise unknown_layer(layer, ran, self.model_name)
        if ran[layer].dtype is None:
            raise InvalidValueError(f"The layer {layer!r} of {self.model_name} returned no floating-point array.")
        if not ran[layer].reachable:
            raise self._unreachable(layer)
        return ran[layer]

    def _unreachable(self, layer: str) -> ValueError:
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
        return LayerInfo(name, ran.kind, shape, spatial)

    def _batched(self, shape: tuple[int, ...], inputs: Inputs) -> tuple[int, ...]:
        return (leaves(inputs)[0].shape[0], *shape) if self._network.per_image else shape


def _depends(function: Callable[[jax.Array], Any], argument: jax.Array) -> bool:
    """Whether what the function returns is computed from its argument at all."""
    program = jax.make_jaxpr(function)(argument).jaxpr
    reached = {id(variable) for variable in program.invars}
    for equation in program.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return any(id(variable) in reached for variable in program.outvars)


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
