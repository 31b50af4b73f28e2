"""Sanity checks: a map that explains a model must not survive when the model's weights are taken away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, to_numpy
from fusioncam_core.arrays.ranks import rank_correlation
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.adapter import HasWeights

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

Similarities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Randomisation:
    """How much of the maps is left while layer after layer loses what it learnt.

    Attributes:
        layers: (L) in the order in which they were randomised, the model's last one first.
        similarities: (L, B): Spearman's correlation of each image's map with its first one, when so many layers
            were randomised; 0 where a map has become constant.
    """

    layers: tuple[str, ...]
    similarities: Similarities

    @property
    def left(self) -> float:
        """The mean correlation when all layers were randomised: near 0 for a method that explains the model."""
        return float(self.similarities[-1].mean())

    def lines(self) -> Iterator[str]:
        """A line for each layer: its name, and the mean correlation from there on."""
        width = max(len(layer) for layer in self.layers)
        for layer, each in zip(self.layers, self.similarities, strict=True):
            yield f"  {layer:{width}}  {each.mean():6.3f}"


def randomisation_check(
    explainer: Explainer, images: Any, targets: Any = None, *, stages: int | None = None, seed: int = 0
) -> Randomisation:
    """Randomise a model's weights from its outputs to its inputs, layer by layer, and see what is left of the maps.

    Adebayo et al., Sanity Checks for Saliency Maps (arXiv 1810.03292), section 3.1, cascading randomisation. A layer's
    weights are shuffled, each array by itself: they keep their distribution, and nothing of what was learnt. The
    model has its own weights again afterwards, also after an exception.

    Args:
        explainer: of a model whose backend gives its weights.
        images: (B, ...) as for a call.
        targets: one class an image, or None for the top classes of the model as it is.
        stages: look at the maps at so many points, evenly spread, the last layer and all layers among them; None looks
            after every layer.
        seed: of the shuffles.

    Returns:
        The correlations at each point.

    Raises:
        TypeError: if the weights cannot be looked at or changed.
        ValueError: if the model has no weights, for several targets an image, or as a call does.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> from fusioncam_core.metrics import randomisation_check
        >>> generator = torch.manual_seed(0)
        >>> head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), *head)
        >>> check = randomisation_check(GradCAM(model, "1"), torch.rand(2, 3, 16, 16))
        >>> check.layers, check.similarities.shape
        (('4', '0'), (2, 2))
    """
    adapter = explainer.adapter
    if not isinstance(adapter, HasWeights):
        raise InvalidTypeError(
            f"The weights of {adapter.model_name} cannot be looked at: its backend does not give them."
        )
    check = explainer.session()(_randomisation_check)  # nobody else may meet the model without its weights
    return check(explainer, adapter, images, targets, stages, seed)


def _randomisation_check(
    explainer: Explainer, adapter: HasWeights, images: Any, targets: Any, stages: int | None, seed: int
) -> Randomisation:
    own_weights = adapter.weights()
    layers = _layers(list(own_weights))
    if not layers:
        raise InvalidValueError(f"{explainer.adapter.model_name} has no weights that could be randomised.")
    layers = _last_first(layers, [each.name for each in explainer.layers(images)])
    plain = explainer(images, targets)
    if len(plain.targets.shape) > 1:
        raise InvalidValueError("A sanity check has one class an image: None, one class or (B,) classes.")
    classes, own = to_numpy(plain.targets), to_numpy(plain.maps)
    shuffled = _shuffled(own_weights, seed, explainer.adapter.namespace)
    names, found = [], []
    for count in _points(len(layers), stages):
        changed = {name: shuffled[name] for _, weights in layers[:count] for name in weights}
        with adapter.with_weights(changed):
            maps = to_numpy(explainer(images, classes).maps)
        names.append(layers[count - 1][0])
        found.append([rank_correlation(first, second) for first, second in zip(own, maps, strict=True)])
    return Randomisation(tuple(names), np.asarray(found))


Layer = tuple[str, list[str]]
"""A layer's name and the names of its weights."""


def _layers(names: list[str]) -> list[Layer]:
    """Weights by their layers, in the order given."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(re.sub(r"[./\[][^./\[]*$", "", name) or name, []).append(name)
    return list(layers.items())


def _last_first(layers: list[Layer], running: list[str]) -> list[Layer]:
    """Layers by when they run, the last one first: a list of weights may be in alphabetical order.

    One that is not seen running stays next to the one before it in the list.
    """
    place = {name: number for number, name in enumerate(running)}
    places: list[int] = []
    for name, _ in layers:
        places.append(place.get(name, places[-1] if places else -1))
    return [layer for _, layer in sorted(zip(places, layers, strict=True), key=lambda pair: pair[0])][::-1]


def _points(layers: int, stages: int | None) -> list[int]:
    """After how many layers to look."""
    if stages is None:
        return list(range(1, layers + 1))
    wanted = np.linspace(1, layers, min(require_count(stages, "stages"), layers)) if stages > 1 else [layers]
    return sorted({round(float(each)) for each in wanted})


def _shuffled(weights: Any, seed: int, xp: Namespace) -> dict[str, Array]:
    """Every array with its values in random order, the same on every framework that lists them in the same order."""
    generator = np.random.default_rng(require_count(seed, "seed", least=0))
    return {
        name: constant_like(generator.permutation(to_numpy(each).ravel()).reshape(each.shape), each, xp)
        for name, each in weights.items()
    }
