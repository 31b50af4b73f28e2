"""Equinox: models of one image, mapped over the batch; layers are exchanged in a copy of the tree."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.adapter import not_a_part
from fusioncam_core.models.inputs import Inputs, call_with, leaves
from fusioncam_core.models.told import Same, heard
from fusioncam_jax.network import (
    INFERENCE,
    Network,
    at_inference,
    inference_keywords,
    kind_of,
    on_device,
    path_name,
    path_part,
    path_parts,
    required_words,
)
from fusioncam_jax.passes import same_objects
from fusioncam_jax.taps import Listener

Path = tuple[int | str, ...]


class EquinoxNetwork(Network):
    """A callable Equinox module of one image, (channels, *spatial), and for a stateful one its state.

    Layers are what can be called in the tree: modules, and functions such as `jax.nn.relu` in a list of layers.

    Args:
        model: the module.
        state: what `equinox.nn.make_with_state` gave with it, or None.
        keywords: that a user has bound.
    """

    input_channel_axis = 1
    activation_channel_axis = 1
    per_image = True
    libraries = ("equinox",)

    def __init__(self, model: Any, state: equinox.nn.State | None, keywords: Mapping[str, Any] | None = None):
        self.name = type(model).__name__
        self._original, self._state = model, state
        self._keywords = dict(keywords or {})
        self._look_at()
        convolutions = (each for _, each in _nodes(model) if isinstance(each, equinox.nn.Conv))
        self.input_ndim = next((each.num_spatial_dims + 2 for each in convolutions), None)

    def _look_at(self) -> None:
        """Take the model apart as it is now: modules do not change, but lists and dictionaries in them may."""
        self._seen = jax.tree.flatten(self._original)
        self._model = equinox.nn.inference_mode(self._original)
        self._arrays, self._static = equinox.partition((self._model, self._state), _is_array)
        self._has_switches = any(_switched(each) for _, each in _nodes(self._original))

    @property
    def anchor(self) -> Any:
        return self._original

    @property
    def parts(self) -> Iterable[str]:
        return [path_name(path) for path, _ in _nodes(self._model)]

    def find(self, layer: Any) -> str:
        if isinstance(layer, str):
            name = path_name(path_parts(layer))
            return name if name in self.parts else layer
        if isinstance(layer, equinox.Module):
            for path, each in _nodes(self._original):
                if each is layer:
                    return path_name(path)
            raise not_a_part(layer, self.name)
        return self._pointed_at(layer)

    def _pointed_at(self, where: Callable[[Any], Any]) -> str:
        """The layer that the function picks from a copy of the model in which no two are the same object."""
        copies: dict[str, Any] = {}

        def keep(name: str, layer: Any) -> Any:
            copies[name] = layer if isinstance(layer, equinox.Module) else functools.partial(layer)
            return copies[name]

        found = where(_rebuilt(self._model, keep)) if callable(where) else None
        for name, copy in copies.items():
            if copy is found:
                return name
        raise InvalidTypeError(
            f"A layer of {self.name} is a path such as 'layers[3]', a module, or a function that picks it "
            f"(lambda model: model.layers[3]): got {where!r}, which gives none."
        )

    def told(self) -> Any:
        leaves, structure = jax.tree.flatten(self._original)
        return structure, [
            None if _is_array(leaf) else Same(leaf) if callable(leaf) else heard(leaf) for leaf in leaves
        ]

    def parameters(self) -> Any:
        leaves, structure = jax.tree.flatten(self._original)
        if not (same_objects(leaves, self._seen[0]) and structure == self._seen[1]):
            self._look_at()
        return on_device(self._arrays)

    def weight_name(self, path: Any) -> str | None:
        # The parameters are a pair of the model and its state, and what is in a state is not trained.
        return path_name(path_part(key) for key in path[1:]) if path[0].idx == 0 else None

    def run(self, parameters: Any, inputs: Inputs, listener: Listener | None) -> Any:
        model, state = equinox.combine(parameters, self._static)
        with_state = "(model, state) for what equinox.nn.make_with_state returned, others by "
        required = required_words(self.name, with_state + "functools.partial(model, {argument}=...)")
        stated = {} if state is None else {_name_of_state(model, inputs): state}
        keywords = inference_keywords(model.__call__, inputs, {**self._keywords, **stated}, SUPPLIED, required)
        if listener is not None or self._has_switches:
            model = _rebuilt(model, functools.partial(_reporting, listener))
        if state is None:
            return call_with(model, inputs, **keywords)
        outputs, _ = call_with(model, inputs, **keywords)
        return outputs


SUPPLIED: Mapping[str, Callable[[], Any]] = {"key": lambda: jax.random.PRNGKey(0)}
"""Dropout is off; a model that splits its key all the same must get one."""


def _name_of_state(model: Any, inputs: Inputs) -> str:
    """What the model calls its state: "state", or the argument behind its inputs."""
    taken = list(inspect.signature(model.__call__).parameters)
    behind = 0 if isinstance(inputs, Mapping) else len(leaves(inputs))
    return "state" if "state" in taken else next(iter(taken[behind:]), "state")


def _is_array(leaf: Any) -> bool:
    """NumPy's integers in a module are as often its shapes as its parameters."""
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating))


