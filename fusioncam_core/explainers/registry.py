"""All methods by name. The classes put themselves in; plugins bring theirs when they are asked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fusioncam_core.plugins.manager import ask_for_methods
from fusioncam_core.plugins.registry import Registry

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

FAMILIES = ("gradient", "region", "ensemble")

EXPLAINERS: Registry[type[Explainer]] = Registry(
    "method", ("family", FAMILIES), ask_for_methods, "fusioncam_core.explainers.base.Explainer"
)
"""The explainers by name: fusioncam's own, plugins', and those defined meanwhile."""

register = EXPLAINERS.register


def methods(family: str) -> Mapping[str, type[Explainer]]:
    """The methods by name, of one family: "gradient", "region" or "ensemble"."""
    return {name: each for name, each in EXPLAINERS.items() if each.family == family}


def find_method(name: Any, family: str | None = None, role: str = "A method") -> type[Explainer]:
    """The method of that name, of that family or any.

    Raises:
        InvalidTypeError: if it is no text.
        InvalidValueError: if there is none; it names those there are.
    """
    return EXPLAINERS.find(name, role, None if family is None else methods(family))


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
