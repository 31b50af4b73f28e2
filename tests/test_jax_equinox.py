"""What only Equinox models do: one image at a time, layers by a function, state."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
jnp = jax.numpy

IMAGES = np.random.default_rng(0).random((2, 3, 12, 10), dtype=np.float32)
KEY = jax.random.key(0)


class Stateful(eqx.Module):
    """Batch norms and dropout in train mode; the key is required and split."""

    conv: eqx.nn.Conv2d
    sequence: eqx.nn.Sequential
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self) -> None:
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=KEY)
        norm = eqx.nn.BatchNorm(4, "batch", mode="ema")
        self.sequence = eqx.nn.Sequential([norm, eqx.nn.Conv2d(4, 4, 3, key=KEY), eqx.nn.Lambda(jax.nn.relu)])
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 3, key=KEY)

    def __call__(self, image: Any, state: Any, key: Any) -> tuple[Any, Any]:
        key, _ = jax.random.split(key)
        values, state = self.sequence(self.conv(image), state)
        return self.head(self.dropout(values, key=key).mean(axis=(1, 2))), state


@pytest.fixture
def stateful() -> tuple[Stateful, Any]:
    model, state = eqx.nn.make_with_state(Stateful)()
    statistics = (jnp.arange(4.0), jnp.arange(1.0, 5.0))
    return model, state.set(model.sequence[0].ema_state_index, statistics)


@pytest.fixture
def plain(shapes_weights: dict[str, Any]) -> Any:
    from equinox_models import Shapes

    return Shapes(shapes_weights)


def test_running_averages_and_no_dropout(stateful: tuple[Stateful, Any]) -> None:
    model, state = stateful
    values = jax.vmap(model.conv)(IMAGES)
    mean, variance = np.arange(4.0).reshape(4, 1, 1), np.arange(1.0, 5.0).reshape(4, 1, 1)
    values = jax.nn.relu(jax.vmap(model.sequence[1])((values - mean) / np.sqrt(variance + 1e-5)))
    expected = jax.vmap(model.head)(values.mean(axis=(2, 3)))
    adapter = adapt_model((model, state))
    capture = adapter.capture(jnp.asarray(IMAGES), ["sequence"], ClassScores(), jnp.asarray([[1], [1]]))
    np.testing.assert_allclose(capture.outputs, expected, atol=1e-5)
    assert not model.dropout.inference
    np.testing.assert_array_equal(state.get(model.sequence[0].ema_state_index)[0], np.arange(4.0))


def test_layers_of_a_stateful_model(stateful: tuple[Stateful, Any]) -> None:
    cam = FusionCAM(stateful)
    listed = {layer.name: layer for layer in cam.layers(IMAGES)}
    assert list(listed) == [
        "conv",
        "sequence.layers[0]",
        "sequence.layers[1]",
        "sequence.layers[2]",
        "sequence",
        "dropout",
        "head",
    ]
    assert listed["sequence"].shape == (1, 4, 8, 6)
    assert cam(IMAGES).maps.shape == (2, 12, 10)
    same = FusionCAM(stateful, "sequence")(IMAGES)
    np.testing.assert_array_equal(same.maps, cam(IMAGES).maps)


def test_every_way_to_name_a_layer(plain: Any, stateful: tuple[Stateful, Any]) -> None:
    spellings = ("layers[8]", ".layers[8]", "layers.8", plain.layers[8], lambda model: model.layers[8])
    for layer in spellings:
        assert GradCAM(plain, layer).layer_names == ("layers[8]",)
        assert adapt_model(plain).find(layer) == "layers[8]"
    # The same function is in the list four times: the function that picks it says which is meant.
    assert GradCAM(plain, lambda model: model.layers[4]).layer_names == ("layers[4]",)
    assert GradCAM(stateful, lambda model: model.sequence[1]).layer_names == ("sequence.layers[1]",)
    with pytest.raises(ValueError, match="The Conv2d given as layer is not a part of Shapes"):
        GradCAM(plain, eqx.nn.Conv2d(3, 3, 3, key=KEY))
    with pytest.raises(TypeError, match=r"got <function .*, which gives none"):
        GradCAM(plain, lambda model: model.fc.weight)
    with pytest.raises(TypeError, match="got 3, which gives none"):
        GradCAM(plain, 3)


def test_wrapped_layers_pass_for_what_they_are() -> None:
    class Uses(eqx.Module):
        conv: eqx.nn.Conv2d

        def __call__(self, image: Any) -> Any:
            return (self.conv(image) * self.conv.weight.mean()).mean(axis=(1, 2))

    model = Uses(eqx.nn.Conv2d(3, 4, 3, key=KEY))
    capture = adapt_model(model).capture(jnp.asarray(IMAGES), ["conv"], ClassScores(), jnp.asarray([[2], [2]]))
    gradients = capture.layers["conv"].gradients
    np.testing.assert_allclose(gradients[0][:, 2], np.full((2, 10, 8), model.conv.weight.mean() / 80), rtol=1e-5)


def test_the_last_call_of_a_layer_counts() -> None:
    class Twice(eqx.Module):
        conv: eqx.nn.Conv2d

        def __call__(self, image: Any) -> Any:
            return self.conv(jax.nn.relu(self.conv(image))).mean(axis=(1, 2))

    model = Twice(eqx.nn.Conv2d(3, 3, 3, padding=1, key=KEY))
    adapter = adapt_model(model)
    asked = (ClassScores(), jnp.asarray([[1], [1]]))
    capture = adapter.capture(jnp.asarray(IMAGES), ["conv"], *asked).layers["conv"]
    second = jax.vmap(lambda image: model.conv(jax.nn.relu(model.conv(image))))(IMAGES)
    np.testing.assert_allclose(capture.activations, second, atol=1e-6)
    expected = np.zeros((2, 3, 12, 10))
    expected[:, 1] = 1 / 120
    np.testing.assert_allclose(capture.gradients[0], expected, atol=1e-8)
    replaced = adapter.forward_with(jnp.asarray(IMAGES), "conv", jnp.full((2, 3, 12, 10), 2.0))
    np.testing.assert_allclose(replaced, np.full((2, 3), 2.0), rtol=1e-5)
    first = adapter.capture(jnp.asarray(IMAGES), ["conv#0"], *asked).layers["conv#0"]
    np.testing.assert_allclose(first.activations, jax.vmap(model.conv)(IMAGES), atol=1e-6)
    assert np.abs(first.gradients[0] - expected).max() > 1e-4, "the kernel lies behind it"


def test_a_compiled_method_inside() -> None:
    class Inside(eqx.Module):
        conv: eqx.nn.Conv2d

        @eqx.filter_jit
        def features(self, image: Any) -> Any:
            return jax.nn.relu(self.conv(image))

        def __call__(self, image: Any) -> Any:
            return self.features(image).mean(axis=(1, 2))

    model = Inside(eqx.nn.Conv2d(3, 4, 3, key=KEY))
    jax.block_until_ready(jax.vmap(model)(jnp.asarray(IMAGES)))
    assert GradCAM(model)(IMAGES).layer == "conv"


def test_inputs_that_do_not_fit(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"Shapes cannot run on inputs of shape \(1, 2, 48, 48\) \(float32\): conv"):
        GradCAM(plain)(np.zeros((1, 2, 48, 48), np.float32))
    with pytest.raises(ValueError, match=r"takes a batch of images with 4 axes \(or 3 for one image\)"):
        GradCAM(plain)(np.zeros((48, 48), np.float32))


def test_functions_in_a_list_and_inside_of_layers(plain: Any, shapes: dict[str, Any]) -> None:
    listed = {layer.name: layer.kind for layer in GradCAM(plain).layers(shapes["images"][:1])}
    assert listed["layers[9]"] == "relu"
    # A pool holds the function it reduces with, which JAX knows by its identity.
    assert "layers[2].operation" not in listed


def test_half_precision(plain: Any) -> None:
    half = jax.tree.map(lambda each: each.astype(jnp.bfloat16) if eqx.is_inexact_array(each) else each, plain)
    explanation = FusionCAM(half)(np.zeros((1, 3, 48, 48), np.float32) + 0.5)
    assert explanation.images.dtype == jnp.bfloat16
    assert explanation.maps.dtype == jnp.float32


def test_models_that_are_no_modules_are_not_claimed() -> None:
    class Data(eqx.Module):
        values: Any

    with warnings.catch_warnings(), pytest.raises(TypeError, match="No plugin adapts"):
        GradCAM(Data(jnp.ones(3)))
