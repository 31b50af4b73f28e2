"""The golden network in plain TensorFlow, as two functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fusioncam_core.testing import BrokenModelError


class Features(tf.Module):
    """Convolutions to 48 maps of 12 x 12; counts its runs in training in a variable that is not trained."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__(name="features")
        self.kernels = [tf.Variable(weights[f"conv{i}.weight"].transpose(2, 3, 1, 0)) for i in (1, 2, 3, 4)]
        self.biases = [tf.Variable(weights[f"conv{i}.bias"]) for i in (1, 2, 3, 4)]
        self.runs = tf.Variable(0, trainable=False)

    def __call__(self, images: Any, training: bool = True) -> Any:
        if training:
            raise AssertionError("training is switched off for an explanation")
        self.runs.assign_add(1)
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            images = tf.nn.relu(tf.nn.conv2d(images, kernel, strides=1, padding="SAME") + bias)
            if number < 2:
                images = tf.nn.max_pool2d(images, 2, strides=2, padding="VALID")
        return images


class Head(tf.Module):
    """The mean over space and one dense layer."""

    def __init__(self, weights: dict[str, np.ndarray], *, broken: bool = False):
        super().__init__(name="head")
        self.broken = broken
        self.weight = tf.Variable(weights["fc.weight"].T)
        self.bias = tf.Variable(weights["fc.bias"])

    def __call__(self, activations: Any) -> Any:
        if self.broken:
            raise BrokenModelError
        return tf.reduce_mean(activations, axis=(1, 2)) @ self.weight + self.bias


def pair_state(pair: tuple[Features, Head]) -> dict[str, Any]:
    """All that an explanation must leave as it was."""
    state: dict[str, Any] = {}
    for module in pair:
        state[f"{module.name} attributes"] = {name: id(value) for name, value in vars(module).items()}
        for number, variable in enumerate(module.variables):
            state[f"{module.name} variable {number}"] = variable.numpy()
    return state
