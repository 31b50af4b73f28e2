"""Coherency: the library's explainers once more on the image under its map, region methods with fewer masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.study.networks import Network
from fusioncam_core import (
    EigenCAM,
    Explainer,
    FusionCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    LayerCAM,
    ScoreCAM,
    UnionCAM,
)
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.metrics import coherency

BUDGET = 32
"""Masks of a region method."""

REGRESSION_BUDGET = 128
"""Masks of a regression, which needs more."""


SHARED = {"score-cam": ("fusion-cam", "region"), "fusion-cam united": ("fusion-cam calibrated", "union")}
"""Methods whose map of an image is a part of another's, with the same masks."""


class Coherencies:
    """Explainers by name, of whom each sees an image and the image under its map.

    Args:
        network: that they explain.
        names: the methods that are asked, as far as there are explainers of that name.
    """

    def __init__(self, network: Network, names: Sequence[str]):
        self._explainers = {name: each for name, each in explainers(network).items() if name in names}

    def of(self, image: np.ndarray, target: int) -> dict[str, float]:
        """The coherency of each method's map of an image (C, h, w), whose erased pixels are 0."""
        found = {name: each(image[None], target) for name, each in self._explainers.items() if name not in SHARED}
        maps = {name: to_numpy(each.maps) for name, each in found.items()}
        maps |= {name: to_numpy(found[whole].parts[part]) for name, (whole, part) in SHARED.items()}
        return {name: self._of(each, image[None], target, maps[name]) for name, each in self._explainers.items()}

    @staticmethod
    def _of(explainer: Explainer, images: np.ndarray, target: int, maps: np.ndarray) -> float:
        again = to_numpy(explainer(images * maps[:, None], target).maps)
        return float(coherency(maps, again)[0])


def explainers(network: Network) -> dict[str, Explainer]:
    """The library's own, whose masked images OpenVINO runs."""
    fast: dict[str, Any] = {"engine": "openvino"}
    model = network.model
    few, more = {**fast, "budget": BUDGET}, {**fast, "budget": REGRESSION_BUDGET}
    return {
        "grad-cam": GradCAM(model),
        "grad-cam++": GradCAMPlusPlus(model),
        "layer-cam": LayerCAM(model),
        "eigen-cam": EigenCAM(model),
        "score-cam": ScoreCAM(model, **few),
        "group-cam": GroupCAM(model, percentile=0, blur=25, engine="openvino"),
        "union-cam": UnionCAM(model, **few),
        "fusion-cam": FusionCAM(model, **few),
        "fusion-cam calibrated": FusionCAM(model, variant="calibrated", **more),
        "fusion-cam united": FusionCAM(model, variant="united", **more),
    }
