"""Packages that look as if they were not installed."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make imports of the package fail, as they do where it is not installed, until the test ends."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_AllBut(package, list(sys.meta_path))])


class _AllBut:
    def __init__(self, package: str, finders: list[Any]):
        self.package = package
        self.finders = finders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == self.package:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, context: Any) -> Any:
        """Of all packages: what is installed is still known, only not importable."""
        finders = (finder for finder in self.finders if hasattr(finder, "find_distributions"))
        return (found for finder in finders for found in finder.find_distributions(context))
