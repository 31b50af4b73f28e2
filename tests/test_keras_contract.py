"""The contract over Keras models, on the framework that Keras runs on in this process (KERAS_BACKEND)."""

from __future__ import annotations

from typing import Any

import pytest

from fusioncam_core.testing import AdapterContract
from libraries import EVERYTHING, framework

keras = framework("keras")
# TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class KerasContract(AdapterContract):
    layer = "relu4"
    earlier_layer = "conv2"
    channels = "last"
    # The frameworks' convolutions of channels-last images differ from PyTorch's by 2e-6 in a logit.
    signed_tolerance = 3e-5
    traces_once = keras.config.backend() != "torch"
    batch_sizes = (7, 64) if EVERYTHING else (7,)

    def make(self, *, broken: bool) -> Any:
        raise NotImplementedError

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        from keras_models import load_shapes

        return load_shapes(self.make(broken=broken), weights)

    def freeze(self, model: Any) -> Any:
        model.trainable = False
        return model

    def state(self, model: Any) -> dict[str, Any]:
        from keras_models import model_state

        return model_state(model)


class TestFunctional(KerasContract):
    def make(self, *, broken: bool) -> Any:
        from keras_models import functional

        return functional(broken=broken)


class TestSequentialWithSoftmax(KerasContract):
    """The logits behind the softmax are the golden ones."""

    def make(self, *, broken: bool) -> Any:
        from keras_models import sequential

        return sequential(broken=broken, activation="softmax")


class TestSubclassedWithoutTrainingArgument(KerasContract):
    def make(self, *, broken: bool) -> Any:
        from keras_models import subclassed

        return subclassed(broken=broken, activation="softmax")


class TestNestedBackbone(KerasContract):
    layer = "backbone/relu4"
    earlier_layer = "backbone/conv2"

    def make(self, *, broken: bool) -> Any:
        from keras_models import nested

        return nested(broken=broken)
