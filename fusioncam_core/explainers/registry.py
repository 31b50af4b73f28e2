"""All explainers by name: every method that the modules of the families define."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from fusioncam_core.explainers import ensembles, gradient, region
from fusioncam_core.explainers.base import Explainer


def _methods(module: ModuleType) -> Iterator[type[Explainer]]:
    """The explainers that are ready for use and defined in the module, in its order."""
    for each in vars(module).values():
        own = inspect.isclass(each) and each.__module__ == module.__name__
        if own and issubclass(each, Explainer) and not inspect.isabstract(each) and hasattr(each, "name"):
            yield each


EXPLAINERS: dict[str, type[Explainer]] = {
    each.name: each for module in (ensembles, gradient, region) for each in _methods(module)
}
"""The explainers by name, ensembles first."""

GRADIENT_METHODS: dict[str, type[Explainer]] = {each.name: each for each in _methods(gradient)}
"""Those that an ensemble takes as `gradient`."""

REGION_METHODS: dict[str, type[Explainer]] = {each.name: each for each in _methods(region)}
"""Those that an ensemble takes as `region`."""


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
    """What every method is and needs, as declared by its class."""
    return [_capabilities_of(each) for each in EXPLAINERS.values()]


def _capabilities_of(each: type[Explainer]) -> Capabilities:
    family = each.__module__.rpartition(".")[2].removesuffix("s")
    paper = re.search(r"\(((?:arXiv|doi|WACV)[^)]*)\)", inspect.getdoc(each) or "")
    return Capabilities(
        name=each.name,
        title=each.title,
        explainer=each.__name__,
        family=family,
        needs_gradients=bool(each.needs_gradients) or "gradient" in inspect.signature(each).parameters,
        needs_layer=each.needs_layer,
        runs_masked=each.needs_masks,
        seeded="seed" in inspect.signature(each).parameters,
        paper=paper[1] if paper else "",
    )
