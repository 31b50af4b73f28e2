from __future__ import annotations

from typing import Any

import pytest

from fusioncam_core.testing import AdapterContract
from libraries import EVERYTHING, framework

pytest.importorskip("jax")


class JaxContract(AdapterContract):
    # XLA's convolutions sum in another order than those of the golden vectors. The probabilities differ by 1e-6 for
    # it, which the signed weights of case 2 enlarge to 2e-5 of the fused map; all stages before it keep to 1e-5.
    signed_tolerance = 3e-5
    traces_once = True
    batch_sizes = (7, 64) if EVERYTHING else (7,)
    channels = "last"

    def state(self, model: Any) -> dict[str, Any]:
        from jax_models import arrays_of

        return arrays_of(model)


class TestNnx(JaxContract):
    layer = "blocks[3]"
    earlier_layer = "blocks[1]"

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        framework("flax")
        from nnx_models import Shapes

        return Shapes(weights, broken=broken)

    def state(self, model: Any) -> dict[str, Any]:
        from nnx_models import module_state

        return module_state(model)


class TestLinen(JaxContract):
    layer = "Block_3"
    earlier_layer = "Block_1"

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        framework("flax")
        from linen_models import build

        return build(weights, broken=broken)


class TestEquinox(JaxContract):
    layer = "layers[9]"
    earlier_layer = "layers[4]"
    channels = "first"

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        framework("equinox")
        from equinox_models import Shapes

        return Shapes(weights, broken=broken)


class TestTappedFunction(JaxContract):
    """`apply(parameters, images)` with a tap behind each ReLU."""

    layer = "conv4"
    earlier_layer = "conv2"

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        from jax_models import tapped_function

        return tapped_function(weights, broken=broken)


class TestPairOfFunctions(JaxContract):
    layer = "features"

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        from jax_models import pair_of_functions

        return pair_of_functions(weights, broken=broken)
