"""Score-CAM whose weights are the probabilities themselves: as a function of arrays, and on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core.explainers.region import ScoreCAM
from fusioncam_core.methods.score import score_cam
from libraries import Library, assert_close, framework

framework("torch")

from masked_network import SIZE, Network, live_channels  # noqa: E402


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def network(model: Any, shapes: dict[str, Any]) -> Network:
    return Network(model, shapes)


class TestScoreCAMOfProbabilities:
    def test_golden(self, eager: Library, network: Network, shapes: dict[str, Any]) -> None:
        activations = eager.asarray(shapes["activations"])

        def scorer(masks: Any, images: Any) -> Any:
            return eager.asarray(network.masked(masks, images, probability=True))

        maps = score_cam(activations, scorer, channel_weights="probability", size=SIZE)
        assert_close(maps, shapes["xplaincam_score_cam"], activations, atol=1e-5)

    def test_by_hand(self, eager: Library) -> None:
        activations = eager.asarray(np.array([[[2, 2, 6], [0, 10, 5], [3, 3, 3]]], dtype=np.float32))
        probabilities = {(0, 0, 1): 0.5, (0, 1, 0.5): 0.25, (0, 0, 0): 0.9}

        def scorer(masks: Any, images: Any) -> Any:
            found = [probabilities[tuple(mask.tolist())] for mask in np.asarray(masks)]
            return eager.asarray(np.array(found, dtype=np.float32))

        # 0.5 (0, 0, 1) + 0.25 (0, 1, 0.5), and the constant channel's mask adds nothing.
        expected = np.array([[0, 0.25, 0.625]]) / 0.625
        assert_close(score_cam(activations, scorer, channel_weights="probability"), expected, activations)

    def test_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = ScoreCAM(model, channel_weights="probability")(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["xplaincam_score_cam"], atol=1e-4)
        assert explanation.evaluations == 8 + live_channels(shapes), "no black mask: it could not matter"

    @pytest.mark.parametrize("make", [lambda word: score_cam(np.ones((1, 1, 2)), max, channel_weights=word)])
    def test_another_word(self, model: Any, make: Callable[[str], Any]) -> None:
        with pytest.raises(ValueError, match="'softmax', 'probability' or 'regression': got 'logit'"):
            make("logit")
        with pytest.raises(ValueError, match="'softmax', 'probability' or 'regression': got 'logit'"):
            ScoreCAM(model, channel_weights="logit")
