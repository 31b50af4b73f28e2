"""Small Keras models for tests, on whatever framework Keras runs on in this process."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from fusioncam_core.testing import BrokenModelError

SIZE = (48, 48, 3)


def need_channels_first() -> None:
    """Skip the test where this processor's kernels have channels last only, as TensorFlow's without oneDNN."""
    if keras.config.backend() != "tensorflow":
        return
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.zeros((1, 1, 4, 4)), tf.zeros((1, 1, 1, 1)), 1, "SAME", data_format="NCHW")
    except tf.errors.UnimplementedError:
        pytest.skip("TensorFlow has no convolution for channels-first images on this processor")


@keras.saving.register_keras_serializable("fusioncam_tests")
class Breaks(layers.Layer):
    def call(self, values: Any) -> Any:
        raise BrokenModelError

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def convolutions(data_format: str = "channels_last") -> list[layers.Layer]:
    """The trunk of the shapes network; its last layer is the explained one."""

    def convolution(number: int, filters: int, activation: str | None) -> layers.Layer:
        return layers.Conv2D(
            filters, 3, padding="same", activation=activation, data_format=data_format, name=f"conv{number}"
        )

    return [
        convolution(1, 16, "relu"),
        layers.MaxPooling2D(2, data_format=data_format, name="pool1"),
        convolution(2, 32, "relu"),
        layers.MaxPooling2D(2, data_format=data_format, name="pool2"),
        convolution(3, 48, "relu"),
        convolution(4, 48, None),
        layers.ReLU(name="relu4"),
    ]


def head(activation: str | None = None, *, broken: bool = False, data_format: str = "channels_last") -> list[Any]:
    """Pooling, something that breaks, dropout and the classifier."""
    between = [Breaks(name="breaks")] if broken else []
    pool = layers.GlobalAveragePooling2D(data_format=data_format, name="pool")
    return [pool, *between, layers.Dropout(0.5, seed=7, name="dropout"), layers.Dense(5, activation, name="fc")]


def sequential(*, size: tuple[int, ...] = SIZE, **keywords: Any) -> keras.Model:
    data_format = keywords.get("data_format", "channels_last")
    return keras.Sequential([keras.Input(size), *convolutions(data_format), *head(**keywords)], name="shapes")


def functional(*, size: tuple[int, ...] = SIZE, **keywords: Any) -> keras.Model:
    images = keras.Input(size, name="images")
    values = images
    for layer in [*convolutions(keywords.get("data_format", "channels_last")), *head(**keywords)]:
        values = layer(values)
    return keras.Model(images, values, name="shapes")


def nested(**keywords: Any) -> keras.Model:
    """A backbone inside a Sequential."""
    images = keras.Input(SIZE)
    values = images
    for layer in convolutions():
        values = layer(values)
    backbone = keras.Model(images, values, name="backbone")
    return keras.Sequential([keras.Input(SIZE), backbone, *head(**keywords)], name="shapes")


class Subclassed(keras.Model):
    """Layers as attributes, in a list and in a nested Sequential; `call` has no `training` argument."""

    def __init__(self, **keywords: Any):
        super().__init__(name="shapes")
        self.head = keras.Sequential(head(**keywords), name="head")
        self.stages = convolutions()

    def call(self, images: Any) -> Any:
        for stage in self.stages:
            images = stage(images)
        return self.head(images)


def subclassed(*, broken: bool = False, **keywords: Any) -> keras.Model:
    model = Subclassed(broken=broken, **keywords)
    if broken:
        for layer in [*model.stages, *model.head.layers]:
            layer.build(_built_for(layer.name))
        model.head.built = model.built = True
    else:
        model(np.zeros((1, *SIZE), dtype="float32"))
    return model


def _built_for(name: str) -> tuple[int | None, ...]:
    channels = {"conv1": 3, "conv2": 16, "conv3": 32, "conv4": 48}
    return (None, 48) if name in ("fc", "breaks", "dropout") else (None, None, None, channels.get(name, 48))


def load_shapes(model: keras.Model, weights: dict[str, np.ndarray]) -> keras.Model:
    """The model with the golden network's weights, given in PyTorch's layout."""
    for layer in _all_layers(model):
        if layer.name.startswith("conv"):
            kernel = weights[f"{layer.name}.weight"].transpose(2, 3, 1, 0)
            layer.set_weights([kernel, weights[f"{layer.name}.bias"]])
        elif layer.name == "fc":
            layer.set_weights([weights["fc.weight"].T, weights["fc.bias"]])
    return model


def _all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return model._flatten_layers(include_self=True, recursive=True)


def model_state(model: keras.Model) -> dict[str, Any]:
    """All that an explanation must leave as it was: each layer's attributes, variables (seeds too) and losses."""
    state: dict[str, Any] = {}
    for number, layer in enumerate(_all_layers(model)):
        name = f"{number} {layer.name}"
        state[f"{name} attributes"] = {key: id(value) for key, value in vars(layer).items()}
        state[f"{name} flags"] = (layer.built, layer.trainable, len(layer._losses))
    for number, variable in enumerate(model.variables):
        state[f"variable {number} {variable.path}"] = np.array(keras.ops.convert_to_numpy(variable.value))
        state[f"variable {number} object"] = (id(variable), id(variable.value), variable.trainable)
    return state
