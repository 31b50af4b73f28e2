"""Explanations as figures: which maps are drawn, on what scale, and what is written beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.results.digits import probability_text, value_text
from fusioncam_core.results.drawable import (
    check_class_names,
    check_drawable,
    check_most,
    check_photographs,
    check_style,
    panels_of,
    spatial_axes,
)
from fusioncam_core.results.figures import FigureRow, drawn, largest_pixels, png
from fusioncam_core.results.layout import rows_that_fit
from fusioncam_core.results.overlay import Map, Pixels, placed, require_pixels
from fusioncam_core.results.scaling import is_signed, scaled
from fusioncam_core.results.style import Style
from fusioncam_core.results.terminal import target_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.explanation import Explanation

NOTEBOOK_ROWS = 8
NOTEBOOK_ACROSS = 2

Signs = Mapping[str, bool]
"""Of each stage that is drawn whether it has values below 0."""

_STAGES = ("gradient", "denoised", "region", "union", "similarity")

_UNION = "union"
"""The stage whose contribution stands for the fused map, which has none of its own."""


@dataclass(frozen=True)
class Shown:
    """A photograph as it is drawn, and where in it the input lies.

    Attributes:
        pixels: (H, W, 3).
        window: of the input, as shares; None if it fills the photograph.
    """

    pixels: Pixels
    window: tuple[float, float, float, float] | None = None


def plotted(
    explanation: Explanation,
    photographs: Sequence[Any] | None,
    class_names: Sequence[str] | None,
    style: Style,
    preprocessing: Preprocessing | None,
    most: int | None,
    *,
    signed: Signs | None = None,
    across: int = 1,
) -> Figure:
    """The figure of `Explanation.plot`, of NumPy arrays.

    Args:
        explanation, photographs, class_names, style, preprocessing, most: as for `Explanation.plot`.
        signed: as `signed_panels` has it, of more images than are drawn; None looks at these.
        across: how many rows stand beside each other, of images of one size.
    """
    check_most(most)
    check_drawable(explanation)
    check_class_names(explanation, class_names)
    check_photographs(explanation, photographs, preprocessing)
    check_style(explanation, style)
    signed = signed_panels(explanation, style) if signed is None else signed
    rows: list[FigureRow] = []
    images = range(len(explanation.images))
    targets = np.atleast_1d(explanation.targets[0]).size
    for index in images:
        photograph = None if photographs is None else photographs[index]
        shown = shown_of(explanation, index, photograph, preprocessing, style)
        if not rows:
            fitting = rows_that_fit(shown.pixels.shape[:2])
            limit = fitting * across if most is None else min(most, fitting * across)
        rows += itertools.islice(_rows(explanation, index, shown, class_names, style, signed), limit - len(rows))
        if len(rows) >= limit:
            break
    first = input_title(explanation) if photographs is None else "Photograph"
    return drawn(
        rows,
        [first, *titles_of(explanation, panels_of(explanation, style))],
        style,
        _caption(explanation, style, rows, signed, _left_out(len(rows), len(images), targets)),
        signed=any(signed.values()),
        across=min(across, len(rows)),
    )


def image_figure(
    explanation: Explanation,
    index: int,
    photograph: Any,
    class_names: Sequence[str] | None,
    style: Style,
    preprocessing: Preprocessing | None = None,
    signed: Signs | None = None,
) -> Figure:
    """The figure of one image, with as many targets as fit; without a photograph, on the input."""
    photographs = None if photograph is None else [photograph]
    return plotted(explanation[index], photographs, class_names, style, preprocessing, None, signed=signed)


def overlay_png(explanation: Explanation, class_names: Sequence[str] | None = None) -> bytes:
    """A notebook's view of an explanation: the images and their maps, as the bytes of a PNG file.

    Two rows stand beside each other. Of many images and targets the first 8 are shown, and the caption says of how many
    they are; of clips and volumes the middle frame or slice.

    Args:
        explanation: of NumPy arrays (`explanation.numpy()`), with maps (B, H, W) or (B, K, H, W), or of clips and
            volumes (B, D, H, W) or (B, K, D, H, W).
        class_names: one per class, in the order of the model's outputs.

    Raises:
        ValueError: the maps have another number of spatial axes than two or three, or there is not a name per class.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    style = Style(panels=("maps",))
    return png(plotted(explanation, None, class_names, style, None, NOTEBOOK_ROWS, across=NOTEBOOK_ACROSS))


