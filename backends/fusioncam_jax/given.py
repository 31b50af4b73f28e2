"""What people give as a model: a module in whatever they have wrapped around it. No framework is imported."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

from fusioncam_core.errors import InvalidTypeError


@dataclasses.dataclass(frozen=True)
class Given:
    """A module or function, and what is bound to it.

    Attributes:
        model: without the wrappers.
        arguments, keywords: that `functools.partial`, or JAX's or Equinox's, has bound.
    """

    model: Any
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def unwrapped(model: Any) -> Given:
    """The module inside of compiled functions, partial applications and its own methods.

    A method of a Linen module stays as it is: what it does with variables is the method's.
    """
    if _is_compiled(model):
        return unwrapped(model.__wrapped__)
    if isinstance(model, functools.partial) or is_a(model, "equinox", "Partial"):
        inner = unwrapped(model.func)
        if isinstance(model, functools.partial) or _is_module(inner.model):
            return Given(inner.model, (*inner.arguments, *model.args), {**inner.keywords, **model.keywords})
    if isinstance(model, MethodType) and model.__name__ == "__call__" and _is_module(model.__self__):
        return Given(model.__self__)
    return Given(model)


def linen_module(model: Any) -> Any:
    """The Linen module that `apply` is bound to; None if that is not what it is."""
    is_apply = isinstance(model, MethodType) and model.__name__ == "apply"
    return model.__self__ if is_apply and is_a(model.__self__, "flax.linen", "Module") else None


def graph_definition(model: Any) -> Any:
    """The graph definition of an NNX module that `apply` is bound to, or None."""
    inner = getattr(model, "__self__", None)
    return inner if is_a(inner, "flax.nnx", "GraphDef") else None


def variables_of(state: Any) -> dict[str, Any]:
    """The variables in a `flax.training.train_state.TrainState`, in whose own fields other collections are."""
    names = [each.name for each in dataclasses.fields(state) if each.name not in ("params", "opt_state")]
    collections = {name: getattr(state, name) for name in names if isinstance(getattr(state, name), Mapping)}
    whole = isinstance(state.params, Mapping) and "params" in state.params
    return {**collections, **(state.params if whole else {"params": state.params})}


def refuse_mapped(model: Any) -> None:
    """Refuse what `jax.vmap` or a decorator has made of a module.

    Raises:
        InvalidTypeError: because what the function does besides cannot be known.
    """
    inner = getattr(model, "__wrapped__", None)
    if (isinstance(model, FunctionType) or _is_mapped(model)) and _is_module(unwrapped(inner).model):
        name = type(unwrapped(inner).model).__name__
        raise InvalidTypeError(
            f"A function that jax.vmap or a decorator has made of a {name} came, whose layers cannot be seen through "
            f"it. Give the {name} itself: a module of one image is mapped over the batch here."
        )


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether it is an instance of a class of a module, if that is imported at all."""
    loaded = sys.modules.get(module)
    return loaded is not None and hasattr(loaded, name) and isinstance(value, getattr(loaded, name))


def _is_module(value: Any) -> bool:
    return any(is_a(value, module, "Module") for module in ("flax.nnx", "flax.linen", "equinox"))


def _is_compiled(model: Any) -> bool:
    """Whether `jax.jit`, `flax.nnx.jit` or `equinox.filter_jit` has made it."""
    if not hasattr(model, "__wrapped__") or isinstance(model, FunctionType):
        return False
    kind = type(model)
    of_flax = kind.__module__.startswith("flax.nnx.transforms.compilation")
    of_equinox = kind.__module__.startswith("equinox._jit")
    return of_flax or of_equinox or is_a(model, "jax.stages", "Wrapped")


def _is_mapped(model: Any) -> bool:
    return type(model).__module__.startswith("equinox._vmap") and hasattr(model, "__wrapped__")
