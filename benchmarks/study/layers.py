"""At which layer, and with which erased pixels: the published form and two single methods, on a few photographs."""

from __future__ import annotations

import numpy as np

from benchmarks.study.measuring import Values, measured, metrics_of
from benchmarks.study.methods import CALIBRATED, PUBLISHED, gradient_map, region_map
from benchmarks.study.networks import Network
from benchmarks.study.photographs import Photograph
from benchmarks.study.views import View
from fusioncam_core.models.baselines import erased_images

LAYERS = {"the last layer": None, "the last block": "_blocks.15", "14 x 14": "_blocks.10"}
"""Of EfficientNet-Lite0; the first one is the default."""

BASELINES = ("zero", "mean", "blur")
"""What is seen where a mask is 0, when masks are scored and maps weighed; at the default layer."""


def measure(network: Network, photograph: Photograph) -> Values:
    """Each form at each layer, and with each baseline."""
    image = photograph.prepared(network)
    found: Values = {}
    for name, layer in LAYERS.items():
        found |= _measured(View(network, image, layer=layer), name)
    for baseline in BASELINES[1:]:
        found |= _measured(View(network, image, erased=_erased(image, baseline)), baseline)
    return found


def _erased(image: np.ndarray, baseline: str) -> np.ndarray:
    if baseline == "mean":
        return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape).copy()
    return np.asarray(erased_images(image[None], baseline, 1, np))[0]


def _measured(view: View, where: str) -> Values:
    maps = {
        "grad-cam": gradient_map(view, "grad-cam"),
        "score-cam": region_map(view, "score-cam"),
        "fusion-cam": PUBLISHED(view),
        "fusion-cam calibrated": CALIBRATED(view),
    }
    return measured(view, {f"{name}, {where}": each[0, 0] for name, each in maps.items()}, metrics_of(view, road=False))
