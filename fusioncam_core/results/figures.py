"""Explanations as pictures: maps over photographs."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.models.masking import spatial_size
from fusioncam_core.results.drawn import drawn
from fusioncam_core.results.terminal import target_numbers
from fusioncam_core.results.writing import SOFTWARE, Kind, software
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from fusioncam_core.results.explanation import Explanation


COLOUR_MAP = "inferno"  # its lightness rises evenly, so that it reads the same in grey and to every eye


_STRENGTH = (0.3, 0.7)


_RESOLUTION = 200  # dots per inch


_PANEL_WIDTH = 2.1  # inches, and so on below


_WIDTH_LIMITS = (1.4, 4.2)  # of the panels for very tall and very wide photographs: a title must fit


_HEIGHT_LIMITS = (1.0, 3.2)


_PROPORTIONS = 10.0  # one side of a panel over the other: longer photographs are drawn shorter, not as high as a house


_HIGHEST = 60.0  # of all rows: matplotlib draws at most 2**16 pixels, and nobody looks at as many


_LARGEST = round(2 * _PANEL_WIDTH * _RESOLUTION)  # pixels of a photograph, across or down


_GAP = 0.06


_TITLE_HEIGHT = 0.24


_LABEL_WIDTH = 0.36


_BAR_WIDTH = 0.1


_BAR_LABELS = 0.42


_MARGIN = 0.08


_FONT_SIZE = 9.0


_LETTERS_PER_INCH = 14  # of the row labels, in this font size


_NOTEBOOK_ROWS = 8


Pixels = npt.NDArray[np.uint8]


Map = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Row:
    """One row of a figure: a photograph, and maps drawn over it.

    Attributes:
        photograph: (H, W, 3), uint8.
        maps: each (h, w) in [0, 1]; stretched over the whole photograph.
        label: written beside the row; "" for none.
    """

    photograph: Pixels
    maps: Sequence[Map]
    label: str = ""


class _Layout(NamedTuple):
    """Where the panels lie, in inches from the top left corner."""

    width: float
    height: float
    left: float
    panel_width: float
    row_tops: list[float]
    row_heights: list[float]


def overlay(
    photograph: Pixels,
    saliency: Map,
    colour_map: str = COLOUR_MAP,
    strength: tuple[float, float] = _STRENGTH,
) -> Pixels:
    """Blend a map's colours over a photograph.

    The photograph loses its own colours first, so that every colour in the result is the map's.

    Args:
        photograph: (H, W, 3), uint8.
        saliency: (h, w) in [0, 1]; resized to (H, W).
        colour_map: a name that matplotlib knows.
        strength: the share of the map's colours, in [0, 1], where the map is 0 and where it is 1; linear
            between the two.

    Returns:
        (H, W, 3), uint8.
    """
    pillow = require("PIL.Image", "Drawing pictures")
    height, width = photograph.shape[:2]
    small = pillow.fromarray(np.asarray(saliency, dtype=np.float32))
    values = np.clip(np.asarray(small.resize((width, height), pillow.Resampling.BILINEAR)), 0.0, 1.0)
    colours = _colours(colour_map)(values)[..., :3] * 255.0
    grey = np.asarray(pillow.fromarray(photograph).convert("L"), dtype=np.float64)[..., np.newaxis]
    share = (strength[0] + (strength[1] - strength[0]) * values)[..., np.newaxis]
    blended: Pixels = np.round((1.0 - share) * grey + share * colours).astype(np.uint8)
    return blended


def figure(rows: Sequence[Row], titles: Sequence[str], *, colour_map: str = COLOUR_MAP) -> Figure:
    """A matplotlib figure: per row the photograph and its overlays, and one colour bar for all.

    Args:
        rows: at least one; every row has as many maps.
        titles: what the photograph and the maps are called, above the first row.
        colour_map: a name that matplotlib knows.
    """
    layout = _layout(rows, len(titles))
    figure: Figure = require("matplotlib.figure", "Drawing pictures").Figure(
        figsize=(layout.width, layout.height), dpi=_RESOLUTION
    )
    for index, row in enumerate(rows):
        panels = [row.photograph, *(overlay(row.photograph, m, colour_map) for m in row.maps)]
        for column, (pixels, title) in enumerate(zip(panels, titles, strict=True)):
            axes = _panel(figure, layout, index, column)
            axes.imshow(pixels, aspect="auto", interpolation="lanczos")
            if index == 0:
                axes.set_title(visible(title), fontsize=_FONT_SIZE, pad=4, parse_math=False)
            if column == 0:
                _label(axes, index, row.label, layout)
    _colour_bar(figure, layout, colour_map)
    return figure


def png(figure: Figure, kind: Kind = "explanation") -> bytes:
    """A figure as the bytes of a PNG file, which says that fusioncam has drawn it, and as what kind of result."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={SOFTWARE: software(kind)})
    return buffer.getvalue()


