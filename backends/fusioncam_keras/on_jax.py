"""Keras on JAX."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from fusioncam_core.errors import GradientsUnavailableError
from fusioncam_core.models.adapter import GRADIENT_SCALES, Execution, Score, View, not_an_array
from fusioncam_core.models.calling import weakly
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.structure import split
from fusioncam_jax import namespace
from fusioncam_jax.adapter import _beside
from fusioncam_jax.exporting import exported
from fusioncam_jax.lanes import execution
from fusioncam_jax.programs import Program, Programs
from fusioncam_keras.engine import Captured, Engine, OutOfReachError, Run, unchanged

OPTIONS = ()

NOT_BACKWARDS = "Reverse-mode differentiation does not work"
"""In JAX's error for a `while_loop` on the way of a gradient."""


class JaxEngine(Engine):
    """Everything compiled, with the variables as arguments; gradients by a perturbation added to the layer."""

    namespace = namespace
    run_errors = (TypeError,)
    other_errors = (jax.errors.UnexpectedTracerError,)

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
        super().__init__(model, options)
        self._given: list[jax.Array] | None = None
        self._programs = Programs()

    @property
    def execution(self) -> Execution:  # type: ignore[override]
        return execution()

    def as_array(self, values: Any) -> jax.Array:
        if not isinstance(values, np.ndarray | jax.Array):
            raise not_an_array(values, "a JAX array")
        # Bound to the variables' device where they are bound to one, so that it says where the model runs.
        array = _beside(values, self._values())
        return array.astype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def begin(self, touch: Callable[[Callable[[], object]], None]) -> None:
        touch(functools.partial(setattr, self, "_given", None))

    def forget(self) -> None:
        self._programs = Programs()

    def exported(
        self, function: Callable[..., Any], arguments: Sequence[jax.Array], shapes: Sequence[Shape]
    ) -> Exported:
        return exported(function, arguments, shapes)

    def kept(self, value: jax.Array) -> jax.Array:
        return value  # which nothing can write to

    @contextlib.contextmanager
    def _with(self, values: list[jax.Array]) -> Iterator[None]:
        """The model runs with these values of its variables."""
        before, self._given = self._given, values
        try:
            yield
        finally:
            self._given = before

    def _values(self) -> list[jax.Array]:
        return [variable.value for variable in self.model.variables]

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        values = self._values() if self._given is None else self._given
        return keras.StatelessScope(state_mapping=zip(self.model.variables, values, strict=True))

    def look(self, function: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """An abstract run, which costs no arithmetic.

        The variables' values are arguments: JAX keeps an array that a trace has closed over if the trace then fails.
        """
        seen = []
        arrays, form = split(inputs)

        def run(values: list[jax.Array], arrays: list[jax.Array]) -> None:
            with self._with(values):
                seen.append(function(form.filled(arrays)))

        jax.eval_shape(run, self._values(), arrays)
        return seen[0]

    def values(self, function: Callable[[Inputs], list[jax.Array]], inputs: Inputs) -> list[np.ndarray] | None:
        def run(values: list[jax.Array], inputs: Inputs) -> list[jax.Array]:
            with self._with(values):
                return function(inputs)

        try:
            return [np.asarray(each) for each in jax.jit(run)(self._values(), inputs)]
        except jax.errors.UnexpectedTracerError:  # one of them is made inside a loop
            return None

    def observe(
        self, run: Callable[[Inputs], tuple[Any, dict[str, Any]]], layers: tuple[str, ...], view: View, inputs: Inputs
    ) -> tuple[Any, dict[str, Any]]:
        made = functools.partial(weakly(self._traced_run), run)
        program = self._programs.of("observe", (layers, view), lambda: made, once=True)
        try:
            seen: tuple[Any, dict[str, Any]] = program(self._values(), inputs)
        except jax.errors.UnexpectedTracerError as error:
            raise self._out_of_reach(layers) from error
        return seen

    def _traced_run(
        self, run: Callable[[Inputs], tuple[Any, dict[str, Any]]], values: list[jax.Array], inputs: Inputs
    ) -> tuple[Any, dict[str, Any]]:
        with self._with(values):
            return run(inputs)

    def _out_of_reach(self, layers: Sequence[str]) -> OutOfReachError:
        return OutOfReachError(
            f"The layer {' or '.join(map(repr, layers))} of {self.model.name} runs inside a loop or another "
            "transformation of JAX, out of which its output cannot be taken. Take the layer that contains it."
        )

    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: jax.Array | None
    ) -> Captured:
        program = self._programs.of(
            (layers, type(score), getattr(score, "top", 1)),
            score,
            lambda: functools.partial(weakly(self._traced_capture), run, score),
        )
        try:
            return Captured(*program(self._values(), inputs, targets))
        except jax.errors.UnexpectedTracerError as error:
            raise self._out_of_reach(layers) from error
        except ValueError as error:
            if NOT_BACKWARDS not in str(error):
                raise
            raise GradientsUnavailableError(
                f"Behind the layer {' or '.join(map(repr, layers))} of {self.model.name}, or around it, a loop runs "
                "until a condition holds, which JAX cannot differentiate backwards. Take a layer behind the loop, or a "
                "method that needs no gradients, such as Score-CAM."
            ) from error

    def _traced_capture(
        self, run: Run, score: Score | None, values: list[jax.Array], inputs: Inputs, targets: jax.Array | None
    ) -> tuple[Any, list[jax.Array], list[jax.Array] | None]:
        def perturbed(perturbations: list[jax.Array]) -> tuple[jax.Array | None, tuple[Any, list[jax.Array]]]:
            outputs, activations = run(inputs, lambda place, array: array + perturbations[place])
            return None if score is None else score(outputs, targets), (outputs, activations)

        with self._with(values):
            if score is None:
                return *run(inputs, unchanged), None
            shapes = jax.eval_shape(lambda: run(inputs, unchanged)[1])
            still = [jnp.zeros(each.shape, each.dtype) for each in shapes]
            scores, pull_back, (outputs, activations) = jax.vjp(perturbed, still, has_aux=True)
        # Images do not meet in inference: one pull-back of a target's column keeps each image's own gradient.
        columns = jnp.eye(scores.shape[1], dtype=scores.dtype)[:, None, :]
        columns = jnp.broadcast_to(columns, (scores.shape[1], *scores.shape))
        if self.half:
            return outputs, activations, _scaled(jax.vmap(pull_back), columns)
        return outputs, activations, jax.vmap(pull_back)(columns)[0]

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(values: list[jax.Array], *arguments: Any) -> Any:
            with self._with(values):
                return function(*arguments)

        program = Program(compiled)
        return lambda *arguments: program(self._values(), *arguments)


def _scaled(pull_back: Callable[[jax.Array], Any], columns: jax.Array) -> list[jax.Array]:
    """The float32 gradients by a backward pass in float16, scaled so that none of them under- or overflows."""
    scales = jnp.asarray(GRADIENT_SCALES, columns.dtype)

    def overflows(state: tuple[jax.Array, list[jax.Array]]) -> jax.Array:
        tried, gradients = state
        finite = jnp.stack([jnp.isfinite(each).all() for each in gradients]).all()
        return ~finite & (tried < len(GRADIENT_SCALES))

    def again(state: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, list[jax.Array]]:
        tried, _ = state
        scale = scales[tried]
        (gradients,) = pull_back(columns * scale)
        return tried + 1, [each.astype(jnp.float32) / scale for each in gradients]

    (shapes,) = jax.eval_shape(pull_back, columns)
    untried = [jnp.full(each.shape, jnp.inf, jnp.float32) for each in shapes]
    gradients: list[jax.Array] = jax.lax.while_loop(overflows, again, (jnp.asarray(0), untried))[1]
    return gradients


make_engine = JaxEngine
