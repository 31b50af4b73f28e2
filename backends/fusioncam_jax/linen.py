"""Flax Linen: `(module, variables)`; method interceptors see every layer without touching the module."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.errors
import jax
from flax import linen

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.inputs import Inputs, call_with
from fusioncam_jax.network import INFERENCE, Network, first_array, inference_keywords, kind_of, named_layer
from fusioncam_jax.taps import Listener


class LinenNetwork(Network):
    """A Linen module with its variables. Layers are sub-modules by path, "Block_3/Conv_0", and functions in a
    `linen.Sequential`, "layers_1".

    A functional activation is no sub-module, as in NNX: `fusioncam_jax.tap` names what comes out of it.

    Raises:
        ValueError: if the variables have no collection "params".
    """

    errors = (flax.errors.FlaxError,)

    def __init__(self, module: linen.Module, variables: Mapping[str, Any]):
        self.name = type(module).__name__
        if "params" not in variables:
            raise InvalidValueError(
                f"The variables of {self.name} hold {', '.join(map(repr, variables)) or 'nothing'}, and no 'params'. "
                "Give what init returned: (module, {'params': ..., 'batch_stats': ...})."
            )
        self._module = module
        self._variables = variables
        self.input_ndim = _kernel_ndim(variables["params"])

    @property
    def anchor(self) -> Any:
        return first_array(self._variables)

    def find(self, layer: Any) -> str:
        return named_layer(layer, self.name).replace(".", "/")

    def parameters(self) -> Mapping[str, Any]:
        return self._variables

    def weight_name(self, path: Any) -> str | None:
        collection, *names = (key.key for key in path)
        return "/".join(names) if collection == "params" else None

    def run(self, parameters: Mapping[str, Any], inputs: Inputs, listener: Listener | None) -> Any:
        apply = functools.partial(self._module.apply, parameters)
        with linen.intercept_methods(functools.partial(_intercept, listener)):
            return call_with(apply, inputs, **inference_keywords(self._module.__call__))


def _kernel_ndim(parameters: Any) -> int | None:
    """A convolution's kernel has as many axes as a batch of its inputs; a dense one has two."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    kernels = [leaf.ndim for path, leaf in leaves if getattr(path[-1], "key", None) == "kernel"]
    return max((ndim for ndim in kernels if ndim > 2), default=None)


def _intercept(
    listener: Listener | None,
    following: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    context: linen.module.InterceptorContext,
) -> Any:
    module = context.module
    if context.method_name != "__call__":
        return following(*arguments, **keywords)
    arguments, keywords, unset = _at_inference(module, arguments, keywords)
    with _attributes(module, {**unset, **_reporting_functions(module, listener)}):
        output = following(*arguments, **keywords)
    name = "/".join(module.path)
    if listener is None or not name or not listener.wants(name):
        return output
    return listener.hear(name, type(module).__name__, output)


def _at_inference(
    module: linen.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, None]]:
    """The arguments with inference asked for, and the attributes to unset: Linen takes one or the other, not both."""
    signature = inspect.signature(type(module).__call__)
    switches = [name for name in ("deterministic", "use_running_average") if name in signature.parameters]
    bound = signature.bind_partial(module, *arguments, **keywords)
    bound.arguments.update({name: INFERENCE[name] for name in switches})
    return bound.args[1:], bound.kwargs, {name: None for name in switches if hasattr(module, name)}


@contextlib.contextmanager
def _attributes(module: linen.Module, values: Mapping[str, Any]) -> Iterator[None]:
    """Other attributes of the bound copy of a module, during one call of it."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        object.__setattr__(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def _reporting_functions(module: linen.Module, listener: Listener | None) -> dict[str, Sequence[Any]]:
    """The layers of a `linen.Sequential` with those wrapped that are functions: no interceptor sees them."""
    if listener is None or not isinstance(module, linen.Sequential):
        return {}
    return {"layers": [_reporting(layer, index, module, listener) for index, layer in enumerate(module.layers)]}


def _reporting(layer: Any, index: int, module: linen.Module, listener: Listener) -> Any:
    name = "/".join((*module.path, f"layers_{index}"))
    if isinstance(layer, linen.Module) or not listener.wants(name):
        return layer
    return lambda *arguments, **keywords: listener.hear(name, kind_of(layer), layer(*arguments, **keywords))
