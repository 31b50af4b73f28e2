"""Flax NNX: the model is split and merged again, and in the copy layers report what they return."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.errors
import jax
from flax import linen, nnx

from fusioncam_core.models.adapter import not_a_part
from fusioncam_core.models.inputs import Inputs, call_with
from fusioncam_jax.linen import intercept, random_numbers
from fusioncam_jax.network import (
    INFERENCE,
    Network,
    at_inference,
    inference_keywords,
    kind_of,
    named_layer,
    on_device,
    path_name,
    path_part,
    path_parts,
    required_words,
)
from fusioncam_jax.taps import Listener

Path = tuple[int | str, ...]

OBSERVER = "to_nnx__fusioncam_observer"
"""The attribute of a copied module; `nnx.bridge.ToNNX` takes attributes for variables unless they are so called."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Split:
    """A model taken apart; the same graph definition means that nothing is compiled again."""

    graphdef: Any = field(metadata={"static": True})
    state: Any


class NnxNetwork(Network):
    """Any callable `nnx.Module`. Layers are its sub-modules, and functions in an `nnx.Sequential`.

    A functional activation, `nnx.relu(self.conv(x))`, is no sub-module: the layer before it is the convolution,
    and the one that contains both is the block. `fusioncam_jax.tap` names an array in between.
    In an `nnx.bridge.ToNNX` the sub-modules of Linen are layers, by their paths behind its own: "backbone/Conv_0".

    Args:
        model: the module.
        keywords: that a user has bound.
    """

    libraries = ("flax",)
    errors = (flax.errors.FlaxError,)

    def __init__(self, model: nnx.Module, keywords: Mapping[str, Any] | None = None):
        self.name = type(_outermost(model)).__name__
        self._model = model
        self._keywords = keywords or {}
        kernels = (len(each.kernel_size) for _, each in nnx.iter_modules(model) if isinstance(each, nnx.Conv))
        self.input_ndim = next((axes + 2 for axes in kernels), None)

    @property
    def anchor(self) -> nnx.Module:
        return self._model

    @property
    def parts(self) -> Iterable[str]:
        return [path_name(path) for path, _ in _layers(self._model)]

    def find(self, layer: Any) -> str:
        if isinstance(layer, str):
            return self._by_path(layer)
        if callable(layer) and not isinstance(layer, nnx.Module):
            layer = layer(self._model)
        if not isinstance(layer, nnx.Module):
            return named_layer(layer, self.name)
        name = self._name_of(layer)
        if name is None:
            raise not_a_part(layer, self.name)
        return name

    def _by_path(self, text: str) -> str:
        """A module that is reached by two paths is listed under one; an unknown path may be a tap's name."""
        path = path_parts(text)
        found = functools.reduce(_child, path, self._model)
        name = self._name_of(found) if isinstance(found, nnx.Module) else path_name(path)
        return name if name in self.parts else text

    def _name_of(self, module: nnx.Module) -> str | None:
        return next((path_name(path) for path, each in _layers(self._model) if each is module), None)

    def parameters(self) -> _Split:
        graphdef, state = nnx.split(self._model)
        return _Split(graphdef, on_device(state))

    def weight_name(self, path: Any) -> str | None:
        return self._trained.get(path)

    @functools.cached_property
    def _trained(self) -> dict[Any, str]:
        """The names of `nnx.Param`s by their paths in the parameters."""
        flat = jax.tree_util.tree_leaves_with_path(
            self.parameters(), is_leaf=lambda each: isinstance(each, nnx.Variable)
        )
        named = {}
        for path, variable in flat:
            if isinstance(variable, nnx.Param):
                name = path_name(path_part(key) for key in path[1:])
                for inner, _ in jax.tree_util.tree_leaves_with_path(variable):
                    named[(*path, *inner)] = name
        return named

    def run(self, parameters: _Split, inputs: Inputs, listener: Listener | None) -> Any:
        model = nnx.merge(parameters.graphdef, parameters.state, copy=True)
        function = _outermost(model).__call__
        put_into_inference(model, listener)
        required = required_words(self.name, "functools.partial(model, {argument}=...)")
        keywords = inference_keywords(function, inputs, self._keywords, SUPPLIED, required)
        return call_with(model, inputs, **keywords)

    def sentence(self, error: Exception) -> Exception | None:
        return random_numbers(error, self.name)