def overlay_png(explanation: Explanation, class_names: Sequence[str] | None = None) -> bytes:
    """A notebook's view of an explanation: the images and their maps, as the bytes of a PNG file.

    Of many images and targets the first 8 are shown; of clips and volumes the middle frame or slice.

    Args:
        explanation: of NumPy arrays (`explanation.numpy()`), with maps (B, H, W) or (B, K, H, W), or of clips and
            volumes (B, D, H, W) or (B, K, D, H, W).
        class_names: one per class, in the order of the model's outputs.

    Raises:
        ValueError: the maps have another number of spatial axes than two or three, or there is not a name per class.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    _check_drawable(explanation)
    _check_class_names(explanation, class_names)
    rows = [
        row
        for index in range(min(_NOTEBOOK_ROWS, len(explanation.images)))
        for row in _rows(explanation, index, _input_picture(explanation, index), {}, class_names, most=_NOTEBOOK_ROWS)
    ]
    most = min(_NOTEBOOK_ROWS, rows_shown(rows[0].photograph))
    return png(figure(rows[:most], [_input_title(explanation), _method_title(explanation)]))


def _rows(
    explanation: Explanation,
    index: int,
    photograph: Pixels,
    parts: Mapping[str, str],
    class_names: Sequence[str] | None,
    *,
    most: int,
) -> Iterator[Row]:
    """The rows of an image, one a target, at most so many."""
    stages = [explanation.parts[name][index] for name in parts] + [explanation.maps[index]]
    several = explanation.targets.ndim == 2
    for k, numbers in enumerate(itertools.islice(target_numbers(explanation, index, class_names), most)):
        shown = [stage[k] if several else stage for stage in stages]
        shown[-1] = drawn(shown[-1], explanation.form)
        maps = [_picture_of(each) for each in shown]
        name = numbers["name"] or f"class {numbers['class']}"
        yield Row(photograph, maps, f"{name}\np = {numbers['probability']:.3f}")


def _method_title(explanation: Explanation) -> str:
    return explanation.titles.get("maps", explanation.method)


def _input_picture(explanation: Explanation, index: int) -> Pixels:
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


def _picture_of(saliency: Map) -> Map:
    """The map, or its middle frame or slice."""
    return saliency[len(saliency) // 2] if saliency.ndim == 3 else saliency


def _input_title(explanation: Explanation) -> str:
    """What the input's panel is called: of clips and volumes with the number of the frame or slice, from 1."""
    size = spatial_size(explanation.images, explanation.image_channel_axis)
    frames = size[0] if len(size) == 3 else None
    return "Input" if frames is None else f"Input, {frames // 2 + 1} of {frames}"


def _single_image_axis(batched_axis: int) -> int:
    return batched_axis - 1 if batched_axis > 0 else batched_axis


def _pixels(photograph: Any) -> Pixels:
    """A photograph as an array, no larger than its panel can show twice over."""
    pixels = np.asarray(photograph)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise InvalidValueError(
            "Expected a photograph as an RGB Pillow image or a uint8 array (height, width, 3), got dtype "
            f"{pixels.dtype} and shape {pixels.shape}."
        )
    pillow = require("PIL.Image", "Drawing pictures")
    picture = pillow.fromarray(pixels)
    picture.thumbnail((_LARGEST, _LARGEST), pillow.Resampling.LANCZOS)
    return np.asarray(picture)


def _spatial_axes(explanation: Explanation) -> int:
    return int(explanation.images.ndim) - (1 if explanation.image_channel_axis is None else 2)


