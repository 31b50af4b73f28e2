"""All explainers by name: every method that the modules of the families define."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

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
