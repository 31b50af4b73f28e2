from __future__ import annotations

from typing import Any

import pytest

from contract import AdapterContract

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
