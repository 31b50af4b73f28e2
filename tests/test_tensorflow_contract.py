from __future__ import annotations

from typing import Any

import pytest

from fusioncam_core.models.digest import shows_weights, weights_digest
from fusioncam_core.testing import AdapterContract
from libraries import EVERYTHING, framework

framework("tensorflow")


class TestPairOfModules(AdapterContract):
    layer = "features"
    channels = "last"
    # TensorFlow's convolutions of channels-last images differ from PyTorch's by 2e-6 in a logit.
    signed_tolerance = 3e-5
    traces_once = True
    batch_sizes = (7, 64) if EVERYTHING else (7,)

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        from tensorflow_models import Features, Head

        return Features(weights), Head(weights, broken=broken)

    def state(self, model: Any) -> dict[str, Any]:
        from tensorflow_models import pair_state

        return pair_state(model)


class TestPairOfFunctions(TestPairOfModules):
    """A compiled function and a plain one."""

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        import tensorflow as tf

        features, head = super().build(weights, broken=broken)
        return tf.function(lambda images: features(images, training=False)), lambda activations: head(activations)

    def state(self, model: Any) -> dict[str, Any]:
        return {}  # functions that close over modules do not show them

    def test_all_weights_are_listed(self, model: Any, shapes_weights: dict[str, Any]) -> None:
        assert self.adapter(model).weights() == {}

    def test_other_weights_for_a_while(self, model: Any, shapes: dict[str, Any]) -> None:
        """There are none to change."""

    def test_a_digest_tells_weights_apart(self, model: Any) -> None:
        """There are none to digest, and none are said to have been."""
        assert not shows_weights(self.adapter(model))
        with pytest.raises(TypeError, match="Expected a model that shows its weights for weights_digest=True"):
            weights_digest(self.adapter(model))


class TestPairOnXLA(TestPairOfModules):
    options = {"jit_compile": True}  # noqa: RUF012 - read only
