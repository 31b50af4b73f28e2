"""Photographs and maps as images within a page: `data:` addresses, small, and with the map's strength as opacity."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.results.overlay import MUTED, Map, Pixels, colours_of, require_map, stretched

PHOTOGRAPH = 640
"""Pixels along the longer side, at most, of a photograph."""

THUMBNAIL = 224
"""The same of a thumbnail, which is shown at half as many or less."""

MAP = 256
"""The same of a map, which is smooth: browsers enlarge it as `overlay` does."""

_LOSSLESS = 128
"""Up to so many pixels a photograph is kept as it is: JPEG would smear the few there are."""

_QUALITY = 85

_PURPOSE = "Writing a report"

_LEVELS = 256


def photograph_address(pixels: Pixels, largest: int = PHOTOGRAPH) -> str:
    """A photograph (H, W, 3), uint8, as an address; nothing of its file goes with it but the pixels."""
    pillow = require("PIL.Image", _PURPOSE)
    picture = pillow.fromarray(pixels)
    picture.thumbnail((largest, largest), pillow.Resampling.LANCZOS)
    if max(pixels.shape[:2]) <= _LOSSLESS:
        return _address(picture, "png", optimize=True)
    return _address(picture, "jpeg", quality=_QUALITY, optimize=True)


def map_address(
    saliency: Map, colour_map: str | None = None, *, threshold: float = 0.0, signed: bool = False, muted: bool = False
) -> str:
    """A map as the address of a PNG of 256 levels: its colours, and its strength as opacity.

    Laid over a photograph with the opacity alpha it covers the share `alpha * |map|` of it, as `overlay` does.

    Args:
        saliency: (h, w) in [0, 1], or in [-1, 1] if it is signed.
        colour_map: a name that matplotlib knows; None takes the one that fits.
        threshold: in [0, 1): below it, by absolute value, nothing is drawn.
        signed: whether it has values below 0.
        muted: draw in grey and fainter.

    Raises:
        ValueError: the map is not finite, or matplotlib has no such colour map.
    """
    values = require_map(saliency)
    height, width = values.shape
    share = MAP / max(height, width)
    if share < 1:
        values = stretched(values, (max(1, round(height * share)), max(1, round(width * share))))
    picture = require("PIL.Image", _PURPOSE).fromarray(_levels(values, signed), mode="P")
    colours, opacity = _palette(colour_map, threshold, signed, muted)
    picture.putpalette(colours.tobytes())
    return _address(picture, "png", transparency=opacity.tobytes(), optimize=True)


def scale_address(colour_map: str | None, *, signed: bool) -> str:
    """The colours from the lowest level to the highest, as the address of a PNG one pixel high."""
    colours, _ = _palette(colour_map, 0.0, signed, muted=False)
    count = _LEVELS - signed
    return _address(require("PIL.Image", _PURPOSE).fromarray(colours[np.newaxis, :count]), "png", optimize=True)


def _levels(values: Map, signed: bool) -> Pixels:
    """Each value as the number of its colour; of signed maps 0 has one of its own, 127, in the middle of 0 to 254."""
    clipped = np.clip(values, -1.0 if signed else 0.0, 1.0)
    levels: Pixels = np.round((clipped + 1.0) * 127.0 if signed else clipped * 255.0).astype(np.uint8)
    return levels


def _palette(name: str | None, threshold: float, signed: bool, muted: bool) -> tuple[Pixels, Pixels]:
    """The colours (256, 3) of the levels and their opacities (256,)."""
    levels = np.arange(_LEVELS)
    values = np.clip(levels / 127.0 - 1.0, -1.0, 1.0) if signed else levels / 255.0
    colours = colours_of(name, signed=signed, muted=muted)((values + 1.0) / 2.0 if signed else values)[:, :3]
    strength = np.abs(values)
    strength[strength < threshold] = 0.0
    opacity = strength * (MUTED if muted else 1.0)
    return np.round(colours * 255.0).astype(np.uint8), np.round(opacity * 255.0).astype(np.uint8)


def _address(picture: Any, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
