from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM
from fusioncam_core.testing import AdapterContract

torch = pytest.importorskip("torch")


class TestTorch(AdapterContract):
    layer = "features.9"
    earlier_layer = "features.4"
    batch_sizes = (7, 64)

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        from torch_models import Shapes

        model = Shapes(weights, broken=broken).train()
        model.fc.weight.grad = torch.full_like(model.fc.weight, 3.0)
        return model

    def freeze(self, model: Any) -> Any:
        return model.requires_grad_(False)

    def state(self, model: Any) -> dict[str, Any]:
        from torch_models import module_state

        return module_state(model)

    def test_the_fusion_without_allowance_for_the_signed_weights(self, model: Any, shapes: dict[str, Any]) -> None:
        """The plain 1e-5 holds for every case whose weights are no more than twice the contributions they come from.

        The weights of cases 5 and 6, 22.4 and 5.6, enlarge the last bit of a convolution, in which processors differ.
        """
        explanation = FusionCAM(model, self.layer, contributions="signed", batch_size=8)(
            shapes["images"], shapes["target"]
        ).numpy()
        tame = np.abs(shapes["fusion_weights"]).max(axis=1) <= 2
        assert tame.sum() == 6
        np.testing.assert_allclose(explanation.parts["similarity"][tame], shapes["similarity"][tame], atol=1e-5)
        np.testing.assert_allclose(explanation.maps[tame], shapes["fusion_cam"][tame], atol=1e-5)
        weights = [explanation.weights[f"fusion_weight_{part}"] for part in ("union", "region")]
        np.testing.assert_allclose(np.stack(weights, axis=1)[tame], shapes["fusion_weights"][tame], atol=1e-5)
