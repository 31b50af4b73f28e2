"""How explanations are drawn: the options that Python and the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusioncam_core.arrays.checks import require_word
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.results.layout import RESOLUTION
from fusioncam_core.results.overlay import ALPHA, require_number, require_share, require_threshold

Scale = Literal["each", "image"]
"""Whether each map is scaled to its own range, or all maps of one image to the largest raw value among them."""

OwnResolution = Literal["photograph"]
"""As many dots as the photograph has pixels."""

MOST_DOTS = 2000.0
"""Per inch: a figure of one panel has some 4,000 pixels across then."""


@dataclass(frozen=True)
class Style:
    """How an explanation is drawn.

    Attributes:
        scale: "each" scales each map to its own range, "image" the maps of one image to the largest raw value among
            them.
        colour_map: a name that matplotlib knows; None takes one that fits the maps.
        alpha: in [0, 1], the share of the map's colour where the map is 1.
        contours: levels of lines, in (-1, 1) without 0.
        threshold: in [0, 1): below it the photograph is untouched.
        panels: which stages are drawn, of the explanation's parts and "maps"; None takes those that have titles.
        dpi: dots per inch, or "photograph": a panel then has as many as its photograph has pixels.

    Raises:
        TypeError: a value is of a wrong type.
        ValueError: a value is out of range.
    """

    scale: Scale = "each"
    colour_map: str | None = None
    alpha: float = ALPHA
    contours: Sequence[float] = ()
    threshold: float = 0.0
    panels: Sequence[str] | None = None
    dpi: float | OwnResolution = RESOLUTION

    def __post_init__(self) -> None:
        require_word(self.scale, "scale", Scale)
        if self.colour_map is not None and not isinstance(self.colour_map, str):
            raise InvalidTypeError(f"colour_map is a name that matplotlib knows, or None: got {self.colour_map!r}.")
        require_share("alpha", self.alpha)
        require_threshold(self.threshold)
        _require_levels(self.contours)
        _require_panels(self.panels)
        if self.dpi != "photograph" and not 10.0 <= _dots(self.dpi) <= MOST_DOTS:
            raise InvalidValueError(f"dpi lies in [10, {MOST_DOTS:.0f}], or is 'photograph': got {self.dpi!r}.")


def _dots(value: Any) -> float:
    if isinstance(value, str):
        raise InvalidValueError(f"dpi is a number, or 'photograph': got {value!r}.")
    return require_number("dpi", value)


def _require_levels(levels: Any) -> None:
    if isinstance(levels, str) or not isinstance(levels, Sequence):
        raise InvalidTypeError(f"contours are the levels of lines, such as (0.3, 0.6): got {levels!r}.")
    for level in levels:
        if not 0.0 < abs(require_number("A level of contours", level)) < 1.0:
            raise InvalidValueError(
                f"contours lie in (0, 1), or for signed maps in (-1, 1) without 0, as values of a drawn map do: got "
                f"{level!r}."
            )


def _require_panels(panels: Any) -> None:
    if panels is None:
        return
    if isinstance(panels, str) or not isinstance(panels, Sequence) or not all(isinstance(each, str) for each in panels):
        raise InvalidTypeError(f"panels are names of stages, such as ('denoised', 'maps'): got {panels!r}.")
    if not panels:
        raise InvalidValueError("panels are at least one stage, such as ('maps',): got none.")


DEFAULT_STYLE = Style()
