"""What every method keeps, whatever it is: all that are registered, a new one without a word here."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EXPLAINERS, Explainer, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.explainers import base
from libraries import framework

framework("torch")

EARLY = "features.4"
"""A layer whose gradients differ from position to position and from image to image (32 maps of 24 x 24)."""

FEW: dict[str, dict[str, Any]] = {
    "smooth-grad-cam++": {"samples": 3},
    "group-cam": {"groups": 16},
    "ss-cam": {"samples": 2},
    "is-cam": {"steps": 3},
    "rise": {"masks": 60, "cells": 4},
}
"""Options that keep the tests short."""

VARIANTS: dict[str, tuple[type[Explainer], dict[str, Any]]] = {
    "score-cam of probabilities": (ScoreCAM, {"channel_weights": "probability"}),
    "score-cam by regression": (ScoreCAM, {"channel_weights": "regression"}),
    "score-cam within a budget": (ScoreCAM, {"budget": 8}),
    "group-cam by k-means": (EXPLAINERS["group-cam"], {"groups": 8, "grouping": "k-means"}),
    "fusion-cam, united": (FusionCAM, {"variant": "united"}),
    "fusion-cam, calibrated": (FusionCAM, {"variant": "calibrated"}),
    "fusion-cam of layer-cam and rise": (
        FusionCAM,
        {"gradient": "layer-cam", "region": "rise", "region_options": FEW["rise"]},
    ),
}

METHODS = {**{name: (kind, FEW.get(name, {})) for name, kind in EXPLAINERS.items()}, **VARIANTS}

ROUNDING = {"fusion-cam, calibrated": 1e-4}
"""How far maps may be apart for their rounding where it is more than 1e-5: a root enlarges that of small values."""

Make = Callable[..., Explainer]

# Of some pairs of an image and a class nothing is to be seen at that layer.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .* map is zero everywhere"),
    pytest.mark.filterwarnings("ignore:The gradient .* is zero everywhere"),
]


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture(params=list(METHODS))
def make(request: pytest.FixtureRequest, model: Any) -> Make:
    """The method for the model, with more keywords."""
    kind, options = METHODS[request.param]
    return lambda layer=EARLY, **more: kind(model, layer, **options, **more)


@pytest.fixture
def near(request: pytest.FixtureRequest) -> float:
    """How far maps may be apart for their rounding."""
    return ROUNDING.get(request.node.callspec.params["make"], 1e-5)


def maps(explainer: Explainer, images: Any, targets: Any) -> np.ndarray:
    return explainer(images, targets).numpy().maps


@pytest.mark.parametrize("layer", [EARLY, None])
def test_shape_and_range(make: Make, shapes: dict[str, Any], layer: str | None) -> None:
    found = maps(make(layer), shapes["images"][:2, :, :40], shapes["target"][:2])
    assert found.shape == (2, 40, 48)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.min(axis=(1, 2)), 0)
    np.testing.assert_allclose(found.max(axis=(1, 2)), 1, atol=1e-6)


def test_a_batch_equals_one_call_an_image(make: Make, near: float, shapes: dict[str, Any]) -> None:
    explainer = make()
    together = maps(explainer, shapes["images"][:3], shapes["target"][:3])
    for row in (0, 2):
        alone = maps(explainer, shapes["images"][row], int(shapes["target"][row]))
        np.testing.assert_allclose(together[row], alone[0], atol=near)


def test_the_batch_size_does_not_matter(make: Make, near: float, shapes: dict[str, Any]) -> None:
    expected = maps(make(), shapes["images"][:3], shapes["target"][:3])
    for batch_size in (1, 7):
        found = maps(make(batch_size=batch_size), shapes["images"][:3], shapes["target"][:3])
        np.testing.assert_allclose(found, expected, atol=near)


def test_targets_equal_one_call_each(make: Make, near: float, shapes: dict[str, Any]) -> None:
    explainer = make()
    together = maps(explainer, shapes["images"][:2], [[0, 3], [1, 2]])
    assert together.shape == (2, 2, 48, 48)
    for column, targets in enumerate(([0, 1], [3, 2])):
        alone = maps(explainer, shapes["images"][:2], targets)
        np.testing.assert_allclose(together[:, column], alone, atol=near)


def test_it_repeats_exactly(make: Make, shapes: dict[str, Any]) -> None:
    # With "auto" the rounding follows the sizes that prove fastest.
    first, second = (maps(make(batch_size=8), shapes["images"][:2], 1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_function_of_the_outputs_equals_the_class(make: Make, shapes: dict[str, Any]) -> None:
    """For methods that look at gradients and logits; a function's value is its probability, too."""
    explainer = make()
    if explainer.needs_masks:
        pytest.skip("weighs by probabilities, which a function does not have")
    expected = maps(explainer, shapes["images"][:2], 3)
    found = maps(explainer, shapes["images"][:2], lambda outputs: outputs[:, 3])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_evaluations_are_the_images_the_model_saw(make: Make, model: Any, shapes: dict[str, Any]) -> None:
    sizes: list[int] = []
    GradCAM(model, "features")(shapes["images"][:1], 0)  # what is measured of the layer is kept
    model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
    explanation = make("features", batch_size=5)(shapes["images"], [[0, 1]] * 8)
    assert max(sizes) == 5
    assert sum(sizes) == explanation.evaluations


def test_progress_reaches_its_total(make: Make, shapes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    totals, done = [], []

    @contextmanager
    def watched(total: Any, description: str, progress: Any) -> Any:
        totals.append(total)
        yield done.append

    monkeypatch.setattr(base, "progress_bar", watched)
    make(batch_size=7)(shapes["images"][:3], [[0, 1]] * 3)
    assert sum(done) == totals[0]


def test_it_is_a_value(make: Make, model: Any, shapes: dict[str, Any]) -> None:
    explainer = make(batch_size=8)
    arguments = explainer.get_params()
    assert arguments["model"] is model
    assert arguments["batch_size"] == 8
    again = [type(explainer)(**arguments), copy.copy(explainer)]
    assert all(each == explainer and hash(each) == hash(explainer) for each in again)
    assert explainer != make(batch_size=4)
    unpickled = pickle.loads(pickle.dumps(explainer))
    np.testing.assert_array_equal(maps(unpickled, shapes["images"][:1], 1), maps(explainer, shapes["images"][:1], 1))
    assert repr(explainer).startswith(f"{type(explainer).__name__}(Shapes, layer='features.4'")
