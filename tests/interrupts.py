"""Exceptions between any two lines of the library, as Ctrl-C raises them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import fusioncam_core

PACKAGES = ("fusioncam_core", "fusioncam_torch", "fusioncam_tensorflow", "fusioncam_keras", "fusioncam_jax")
ROOTS = tuple(
    f"{folder / package}/"
    for folder in (Path(fusioncam_core.__file__).parents[1], Path(fusioncam_core.__file__).parents[1] / "backends")
    for package in PACKAGES
)


class InterruptError(BaseException):
    """Raised between two lines."""


def lines_of(function: Callable[[], Any]) -> int:
    """How many lines of the library a call of the function runs."""
    return _traced(function, None)


def interrupted(function: Callable[[], Any], line: int) -> None:
    """A call of the function in which the exception comes before that line, counted from 1.

    It may be caught by what it interrupts, or come through.
    """
    try:
        _traced(function, line)
    except InterruptError:
        return


def _traced(function: Callable[[], Any], line: int | None) -> int:
    passed = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == line:
                raise InterruptError(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return local

    def called(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(ROOTS) else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        function()
    finally:
        sys.settrace(before)
    return passed
