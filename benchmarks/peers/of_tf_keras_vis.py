"""tf-keras-vis, for Keras on TensorFlow.

Version 0.8.7 runs on Keras 3 as it is, from Functional models that return logits: its Score-CAM takes a softmax of
the outputs whatever they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Please import `zoom`", category=DeprecationWarning)
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.scores import CategoricalScore

EXACTLY = {"seek_penultimate_conv_layer": False}
"""The layer named, and not the last convolution before it, whose maps are not yet normalised and activated."""


def grad_cam(model: keras.Model, layer: str, images: np.ndarray, target: int) -> np.ndarray:
    """Grad-CAM's maps (B, H, W) of images (B, H, W, C), in [0, 1]."""
    return Gradcam(model)(CategoricalScore(target), images, penultimate_layer=layer, **EXACTLY)


def score_cam(model: keras.Model, layer: str, images: np.ndarray, target: int, batch_size: int) -> np.ndarray:
    """Score-CAM's maps (B, H, W) of images (B, H, W, C), in [0, 1].

    All masked images are made before the first is scored: B × channels × H × W × C numbers, several times over.
    """
    scorer = Scorecam(model)
    with _quietly():
        return scorer(CategoricalScore(target), images, penultimate_layer=layer, batch_size=batch_size, **EXACTLY)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Keras's progress bar, and without its warning that the one input comes as a list."""
    shown = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The structure of `inputs`", category=UserWarning)
            yield
    finally:
        if shown:
            keras.config.enable_interactive_logging()
