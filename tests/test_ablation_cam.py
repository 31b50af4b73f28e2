"""Ablation-CAM: as a function of arrays, and on PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.words import normalise, resize
from fusioncam_core.explainers.region import AblationCAM
from fusioncam_core.methods.ablation import ablation_cam
from libraries import Library, assert_close

torch = pytest.importorskip("torch")

SIZE = (48, 48)


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestAblationCAM:
    ACTIVATIONS = np.array([[[1, 0, 0], [0, 2, 0], [0, 0, 5]]], dtype=np.float32)

    @pytest.mark.parametrize("score", [3.0, -3.0])
    def test_by_hand(self, eager: Library, score: float) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        ablated = eager.asarray(np.array([[score - 2, score - 0.5, score + 1]], dtype=np.float32))
        # Drops 2, 1/2 and -1: (2, 1, relu(-5)); a negative logit does not turn evidence round.
        maps = ablation_cam(activations, eager.asarray(np.array([score], dtype=np.float32)), ablated)
        assert_close(maps, [[1, 0.5, 0]], activations)

    def test_several_targets(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        scores = eager.asarray(np.array([[1, 2]], dtype=np.float32))
        ablated = eager.asarray(np.array([[[0, 1, 1], [2, 2, 1]]], dtype=np.float32))
        assert_close(ablation_cam(activations, scores, ablated), [[[1, 0, 0], [0, 0, 1]]], activations)

    def test_equals_grad_cam_before_a_global_mean(self, model: Any, shapes: dict[str, Any]) -> None:
        # The head is linear in the channels' means: a channel's drop is its weight times its mean, by which HiResCAM
        # would weigh it; here the map is sum_k drop_k A_k, computed from the arrays.
        means = shapes["activations"].mean(axis=(2, 3))
        drops = shapes["gradients"].sum(axis=(2, 3)) * means
        expected = np.maximum(np.einsum("bk,bkij->bij", drops, shapes["activations"]), 0)
        expected = normalise(resize(expected, SIZE))
        explanation = AblationCAM(model)(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), expected, atol=1e-4)

    def test_channels_that_are_zero_are_not_run(self, model: Any, shapes: dict[str, Any]) -> None:
        live = int((shapes["activations"] != 0).any(axis=(2, 3)).sum())
        assert live < 8 * 48
        ran: list[int] = []
        AblationCAM(model, "features").layers(shapes["images"])  # what is measured of the layer is kept
        model.register_forward_hook(lambda module, inputs, outputs: ran.append(len(inputs[0])))
        explanation = AblationCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        assert explanation.evaluations == 8 + live == sum(ran)
        assert max(ran) == 8

    def test_layer_that_runs_twice(self) -> None:
        class Twice(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.twofold = torch.nn.Conv2d(2, 2, 1, bias=False)
                self.twofold.weight.data = 2 * torch.eye(2)[:, :, None, None]

            def forward(self, images: Any) -> Any:
                return self.twofold(self.twofold(images)).sum(dim=(2, 3))

        images = np.zeros((1, 2, 2, 2), dtype=np.float32)
        images[0, 0, 0, 0] = images[0, 1, 1, 1] = 1
        explanation = AblationCAM(Twice(), "twofold")(images, 1)
        assert explanation.maps.numpy().tolist() == [[[0, 0], [0, 1]]]
        assert explanation.evaluations == 1 + 2

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"scores have shape \(2,\) and ablated scores \(1, 3\)"):
            ablation_cam(self.ACTIVATIONS, np.zeros(2, np.float32), np.zeros((1, 3), np.float32))

    def test_tokens(self) -> None:
        class Tokens(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.patches = torch.nn.Conv2d(3, 8, 4, stride=4)
                self.block = torch.nn.Linear(8, 8)
                self.head = torch.nn.Linear(8, 3)

            def forward(self, images: Any) -> Any:
                tokens = self.patches(images).flatten(2).transpose(1, 2)
                tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
                return self.head(self.block(tokens).relu().mean(dim=1))

        torch.manual_seed(0)
        network, images = Tokens(), np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
        explanation = AblationCAM(network, "block")(images)
        assert explanation.maps.shape == (2, 16, 16)
        assert explanation.evaluations == 2 + 2 * 8
        own = AblationCAM(network, "block", reshape=lambda tokens: tokens[:, 1:].mT.unflatten(-1, (4, 4)))(images)
        np.testing.assert_array_equal(own.maps.numpy(), explanation.maps.numpy())
        half = AblationCAM(network, "block", reshape=lambda tokens: tokens[:, 1:, :4].mT.unflatten(-1, (4, 4)))
        with pytest.raises(ValueError, match=r"shape \(2, 17, 8\), and which of its axes holds the 4 channels"):
            half(images)
