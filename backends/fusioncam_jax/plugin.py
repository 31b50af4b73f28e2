"""The hooks of the JAX backend. JAX and the module systems are imported once a model of theirs turns up."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import pluggy

from fusioncam_core.errors import InvalidTypeError
from fusioncam_jax.given import Given, graph_definition, is_a, linen_module, refuse_mapped, unwrapped, variables_of

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """A `JaxAdapter` for a model of Flax NNX, Flax Linen or Equinox, or for plain functions.

    Raises:
        InvalidTypeError: for what is a model of theirs in part only, saying what is missing.
    """
    if "jax" not in sys.modules or options.get("framework", "jax") != "jax":
        return None
    network = _network(model, options)
    if network is None:
        return None
    from fusioncam_jax.adapter import JaxAdapter

    return JaxAdapter(network, options)


@hookimpl
def fusioncam_array_namespace(array: Any) -> Any:
    """`jax.numpy` with the few words it lacks."""
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(array, jax.Array):
        return None
    from fusioncam_jax import namespace

    return namespace


@hookimpl
def fusioncam_place_model(model: Any, device: str) -> Any:
    """The arrays of a module, its variables or parameters, moved."""
    if "jax" not in sys.modules:
        return None
    network = _network(model, {})
    if network is None:
        return None
    from fusioncam_jax.placing import place

    return place(model, device, network.name)


@hookimpl
def fusioncam_describe_models() -> str:
    """Modules of three systems, and functions."""
    return (
        'flax.nnx.Module, (flax.linen.Module, variables) or a TrainState: pip install "fusioncam[flax]"; '
        'equinox.Module, or (equinox.Module, state): pip install "fusioncam[equinox]"; '
        'JAX functions (features, head) or (apply, parameters), with backend_options={"framework": "jax"} '
        'where nothing in them is JAX\'s: pip install "fusioncam[jax]"'
    )


def _network(model: Any, options: Mapping[str, Any]) -> Any:
    return _in_parts(model, options) if isinstance(model, tuple) else _alone(model)


def _alone(model: Any) -> Any:
    """A module, a training state, or a function that its parameters are bound to."""
    if is_a(model, "flax.training.train_state", "TrainState"):
        graph, variables = graph_definition(model.apply_fn), variables_of(model)
        given = (model.apply_fn, variables) if graph is None else (graph, *variables.values())
        return _in_parts(given, {"framework": "jax"})
    given = unwrapped(model)
    refuse_mapped(given.model)
    if is_a(given.model, "flax.nnx", "Module") and not given.arguments:
        from fusioncam_jax.nnx import NnxNetwork

        return NnxNetwork(given.model, given.keywords)
    if is_a(given.model, "equinox", "Module") and callable(given.model) and not given.arguments:
        return _equinox(given, None)
    return _linen_alone(given) or _bound_function(model, given)


def _linen_alone(given: Given) -> Any:
    """A Linen module that its variables are bound to."""
    module = linen_module(given.model)
    if is_a(given.model, "flax.linen", "Module") and given.model.scope is not None:
        return _linen(*given.model.unbind(), given.keywords)
    if module is not None and len(given.arguments) == 1:
        return _linen(module, given.arguments[0], given.keywords)
    if module is not None or is_a(given.model, "flax.linen", "Module"):
        name = type(module or given.model).__name__
        raise InvalidTypeError(
            f"{name} came without its variables: give ({name}(...), variables), as init returned them or a training "
            "state holds them: {'params': state.params, 'batch_stats': state.batch_stats}."
        )
    return None


def _bound_function(model: Any, given: Given) -> Any:
    """A function with taps that its parameters are bound to, if something in it says that it is JAX's."""
    if len(given.arguments) == 1 and callable(given.model) and _has_jax_in_it((model, None)):
        from fusioncam_jax.functions import FunctionNetwork

        return FunctionNetwork(_with_keywords(given), given.arguments[0])
    if is_a(model, "jax.stages", "Wrapped"):
        raise InvalidTypeError(
            f"A compiled function {getattr(model, '__name__', model)!r} of images alone came, whose layers and "
            "parameters cannot be seen. Give the module itself, (module, variables) of Flax Linen, or a function and "
            "its parameters, (apply, parameters), that names arrays with fusioncam_jax.tap."
        )
    return None


def _in_parts(model: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """A module and its variables, a graph definition and its states, or functions."""
    if is_a(model[:1] and model[0], "flax.nnx", "GraphDef") and len(model) > 1:
        from flax import nnx

        return _alone(nnx.merge(*model))
    if len(model) != 2:
        return None
    if _is_transformed(model):
        raise InvalidTypeError(
            "A pair (init, apply), as Haiku's transform makes it, came without parameters: give (model.apply, "
            "parameters), as model.init returned them."
        )
    return _module_in_parts(*model) or _functions(*model, options)


def _module_in_parts(model: Any, variables: Any) -> Any:
    """`(module, variables)` or `(module.apply, variables)` of Linen, `(module, state)` of Equinox."""
    given = unwrapped(model)
    module = given.model if is_a(given.model, "flax.linen", "Module") else linen_module(given.model)
    if module is not None and not given.arguments:
        if is_a(variables, "flax.training.train_state", "TrainState"):
            variables = variables_of(variables)
        return _linen(module, variables, given.keywords) if isinstance(variables, Mapping) else None
    if is_a(given.model, "equinox", "Module") and is_a(variables, "equinox.nn", "State"):
        return _equinox(given, variables)
    return None


def _linen(module: Any, variables: Mapping[str, Any], keywords: Mapping[str, Any]) -> Any:
    from fusioncam_jax.linen import LinenNetwork

    return LinenNetwork(module if module.scope is None else module.unbind()[0], variables, keywords)


def _equinox(given: Given, state: Any) -> Any:
    from fusioncam_jax.equinox import EquinoxNetwork

    keywords = dict(given.keywords)
    bound = [name for name, each in keywords.items() if is_a(each, "equinox.nn", "State")]
    return EquinoxNetwork(given.model, keywords.pop(bound[0]) if bound and state is None else state, keywords)


def _functions(first: Any, second: Any, options: Mapping[str, Any]) -> Any:
    """Two functions, or one and its parameters, if the user or something in them says that they are JAX's."""
    first = first.apply if _is_transformed(first) else first
    if not callable(first):
        return None
    if "framework" not in options and not _has_jax_in_it((first, second)):
        return None
    from fusioncam_jax.functions import FunctionNetwork, pair_network

    return pair_network(first, second) if callable(second) else FunctionNetwork(first, second)


def _is_transformed(value: Any) -> bool:
    """Whether it is Haiku's pair of functions, without importing Haiku."""
    return isinstance(value, tuple) and getattr(value, "_fields", None) == ("init", "apply")


def _with_keywords(given: Given) -> Any:
    return functools.partial(given.model, **given.keywords) if given.keywords else given.model


def _has_jax_in_it(model: tuple[Any, Any]) -> bool:
    """Whether one is a compiled function or holds JAX arrays, also as what `functools.partial` has bound."""
    jax = sys.modules["jax"]
    parts = [part for each in model for part in (each, *getattr(each, "args", ()))]
    leaves = jax.tree.leaves([parts, [getattr(each, "keywords", None) for each in model]])
    return any(isinstance(leaf, jax.Array | jax.stages.Wrapped) for leaf in leaves)
