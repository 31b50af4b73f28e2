"""A user's word on the channels that the measurement contradicts: it holds, with a warning, on every backend."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import pytest

from fusioncam_core import GradCAM, InvalidValueError
from fusioncam_core.errors import EvidenceWarning
from libraries import framework

IMAGES = np.random.default_rng(0).normal(size=(1, 20, 24, 3)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 6)).astype(np.float32)
HEAD = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)


def on_torch() -> Any:
    torch = framework("torch")

    class Last(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = torch.nn.Conv2d(3, 6, 3, padding=1)
            self.features.weight.data = torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy())

        def forward(self, images: Any) -> Any:
            return self.features(images.movedim(-1, 1)).relu().mean((2, 3)) @ torch.from_numpy(HEAD)

    return Last()


def on_tensorflow() -> Any:
    tf = framework("tensorflow")

    def features(images: Any) -> Any:
        return tf.nn.relu(tf.nn.conv2d(images, tf.constant(KERNEL), 1, "SAME"))

    return features, lambda activations: tf.reduce_mean(activations, (1, 2)) @ tf.constant(HEAD)


def on_jax() -> Any:
    jax = framework("jax")

    def features(images: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(jax.lax.conv_general_dilated(images, KERNEL, (1, 1), "SAME", dimension_numbers=layout))

    return features, lambda activations: activations.mean((1, 2)) @ HEAD


@pytest.mark.parametrize(
    ("make", "options"),
    [(on_torch, {}), (on_tensorflow, {"framework": "tensorflow"}), (on_jax, {"framework": "jax"})],
    ids=["torch", "tensorflow", "jax"],
)
def test_a_wrong_word_is_warned_of_and_a_right_one_is_not(make: Any, options: dict[str, Any]) -> None:
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error", EvidenceWarning)
        assert GradCAM(model, backend_options={"channels": "last", **options})(IMAGES, 1).maps.shape == (1, 20, 24)
    warned = pytest.warns(EvidenceWarning, match="axis 1. By what was measured they are in axis 3")
    with warned, contextlib.suppress(InvalidValueError):  # where no layer has space along the axes that were told
        GradCAM(model, backend_options={"channels": "first", **options})(IMAGES, 1)
