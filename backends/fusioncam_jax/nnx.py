"""Flax NNX: the model is split and merged again, and in the copy layers report what they return."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

from fusioncam_core.models.adapter import not_a_part
from fusioncam_core.models.inputs import Inputs, call_with
from fusioncam_jax.network import (
    Network,
    inference_keywords,
    kind_of,
    named_layer,
    path_name,
    path_part,
    path_parts,
)
from fusioncam_jax.taps import Listener

Path = tuple[int | str, ...]


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
    """

    def __init__(self, model: nnx.Module):
        self.name = type(model).__name__
        self._model = model
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
        return _Split(*nnx.split(self._model))

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
        model.eval()
        if listener is not None:
            _report_to(listener, model)
        return call_with(model, inputs, **inference_keywords(model.__call__))


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


def _report_to(listener: Listener, model: nnx.Module) -> None:
    """Changes the merged copy: a layer keeps its class in name and `isinstance`, so that no model can tell."""
    for path, layer in list(_layers(model)):
        name = path_name(path)
        if not listener.wants(name):
            continue
        hear = functools.partial(listener.hear, name)
        if isinstance(layer, nnx.Module):
            object.__setattr__(layer, "_fusioncam_hear", hear)
            layer.__class__ = _reporting(type(layer))
        else:
            functools.reduce(_child, path[:-1], model)[path[-1]] = _reporting_function(layer, hear)


@functools.cache
def _reporting(kind: type[nnx.Module]) -> type[nnx.Module]:
    """The class with a call that reports; made once for each class, because JAX keeps every class it has seen."""

    def report(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return self._fusioncam_hear(kind.__name__, kind.__call__(self, *arguments, **keywords))

    return type(kind)(kind.__name__, (kind,), {"__call__": report, "__module__": kind.__module__})


def _reporting_function(function: Callable[..., Any], hear: Callable[[str, Any], Any]) -> Callable[..., Any]:
    return lambda *arguments, **keywords: hear(kind_of(function), function(*arguments, **keywords))
