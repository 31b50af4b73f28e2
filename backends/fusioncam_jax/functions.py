"""Plain functions: `apply(parameters, images)` with tapped arrays, or a pair `(features, head)`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.inputs import Inputs, call_with
from fusioncam_core.models.told import heard
from fusioncam_jax.network import (
    Network,
    first_array,
    inference_keywords,
    kind_of,
    named_layer,
    path_name,
    path_part,
    required_words,
)
from fusioncam_jax.taps import Listener, tap


class FunctionNetwork(Network):
    """A function of parameters and images; its layers are the arrays it has named with `fusioncam_jax.tap`.

    Args:
        function: `apply(parameters, images)`, or Haiku's `apply(parameters, rng, images)`.
        parameters: any pytree.
        name: for messages.
        call: calls (a function of images, inputs) with inputs of several arrays.
        functions: those that run, if it is not the function itself.

    Raises:
        InvalidValueError: if the function also takes and returns a state, as Haiku's may.
    """

    activation_channel_axis = None
    without_layers = "Layers of a function are the arrays that it names with fusioncam_jax.tap."

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Any,
        name: str | None = None,
        *,
        call: Callable[..., Any] = call_with,
        functions: Sequence[Callable[..., Any]] = (),
    ):
        self.name = name or kind_of(function)
        self._function = function
        self._before = _before_inputs(function, self.name)
        self._call = call
        self._functions = functions or (function,)
        self._given = parameters
        found = first_array([array for array in self.parameters() if array is not None])
        self._anchor = getattr(function, "__self__", function) if found is None else found

    @property
    def anchor(self) -> Any:
        return self._anchor

    @property
    def known_by(self) -> Any:
        return tuple(map(id, self._functions))

    def told(self) -> Any:
        leaves, structure = jax.tree.flatten(self._given)
        others = [None if _is_array(leaf) else heard(leaf) for leaf in leaves]
        return [*(heard(each) for each in self._functions), structure, others]

    def find(self, layer: Any) -> str:
        return named_layer(layer, self.name)

    def parameters(self) -> list[Any]:
        # Taken apart anew: a dict that holds them may have others by now.
        leaves, self._structure = jax.tree.flatten(self._given)
        self._others = [None if _is_array(leaf) else leaf for leaf in leaves]
        return [leaf if _is_array(leaf) else None for leaf in leaves]

    def weight_name(self, path: Any) -> str | None:
        of_leaf, _ = jax.tree_util.tree_leaves_with_path(self._given)[path[0].idx]
        return path_name(path_part(key) for key in of_leaf)

    def run(self, parameters: list[Any], inputs: Inputs, listener: Listener | None) -> Any:
        pairs = zip(parameters, self._others, strict=True)
        whole = self._structure.unflatten([other if array is None else array for array, other in pairs])
        function = functools.partial(self._function, whole, *self._before)
        required = required_words(self.name, f"(functools.partial({self.name}, {{argument}}=...), parameters)")
        return self._call(function, inputs, **inference_keywords(function, inputs, {}, {}, required))


def _before_inputs(function: Callable[..., Any], name: str) -> tuple[Any, ...]:
    """What comes between the parameters and the inputs: of Haiku's functions no key, as inference draws no numbers."""
    each = list(inspect.signature(function).parameters.values())
    taken = [one.name for one in each if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    takes_more = any(one.kind is one.VAR_POSITIONAL for one in each)
    if taken[1:3] == ["state", "rng"] or (taken[1:] == ["state"] and takes_more):
        raise InvalidValueError(
            f"{name} takes parameters and a state, and returns the state beside its outputs. Give a function of both "
            "and of images: (lambda both, images: apply(*both, None, images)[0], (parameters, state)), without the "
            "None where it takes no key."
        )
    return (None,) if taken[1:2] == ["rng"] else ()


def pair_network(features: Callable[..., Any], head: Callable[..., Any]) -> FunctionNetwork:
    """A model of two functions, whose layer "features" lies between them.

    Parameters that `functools.partial` (or `jax.tree_util.Partial`) has bound to the functions are arguments of
    what is compiled, as everywhere; those that a function has closed over become constants in it.
    """
    name = f"({kind_of(features)}, {kind_of(head)})"
    functions = (_as_pytree(features), _as_pytree(head))
    return FunctionNetwork(
        _features_then_head,
        functions,
        name,
        call=lambda function, inputs: function(inputs),
        functions=[getattr(each, "func", each) for each in functions],
    )


def _features_then_head(pair: tuple[Callable[..., Any], Callable[..., Any]], inputs: Inputs) -> Any:
    features, head = pair
    return head(tap("features", call_with(features, inputs)))


def _as_pytree(function: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(function, functools.partial):
        return jax.tree_util.Partial(function.func, *function.args, **function.keywords)
    return function


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
