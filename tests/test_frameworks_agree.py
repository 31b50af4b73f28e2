"""One network, one set of weights, three frameworks: the same maps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from libraries import framework

BUDGET = 12
"""Of the 320 masks of a photograph: enough for the same way through the same network."""


@pytest.fixture(scope="module", params=[BUDGET, pytest.param(None, marks=pytest.mark.slow)], ids=["budget", "exact"])
def maps(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Fusion-CAM of the demo's photographs at the last block of EfficientNet-Lite0, in each framework."""
    for name in ("torch", "tensorflow", "keras", "jax", "flax", "efficientnet_lite_pytorch", "skimage"):
        framework(name)
    swap: Any = pytest.importorskip("examples.swap_frameworks")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend in this process")
    from fusioncam_core import FusionCAM, load_model

    photographs = [swap.read_photograph(swap.photograph(name)) for name in swap.PHOTOGRAPHS]
    if request.param is None:
        models = {name: load_model(spec) for name, spec in swap.MODELS.items()}
        return {name: swap.explain(loaded, swap.LAYERS[name], photographs) for name, loaded in models.items()}
    found = {}
    for name, spec in swap.MODELS.items():
        loaded = load_model(spec)
        images = np.stack([loaded.preprocessing(each) for each in photographs])
        cam = FusionCAM(loaded.model, swap.LAYERS[name], budget=request.param)
        found[name] = cam(images).numpy().maps
    return found


@pytest.mark.parametrize("pair", list(itertools.combinations(("PyTorch", "TensorFlow", "JAX"), 2)), ids="-".join)
def test_fusion_cam_is_the_same(maps: dict[str, np.ndarray], pair: tuple[str, str]) -> None:
    difference = np.abs(maps[pair[0]] - maps[pair[1]])
    assert difference.max() < 1e-3
    assert difference.mean() < 1e-4
    assert maps[pair[0]].shape == (2, 224, 224)
    assert np.ptp(maps[pair[0]]) == 1
