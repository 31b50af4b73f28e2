"""Trained parameters into a Keras model whose layers have the checkpoint's names."""

import keras
import numpy as np
from keras import layers

from examples.zoo.fashion_networks import layer_parameters

_ORDER = ("weight", "bias", "running_mean", "running_var", "class_token", "positions")
"""Of any layer's parameters in `layer.get_weights()`."""


def set_parameters(model: keras.Model, network: str) -> None:
    """Fill the layers, `block_3_mlp_norm` from the checkpoint's `blocks.3.mlp_norm`.

    Raises:
        ValueError: a layer is absent, or its weights have other shapes.
    """
    for name, parameters in layer_parameters(network).items():
        layer: layers.Layer = model.get_layer(name.replace("blocks.", "block_").replace(".", "_"))
        layer.set_weights(_in_order(parameters))


def _in_order(parameters: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [parameters[name] for name in _ORDER if name in parameters]
