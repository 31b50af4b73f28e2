"""What Keras models do on PyTorch alone: half precision without underflow, and parts run again for a backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, LayerCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores
from libraries import framework

keras = framework("keras")
if keras.config.backend() != "torch":
    pytest.skip("Keras runs on another framework in this process", allow_module_level=True)

layers = keras.layers


def image(*shape: int) -> Any:
    return np.random.Generator(np.random.PCG64(0)).random(shape, dtype=np.float32)


def pooled(policy: str) -> Any:
    """Smooth maps of 128 x 128, gated, and their means behind small weights."""
    keras.utils.set_random_seed(0)
    images = keras.Input((128, 128, 3))
    features = layers.Conv2D(6, 3, padding="same", activation="sigmoid", dtype=policy, name="maps")(images)
    gates = layers.Conv2D(6, 3, padding="same", activation="sigmoid", dtype=policy)(features)
    means = layers.GlobalAveragePooling2D(dtype=policy)(layers.Multiply(dtype=policy)([features, gates]))
    small = keras.initializers.RandomUniform(-0.01, 0.01, seed=1)
    return keras.Model(images, layers.Dense(3, kernel_initializer=small, dtype=policy)(means))


def test_gradients_that_float16_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    single, half = pooled("float32"), pooled("mixed_float16")
    images = image(1, 128, 128, 3)
    exact = LayerCAM(single, "maps")(images, 1).numpy().maps
    assert np.abs(LayerCAM(half, "maps")(images, 1).numpy().maps - exact).max() < 0.01
    gradients = [
        adapter.capture(adapter.as_array(images), ["maps"], ClassScores(), None).layers["maps"].gradients.numpy()
        for adapter in map(adapt_model, (half, single))
    ]
    np.testing.assert_allclose(gradients[0], gradients[1], atol=0.01 * np.abs(gradients[1]).max())
    monkeypatch.setattr("fusioncam_torch.dtypes.HALF_SCALES", (1.0,))
    assert np.abs(LayerCAM(half, "maps")(images, 1).numpy().maps - exact).max() > 0.02, "without a scale it is off"


@keras.saving.register_keras_serializable("fusioncam_tests")
class RunsAgain(layers.Layer):
    """A convolution in a part that keeps nothing for its backward pass, or does."""

    def __init__(self, again: bool) -> None:
        super().__init__(name="part")
        self.inner = layers.Conv2D(4, 3, padding="same", activation="relu", name="inner")
        self.again = again

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, values: Any) -> Any:
        return (keras.remat(self.inner) if self.again else self.inner)(values)


def test_layers_in_and_around_parts_that_run_again() -> None:
    def made(again: bool) -> Any:
        keras.utils.set_random_seed(0)
        images = keras.Input((12, 12, 3))
        features = RunsAgain(again)(layers.Conv2D(4, 3, padding="same", name="before")(images))
        return keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(features)))

    images = image(2, 12, 12, 3)
    plain, model = made(False), made(True)
    for layer in ("before", "part", "part/inner"):
        for method in (GradCAM, FusionCAM):
            maps, expected = (method(each, layer)(images, 1).numpy().maps for each in (model, plain))
            np.testing.assert_allclose(maps, expected, atol=1e-5)
