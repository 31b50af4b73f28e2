from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contract import AdapterContract
from fusioncam_core import FusionCAM

torch = pytest.importorskip("torch")


class TestTorch(AdapterContract):
    layer = "features.9"

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

    def test_every_stage_without_allowance_for_the_signed_weights(self, model: Any, shapes: dict[str, Any]) -> None:
        """The golden vectors are PyTorch's own: the plain 1e-5 holds also where signed weights enlarge rounding."""
        explanation = FusionCAM(model, self.layer, contributions="signed", batch_size=8)(
            shapes["images"], shapes["target"]
        ).numpy()
        np.testing.assert_allclose(explanation.parts["similarity"], shapes["similarity"], atol=1e-5)
        np.testing.assert_allclose(explanation.maps, shapes["fusion_cam"], atol=1e-5)
        weights = [explanation.weights[f"fusion_weight_{part}"] for part in ("union", "region")]
        np.testing.assert_allclose(np.stack(weights, axis=1), shapes["fusion_weights"], atol=1e-5, rtol=1e-5)
