"""The photographs, which are the reader's own: a folder of files INDEX_name.jpg by ImageNet class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.study.networks import Network
from fusioncam_core.data.preprocessing import read_photograph

EVERY = 3
"""One photograph of so many, in the order of their names, is for choosing; the others are for reporting."""


@dataclass(frozen=True)
class Photograph:
    """A file and the class that its name has."""

    path: Path
    label: int

    @property
    def name(self) -> str:
        return self.path.stem

    def prepared(self, network: Network) -> np.ndarray:
        """(C, h, w) as the network takes it."""
        assert network.preprocessing is not None
        return network.preprocessing(read_photograph(self.path))


def photographs(folder: Path) -> list[Photograph]:
    """All of a folder, sorted by name.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = [Photograph(path, int(path.stem.split("_")[0])) for path in sorted(folder.glob("[0-9]*_*.jpg"))]
    if not found:
        raise FileNotFoundError(f"Expected photographs named INDEX_name.jpg in {folder}, found none.")
    return found


def for_choosing(all_of_them: Sequence[Photograph]) -> list[Photograph]:
    """Those by which forms are chosen."""
    return list(all_of_them[::EVERY])


def for_reporting(all_of_them: Sequence[Photograph]) -> list[Photograph]:
    """Those that no choice has seen. Every second one first: where time ends a run early, what is there is spread."""
    left = [each for place, each in enumerate(all_of_them) if place % EVERY]
    return left[::2] + left[1::2]
