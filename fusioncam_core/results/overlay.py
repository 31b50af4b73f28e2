"""A map's colours over a photograph, which stays as it is where the map is 0."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

COLOUR_MAP = "inferno"
"""Its lightness rises evenly, so that it reads the same in grey and to every eye."""

SIGNED_COLOUR_MAP = "coolwarm"
"""For maps below and above 0: blue speaks against, red for."""

MUTED_COLOUR_MAP = "gray"
"""For maps that are not to catch the eye."""

ALPHA = 0.7
"""The share of the map's colour where the map is 1."""

_FADING = 3
"""How much faster than a map's colour appears the photograph's own go: a power of what is left of it."""

MUTED = 0.6
"""What is left of a muted map's alpha."""

Pixels = npt.NDArray[np.uint8]

Map = npt.NDArray[np.floating[Any]]


def overlay(
    photograph: Pixels,
    saliency: Map,
    *,
    colour_map: str | None = None,
    alpha: float = ALPHA,
    threshold: float = 0.0,
    muted: bool = False,
) -> Pixels:
    """Blend a map's colours over a photograph, which is untouched, pixel for pixel, where the map is 0.

    The share of the map's colour is `alpha * |map|`. The photograph's own colours turn grey with it, and faster, so
    that a bright colour in the result is the map's.

    Args:
        photograph: (H, W, 3), uint8.
        saliency: (h, w) in [0, 1], or in [-1, 1] if it is signed; stretched over the photograph. What lies beyond is
            cut off.
        colour_map: a name that matplotlib knows; None takes "inferno", and "coolwarm" for a map with values below 0,
            whose middle is 0.
        alpha: in [0, 1], the share of the map's colour where the map is 1.
        threshold: in [0, 1): below it, by absolute value, the photograph is untouched.
        muted: draw in grey and fainter, as maps that do not support their class are drawn.

    Returns:
        (H, W, 3), uint8.

    Raises:
        TypeError: a number is none.
        ValueError: the photograph or the map has another shape or dtype, the map is not finite, an option is out of
            range, or matplotlib has no such colour map.
        MissingExtra: Pillow or matplotlib is not installed.

    Example:
        `overlay(np.asarray(photograph), preprocessing.restored(explanation.maps[0], photograph))` draws a map at the
        photograph's own resolution.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import overlay
        >>> photograph = np.full((1, 2, 3), 200, dtype=np.uint8)
        >>> overlay(photograph, np.array([[0.0, 1.0]]))[0, 0]  # untouched where the map is 0
        array([200, 200, 200], dtype=uint8)
    """
    pixels = require_pixels(photograph)
    values = np.clip(stretched(require_map(saliency), pixels.shape[:2]), -1.0, 1.0)
    require_share("alpha", alpha)
    require_threshold(threshold)
    return blended(pixels, values, colour_map, alpha, threshold, signed=bool(values.min() < 0), muted=muted)


def blended(
    pixels: Pixels,
    values: Map,
    colour_map: str | None,
    alpha: float,
    threshold: float,
    *,
    signed: bool,
    muted: bool,
) -> Pixels:
    """The formula of `overlay`, of a map (H, W) of the photograph's size."""
    strength = np.abs(values).astype(np.float64)
    strength[strength < threshold] = 0.0
    colours = colours_of(colour_map, signed=signed, muted=muted)
    colour = colours((values + 1.0) / 2.0 if signed else values)[..., :3] * 255.0
    share = (alpha * (MUTED if muted else 1.0) * strength)[..., np.newaxis]
    own = pixels.astype(np.float64)
    grey = own @ np.array([0.299, 0.587, 0.114])
    faded = own + (1.0 - (1.0 - share) ** _FADING) * (grey[..., np.newaxis] - own)
    drawn: Pixels = np.round((1.0 - share) * faded + share * colour).astype(np.uint8)
    return drawn


def colours_of(name: str | None, *, signed: bool, muted: bool = False) -> Colormap:
    """The colour map of that name, or the one for such maps.

    Raises:
        ValueError: matplotlib has none of that name.
    """
    name = MUTED_COLOUR_MAP if muted else name or (SIGNED_COLOUR_MAP if signed else COLOUR_MAP)
    known = require("matplotlib", "Drawing pictures").colormaps
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise InvalidValueError(
            f"colour_map is a name that matplotlib knows, such as {COLOUR_MAP!r} or 'viridis': got {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else ".")
        )
    colours: Colormap = known[name]
    return colours


def stretched(saliency: Map, size: tuple[int, ...]) -> Map:
    """A map (h, w) at another size (H, W), linear between the centres of its values."""
    pillow = require("PIL.Image", "Drawing pictures")
    height, width = size
    small = pillow.fromarray(np.asarray(saliency, dtype=np.float32))
    return np.asarray(small.resize((width, height), pillow.Resampling.BILINEAR))


def placed(saliency: Map, window: tuple[float, float, float, float], size: tuple[int, int]) -> Map:
    """A map of a part of a photograph as one (H, W) of the whole of it: 0 outside of the part.

    Args:
        saliency: (h, w).
        window: left, top, right and bottom of the part, as shares of the photograph.
        size: (H, W).
    """
    rows, columns = part_of(size, window)
    whole = np.zeros(size, dtype=np.float32)
    whole[rows, columns] = stretched(saliency, (rows.stop - rows.start, columns.stop - columns.start))
    return whole


def part_of(size: tuple[int, ...], window: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """The rows and columns of an array (H, W) that a window covers, at least one of each."""
    height, width = size
    left, top, right, bottom = (round(share * n) for share, n in zip(window, (width, height) * 2, strict=True))
    top, left = min(top, height - 1), min(left, width - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def require_pixels(photograph: Any) -> Pixels:
    """A photograph as an array (H, W, 3), uint8.

    Raises:
        ValueError: it is none.
    """
    pixels = np.asarray(photograph)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InvalidValueError(
            "Expected a photograph as an RGB Pillow image or a uint8 array (height, width, 3), got dtype "
            f"{pixels.dtype} and shape {pixels.shape}."
        )
    return pixels


def require_map(saliency: Any) -> Map:
    """A map as an array (h, w) of finite numbers.

    Raises:
        ValueError: it is none.
    """
    values = np.asarray(saliency)
    if values.ndim != 2 or values.dtype.kind not in "fiub" or 0 in values.shape:
        raise InvalidValueError(
            f"Expected a map as an array (height, width) of numbers, got dtype {values.dtype} and shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise InvalidValueError("Expected a map of finite numbers, got NaN or infinity.")
    return values.astype(np.float32) if values.dtype.kind != "f" else values


def require_number(name: str, value: Any) -> float:
    """The value, if it is a finite real number.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InvalidTypeError(f"{name} is a number: got {value!r}.")
    if not np.isfinite(value):
        raise InvalidValueError(f"{name} is a finite number: got {value!r}.")
    return float(value)


def require_share(name: str, value: Any) -> float:
    """The value, if it lies in [0, 1]. Raises as `require_number`, and `ValueError` beyond."""
    if not 0.0 <= require_number(name, value) <= 1.0:
        raise InvalidValueError(f"{name} lies in [0, 1]: got {value!r}.")
    return float(value)


def require_threshold(value: Any) -> float:
    """The value, if it lies in [0, 1). Raises as `require_number`, and `ValueError` beyond."""
    if not 0.0 <= require_number("threshold", value) < 1.0:
        raise InvalidValueError(f"threshold lies in [0, 1), as values of a drawn map do: got {value!r}.")
    return float(value)