def _rows(
    explanation: Explanation,
    index: int,
    shown: Shown,
    class_names: Sequence[str] | None,
    style: Style,
    signed: Signs,
) -> Iterator[FigureRow]:
    """The rows of an image, one a target."""
    panels = panels_of(explanation, style)
    stages = [scaled(explanation, name, index, style.scale, signed=signed[name]) for name in panels]
    for k, numbers in enumerate(target_numbers(explanation, index, class_names)):
        contributions = [contribution_of(name, numbers["weights"]) for name in panels]
        maps = [middle_of(stage[k]) for stage in stages]
        yield FigureRow(
            shown.pixels,
            [_in_photograph(each, shown) for each in maps],
            label_of(numbers),
            [note_of(each) for each in contributions] if any(each is not None for each in contributions) else (),
            [each is not None and each <= 0 for each in contributions],
            shown.window,
        )


def label_of(numbers: Mapping[str, Any]) -> str:
    """What stands beside the row of a target, of which `target_numbers` has the numbers."""
    if numbers["class"] is None:
        return f"{numbers['name']}\n{value_text(numbers['score'])}"
    name = numbers["name"] or f"class {numbers['class']}"
    return f"{name}\np = {probability_text(numbers['probability'])}"


def contribution_of(panel: str, weights: Mapping[str, float]) -> float | None:
    """What the map keeps of the class's probability above the baseline; None where it was not measured."""
    return weights.get(f"contribution_{_UNION if panel == 'maps' else panel}")


def note_of(contribution: float | None) -> str:
    """A contribution in words; nothing where none was measured."""
    if contribution is None:
        return ""
    text = value_text(contribution)
    return f"contribution {text}" if contribution > 0 else f"no support: {text}"


def _caption(explanation: Explanation, style: Style, rows: Sequence[FigureRow], signed: Signs, left_out: str) -> str:
    """What a reader has to know of the colours, in sentences."""
    own = "Each map is scaled to its own range: colours show where, not how much."
    panels = panels_of(explanation, style)
    if style.scale == "image":
        title = method_title(explanation)
        own = f"{title}: one scale for the rows of an image; 1 is the largest raw value among them."
        own += " Other columns: each map to its own range." if len(panels) > 1 else ""
    told = [own]
    if any(row.notes for row in rows):
        told.append(
            "Contribution: the class's probability where only what the map shows is kept, less that of the baseline"
            + (f" (for {method_title(explanation)}: of its union)" if "maps" in panels else "")
            + "."
        )
    if any(any(row.muted) for row in rows):
        told.append("No support, drawn grey: a contribution that is not above 0.")
    if any(signed.values()):
        told.append("Above 0 speaks for the class, below 0 against it.")
    if style.threshold:
        told.append(f"Nothing is drawn below {style.threshold:g}.")
    if style.contours:
        told.append(f"Lines at {', '.join(f'{level:g}' for level in style.contours)}.")
    if any(row.window is not None for row in rows):
        told.append("The network saw what lies inside the dashed frame.")
    return " ".join([*told, left_out]).strip()


def _left_out(rows: int, images: int, targets: int) -> str:
    """How many images, or rows of images with several targets, are shown, if not all are."""
    if rows == images * targets:
        return ""
    if targets == 1:
        return f"{rows} of {images} images shown."
    return (
        f"{rows} of {images * targets} rows shown ({targets} targets of {'each of ' * (images > 1)}{_images(images)})."
    )


def _images(count: int) -> str:
    return f"{count} images" if count > 1 else "one image"


