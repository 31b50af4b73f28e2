"""What an explanation can be drawn with, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.results.overlay import colours_of
from fusioncam_core.results.scaling import is_signed, required_range
from fusioncam_core.results.style import Style

if TYPE_CHECKING:
    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.explanation import Explanation


def panels_of(explanation: Explanation, style: Style) -> list[str]:
    """The stages that are drawn, by the names of parts, and "maps"."""
    if style.panels is not None:
        return list(style.panels)
    return [*(name for name in explanation.titles if name in explanation.parts), "maps"]


def spatial_axes(explanation: Explanation) -> int:
    """How many axes of an input are space."""
    return int(explanation.images.ndim) - (1 if explanation.image_channel_axis is None else 2)


def check_drawable(explanation: Explanation) -> None:
    """Refuse maps of which there is no picture.

    Raises:
        ValueError: they have neither two spatial axes nor three.
    """
    axes = spatial_axes(explanation)
    if axes not in (2, 3):
        raise InvalidValueError(
            f"Pictures are drawn of inputs with 2 spatial axes (height, width) or 3 (of which the middle of the first "
            f"is shown), and these have {axes}. The maps and numbers can be saved without: pictures=False."
        )


def check_class_names(explanation: Explanation, class_names: Sequence[str] | None) -> None:
    """Refuse names that are not one a class.

    Raises:
        ValueError: there are more or fewer than classes.
    """
    classes = explanation.class_probabilities.shape[1]
    if explanation.target_names and all(name for names in explanation.target_names for name in names):
        return  # nothing but functions: their values stand for the classes
    if class_names is not None and len(class_names) != classes:
        raise InvalidValueError(f"The model has {classes} classes, but there are {len(class_names)} class names.")


def check_photographs(
    explanation: Explanation, photographs: Sequence[Any] | None, preprocessing: Preprocessing | None
) -> None:
    """Refuse photographs that are not one an image, and a preprocessing without photographs or without its inverse.

    Raises:
        TypeError: the preprocessing does not say where the input lies in a photograph.
        ValueError: there are more or fewer photographs than images, or none to a preprocessing.
    """
    count = len(explanation.images)
    if photographs is not None and len(photographs) != count:
        raise InvalidValueError(f"There are {count} images, but {len(photographs)} photographs.")
    if preprocessing is None:
        return
    if not all(callable(getattr(preprocessing, name, None)) for name in ("whole", "box")):
        raise InvalidTypeError(
            "preprocessing says where in a photograph the input lies, as fusioncam_core.Preprocessing does: got a "
            f"{type(preprocessing).__name__}. Without it, give the parts of the photographs that the network saw."
        )
    if photographs is None:
        raise InvalidValueError("preprocessing came without photographs: give them too, as they were before it.")


def check_style(explanation: Explanation, style: Style) -> None:
    """Refuse what this explanation cannot be drawn with.

    Raises:
        ValueError: it has no such stage, levels of contours below 0 came with maps above it, or raw values are asked
            for and it has none.
    """
    colours_of(style.colour_map, signed=False)
    known = [*explanation.parts, "maps"]
    for name in style.panels or ():
        if name not in known:
            raise InvalidValueError(f"panels are some of {', '.join(map(repr, known))}: got {name!r}.")
    if min(style.contours, default=0) < 0 and not any(
        is_signed(explanation, name) for name in panels_of(explanation, style)
    ):
        raise InvalidValueError(
            f"contours lie in (0, 1): the maps have no values below 0. Got the level {min(style.contours)!r}."
        )
    if style.scale == "image":
        required_range(explanation)
        if "maps" not in panels_of(explanation, style):
            raise InvalidValueError(
                "scale='image' is about the final maps: give panels with 'maps' among them, or scale='each'. Got "
                f"{style.panels!r}."
            )


def check_most(most: Any) -> None:
    """Refuse what is no number of rows.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is not positive.
    """
    if most is None:
        return
    if isinstance(most, bool) or not isinstance(most, int | np.integer):
        raise InvalidTypeError(f"most is a whole number of rows, or None for as many as fit: got {most!r}.")
    if most < 1:
        raise InvalidValueError(f"most is a positive number of rows, or None for as many as fit: got {most!r}.")
