"""Sanity checks, and the grid pointing game, on models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import RISE, BlackBox, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.metrics import cell_masks, grid_pointing_game, randomisation_check, rank_correlation
from fusioncam_core.metrics.grid import _members
from fusioncam_core.metrics.sanity import _last_first, _layers
from libraries import framework

torch = pytest.importorskip("torch")

from given_maps import Given, perfect  # noqa: E402


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestRankCorrelation:
    def test_by_hand(self) -> None:
        first = np.array([1.0, 2.0, 3.0, 4.0])
        assert rank_correlation(first, first**3) == pytest.approx(1)
        assert rank_correlation(first, -first) == pytest.approx(-1)
        # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 over the square root of 5 times 4.5.
        assert rank_correlation(np.array([0.0, 5, 5, 9]), first) == pytest.approx(4.5 / np.sqrt(5 * 4.5))
        assert rank_correlation(np.ones(4), first) == 0


class TestRandomisation:
    def test_the_maps_are_destroyed(self, model: Any, shapes: dict[str, Any]) -> None:
        found = randomisation_check(FusionCAM(model, "features", batch_size=8), shapes["images"], shapes["target"])
        assert found.layers == ("fc", "features.8", "features.6", "features.3", "features.0")
        assert found.similarities.shape == (5, 8)
        assert abs(found.left) < 0.5
        assert found.left < 0.7 * found.similarities[0].mean() or found.similarities[0].mean() < 0.5

    def test_the_model_is_as_before(self, model: Any, shapes: dict[str, Any]) -> None:
        from torch_models import module_state

        before = module_state(model)
        randomisation_check(GradCAM(model, "features"), shapes["images"], shapes["target"], stages=2)
        after = module_state(model)
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)

    def test_also_after_an_error(self, model: Any, shapes: dict[str, Any]) -> None:
        from torch_models import module_state

        before, calls = module_state(model), []

        class Failing(GradCAM):
            def explain(self, batch: Any) -> Any:
                calls.append(1)
                if len(calls) > 1:
                    raise KeyboardInterrupt
                return super().explain(batch)

        with pytest.raises(KeyboardInterrupt):
            randomisation_check(Failing(model, "features", batch_size=8), shapes["images"], shapes["target"])
        after = module_state(model)
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)

    def test_a_map_that_does_not_explain_the_model_survives(self, shapes: dict[str, Any], model: Any) -> None:
        edges = Given(model, lambda images: np.abs(np.diff(images.mean(axis=1), axis=1, append=0)), batch_size=8)
        found = randomisation_check(edges, shapes["images"], shapes["target"])
        np.testing.assert_allclose(found.similarities, 1)

    def test_stages(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = GradCAM(model, "features")
        assert randomisation_check(cam, shapes["images"], 1, stages=2).layers == ("fc", "features.0")
        assert randomisation_check(cam, shapes["images"], 1, stages=3).layers == ("fc", "features.6", "features.0")
        (only,) = randomisation_check(cam, shapes["images"], 1, stages=1).layers
        assert only == "features.0"

    def test_the_same_on_another_framework(
        self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        framework("jax")
        from jax_models import tapped_function

        images = np.ascontiguousarray(np.moveaxis(shapes["images"], 1, -1))
        found = randomisation_check(GradCAM(tapped_function(shapes_weights), "conv4"), images, shapes["target"])
        assert found.layers == ("fc", "conv4", "conv3", "conv2", "conv1")
        assert abs(found.left) < 0.6

    @pytest.mark.parametrize("framework_name", ["torch", "jax"])
    def test_parts_at_other_layers_lose_the_weights_too(
        self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any], framework_name: str
    ) -> None:
        """With adapters of their own they kept them on JAX: a correlation of 0.9999 was left."""
        images, targets = shapes["images"][:2], shapes["target"][:2]
        last, early = "features", "features.4"
        if framework_name == "jax":
            framework("jax")
            from jax_models import tapped_function

            model, last, early = tapped_function(shapes_weights), "conv4", "conv2"
            images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        parts = {"gradient": GradCAM(model, early), "region": ScoreCAM(model, early, batch_size=32)}
        found = randomisation_check(FusionCAM(model, last, batch_size=32, **parts), images, targets, stages=1)
        assert abs(found.left) < 0.6

    def test_layers_go_by_when_they_run(self) -> None:
        names = ["x.w", "b/bias", "b/kernel", "c/kernel", "a.scale", "y[0].w", "y[1].w"]
        ordered = _last_first(_layers(names), ["a", "b", "pool", "c"])
        assert [layer for layer, _ in ordered] == ["c", "b", "y[1]", "y[0]", "a", "x"]
        assert ordered[1] == ("b", ["b/bias", "b/kernel"])

    def test_lines(self, model: Any, shapes: dict[str, Any]) -> None:
        lines = list(randomisation_check(GradCAM(model, "features"), shapes["images"], 1).lines())
        assert len(lines) == 5
        assert lines[0].startswith("  fc ")

    def test_no_weights(self, shapes: dict[str, Any]) -> None:
        box = BlackBox(lambda images: images.mean(axis=(2, 3)))
        with pytest.raises(TypeError, match="The weights of <lambda> cannot be looked at"):
            randomisation_check(RISE(box, masks=4), shapes["images"])

    def test_several_targets(self, model: Any, shapes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="A sanity check has one class an image"):
            randomisation_check(GradCAM(model, "features"), shapes["images"], "top2")


class Colours(torch.nn.Module):
    """Four classes: how much there is of red, of green, of blue, and of black."""

    def forward(self, images: Any) -> Any:
        colours = torch.nn.functional.avg_pool2d(images, 2)
        maps = torch.cat([colours, (1 - colours.sum(dim=1, keepdim=True)).clamp(min=0)], dim=1)
        return 10 * maps.mean(dim=(2, 3))


def coloured(classes: list[int], side: int = 24) -> np.ndarray:
    images = np.zeros((len(classes), 3, side, side), dtype=np.float32)
    for number, chosen in enumerate(classes):
        if chosen < 3:
            images[number, chosen] = 1
    return images


class TestGridPointingGame:
    def own_cells(self, images: np.ndarray) -> np.ndarray:
        """Of mosaics of red, green, blue and black: nothing but the first cell."""
        return np.broadcast_to(cell_masks(2, 2, images.shape[2:])[0], (len(images), *images.shape[2:]))

    @pytest.mark.parametrize("shrink", [True, False])
    def test_by_hand(self, shrink: bool) -> None:
        seen: list[np.ndarray] = []

        def maps(images: np.ndarray) -> np.ndarray:
            seen.append(images)
            return self.own_cells(images)

        classes = [0, 1, 2, 3]
        found = grid_pointing_game(Given(Colours(), maps), coloured(classes), classes, shrink=shrink)
        assert found.members.tolist() == [[0, 1, 2, 3]]
        assert found.values.tolist() == [[1, 0, 0, 0]]
        side = 24 if shrink else 48
        assert seen[0].shape == (1, 3, side, side)
        half = side // 2
        corners = seen[0][0, :, [0, 0, half, half], [0, half, 0, half]]
        assert corners.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]

    def test_a_method_that_finds_the_class(self) -> None:
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 3, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        )
        model[0].weight.data = 10 * torch.eye(3)[:, :, None, None]
        classes = [0, 1, 2, 0, 2, 1]
        found = grid_pointing_game(GradCAM(model, "0"), coloured(classes), classes, rows=1, columns=3)
        assert found.members.tolist() == [[0, 1, 2], [3, 4, 5]]
        np.testing.assert_allclose(found.values, 1, atol=1e-6)

    def test_members_are_of_different_classes(self) -> None:
        assert _members(np.array([5, 5, 5, 7, 8, 7]), 2).tolist() == [[0, 3], [1, 4], [2, 5]]
        assert _members(np.array([5, 6, 5]), 2).tolist() == [[0, 1]]

    def test_too_few_classes(self) -> None:
        with pytest.raises(ValueError, match="4 images of different classes make a mosaic, and there are 2"):
            grid_pointing_game(Given(Colours(), perfect), coloured([0, 1, 0, 1]), [0, 1, 0, 1])

    def test_a_class_for_each(self) -> None:
        with pytest.raises(ValueError, match=r"Expected one class for each of 4 images, got \(3,\)"):
            grid_pointing_game(Given(Colours(), perfect), coloured([0, 1, 2, 3]), [0, 1, 2])
