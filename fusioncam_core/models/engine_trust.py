"""Whether an engine computes what the framework computes, seen on a few masked images before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.ranks import rank_correlation
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.engines import Precision

Values = list[np.ndarray[Any, Any]]
"""What a program returns: of class scores the logits (n, classes); else all arrays of the outputs."""

Places = np.ndarray[Any, Any]
"""(n,) integers: where images are among the probes."""

COMPARED = 6
"""Images on which an engine in float32 is compared: all but a corner, nothing, and under four masks."""

RANKED = 32
"""Images whose scores a half precision must bring into the same order."""

CELLS = 4
"""Of a mask, along each axis of space."""

TOLERANCE = 1e-4
"""The largest difference of two outputs, as a share of the range that the framework's have over the images compared.

Engines that computed the same network were within 1e-6 of it (docs/engines.md), and of other networks far beyond.
"""

ALONE = 2.0
"""In half precision one image alone may be so many times as far off as the furthest of those that ran at once."""

RANK_CORRELATION = 0.95
"""Spearman's, of the scores under masks in half precision with the framework's: below it another map would come out."""


def probes(spatial_ndim: int, precision: Precision) -> np.ndarray[Any, Any]:
    """(n, *cells) maps: all seen but a corner, none seen, and random ones, the same in every run."""
    count = COMPARED if precision == "float32" else RANKED
    maps = np.random.default_rng(0).random((count, *(CELLS,) * spatial_ndim), dtype=np.float32)
    maps[0], maps[1] = 1, 0
    maps[0].reshape(-1)[0] = 0
    return maps


def require_trust(
    run: Callable[[Places], Values], expected: Values, precision: Precision, told: str, together: int
) -> None:
    """Nothing, if an engine gives what the framework gave.

    Args:
        run: the engine, of the probes at some places.
        expected: the framework's, of all of them.
        precision: of the engine.
        told: what is compared, to begin a sentence with.
        together: as many images as are run at once, which an engine may run in another way than a few.

    Raises:
        InvalidValueError: by how much it does not, or how else it differs.
    """
    count = len(expected[0])
    every, many = np.arange(count), np.arange(together) % count
    found, again = run(every), run(every)
    _require_shapes(found, expected, told)
    if any(not np.array_equal(one, other, equal_nan=True) for one, other in zip(found, again, strict=True)):
        raise _refused(told, "does not give the same outputs twice, as a network with random layers does")
    _require_like(found, expected, precision, told)
    alone, last = run(every[-1:]), [each[-1:] for each in expected]
    _require_shapes(alone, last, f"{told} on one image")
    if precision == "float32":
        _require_near(alone, last, f"{told} on one image", of=expected)
    else:
        _require_as_near(alone, last, found, expected, f"{told} on one image")
    if together > count:
        _require_like(run(many), [each[many] for each in expected], precision, f"{told} on {together} images")


def _require_like(found: Values, expected: Values, precision: Precision, told: str) -> None:
    """Refuse outputs of several images that are not near the framework's or, in half precision, in another order."""
    _require_shapes(found, expected, told)
    if precision == "float32":
        _require_near(found, expected, told, of=expected)
    else:
        _require_order(found, expected, told, precision)


def _require_as_near(alone: Values, last: Values, found: Values, expected: Values, told: str) -> None:
    """Refuse outputs of one image, of which there is no order, that are further off than all were at once."""
    for one, wanted, others, whole in zip(alone, last, found, expected, strict=True):
        difference = _largest_difference(one, wanted)
        most = max(ALONE * _largest_difference(others, whole), TOLERANCE * _extent(whole))
        if not difference <= most:
            raise _refused(told, f"differs from the framework by {difference:.2g}: expected at most {most:.2g}")


def _require_shapes(found: Values, expected: Values, told: str) -> None:
    shapes, wanted = ([each.shape for each in values] for values in (found, expected))
    if shapes != wanted:
        raise _refused(told, f"gives outputs of shape {_listed(shapes)}, and the framework {_listed(wanted)}")


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _require_near(found: Values, expected: Values, told: str, of: Values) -> None:
    for one, other, whole in zip(found, expected, of, strict=True):
        difference, extent = _largest_difference(one, other), _extent(whole)
        if not difference <= TOLERANCE * extent:
            raise _refused(
                told,
                f"differs from the framework by {difference:.2g} where outputs have a range of {extent:.2g}: expected "
                f"at most {TOLERANCE:g} of it",
            )


def _largest_difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if not one.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        # What is infinite, or no number, in both is the same; in one of them alone the difference is not finite.
        apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
    return float(np.max(apart)) if np.isfinite(apart).all() else np.inf


def _extent(values: np.ndarray[Any, Any]) -> float:
    """The range of what is finite, or, if all is the same, its magnitude."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite) or np.abs(finite[0])) if finite.size else 0.0


def _require_order(found: Values, expected: Values, told: str, precision: Precision) -> None:
    for one, other in zip(found, expected, strict=True):
        scores = _top_scores(one, other)
        constant = np.ptp(scores[1]) == 0  # of which there is no order
        correlation = float(np.array_equal(*scores)) if constant else rank_correlation(*scores)
        if not correlation >= RANK_CORRELATION:
            raise _refused(
                told,
                f"in {precision} ranks {len(scores[0])} scores with a correlation of {correlation:.3f} with the "
                f"framework's: expected at least {RANK_CORRELATION:g}",
            )


def _top_scores(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Of logits (n, classes) those of the class that the framework sees in the image; of other outputs all values."""
    if other.ndim != 2:
        return one.reshape(-1), other.reshape(-1)
    top = int(np.argmax(other[0]))
    return one[:, top], other[:, top]


def _refused(told: str, what: str) -> InvalidValueError:
    return InvalidValueError(f"{told} {what}. Leave engine= out: the framework computes these maps.")
