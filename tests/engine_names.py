"""What the tests of engines share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fusioncam_core import RISE, FusionCAM, GroupCAM, ScoreCAM, plugin_manager

NEAR = 1e-4
"""So far maps of an engine in float32 may be from the framework's; those of these networks are within 2e-6."""


def engines(writer: str) -> pytest.MarkDecorator:
    """Once for each engine, skipped where it is not installed, or what writes ONNX of that framework for it."""
    needed = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", writer)}
    return pytest.mark.parametrize("name", [_engine(name, packages) for name, packages in needed.items()])


def _engine(name: str, packages: tuple[str, ...]) -> object:
    missing = [each for each in packages if importlib.util.find_spec(each) is None]
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"))


ENGINES = engines("onnxscript")
"""Of what PyTorch writes."""


METHODS = pytest.mark.parametrize(
    ("method", "options"),
    [(ScoreCAM, {}), (FusionCAM, {"variant": "calibrated"}), (GroupCAM, {"groups": 4}), (RISE, {"masks": 24})],
    ids=["score-cam", "calibrated", "group-cam", "rise"],
)


def assert_same_maps(method: Any, model: Any, images: Any, targets: Any = None, **options: Any) -> None:
    """The engine ran, as often as the framework, and the maps are the framework's."""
    expected = method(model, **{**options, "engine": None})(images, targets).numpy()
    assert expected.maps.any(), "maps of zeros are the same whatever made them"
    cam = method(model, **options)
    explanation = cam(images, targets).numpy()
    assert cam.adapter.converted
    assert explanation.evaluations == expected.evaluations
    np.testing.assert_allclose(explanation.maps, expected.maps, rtol=0, atol=NEAR)
    np.testing.assert_array_equal(explanation.targets, expected.targets)


@pytest.fixture
def registered_engines() -> Iterator[None]:
    """The plugin, also where the distribution was installed before it had it."""
    from fusioncam_engines import plugin

    manager = plugin_manager()
    if manager.get_plugin("engines") is not None:
        yield
        return
    manager.register(plugin, name="engines")
    yield
    manager.unregister(name="engines")
