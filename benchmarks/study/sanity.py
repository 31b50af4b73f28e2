"""The sanity check on a large network: what is left of each map when its weights are shuffled, the last layer first?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.study.methods import METHODS
from benchmarks.study.networks import Network
from benchmarks.study.views import View
from fusioncam_core import GradCAM
from fusioncam_core.metrics import rank_correlation
from fusioncam_core.metrics.sanity import _last_first, _layers, _points, _shuffled

STAGES = 4
"""At so many points maps are looked at, the last layer and all layers among them."""

ASKED = (
    "grad-cam",
    "layer-cam",
    "eigen-cam",
    "score-cam",
    "score-cam by regression",
    "group-cam",
    "fusion-cam",
    "fusion-cam calibrated",
)
"""The united form has the ranks of the calibrated one, and so its correlations."""


def stages(network: Network, image: np.ndarray) -> Iterator[tuple[str, AbstractContextManager[Any]]]:
    """The last layer whose weights are shuffled, and a context in which they and those of all later ones are."""
    explainer = GradCAM(network.model)
    adapter: Any = explainer.adapter
    weights = adapter.weights()
    layers = _last_first(_layers(list(weights)), [each.name for each in explainer.layers(image[None])])
    shuffled = _shuffled(weights, 0, adapter.namespace)
    for count in _points(len(layers), STAGES):
        changed = {name: shuffled[name] for _, names in layers[:count] for name in names}
        yield layers[count - 1][0], adapter.with_weights(changed)


def maps_of(network: Network, image: np.ndarray, target: int | None = None) -> tuple[dict[str, np.ndarray], int]:
    """The maps (h, w) of the methods asked about, and the explained class."""
    view = View(network, image, None if target is None else [target])
    return {name: METHODS[name](view)[0, 0] for name in ASKED}, int(view.targets[0])


def left(network: Network, images: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """By image, method and stage: the rank correlation with the map before."""
    before = {name: maps_of(network, image) for name, image in images.items()}
    found: dict[str, dict[str, dict[str, float]]] = {name: {each: {} for each in ASKED} for name in images}
    for layer, shuffled in stages(network, next(iter(images.values()))):
        with GradCAM(network.model).session(), shuffled:
            other = replace(network)  # converted anew, with the weights as they are now
            for name, image in images.items():
                maps, target = before[name]
                after, _ = maps_of(other, image, target)
                for method in ASKED:
                    found[name][method][f"to {layer}"] = float(rank_correlation(maps[method], after[method]))
    return found
