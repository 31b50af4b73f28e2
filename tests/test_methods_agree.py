"""Every method on PyTorch, TensorFlow and JAX: the same maps of the shapes network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EXPLAINERS
from libraries import framework

CASES = [0, 1, 4]
CHEAP = {"smooth-grad-cam++": {"samples": 2}, "ss-cam": {"samples": 1}, "is-cam": {"steps": 2}, "rise": {"masks": 20}}
"""Options that make a method cheap enough for a test."""

# Keras on TensorFlow: its variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _tensorflow(weights: dict[str, Any]) -> Any:
    framework("tensorflow")
    from tensorflow_models import Features, Head

    return Features(weights), Head(weights)


def _jax(weights: dict[str, Any]) -> Any:
    framework("jax")
    framework("flax")
    from nnx_models import Shapes

    return Shapes(weights)


@pytest.fixture(scope="module")
def torch_maps(shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> Callable[[str], np.ndarray]:
    """The maps (3, 48, 48) that a method makes on PyTorch."""
    framework("torch")
    from torch_models import Shapes

    model = Shapes(shapes_weights).eval()

    def maps(name: str) -> np.ndarray:
        explainer = EXPLAINERS[name](model, "features", **CHEAP.get(name, {}))
        return explainer(shapes["images"][CASES], shapes["target"][CASES]).numpy().maps

    return maps


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("make", [_tensorflow, _jax], ids=["tensorflow", "jax"])
def test_same_as_on_pytorch(
    make: Callable[..., Any],
    name: str,
    torch_maps: Callable[[str], np.ndarray],
    shapes: dict[str, Any],
    shapes_weights: dict[str, Any],
) -> None:
    model = make(shapes_weights)
    explainer = EXPLAINERS[name](model, **CHEAP.get(name, {}))
    images = np.moveaxis(shapes["images"][CASES], 1, -1)
    maps = explainer(images, shapes["target"][CASES]).numpy().maps
    np.testing.assert_allclose(maps, torch_maps(name), atol=1e-4)
    assert maps.max() == 1
