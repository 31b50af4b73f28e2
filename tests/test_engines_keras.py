"""Engines for Keras, on whatever framework it runs on, and for TensorFlow's pairs of functions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from engine_names import METHODS, NEAR, assert_same_maps, engines, registered_engines
from fusioncam_core import ScoreCAM
from fusioncam_core.errors import InvalidValueError
from libraries import framework

keras = framework("keras")
if keras.config.backend() not in ("tensorflow", "torch", "jax"):
    pytest.skip("a backend without gradients", allow_module_level=True)

from keras import layers  # noqa: E402

WRITERS = {"tensorflow": "tf2onnx", "torch": "onnxscript", "jax": "jax2onnx"}
if keras.config.backend() == "jax":
    pytest.importorskip("jax2onnx")

ENGINES = engines(WRITERS[keras.config.backend()])

pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]

IMAGES = np.random.default_rng(0).random((2, 16, 16, 3), dtype=np.float32)


@functools.cache
def convolutions(activation: str | None = None) -> Any:
    keras.utils.set_random_seed(3)
    parts = [
        layers.Conv2D(8, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(12, 3, 2, activation="relu", name="features"),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.5),
        layers.Dense(5, activation),
    ]
    model = keras.Sequential([keras.Input((16, 16, 3)), *parts])
    model.layers[1].moving_mean.assign(np.linspace(-0.2, 0.2, 8))
    return model


@ENGINES
@METHODS
def test_maps_are_the_frameworks(name: str, method: Any, options: dict[str, Any]) -> None:
    assert_same_maps(method, convolutions(), IMAGES, engine=name, **options)


@ENGINES
def test_an_ending_is_left_out_as_ever(name: str) -> None:
    assert_same_maps(ScoreCAM, convolutions("softmax"), IMAGES, layer="features", engine=name)


@ENGINES
def test_weights_that_changed_are_converted_anew(name: str) -> None:
    model = convolutions()
    cam = ScoreCAM(model, "features", engine=name)
    before = cam(IMAGES, 1).numpy().maps
    kernel = model.layers[0].kernel
    kernel.assign(-kernel)
    try:
        after = cam(IMAGES, 1).numpy().maps
        expected = ScoreCAM(model, "features")(IMAGES, 1).numpy().maps
    finally:
        kernel.assign(-kernel)
    np.testing.assert_allclose(after, expected, rtol=0, atol=NEAR)
    assert np.abs(after - before).max() > 0.1


@ENGINES
def test_float64_is_refused(name: str) -> None:
    if keras.config.backend() == "jax":
        pytest.skip("JAX has float64 where a variable of the environment says so")
    double = keras.Sequential(
        [
            keras.Input((16, 16, 3), dtype="float64"),
            layers.Conv2D(4, 3, dtype="float64"),
            layers.GlobalAveragePooling2D(dtype="float64"),
            layers.Dense(3, dtype="float64"),
        ]
    )
    with pytest.raises(InvalidValueError, match="the model's are in float64"):
        ScoreCAM(double, engine=name)(IMAGES, 0)


@ENGINES
def test_a_pair_of_functions(name: str) -> None:
    if keras.config.backend() != "tensorflow":
        pytest.skip("of TensorFlow's functions")
    tf = framework("tensorflow")
    generator = np.random.default_rng(0)
    kernel = tf.Variable(generator.normal(size=(3, 3, 3, 8)).astype(np.float32))
    weights = tf.Variable(generator.normal(size=(8, 4)).astype(np.float32))

    class Features(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = kernel

        def __call__(self, images: Any) -> Any:
            return tf.nn.relu(tf.nn.conv2d(images, self.kernel, 1, "SAME"))

    class Head(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = weights

        def __call__(self, values: Any) -> Any:
            return tf.reduce_mean(values, axis=(1, 2)) @ self.weights

    assert_same_maps(ScoreCAM, (Features(), Head()), IMAGES, engine=name)
