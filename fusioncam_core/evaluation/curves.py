"""Curves of many images: in memory while they are few, else in the file of values until they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusioncam_core.evaluation.store import Entry, Lines

Values = npt.NDArray[np.float64]

LOADED = 2**21
"""Numbers that an evaluation's curves are held in memory as at once: 16 MiB of them."""

PART = 4096
"""Curves of a method that are read together where only their mean is wanted."""

NOWHERE = -1
"""The place of a curve that there is not."""


class Followed(NamedTuple):
    """The curves of a metric.

    Attributes:
        fractions: (n,) at which they are given.
        places: (M, N) where their lines are, or `NOWHERE`.
    """

    fractions: Values
    places: npt.NDArray[np.int64]


def read_curves(followed: Mapping[str, Followed], lines: Lines) -> Mapping[str, Values]:
    """(M, N, n) the curves by metric; those of more than `LOADED` numbers are read when they are asked for.

    Args:
        followed: by metric.
        lines: the file of values, which is let go once everything is read.
    """
    curves = Curves(followed, lines)
    numbers = sum(each.places.size * len(each.fractions) for each in followed.values())
    return dict(curves) if numbers <= LOADED else curves


class Curves(Mapping[str, Values]):
    """(M, N, n) the curves by metric, read from the file of values when they are asked for, and held from then on."""

    def __init__(self, followed: Mapping[str, Followed], lines: Lines):
        self._followed, self._lines = dict(followed), lines
        self._loaded: dict[str, Values] = {}
        lines.hold()

    def __getitem__(self, metric: str) -> Values:
        if metric not in self._loaded:
            self._loaded[metric] = self._read(metric)
        return self._loaded[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self._followed)

    def __len__(self) -> int:
        return len(self._followed)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def mean(self, metric: str, method: int) -> Values:
        """(n,) of a method over the images that have a curve; only a part of them is read at once."""
        return mean_of(self._parts(metric, method))

    def _parts(self, metric: str, method: int) -> Iterator[Values]:
        if metric in self._loaded:
            yield self._loaded[metric][method]
            return
        fractions, places = self._followed[metric]
        for start in range(0, places.shape[1], PART):
            yield self._rows(fractions, places[method, start : start + PART].tolist())

    def _read(self, metric: str) -> Values:
        fractions, places = self._followed[metric]
        found = np.empty((*places.shape, len(fractions)))
        for own, of_method in zip(found, places, strict=True):
            for start in range(0, len(of_method), PART):
                own[start : start + PART] = self._rows(fractions, of_method[start : start + PART].tolist())
        return found

    def _rows(self, fractions: Values, places: Sequence[int]) -> Values:
        """(k, n) the curves in these places."""
        found = np.full((len(places), len(fractions)), np.nan)
        for row, place in enumerate(places):
            if place != NOWHERE:
                found[row] = _at(fractions, self._lines.entry(place))
        return found


def mean_curve(curves: Mapping[str, Values], metric: str, method: int) -> Values:
    """(n,) of a method over the images that have a curve, NaN if none has."""
    if isinstance(curves, Curves):
        return curves.mean(metric, method)
    return mean_of([curves[metric][method]])


def mean_of(parts: Iterable[Values]) -> Values:
    """(n,) the mean over all rows of all parts (k, n), without those that are NaN."""
    total: Any = 0
    count: Any = 0
    for part in parts:
        total, count = total + np.nansum(part, axis=0), count + (~np.isnan(part)).sum(axis=0)
    with np.errstate(invalid="ignore"):  # of no row at all
        mean: Values = np.divide(total, count)
    return mean


def _at(fractions: Values, entry: Entry) -> Values:
    """An entry's curve at these fractions: images of another size have others."""
    assert entry.curve is not None
    assert entry.fractions is not None
    curve: Values = np.interp(fractions, entry.fractions, entry.curve)
    return curve
