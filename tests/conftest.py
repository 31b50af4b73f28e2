from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries import LIBRARIES, Library

DATA = Path(__file__).parent / "data"


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
