from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries import LIBRARIES, REQUIRED, Library

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
    return dict(np.load(DATA / "shapes_golden.npz"))


@pytest.fixture(scope="session")
def shapes_weights() -> dict[str, Any]:
    """The weights of the shapes network, in PyTorch's layout."""
    return dict(np.load(DATA / "shapes_cnn.npz"))
