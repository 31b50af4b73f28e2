"""Score-CAM whose map is a ridge regression of scores on masks: as a function of arrays, and end to end on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import ScoreCAM, score_cam
from fusioncam_core.methods.score import RIDGE, _ridge
from libraries import Library, assert_close, framework


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    framework("torch")
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestRegression:
    def scorer(self, library: Library, found: Callable[[np.ndarray], float]) -> Any:
        def scorer(masks: Any, images: Any) -> Any:
            return library.asarray(np.array([found(mask) for mask in np.asarray(masks)], dtype=np.float32))

        return scorer

    def test_by_hand(self, library: Library) -> None:
        activations = library.asarray(np.array([[[0, 4, 2], [0, 0, 3], [7, 7, 7]]], dtype=np.float32))
        # Masks (0, 1, .5) and (0, 0, 1), which leave .3 and .2 above black: minimise the squares of what is not
        # explained, and of the coefficients, times two masks and their mean variance, (0 + 1/4 + 1/16) / 3.
        held = 2 * (1 / 4 + 1 / 16) / 3
        gram = np.array([[1 + held, 0.5], [0.5, 1.25 + held]])
        middle, right = np.linalg.solve(gram, [0.3, 0.5 * 0.3 + 0.2])
        expected = np.array([[0, middle, right]]) / max(middle, right)
        scorer = self.scorer(library, lambda mask: 0.1 + {0: 0, 1.5: 0.3, 1: 0.2}[float(mask.sum())])
        assert_close(score_cam(activations, scorer, channel_weights="regression"), expected, activations, atol=1e-6)

    def test_overlapping_masks_share_what_they_found(self, library: Library) -> None:
        """The left pixel is all that counts; three masks of four show the right one with it."""
        activations = library.asarray(np.array([[[0, 1, 1], [0, 1, 0.9], [0, 1, 0.8], [0, 0, 1]]], dtype=np.float32))
        scorer = self.scorer(library, lambda mask: 0.5 + 0.4 * float(mask[1]))
        left, right = np.asarray(score_cam(activations, scorer, channel_weights="regression"))[0, 1:]
        others = np.asarray(score_cam(activations, scorer, channel_weights="probability"))[0, 1:]
        assert left == pytest.approx(1)
        assert right < 0.6 < others[1]

    def test_masks_that_do_not_differ(self, library: Library) -> None:
        activations = library.asarray(np.array([[[0, 1, 3], [0, 2, 6], [1, 1, 1]]], dtype=np.float32))
        scorer = self.scorer(library, lambda mask: float(mask.mean()))
        expected = np.array([[0, 1 / 3, 1]])
        assert_close(score_cam(activations, scorer, channel_weights="regression"), expected, activations, atol=1e-5)

    def test_constant_channels_have_an_empty_map(self, library: Library) -> None:
        activations = library.asarray(np.ones((1, 2, 3), dtype=np.float32))
        maps = score_cam(activations, self.scorer(library, lambda mask: 1.0), channel_weights="regression")
        assert_close(maps, np.zeros((1, 3)), activations)

    @pytest.mark.parametrize("channels", [4, 40])
    def test_either_side_is_solved_alike(self, channels: int) -> None:
        generator = np.random.default_rng(0)
        masks, increases = generator.random((channels, 12)), generator.random((channels, 2))
        held = RIDGE * channels * masks.var(axis=0).mean()
        expected = np.linalg.solve(masks.T @ masks + held * np.eye(12), masks.T @ increases).T
        np.testing.assert_allclose(_ridge(masks, increases), expected, rtol=1e-10)

    def test_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = ScoreCAM(model, channel_weights="regression")
        explanation = cam(shapes["images"], shapes["target"])
        live = np.ptp(shapes["activations"], axis=(2, 3)) > 0
        assert explanation.evaluations == 8 + live.sum() + 2, "one black image for each group of four"
        together = cam(shapes["images"][:2], [[0, 3], [1, 2]]).maps.numpy()
        for column, targets in enumerate(([0, 1], [3, 2])):
            alone = cam(shapes["images"][:2], targets).maps.numpy()
            np.testing.assert_allclose(together[:, column], alone, atol=1e-5)

    def test_a_budget_is_kept(self, model: Any, shapes: dict[str, Any]) -> None:
        exact = ScoreCAM(model, channel_weights="regression")(shapes["images"], shapes["target"]).numpy()
        fewer = ScoreCAM(model, channel_weights="regression", budget=24)(shapes["images"], shapes["target"]).numpy()
        assert fewer.masks_run.max() <= 24
        for one, other in zip(exact.maps, fewer.maps, strict=True):
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8
