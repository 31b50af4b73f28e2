"""Coherency: the library's explainers once more on the image under its map, region methods with fewer masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.study.networks import Network
from benchmarks.study.united import UnitedCAM
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


class Coherencies:
    """Explainers by name, of whom each sees an image and the image under its map.

    Args:
        network: that they explain.
        names: of those that are asked; None for all.
    """

    def __init__(self, network: Network, names: tuple[str, ...] | None = None):
        made = explainers(network)
        self._explainers = {name: each for name, each in made.items() if names is None or name in names}
        self._erased = network.erased

    def of(self, image: np.ndarray, target: int) -> dict[str, float]:
        """The coherency of each method's map of an image (C, h, w)."""
        return {name: self._of(each, image[None], target) for name, each in self._explainers.items()}

    def _of(self, explainer: Explainer, images: np.ndarray, target: int) -> float:
        maps = to_numpy(explainer(images, target).maps)
        under = self._erased + maps[:, None] * (images - np.float32(self._erased))
        again = to_numpy(explainer(under.astype(np.float32), target).maps)
        return float(coherency(maps, again)[0])


def explainers(network: Network) -> dict[str, Explainer]:
    """The library's own, whose masked images OpenVINO runs."""
    fast: dict[str, Any] = {"engine": "openvino", "baseline": network.erased or "zero"}
    model = network.model
    few, more = {**fast, "budget": BUDGET}, {**fast, "budget": REGRESSION_BUDGET}
    return {
        "grad-cam": GradCAM(model),
        "grad-cam++": GradCAMPlusPlus(model),
        "layer-cam": LayerCAM(model),
        "eigen-cam": EigenCAM(model),
        "score-cam": ScoreCAM(model, **few),
        "score-cam by regression": ScoreCAM(model, channel_weights="regression", **more),
        "group-cam": GroupCAM(model, percentile=0, blur=25, engine="openvino"),
        "union-cam": UnionCAM(model, **few),
        "fusion-cam": FusionCAM(model, **few),
        "fusion-cam calibrated": FusionCAM(model, variant="calibrated", **more),
        "fusion-cam united": UnitedCAM(model, **more),
    }