def _check_drawable(explanation: Explanation) -> None:
    axes = _spatial_axes(explanation)
    if axes not in (2, 3):
        raise InvalidValueError(
            f"Pictures are drawn of inputs with 2 spatial axes (height, width) or 3 (of which the middle of the first "
            f"is shown), and these have {axes}. The maps and numbers can be saved without: pictures=False."
        )


def _check_class_names(explanation: Explanation, class_names: Sequence[str] | None) -> None:
    classes = explanation.class_probabilities.shape[1]
    if class_names is not None and len(class_names) != classes and not explanation.target_names:
        raise InvalidValueError(f"The model has {classes} classes, but there are {len(class_names)} class names.")


def _layout(rows: Sequence[Row], columns: int) -> _Layout:
    left = _MARGIN + (_LABEL_WIDTH if any(row.label for row in rows) else 0.0)
    ratios = [_ratio(row.photograph) for row in rows]
    panel_width = _panel_width(ratios[0])
    heights = [panel_width * ratio for ratio in ratios]
    tops = [_TITLE_HEIGHT + sum(heights[:index]) + _GAP * index for index in range(len(rows))]
    width = left + columns * (panel_width + _GAP) + _BAR_WIDTH + _BAR_LABELS
    return _Layout(width, tops[-1] + heights[-1] + _MARGIN, left, panel_width, tops, heights)


def rows_shown(photograph: Pixels) -> int:
    """How many rows of panels for a photograph (H, W, 3) fit in one figure."""
    ratio = _ratio(photograph)
    return max(1, int(_HIGHEST / (_panel_width(ratio) * ratio + _GAP)))


def _ratio(photograph: Pixels) -> float:
    """A panel's height over its width: the photograph's, unless that is extreme."""
    height, width = photograph.shape[:2]
    return float(min(max(height / width, 1 / _PROPORTIONS), _PROPORTIONS))


def _panel_width(ratio: float) -> float:
    """The width that keeps panels of this height over width within the limits."""
    narrowest, widest = _WIDTH_LIMITS
    lowest, highest = _HEIGHT_LIMITS
    return min(max(_PANEL_WIDTH, min(lowest / ratio, widest)), max(highest / ratio, narrowest))


def _panel(figure: Figure, layout: _Layout, row: int, column: int) -> Axes:
    left = layout.left + column * (layout.panel_width + _GAP)
    axes = _axes(figure, layout, left, layout.row_tops[row], layout.panel_width, layout.row_heights[row])
    axes.set_axis_off()
    return axes


def _axes(figure: Figure, layout: _Layout, left: float, top: float, width: float, height: float) -> Axes:
    bottom = layout.height - top - height
    return figure.add_axes((left / layout.width, bottom / layout.height, width / layout.width, height / layout.height))


def _label(axes: Axes, row: int, label: str, layout: _Layout) -> None:
    """Write a label of lines left of a row, from bottom to top."""
    letters = int(layout.row_heights[row] * _LETTERS_PER_INCH)
    shown = map(visible, label.split("\n"))
    lines = [line if len(line) <= letters else line[: letters - 1] + "…" for line in shown]
    axes.text(
        -_GAP / layout.panel_width,
        0.5,
        "\n".join(lines),
        transform=axes.transAxes,
        rotation=90,
        rotation_mode="anchor",
        horizontalalignment="center",
        verticalalignment="bottom",
        multialignment="center",
        fontsize=_FONT_SIZE,
        parse_math=False,
    )


def _colour_bar(figure: Figure, layout: _Layout, colour_map: str) -> None:
    left = layout.width - _BAR_WIDTH - _BAR_LABELS
    top, bottom = layout.row_tops[0], layout.row_tops[-1] + layout.row_heights[-1]
    axes = _axes(figure, layout, left, top, _BAR_WIDTH, bottom - top)
    colours = require("matplotlib.cm", "Drawing pictures").ScalarMappable(cmap=_colours(colour_map))
    colours.set_clim(0.0, 1.0)
    bar = figure.colorbar(colours, cax=axes, ticks=[0.0, 0.5, 1.0])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=_FONT_SIZE - 1.0, length=2, width=0.5, pad=2)


def _colours(name: str) -> Colormap:
    colours: Colormap = require("matplotlib", "Drawing pictures").colormaps[name]
    return colours