def _switched(layer: Any) -> bool:
    """Whether calls of a layer must be changed to be those of inference: Equinox's own know it by their attributes."""
    if not isinstance(layer, equinox.Module) or type(layer).__module__.startswith("equinox."):
        return False
    return any(name in inspect.signature(layer.__call__).parameters for name in INFERENCE)


def _children(node: Any) -> tuple[list[tuple[int | str, Any]], Any]:
    """The node's children with their names, and its structure; of a leaf, None for a structure."""
    children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda each: each is not node)
    if children and not children[0][0]:
        return [], None
    return [(path_part(path[0]), child) for path, child in children], structure


def _is_layer(node: Any, parent: Any) -> bool:
    """Whether it can be called; the functions inside of Equinox's own layers, such as a pool's, are none."""
    if isinstance(node, equinox.Module):
        return callable(node)
    return callable(node) and not type(parent).__module__.startswith("equinox.")


def _nodes(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every layer below, inner before outer."""
    for part, child in _children(node)[0]:
        yield from _nodes(child, (*path, part))
        if _is_layer(child, node):
            yield (*path, part), child


def _rebuilt(node: Any, change: Callable[[str, Any], Any], path: Path = ()) -> Any:
    """A copy of the tree in which every layer is what `change` makes of its name and itself."""
    children, structure = _children(node)
    if structure is None:
        return node
    copies = []
    for part, child in children:
        copy = _rebuilt(child, change, (*path, part))
        copies.append(change(path_name((*path, part)), copy) if _is_layer(child, node) else copy)
    return structure.unflatten(copies)


def _reporting(listener: Listener | None, name: str, layer: Any) -> Any:
    wanted = listener is not None and listener.wants(name)
    if not wanted and not _switched(layer):
        return layer
    stateful = isinstance(layer, equinox.nn.StatefulLayer)
    return (_StatefulReporting if stateful else _Reporting)(layer, name, listener if wanted else None)


class _Reporting(equinox.Module):
    """A layer that runs as at inference and reports what it returns, and passes for the layer otherwise."""

    layer: Any
    name: str = equinox.field(static=True)
    listener: Listener | None = equinox.field(static=True)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if _switched(self.layer):
            arguments, keywords = at_inference(self.layer.__call__, arguments, keywords)
        output = self.layer(*arguments, **keywords)
        return output if self.listener is None else self.listener.hear(self.name, kind_of(self.layer), output)

    def __getattr__(self, name: str) -> Any:
        if name in ("layer", "name", "listener"):  # not there yet: the tree is being put together
            raise AttributeError(name)
        return getattr(self.layer, name)


class _StatefulReporting(_Reporting, equinox.nn.StatefulLayer):
    """The same for a layer that `equinox.nn.Sequential` hands the state to."""

    def is_stateful(self) -> bool:
        return self.layer.is_stateful()
