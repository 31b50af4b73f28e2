"""All methods by name. The classes put themselves in; plugins bring theirs when they are asked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, cast

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.plugins.manager import ask_for_methods

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

_methods: dict[str, type[Explainer]] = {}
_builtin_package = __name__.partition(".")[0]


def register(method: type[Explainer]) -> None:
    """Let a method be asked for by its name. A class defined anew takes the place of the one of its name.

    Raises:
        InvalidValueError: if the name is one of fusioncam's own methods'.
    """
    before = _methods.get(method.name)
    if before is not None and _is_builtin(before) and not _is_builtin(method):
        raise InvalidValueError(
            f"{method.__name__} is called {method.name!r}, as fusioncam's own {before.__name__}: give it another name."
        )
    _methods[method.name] = method


def _is_builtin(method: type) -> bool:
    return method.__module__.partition(".")[0] == _builtin_package


def methods(family: str | None = None) -> Mapping[str, type[Explainer]]:
    """The methods by name, of one family ("gradient", "region", "ensemble") or all; plugins' among them."""
    for each in ask_for_methods():
        if not (isinstance(each, type) and hasattr(each, "name")):
            raise InvalidTypeError(f"A plugin offers {each!r} as a method: a subclass of Explainer was expected.")
        _methods.setdefault(each.name, cast("type[Explainer]", each))
    return {name: each for name, each in _methods.items() if family is None or each.family == family}


def find_method(name: str, family: str | None = None, role: str = "A method") -> type[Explainer]:
    """The method of that name, of that family.

    Raises:
        InvalidTypeError: if it is no text.
        InvalidValueError: if there is none; it names those there are.
    """
    known = methods(family)
    if not isinstance(name, str):
        raise InvalidTypeError(
            f"{role} is the name of a method or an explainer: got a {type(name).__qualname__}. The names are "
            f"{', '.join(map(repr, known))}."
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(f"{role} is one of {', '.join(map(repr, known))}: got {name!r}.{hint}")
    return known[name]


EXPLAINERS: Mapping[str, type[Explainer]] = MappingProxyType(_methods)
"""fusioncam's own explainers by name, and those defined or asked of plugins meanwhile."""


class Capabilities(NamedTuple):
    """What a method is and what it needs.

    Attributes:
        name: what `--method`, `gradient=` and `region=` take.
        title: as the papers write it.
        explainer: the class.
        family: "gradient", "region" or "ensemble".
        needs_gradients: whether the model must be differentiable behind the layer.
        needs_layer: whether a layer is looked at; without, a forward function is enough.
        runs_masked: whether the model is run on many masked or changed images.
        seeded: whether it draws random numbers, from the `seed` it takes.
        paper: where it comes from.
    """

    name: str
    title: str
    explainer: str
    family: str
    needs_gradients: bool
    needs_layer: bool
    runs_masked: bool
    seeded: bool
    paper: str


def capabilities() -> list[Capabilities]:
    """What every method is and needs, as declared by its class: ensembles first."""
    order = ("ensemble", "gradient", "region")
    return [_capabilities_of(each) for family in order for each in methods(family).values()]


def _capabilities_of(each: type[Explainer]) -> Capabilities:
    return Capabilities(
        name=each.name,
        title=each.title,
        explainer=each.__name__,
        family=each.family,
        needs_gradients=each.needs_gradients,
        needs_layer=each.needs_layer,
        runs_masked=each.needs_masks,
        seeded="seed" in inspect.signature(each).parameters,
        paper=each.paper,
    )
