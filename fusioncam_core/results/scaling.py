"""Maps as numbers that colours stand for: in [0, 1], or in [-1, 1] if they are signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.overlay import Map
from fusioncam_core.results.style import Scale

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation

_FULL = (0.99, 1.001)
"""Between these the largest value of a map counts as 1: it is scaled already, up to rounding."""


def is_signed(explanation: Explanation, panel: str) -> bool:
    """Whether maps of that name are signed, or have values below 0 in any image."""
    return (panel == "maps" and explanation.form == "signed") or bool(np.min(_maps(explanation, panel)) < 0)


def scaled(explanation: Explanation, panel: str, index: int, scale: Scale, *, signed: bool = False) -> Map:
    """The maps (K, *spatial) of one image as they are drawn.

    Normalised maps and parts within [0, 1] stay as they are, others are scaled to their own range; with "image" the
    final maps are taken back to raw values and divided by the largest of them.

    Args:
        explanation: of NumPy arrays.
        panel: "maps" or the name of a part.
        index: of the image in the batch.
        scale: "each" or "image".
        signed: whether maps of that name have values below 0, so that 0 stays where it is: `is_signed`.
    """
    spatial_axes = explanation.maps.ndim - explanation.targets.ndim
    values = np.asarray(_maps(explanation, panel)[index], dtype=np.float64)
    values = values.reshape(-1, *values.shape[values.ndim - spatial_axes :])
    if panel == "maps" and scale == "image":
        return _by_image(values, required_range(explanation)[index], signed=signed)
    return np.stack([_by_itself(each, signed=signed, part=panel != "maps") for each in values])


def required_range(explanation: Explanation) -> Map:
    """The lowest and highest raw values (B, *T, 2) of the maps.

    Raises:
        ValueError: the explanation has none.
    """
    if explanation.raw_range is None:
        title = explanation.titles.get("maps", explanation.method)
        raise InvalidValueError(
            f"scale='image' draws the maps of one image on the scale of their raw values, and this explanation by "
            f"{title} has no raw_range: maps of several layers and maps that were not normalised have none. Draw them "
            "with scale='each'."
        )
    return np.asarray(explanation.raw_range, dtype=np.float64)


def _maps(explanation: Explanation, panel: str) -> Map:
    return np.asarray(explanation.maps if panel == "maps" else explanation.parts[panel])


def _by_image(values: Map, ranges: Map, *, signed: bool) -> Map:
    """Raw values (K, *spatial), of which the largest of the image becomes 1; what is below 0 is 0 unless signed."""
    low, high = (each.reshape(-1, *(1,) * (values.ndim - 1)) for each in np.moveaxis(ranges.reshape(-1, 2), -1, 0))
    if signed:
        raw = values * np.maximum(np.abs(low), np.abs(high))
        largest = float(np.abs(raw).max())
    else:
        raw = np.maximum(values * (high - low) + low, 0.0)
        largest = float(raw.max())
    return raw / largest if largest > 0 else np.zeros_like(raw)


def _by_itself(values: Map, *, signed: bool, part: bool) -> Map:
    """One map in its own range; a constant one, which says nothing about where, is 0 everywhere."""
    low, high = float(values.min()), float(values.max())
    if signed:
        largest = max(-low, high)
        return values if largest == 0 or _FULL[0] <= largest <= _FULL[1] else values / largest
    if high <= _FULL[1] and (part or high >= _FULL[0]):
        return values
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
