"""The hooks of the JAX backend. JAX and the module systems are imported once a model of theirs turns up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pluggy

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """A `JaxAdapter` for a model of Flax NNX, Flax Linen or Equinox, or for plain functions."""
    if "jax" not in sys.modules or options.get("framework", "jax") != "jax":
        return None
    network = _module(model) or _module_with_variables(model) or _functions(model, options)
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
def fusioncam_describe_models() -> str:
    """Modules of three systems, and functions."""
    return (
        'flax.nnx.Module, or (flax.linen.Module, variables): pip install "fusioncam[flax]"; '
        'equinox.Module, or (equinox.Module, state): pip install "fusioncam[equinox]"; '
        'JAX functions (features, head) or (apply, parameters), with backend_options={"framework": "jax"} '
        'where nothing in them is JAX\'s: pip install "fusioncam[jax]"'
    )


def _module(model: Any) -> Any:
    if _is_a(model, "flax.nnx", "Module"):
        from fusioncam_jax.nnx import NnxNetwork

        return NnxNetwork(model)
    if _is_a(model, "equinox", "Module") and callable(model):
        from fusioncam_jax.equinox import EquinoxNetwork

        return EquinoxNetwork(model, None)
    return None


def _module_with_variables(model: Any) -> Any:
    """`(module, variables)` of Linen, `(module, state)` of Equinox."""
    if not isinstance(model, tuple) or len(model) != 2:
        return None
    module, variables = model
    if _is_a(module, "flax.linen", "Module") and isinstance(variables, Mapping):
        from fusioncam_jax.linen import LinenNetwork

        return LinenNetwork(module, variables)
    if _is_a(module, "equinox", "Module") and _is_a(variables, "equinox.nn", "State"):
        from fusioncam_jax.equinox import EquinoxNetwork

        return EquinoxNetwork(module, variables)
    return None


def _functions(model: Any, options: Mapping[str, Any]) -> Any:
    """Two functions, or one and its parameters, if the user or something in them says that they are JAX's."""
    if not isinstance(model, tuple) or len(model) != 2 or not callable(model[0]):
        return None
    if "framework" not in options and not _has_jax_in_it(model):
        return None
    from fusioncam_jax.functions import FunctionNetwork, pair_network

    return pair_network(*model) if callable(model[1]) else FunctionNetwork(*model)


def _has_jax_in_it(model: tuple[Any, Any]) -> bool:
    """Whether one is a compiled function or holds JAX arrays, also as what `functools.partial` has bound."""
    jax = sys.modules["jax"]
    parts = [part for each in model for part in (each, *getattr(each, "args", ()))]
    leaves = jax.tree.leaves([parts, [getattr(each, "keywords", None) for each in model]])
    return any(isinstance(leaf, jax.Array | jax.stages.Wrapped) for leaf in leaves)


def _is_a(value: Any, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
