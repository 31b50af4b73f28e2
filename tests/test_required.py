"""What FUSIONCAM_REQUIRE names can be imported; tests of what is merely absent would be skipped."""

from __future__ import annotations

import importlib

import pytest

from libraries import REQUIRED


@pytest.mark.parametrize("name", REQUIRED)
def test_imports(name: str) -> None:
    importlib.import_module(name)
