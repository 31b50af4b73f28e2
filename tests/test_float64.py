"""Models in float64 are explained in float64, end to end, and so are arrays."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import fusioncam_core as core
from fusioncam_core import FusionCAM, GradCAM, GroupCAM, ScoreCAM, adapt_model
from fusioncam_core.arrays.namespaces import to_numpy
from libraries import framework

# Which of these random maps are empty does not matter.
pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning")

RANDOM = np.random.default_rng(5)

KERNEL = RANDOM.normal(size=(3, 3, 3, 4)) + 0.5
"""(height, width, in, out), so that most of what it makes of images is positive."""

HEAD = RANDOM.normal(size=(4, 3))

IMAGES = RANDOM.random((2, 8, 10, 3))

TARGETS = np.array([1, 2])

METHODS = [GradCAM, ScoreCAM, GroupCAM, FusionCAM]


def convolved() -> np.ndarray:
    """(2, 6, 8, 4) what the convolution makes of the images, in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), axis=(1, 2))
    return np.einsum("nijchw,hwco->nijo", windows, KERNEL)


def raw_grad_cam() -> np.ndarray:
    """(2, 6, 8) the weights of each target times the convolution's output, whose gradients are one 48th of them."""
    return np.einsum("nijo,no->nij", convolved(), HEAD[:, TARGETS].T) / 48


def assert_in_float64(model: Any, layer: Any, images: np.ndarray, tolerance: float = 1e-11) -> None:
    """Every method of the model keeps the dtype, and the raw Grad-CAM is that of NumPy in float64."""
    raw = GradCAM(model, layer, relu=False, normalised=False, size="layer")(images, TARGETS)
    # The sums of float32 differ by 1e-7.
    np.testing.assert_allclose(to_numpy(raw.maps), raw_grad_cam(), rtol=tolerance, atol=tolerance / 100)
    for method in METHODS:
        explanation = method(model, layer)(images, TARGETS).numpy()
        arrays = {"maps": explanation.maps, "scores": explanation.scores, "raw_range": explanation.raw_range}
        for name, each in {**arrays, **explanation.parts, **explanation.weights}.items():
            assert each.dtype == np.float64, (method.name, name)


def double() -> Any:
    """A context in which JAX has float64."""
    jax = framework("jax")
    return (
        jax.enable_x64(True) if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64()
    )


def channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def test_torch() -> None:
    torch = framework("torch")
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, False))
    weights = {"0.weight": torch.from_numpy(KERNEL.transpose(3, 2, 0, 1)), "3.weight": torch.from_numpy(HEAD.T)}
    model.double().load_state_dict(weights)
    assert_in_float64(model, "0", channels_first(IMAGES))


def test_torch_with_scores_in_float32() -> None:
    """What maps are made of has one dtype, that of the scores."""
    torch = framework("torch")
    nn = torch.nn

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).double()
            self.fc = nn.Linear(4, 3).double()
            self.to = torch.float32

        def forward(self, images: Any) -> Any:
            return self.fc(self.conv(images).mean(dim=(2, 3))).to(self.to)

    torch.manual_seed(0)
    model = Mixed()
    for dtype in (torch.float32, torch.float64):
        model.to = dtype
        for method in METHODS:
            assert method(model, "conv")(channels_first(IMAGES), TARGETS).maps.dtype == dtype


def test_tensorflow() -> None:
    tf = framework("tensorflow")
    kernel, head = tf.Variable(KERNEL), tf.Variable(HEAD)

    class Features(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = kernel

        def __call__(self, images: Any) -> Any:
            return tf.nn.conv2d(images, self.kernel, 1, "VALID")

    class Head(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = head

        def __call__(self, activations: Any) -> Any:
            return tf.reduce_mean(activations, axis=(1, 2)) @ self.weights

    assert_in_float64((Features(), Head()), "features", IMAGES)


def test_jax() -> None:
    jax = framework("jax")
    with double():
        from fusioncam_jax import tap

        weights = {"kernel": jax.numpy.asarray(KERNEL), "head": jax.numpy.asarray(HEAD)}

        def apply(weights: Any, images: Any) -> Any:
            form = ("NHWC", "HWIO", "NHWC")
            values = jax.lax.conv_general_dilated(images, weights["kernel"], (1, 1), "VALID", dimension_numbers=form)
            return tap("conv", values).mean(axis=(1, 2)) @ weights["head"]

        assert_in_float64((apply, weights), "conv", IMAGES)


def test_keras() -> None:
    keras = framework("keras")
    layers, kind = keras.layers, {"dtype": "float64"}

    def explained() -> None:
        model = keras.Sequential(
            [
                keras.Input((8, 10, 3), **kind),
                layers.Conv2D(4, 3, use_bias=False, name="conv", **kind),
                # Keras's Dense gives float32 on PyTorch, also in float64.
                layers.Conv2D(3, 1, use_bias=False, **kind),
                layers.GlobalAveragePooling2D(**kind),
            ]
        )
        model.set_weights([KERNEL, HEAD[None, None]])
        # On JAX and PyTorch outputs of the model itself are off by 1e-6: Keras's pooling rounds.
        tolerance = 1e-11 if keras.config.backend() == "tensorflow" else 1e-5
        assert_in_float64(model, "conv", IMAGES, tolerance)

    if keras.config.backend() == "jax":
        with double():
            explained()
    else:
        explained()


def test_a_black_box() -> None:
    def model(images: np.ndarray) -> np.ndarray:
        return np.asarray(images.mean(axis=(1, 2)) @ HEAD[:3])

    box = core.BlackBox(model, like=np.zeros((), dtype=np.float64))
    found = core.RISE(adapt_model(box), masks=9)(IMAGES, TARGETS)
    assert found.maps.dtype == found.raw_range.dtype == np.float64


@pytest.mark.parametrize("options", [{}, {"relu": False}, {"normalised": False}, {"relu": False, "size": (5, 4)}])
def test_functions_of_arrays(options: dict[str, Any]) -> None:
    activations = np.moveaxis(convolved(), -1, 1)
    gradients = np.broadcast_to((HEAD[:, TARGETS].T / 48)[..., None, None], activations.shape)
    for function in (core.grad_cam, core.grad_cam_plus_plus, core.eigengrad_cam, core.xgrad_cam, core.hires_cam):
        assert function(activations, gradients, **options).dtype == np.float64

    def scorer(masks: np.ndarray, images: np.ndarray) -> np.ndarray:
        return masks.mean(axis=(1, 2))

    for masked in (core.score_cam(activations, scorer, **options), core.is_cam(activations, scorer, **options)):
        assert masked.dtype == np.float64
    raw = core.grad_cam(activations, gradients, relu=False, normalised=False)
    np.testing.assert_allclose(raw, raw_grad_cam(), rtol=1e-12, atol=1e-14)
