"""How a progress bar is told of steps: those that were done, and those that need not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Advance = Callable[[int], object]
"""Told how many steps were done; one with a method `skip` is told by it of steps that need not be done."""


def skip(advance: Advance, steps: int) -> None:
    """Tell of steps that need not be done: they take no time, and a rate that counted them would promise too much."""
    getattr(advance, "skip", advance)(steps)


@dataclass(frozen=True)
class Times:
    """Tells of each step as of several.

    Attributes:
        advance: is told.
        factor: of how many.
    """

    advance: Advance
    factor: int

    def __call__(self, steps: int) -> None:
        """So many were done."""
        self.advance(self.factor * steps)

    def skip(self, steps: int) -> None:
        """So many need not be done."""
        skip(self.advance, self.factor * steps)
