"""ResNet8 for Keras 3 on any backend: `python:examples.zoo.resnet8_keras:load`."""

from typing import Any

import keras
from keras import layers

from examples.zoo.fashion_mnist import IMAGE_SIZE, class_names, preprocessing
from examples.zoo.fashion_networks import BATCH_NORM_EPSILON, CLASSES, RESNET8, STAGES, STEM_CHANNELS, Stage
from examples.zoo.keras_parameters import set_parameters
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 28, 28, 1)."""
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=RESNET8)


def build() -> keras.Model:
    """The bare network, a Functional model: (batch, 28, 28, 1) in, (batch, 10) logits out.

    `stage1_relu2` gives 16 maps of 28 x 28, `stage2_relu2` 32 maps of 14 x 14 and `stage3_relu2` 64 maps of 7 x 7.
    """
    model = _network()
    set_parameters(model, RESNET8)
    return model


def _network() -> keras.Model:
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="image")
    x = _norm("stem_norm", _conv("stem_conv", image, STEM_CHANNELS, 3))
    x = layers.ReLU(name="stem_relu")(x)
    for name, stage in STAGES.items():
        x = _block(name, x, stage)
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="average_pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="classifier")(x), name="resnet8")


def _block(name: str, inputs: Any, stage: Stage) -> Any:
    x = _norm(f"{name}_norm1", _conv(f"{name}_conv1", inputs, stage.channels_out, 3, stage.stride))
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _norm(f"{name}_norm2", _conv(f"{name}_conv2", x, stage.channels_out, 3))
    shortcut = inputs
    if stage.resizes:
        shortcut = _conv(f"{name}_shortcut_conv", inputs, stage.channels_out, 1, stage.stride)
        shortcut = _norm(f"{name}_shortcut_norm", shortcut)
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _conv(name: str, x: Any, channels: int, kernel: int, strides: int = 1) -> Any:
    if kernel > 1:  # padding="same" would pad one side only where a stride leaves no need for the other
        x = layers.ZeroPadding2D(kernel // 2, data_format="channels_last", name=f"{name}_padding")(x)
    conv = layers.Conv2D(channels, kernel, strides, data_format="channels_last", use_bias=False, name=name)
    return conv(x)


def _norm(name: str, x: Any) -> Any:
    return layers.BatchNormalization(axis=-1, epsilon=BATCH_NORM_EPSILON, name=name)(x)
