"""What region methods have in common beyond test_conformance.py, end to end on PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.explainers.gradient import GradCAM
from fusioncam_core.explainers.region import AblationCAM, GroupCAM, ScoreCAM
from fusioncam_core.explainers.region_sampled import ISCAM, RISE, SSCAM
from fusioncam_core.models.scoring import weighted_masks
from fusioncam_core.models.targets import Targets
from libraries import Library, assert_close, framework

torch = framework("torch")

from masked_network import live_channels  # noqa: E402

METHODS = {
    "score-cam": ScoreCAM,
    "score-cam of probabilities": lambda model, *layer, **keywords: ScoreCAM(
        model, *layer, channel_weights="probability", **keywords
    ),
    "score-cam by regression": lambda model, *layer, **keywords: ScoreCAM(
        model, *layer, channel_weights="regression", **keywords
    ),
    "group-cam": lambda model, *layer, **keywords: GroupCAM(model, *layer, groups=16, **keywords),
    "group-cam by k-means": lambda model, *layer, **keywords: GroupCAM(
        model, *layer, groups=8, grouping="k-means", **keywords
    ),
    "ablation-cam": AblationCAM,
    "ss-cam": lambda model, *layer, **keywords: SSCAM(model, *layer, samples=2, **keywords),
    "is-cam": lambda model, *layer, **keywords: ISCAM(model, *layer, steps=3, **keywords),
    "rise": lambda model, *layer, **keywords: RISE(model, *layer, masks=60, cells=4, **keywords),
}
"""Every region method, small enough for a test."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestErasing:
    def test_another_erased_image_starts_anew(self, model: Any, shapes: dict[str, Any]) -> None:
        images = torch.from_numpy(shapes["images"][:2])
        (batch,) = GradCAM(model, "features").see(images, Targets(np.array([[1], [2]]), several=False))
        masked = batch.masked
        black = masked.black_probabilities()
        assert masked.evaluations == 1
        grey = masked.erasing(torch.full_like(images, 0.5))
        assert grey.evaluations == 0
        with torch.no_grad():
            expected = model(torch.full_like(images, 0.5)).softmax(dim=1)[[0, 1], [1, 2], None]
        torch.testing.assert_close(grey.black_probabilities(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(masked.black_probabilities(), black, atol=0, rtol=0)
        assert (grey.evaluations, masked.evaluations) == (2, 1)


class TestWeightedMasks:
    def test_padding_counts_nothing(self, eager: Library) -> None:
        masks = eager.asarray(np.array([[1, 0], [0, 1], [5, 5], [7, 7]], dtype=np.float32))
        scores = eager.asarray(np.array([[2], [3], [1], [100]], dtype=np.float32))
        summed = weighted_masks(masks, scores, np.array([0, 0, 1, 1]), 3, 2, xp=array_namespace(masks))
        assert_close(summed, [[[2, 3]], [[5, 5]]], masks)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_shape_is_found(model: Any, shapes: dict[str, Any], method: Any) -> None:
    maps = method(model)(shapes["images"], shapes["target"]).maps.numpy()
    inside = shapes["masks"] > 0
    assert maps[inside].mean() > 1.2 * maps[~inside].mean()


SHARED = {name: method for name, method in METHODS.items() if not name.startswith("group")}


@pytest.mark.parametrize("method", SHARED.values(), ids=SHARED)
def test_five_targets_cost_what_one_does(model: Any, shapes: dict[str, Any], method: Any) -> None:
    one = method(model)(shapes["images"], 0)
    five = method(model)(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
    assert five.evaluations == one.evaluations


NUMBERS_OF_EVALUATIONS = {
    "score-cam": (lambda model: ScoreCAM(model, batch_size=8), 1),
    "ss-cam": (lambda model: SSCAM(model, samples=2, batch_size=8), 2),
    "is-cam": (lambda model: ISCAM(model, steps=4, batch_size=8), 3),
}


@pytest.mark.parametrize("name", NUMBERS_OF_EVALUATIONS)
def test_constant_channels_are_not_run(model: Any, shapes: dict[str, Any], name: str) -> None:
    make, masks = NUMBERS_OF_EVALUATIONS[name]
    explanation = make(model)(shapes["images"], shapes["target"])
    assert explanation.evaluations == 8 + masks * live_channels(shapes) + 1


VOLUMES = {
    **METHODS,
    # Of 4 x 4 x 4 cells sixty masks see too little.
    "rise": lambda model, *layer, **keywords: RISE(model, *layer, masks=400, cells=2, **keywords),
    # In three of eight planes the map has one value, which is its 70th percentile: nothing is above that.
    "group-cam": lambda model, *layer: GroupCAM(model, *layer, percentile=0),
    "group-cam by k-means": lambda model, *layer: GroupCAM(model, *layer, grouping="k-means", percentile=0),
}


@pytest.mark.parametrize("method", VOLUMES.values(), ids=VOLUMES)
@pytest.mark.parametrize("ndim", [1, 3])
def test_signals_and_volumes(method: Any, ndim: int) -> None:
    class Bright(torch.nn.Module):
        """The logit of class 1 is how much of the image is brighter than a half."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = {1: torch.nn.Conv1d, 3: torch.nn.Conv3d}[ndim](1, 2, 1)
            self.layer.weight.data = torch.tensor([1.0, 2.0]).reshape(2, 1, *(1,) * ndim)
            self.layer.bias.data = torch.tensor([-0.5, -1.0])
            self.relu = torch.nn.ReLU()

        def forward(self, images: Any) -> Any:
            bright = 4 * self.relu(self.layer(images)).flatten(1).mean(dim=1)
            return torch.stack([0 * bright, bright], dim=1)

    images = np.zeros((2, 1, *(8,) * ndim), dtype=np.float32)
    images[0, 0, :3] = images[1, 0, 5:] = 1
    maps = method(Bright(), "relu")(images, 1).maps.numpy()
    assert maps.shape == (2, *(8,) * ndim)
    assert np.isfinite(maps).all()
    assert 0 == maps.min() < maps.max() == 1
    inside = images[:, 0] > 0
    assert maps[inside].mean() > 1.5 * maps[~inside].mean()


@pytest.mark.filterwarnings("ignore:The output of layer 'layer' of Constant does not change")
@pytest.mark.parametrize("method", [m for name, m in METHODS.items() if name != "rise"])
def test_constant_activations_give_zeros(method: Any) -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Conv2d(1, 3, 1)
            self.layer.weight.data.zero_()

        def forward(self, images: Any) -> Any:
            return self.layer(images).mean(dim=(2, 3))

    with pytest.warns(UserWarning, match="zero everywhere"):
        maps = method(Constant(), "layer")(np.ones((1, 1, 6, 6), np.float32)).maps.numpy()
    np.testing.assert_array_equal(maps, np.zeros((1, 6, 6)))
