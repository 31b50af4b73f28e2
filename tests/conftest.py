from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core.models.batch_size import AutoBatching
from libraries import LIBRARIES, REQUIRED, Library

GOLDEN = Path(fusioncam_core.__file__).parent / "testing"
DATA = Path(__file__).parent / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Fail at once where a framework that must be tested does not import: its tests would be skipped one by one."""
    for name in REQUIRED:
        importlib.import_module(name)


@pytest.fixture(params=list(LIBRARIES))
def library(request: pytest.FixtureRequest) -> Library:
    """Each array library, eager and compiled."""
    return LIBRARIES[request.param]()


@pytest.fixture(scope="session")
def shapes() -> dict[str, Any]:
    """The golden vectors of the shapes network."""
    return dict(np.load(GOLDEN / "shapes_golden.npz"))


@pytest.fixture(scope="session")
def shapes_weights() -> dict[str, Any]:
    """The weights of the shapes network, in PyTorch's layout."""
    return dict(np.load(GOLDEN / "shapes_cnn.npz"))


@pytest.fixture(autouse=True)
def no_search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but those marked `searches` depends on which batch proves fastest, by whose size results are rounded."""
    if request.node.get_closest_marker("searches") is None:
        monkeypatch.setattr(AutoBatching, "_is_worth_trying", lambda batching, left: False)
