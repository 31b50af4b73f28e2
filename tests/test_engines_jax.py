"""Engines for Flax, Equinox and plain functions of JAX, by way of jax2onnx."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from absence import hide
from engine_names import ENGINES, METHODS, NEAR, assert_same_maps, registered_engines
from fusioncam_core import RISE, MissingExtra, ScoreCAM
from libraries import framework

jax = framework("jax")
pytest.importorskip("jax2onnx")

import jax.numpy as jnp  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]

IMAGES = np.random.default_rng(0).random((2, 16, 16, 3), dtype=np.float32)
ALL = [[0, 1, 2, 3, 4]] * 2


@functools.cache
def flax_model() -> Any:
    framework("flax")
    from flax import nnx

    class Tiny(nnx.Module):
        def __init__(self) -> None:
            self.stem = nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(8, rngs=nnx.Rngs(1))
            self.features = nnx.Conv(8, 12, (3, 3), strides=2, rngs=nnx.Rngs(2))
            self.fc = nnx.Linear(12, 5, rngs=nnx.Rngs(3))
            self.temperature = 1.0

        def __call__(self, values: Any) -> Any:
            values = jax.nn.relu(self.features(jax.nn.relu(self.norm(self.stem(values)))))
            return self.fc(values.mean(axis=(1, 2))) * self.temperature

    model = Tiny()
    model.norm.mean[...] = jnp.linspace(-0.2, 0.2, 8)
    model.features.bias[...] = jnp.ones(12)  # so that maps are not zeros
    return model


@functools.cache
def equinox_model() -> Any:
    eqx = framework("equinox")

    class Tiny(eqx.Module):
        features: Any
        fc: Any

        def __init__(self) -> None:
            first, second = jax.random.split(jax.random.key(0))
            self.features = eqx.nn.Conv2d(3, 12, 3, 2, key=first)
            self.fc = eqx.nn.Linear(12, 5, key=second)

        def __call__(self, image: Any) -> Any:
            return self.fc(jax.nn.relu(self.features(image)).mean(axis=(1, 2)))

    return Tiny()


@ENGINES
@METHODS
def test_maps_of_flax_are_the_frameworks(name: str, method: Any, options: dict[str, Any]) -> None:
    assert_same_maps(method, flax_model(), IMAGES, engine=name, **options)


@ENGINES
def test_maps_of_equinox_too(name: str) -> None:
    assert_same_maps(ScoreCAM, equinox_model(), np.moveaxis(IMAGES, -1, 1), engine=name)


@ENGINES
def test_weights_that_changed_are_converted_anew(name: str) -> None:
    model = flax_model()
    cam = ScoreCAM(model, engine=name)
    before = cam(IMAGES, 1).numpy().maps
    model.stem.kernel[...] = -model.stem.kernel[...]
    try:
        after = cam(IMAGES, 1).numpy().maps
        expected = ScoreCAM(model)(IMAGES, 1).numpy().maps
    finally:
        model.stem.kernel[...] = -model.stem.kernel[...]
    np.testing.assert_allclose(after, expected, rtol=0, atol=NEAR)
    assert np.abs(after - before).max() > 0.1


@ENGINES
def test_so_is_a_model_that_is_told_something_else(name: str) -> None:
    """Once: what was converted then is good for later calls."""
    model = flax_model()
    cam = ScoreCAM(model, engine=name)
    before = cam(IMAGES, ALL).numpy().maps
    model.temperature = 20.0
    try:
        after = cam(IMAGES, ALL).numpy().maps
        kept = list(cam.adapter.converted.values())
        again = cam(IMAGES, ALL).numpy().maps
        expected = ScoreCAM(model)(IMAGES, ALL).numpy().maps
    finally:
        model.temperature = 1.0
    np.testing.assert_allclose(after, expected, rtol=0, atol=NEAR)
    np.testing.assert_array_equal(again, after)
    assert all(each is other for each, other in zip(cam.adapter.converted.values(), kept, strict=True))
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(cam(IMAGES, ALL).numpy().maps, before, rtol=0, atol=NEAR)


@ENGINES
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cam = RISE(equinox_model(), masks=4, engine=name)
    cam.adapter.converted.clear()
    hide("jax2onnx", monkeypatch)
    with pytest.raises(MissingExtra, match=r'needs jax2onnx: pip install "fusioncam\[jax2onnx\]"'):
        cam(np.moveaxis(IMAGES, -1, 1))
