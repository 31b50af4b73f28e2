"""What the tests of engines share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from fusioncam_core import plugin_manager

NEAR = 1e-4
"""So far maps of an engine in float32 may be from the framework's; those of these networks are within 2e-6."""


def _engine(name: str) -> object:
    missing = importlib.util.find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


ENGINES = pytest.mark.parametrize("name", [_engine("openvino"), _engine("onnxruntime")])


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
