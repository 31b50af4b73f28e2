"""A real network and photographs against what the published code made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM
from libraries import EVERYTHING

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = 2 if EVERYTHING else 1
"""Each takes 320 masked images."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return {name: values[:PHOTOGRAPHS] for name, values in np.load(DATA / "efficientnet_lite0.npz").items()}


@pytest.fixture(scope="module")
def explanation(golden: dict[str, Any]) -> Any:
    """Fusion-CAM of the photographs at the last block, as the published code was run."""
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch")
    photographs = pytest.importorskip("examples.zoo.photographs")
    from examples.zoo.efficientnet_lite0_torch import build
    from fusioncam_core import Preprocessing
    from fusioncam_core.data.preprocessing import read_photograph

    try:
        files = [path for path, label in photographs.foolbox_photographs() if label in (243, 455)]
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    preprocess = Preprocessing(crop_fraction=None)
    images = np.stack([preprocess(read_photograph(file)) for file in files[:PHOTOGRAPHS]])
    cam = FusionCAM(build(), "_blocks.15", contributions="signed", batch_size=16)
    return cam(images, golden["target"]).numpy()


@pytest.mark.parametrize(("part", "name"), [("gradient", "grad_cam"), ("region", "score_cam")])
def test_maps(explanation: Any, golden: dict[str, Any], part: str, name: str) -> None:
    np.testing.assert_allclose(explanation.parts[part], golden[name], atol=1e-4)


def test_fusion(explanation: Any, golden: dict[str, Any]) -> None:
    np.testing.assert_allclose(explanation.maps, golden["fusion_cam"], atol=1e-4)


def test_weights(explanation: Any, golden: dict[str, Any]) -> None:
    names = ("weight_denoised", "weight_region", "fusion_weight_union", "fusion_weight_region")
    actual = np.stack([explanation.weights[name] for name in names], axis=1)
    np.testing.assert_allclose(actual, golden["weights"], atol=1e-4)


def test_scores(explanation: Any, golden: dict[str, Any]) -> None:
    np.testing.assert_allclose(explanation.scores, golden["logits"][range(PHOTOGRAPHS), golden["target"]], atol=1e-4)