def titles_of(explanation: Explanation, panels: Sequence[str]) -> list[str]:
    """Of the panels; a part of another name is a layer, which is called as it is."""
    own = {"maps": explanation.method, **{name: name.capitalize() for name in _STAGES}}
    return [explanation.titles.get(name, own.get(name, name)) for name in panels]


def signed_panels(explanation: Explanation, style: Style) -> Signs:
    """For each stage that is drawn whether its maps have values below 0, in any image."""
    return {name: is_signed(explanation, name) for name in panels_of(explanation, style)}


def method_title(explanation: Explanation) -> str:
    """What the method is called."""
    return explanation.titles.get("maps", explanation.method)


def middle_of(saliency: Map) -> Map:
    """The map, or its middle frame or slice."""
    return saliency[len(saliency) // 2] if saliency.ndim == 3 else saliency


def shown_of(
    explanation: Explanation, index: int, photograph: Any, preprocessing: Preprocessing | None, style: Style
) -> Shown:
    """What the maps of an image are drawn on: the photograph, whole with a preprocessing, or else the input."""
    if photograph is None:
        return Shown(input_picture(explanation, index))
    if preprocessing is None:
        return Shown(pixels_of(photograph, style))
    whole = preprocessing.whole(photograph)
    left, top, right, bottom = preprocessing.box(whole)
    width, height = whole.size
    window = (left / width, top / height, right / width, bottom / height)
    return Shown(pixels_of(whole, style), None if window == (0.0, 0.0, 1.0, 1.0) else window)


def _in_photograph(saliency: Map, shown: Shown) -> Map:
    """The map of the input as one of the whole photograph, if that is drawn."""
    if shown.window is None:
        return saliency
    height, width = shown.pixels.shape[:2]
    return placed(saliency, shown.window, (height, width))


def require_readable(photographs: Sequence[Any], preprocessing: Preprocessing | None) -> None:
    """Look at all photographs before any is drawn.

    Raises:
        TypeError, ValueError: one of them is no photograph.
    """
    for photograph in photographs:
        require_pixels(photograph if preprocessing is None else preprocessing.whole(photograph))


def pixels_of(photograph: Any, style: Style) -> Pixels:
    """A photograph as an array, no larger than its panel can show twice over.

    Raises:
        ValueError: it is no RGB photograph.
    """
    pixels = require_pixels(photograph)
    largest = largest_pixels(style, pixels)
    if largest is None or max(pixels.shape[:2]) <= largest:
        return pixels
    pillow = require("PIL.Image", "Drawing pictures")
    picture = pillow.fromarray(pixels)
    picture.thumbnail((largest, largest), pillow.Resampling.LANCZOS)
    return np.asarray(picture)


def input_picture(explanation: Explanation, index: int) -> Pixels:
    """One model input as a picture: min-max scaled; other than one or three channels are averaged."""
    image = np.asarray(explanation.images[index], dtype=np.float64)
    axis = explanation.image_channel_axis
    image = image[..., None] if axis is None else np.moveaxis(image, _single_image_axis(axis), -1)
    image = image[len(image) // 2] if image.ndim == 4 else image
    if image.shape[-1] != 3:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    low, high = float(image.min()), float(image.max())
    spread = high - low if high > low else 1.0
    return np.round((image - low) / spread * 255.0).astype(np.uint8)


def _single_image_axis(batched_axis: int) -> int:
    return batched_axis - 1 if batched_axis > 0 else batched_axis


def input_title(explanation: Explanation) -> str:
    """What the input's panel is called: of clips and volumes with the number of the frame or slice, from 1."""
    if spatial_axes(explanation) == 2:
        return "Input"
    axis = explanation.image_channel_axis
    lengths = [length for number, length in enumerate(explanation.images.shape) if number not in _not_space(axis, 5)]
    return f"Input, {lengths[0] // 2 + 1} of {lengths[0]}"


def _not_space(channel_axis: int | None, axes: int) -> tuple[int, ...]:
    return (0,) if channel_axis is None else (0, channel_axis % axes)