SUPPLIED: Mapping[str, Callable[[], Any]] = {"rngs": lambda: nnx.Rngs(0), "key": lambda: jax.random.key(0)}
"""Keys that a module asks for by argument: with dropout off nothing is drawn with them."""


def _outermost(model: nnx.Module) -> Any:
    """What the user has written: of a bridge the module of Linen behind it."""
    return model.to_nnx__module if isinstance(model, nnx.bridge.ToNNX) else model


def put_into_inference(model: nnx.Module, listener: Listener | None = None) -> None:
    """Changes a merged copy as `eval` does, for switches by other names too, and lets its layers report."""
    model.eval()
    for _, module in nnx.iter_modules(model):
        for name, value in INFERENCE.items():
            if isinstance(vars(module).get(name), bool):
                setattr(module, name, value)
    _observe(model, listener)


def _child(module: Any, part: int | str) -> Any:
    if isinstance(part, str):
        return getattr(module, part, None)
    return module[part] if isinstance(module, nnx.List | list | tuple) and part < len(module) else None


def _layers(model: nnx.Module) -> Iterator[tuple[Path, Any]]:
    for path, module in nnx.iter_modules(model):
        if path and callable(module):
            yield path, module
        if isinstance(module, nnx.Sequential):
            for index, layer in enumerate(module.layers):
                if not isinstance(layer, nnx.Module):
                    yield (*path, "layers", index), layer


@dataclass(frozen=True, eq=False)
class _Observer:
    """What a layer in a copied model knows of us: who listens, its path, and whether it is listened to."""

    listener: Listener | None
    path: Path
    wanted: bool

    def hear(self, kind: str, output: Any) -> Any:
        if not self.wanted or self.listener is None:
            return output
        return self.listener.hear(path_name(self.path), kind, output)

    def convolves(self, layer: Any, arguments: tuple[Any, ...]) -> None:
        if self.listener is not None and isinstance(layer, nnx.Conv) and arguments:
            self.listener.convolves(len(layer.kernel_size), arguments[0])

    def run(self, layer: Any, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if not isinstance(layer, nnx.bridge.ToNNX):
            return call(layer, *arguments, **keywords)
        path = (path_name(self.path),) if self.path else ()
        with linen.intercept_methods(functools.partial(intercept, self.listener, path)):
            return call(layer, *arguments, **keywords)


def _observe(model: nnx.Module, listener: Listener | None) -> None:
    """Changes the merged copy: a layer keeps its class in name and `isinstance`, so that no model can tell."""
    layers = [((), model), *_layers(model)] if isinstance(model, nnx.bridge.ToNNX) else list(_layers(model))
    for path, layer in layers:
        wanted = listener is not None and bool(path) and listener.wants(path_name(path))
        if isinstance(layer, nnx.Module):
            if wanted or _has_switches(type(layer)):
                object.__setattr__(layer, OBSERVER, _Observer(listener, path, wanted))
                layer.__class__ = _observed(type(layer))
        elif wanted:
            hear = functools.partial(listener.hear, path_name(path))
            functools.reduce(_child, path[:-1], model)[path[-1]] = _reporting_function(layer, hear)


def _has_switches(kind: type[nnx.Module]) -> bool:
    """Whether calls of it must be changed to be those of inference."""
    taken = inspect.signature(kind.__call__).parameters
    return issubclass(kind, nnx.bridge.ToNNX) or any(name in taken for name in INFERENCE)


@functools.cache
def _observed(kind: type[nnx.Module]) -> type[nnx.Module]:
    """The class with a call that is observed; made once for each class, because JAX keeps every class it has seen."""

    def observed(self: Any, *arguments: Any, **keywords: Any) -> Any:
        observer: _Observer = vars(self)[OBSERVER]
        arguments, keywords = at_inference(functools.partial(kind.__call__, self), arguments, keywords)
        observer.convolves(self, arguments)
        return observer.hear(kind.__name__, observer.run(self, kind.__call__, arguments, keywords))

    return type(kind)(kind.__name__, (kind,), {"__call__": observed, "__module__": kind.__module__})


def _reporting_function(function: Callable[..., Any], hear: Callable[[str, Any], Any]) -> Callable[..., Any]:
    return lambda *arguments, **keywords: hear(kind_of(function), function(*arguments, **keywords))
