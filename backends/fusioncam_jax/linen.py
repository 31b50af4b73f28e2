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
from fusioncam_jax.network import (
    INFERENCE,
    Network,
    at_inference,
    first_array,
    inference_keywords,
    kind_of,
    named_layer,
    on_device,
    required_words,
)
from fusioncam_jax.taps import Listener

OF_TRAINING = ("mutable", "capture_intermediates")
"""Keywords of `apply` that change what it returns, and that inference has no use for."""


class LinenNetwork(Network):
    """A Linen module with its variables. Layers are sub-modules by path, "Block_3/Conv_0", and functions in a
    `linen.Sequential`, "layers_1".

    A functional activation is no sub-module, as in NNX: `fusioncam_jax.tap` names what comes out of it.

    Args:
        module: an unbound one.
        variables: its collections.
        keywords: of `apply`, that a user has bound.

    Raises:
        ValueError: if the variables have no collection "params".
    """

    libraries = ("flax",)
    errors = (flax.errors.FlaxError,)

    def __init__(self, module: linen.Module, variables: Mapping[str, Any], keywords: Mapping[str, Any] | None = None):
        self.name = type(module).__name__
        if "params" not in variables:
            raise InvalidValueError(
                f"The variables of {self.name} hold {', '.join(map(repr, variables)) or 'nothing'}, and no 'params'. "
                "Give what init returned: (module, {'params': ..., 'batch_stats': ...})."
            )
        self._module = module
        self._variables = variables
        self._keywords = {name: each for name, each in (keywords or {}).items() if name not in OF_TRAINING}

    @property
    def anchor(self) -> Any:
        return first_array(self._variables)

    def find(self, layer: Any) -> str:
        return named_layer(layer, self.name).replace(".", "/")

    def parameters(self) -> Mapping[str, Any]:
        parameters: Mapping[str, Any] = on_device(self._variables)
        return parameters

    def weight_name(self, path: Any) -> str | None:
        collection, *names = (key.key for key in path)
        return "/".join(names) if collection == "params" else None

    def run(self, parameters: Mapping[str, Any], inputs: Inputs, listener: Listener | None) -> Any:
        apply = functools.partial(self._module.apply, parameters)
        with linen.intercept_methods(functools.partial(intercept, listener, ())):
            return call_with(apply, inputs, **self._called_with(inputs))

    def _called_with(self, inputs: Inputs) -> dict[str, Any]:
        of_apply = {name: each for name, each in self._keywords.items() if name in ("method", "rngs")}
        method = of_apply.get("method") or "__call__"
        method = method if isinstance(method, str) else method.__name__
        function = getattr(self._module, method)
        given = {name: each for name, each in self._keywords.items() if name not in of_apply}
        required = required_words(self.name, "(functools.partial(module.apply, {argument}=...), variables)")
        return {**of_apply, **inference_keywords(function, inputs, given, SUPPLIED, required)}

    def sentence(self, error: Exception) -> Exception | None:
        return random_numbers(error, self.name)


SUPPLIED: Mapping[str, Callable[[], Any]] = {"key": lambda: jax.random.key(0), "rng": lambda: jax.random.key(0)}
"""Keys that a module asks for by argument: with dropout off nothing is drawn with them."""


def random_numbers(error: Exception, name: str) -> Exception | None:
    """What to say where a module draws random numbers at inference; None for another error."""
    if not isinstance(error, flax.errors.InvalidRngError):
        return None
    first_line = next(iter(str(error).splitlines()), "")
    return InvalidValueError(
        f"{name} draws random numbers also at inference, so that two runs of it differ: {first_line} Give the layer "
        "that draws them an argument such as train or deterministic, which is set here, or bind a key: "
        "(functools.partial(module.apply, rngs={...}), variables)."
    )


def intercept(
    listener: Listener | None,
    path: tuple[str, ...],
    following: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    context: linen.module.InterceptorContext,
) -> Any:
    """A call of a module as at inference, reported to the listener.

    Args:
        listener: or None.
        path: of the outermost module, () unless that is in a model of another module system.
        following, arguments, keywords, context: as Linen gives them to interceptors.
    """
    module = context.module
    if context.method_name != "__call__":
        return following(*arguments, **keywords)
    arguments, keywords = at_inference(module.__call__, arguments, keywords)
    if type(module).__module__.startswith("flax.nnx.bridge"):
        keywords = _with_nnx_at_inference(keywords)
    if listener is not None and isinstance(module, linen.Conv) and arguments:
        axes = 1 if isinstance(module.kernel_size, int) else len(module.kernel_size)
        listener.convolves(axes, arguments[0])
    with _attributes(module, {**_switches(module), **_reporting_functions(module, listener, path)}):
        output = following(*arguments, **keywords)
    name = "/".join((*path, *module.path))
    if listener is None or not module.path or not listener.wants(name):
        return output
    return listener.hear(name, type(module).__name__, output)


def _with_nnx_at_inference(keywords: dict[str, Any]) -> dict[str, Any]:
    """Those of a call of `nnx.bridge.ToLinen`, which makes its module of NNX anew each time, in training."""
    from fusioncam_jax.nnx import put_into_inference

    method = keywords.get("nnx_method") or "__call__"

    def run(module: Any, *arguments: Any, **others: Any) -> Any:
        put_into_inference(module)
        called = getattr(type(module), method) if isinstance(method, str) else method
        return called(module, *arguments, **others)

    return {**keywords, "nnx_method": run}


def _switches(module: linen.Module) -> dict[str, bool | None]:
    """The module's attributes that switch between training and inference.

    Those that are arguments too are unset, as Linen takes one or the other, not both.
    """
    taken = inspect.signature(type(module).__call__).parameters
    held = {name: value for name, value in INFERENCE.items() if isinstance(vars(module).get(name), bool)}
    return {name: None if name in taken else value for name, value in held.items()}


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


def _reporting_functions(
    module: linen.Module, listener: Listener | None, path: tuple[str, ...]
) -> dict[str, Sequence[Any]]:
    """The layers of a `linen.Sequential` with those wrapped that are functions: no interceptor sees them."""
    if listener is None or not isinstance(module, linen.Sequential):
        return {}
    path = (*path, *module.path)
    return {"layers": [_reporting(layer, index, path, listener) for index, layer in enumerate(module.layers)]}


def _reporting(layer: Any, index: int, path: tuple[str, ...], listener: Listener) -> Any:
    name = "/".join((*path, f"layers_{index}"))
    if isinstance(layer, linen.Module) or not listener.wants(name):
        return layer
    return lambda *arguments, **keywords: listener.hear(name, kind_of(layer), layer(*arguments, **keywords))
