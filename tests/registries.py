"""Names and plugins that a test registers are known in it alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fusioncam_core import EXPLAINERS, plugin_manager
from fusioncam_core.metrics import METRICS


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Classes, plugins, and what was found wrong with them, are put back. To be imported where it is needed."""
    for registry in (EXPLAINERS, METRICS):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
        monkeypatch.setattr(registry, "_refused", set())
    manager = plugin_manager()
    monkeypatch.setattr(manager, "problems", {})
    plugins = manager.get_plugins()
    yield
    for plugin in manager.get_plugins() - plugins:
        manager.unregister(plugin)
