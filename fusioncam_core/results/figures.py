"""Figures: photographs, and maps drawn over them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fusioncam_core.arrays.checks import require_word
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.results.layout import (
    BAR_LABELS,
    BAR_WIDTH,
    CAPTION_LINE,
    GAP,
    MARGIN,
    NOTE_HEIGHT,
    RESOLUTION,
    Layout,
    laid_out,
    width_of_panels,
)
from fusioncam_core.results.overlay import (
    ALPHA,
    Map,
    Pixels,
    blended,
    part_of,
    require_map,
    require_pixels,
    stretched,
)
from fusioncam_core.results.style import MOST_DOTS, OwnResolution, Style
from fusioncam_core.results.writing import SOFTWARE, Kind, software
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PictureFormat = Literal["png", "pdf", "svg"]

_FONT_SIZE = 9.0
_SMALL = 7.0
_SHADES = 256
_MOST_PIXELS = 2**16 - 1  # across or down, of which matplotlib draws no more


@dataclass(frozen=True)
class FigureRow:
    """One row of a figure: a photograph, and maps drawn over it.

    Attributes:
        photograph: (H, W, 3), uint8.
        maps: each (h, w) in [0, 1], or in [-1, 1] if it is signed; stretched over the whole photograph.
        label: written beside the row; "" for none.
        notes: written below each map; () for none.
        muted: for each map whether it is drawn in grey, as one that does not support its class; () for none.
        window: left, top, right and bottom of a frame around a part of the photograph, as shares of its width and
            height; None draws none.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import FigureRow
        >>> FigureRow(np.zeros((2, 2, 3), dtype=np.uint8), [np.eye(2)], label="a row").label
        'a row'
    """

    photograph: Pixels
    maps: Sequence[Map]
    label: str = ""
    notes: Sequence[str] = ()
    muted: Sequence[bool] = ()
    window: tuple[float, float, float, float] | None = None


def figure(
    rows: Sequence[FigureRow],
    titles: Sequence[str],
    *,
    colour_map: str | None = None,
    alpha: float = ALPHA,
    contours: Sequence[float] = (),
    threshold: float = 0.0,
    dpi: float | OwnResolution = RESOLUTION,
    caption: str = "",
) -> Figure:
    """A matplotlib figure: per row the photograph and its overlays, and one colour bar for all.

    Choose this for maps of your own making beside each other; `Explanation.plot` draws an explanation.

    Args:
        rows: at least one; every row has as many maps.
        titles: what the photograph and the maps are called, above the first row.
        colour_map: a name that matplotlib knows; None takes "inferno", and "coolwarm" if any map has values below 0.
        alpha: in [0, 1], the share of the map's colour where the map is 1; it is 0 where the map is 0.
        contours: levels at which lines are drawn, in (0, 1), or in (-1, 1) without 0 for signed maps.
        threshold: in [0, 1): below it, by absolute value, the photograph is untouched.
        dpi: dots per inch, or "photograph": panels then have as many as the first photograph has pixels.
        caption: written below; "" for none.

    Returns:
        A figure that belongs to no window: `figure.savefig("maps.pdf")` writes it.

    Raises:
        TypeError: an option is of a wrong type.
        ValueError: there are no rows, rows differ in their number of maps from the titles, notes or `muted`, a map or a
            photograph is none, or an option is out of range.
        MissingExtra: matplotlib or Pillow is not installed.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import FigureRow, figure
        >>> photograph = np.full((4, 4, 3), 200, dtype=np.uint8)
        >>> row = FigureRow(photograph, [np.eye(4)], label="mine")
        >>> drawn = figure([row], ["photograph", "diagonal"], contours=[0.5])
        >>> [axes.get_title() for axes in drawn.axes[:2]]
        ['photograph', 'diagonal']
    """
    style = Style(colour_map=colour_map, alpha=alpha, contours=contours, threshold=threshold, dpi=dpi)
    return drawn(rows, titles, style, caption)


def drawn(
    rows: Sequence[FigureRow],
    titles: Sequence[str],
    style: Style,
    caption: str = "",
    *,
    signed: bool | None = None,
    across: int = 1,
) -> Figure:
    """As `figure`, in a style.

    Args:
        rows, titles, style, caption: as for `figure`.
        signed: whether the colours' middle is 0; None looks at the maps.
        across: how many rows stand beside each other; their photographs are of one size then.
    """
    _check_rows(rows, titles)
    if signed is None:
        signed = any(np.min(each) < 0 for row in rows for each in row.maps)
    layout = laid_out(
        [row.photograph.shape[:2] for row in rows],
        len(titles),
        across,
        labels=["\n".join(map(visible, row.label.split("\n"))) for row in rows],
        notes=any(note for row in rows for note in row.notes),
        caption=visible(caption),
    )
    dots = _dots(rows[0].photograph, style, layout)
    page = blank_page(figsize=(layout.width, layout.height), dpi=dots)
    for index, row in enumerate(rows):
        for column, title in enumerate(titles):
            axes = _panel(page, layout, index, column)
            _fill(axes, row, column - 1, style, signed)
            if index < across:
                axes.set_title(visible(title), fontsize=_FONT_SIZE, pad=4, parse_math=False)
            if column == 0:
                _label(axes, layout, index)
            elif row.notes:
                _note(axes, row.notes[column - 1])
    _colour_bar(page, layout, style, signed)
    _caption(page, layout)
    return page


def blank_page(**options: Any) -> Figure:
    """An empty figure, made with options of matplotlib's.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib.figure", "Drawing pictures")
    from fusioncam_core.results.page import Page

    return Page(**options)


def rendered(figure: Figure, picture: PictureFormat = "png", kind: Kind = "explanation") -> bytes:
    """A figure as the bytes of a file, which says that fusioncam has drawn it, and as what kind of result.

    Args:
        figure: of matplotlib.
        picture: "png"; or "pdf" or "svg", in which letters and lines stay sharp at any size and photographs keep the
            pixels that they were given.
        kind: of result that it is part of.

    Raises:
        ValueError: there is no such format.
    """
    require_word(picture, "picture", PictureFormat)
    buffer = io.BytesIO()
    if picture == "png":
        figure.savefig(buffer, format="png", metadata={SOFTWARE: software(kind)})
        return buffer.getvalue()
    made = {"pdf": "CreationDate", "svg": "Date"}[picture]
    with _own_pixels(figure):
        figure.savefig(buffer, format=picture, metadata={"Creator": software(kind), made: None})
    return buffer.getvalue()


def png(figure: Figure, kind: Kind = "explanation") -> bytes:
    """`rendered` as a PNG."""
    return rendered(figure, "png", kind)


@contextmanager
def _own_pixels(figure: Figure) -> Iterator[None]:
    """Let pictures go into a file as they are, and not at the dots of the page."""
    before = [(image, image.get_interpolation()) for axes in figure.axes for image in axes.images]
    try:
        for image, _ in before:
            image.set_interpolation("none")
        yield
    finally:
        for image, interpolation in before:
            image.set_interpolation(interpolation)


def largest_pixels(style: Style, photograph: Pixels) -> int | None:
    """How many pixels of a photograph, across or down, its panel can show twice over; None for all."""
    if style.dpi == "photograph":
        return None
    return round(2 * width_of_panels(photograph.shape[:2]) * style.dpi)


def _check_rows(rows: Sequence[FigureRow], titles: Sequence[str]) -> None:
    if not rows:
        raise InvalidValueError("Expected at least one row, got none.")
    for row in rows:
        require_pixels(row.photograph)
        for each in row.maps:
            require_map(each)
        if len(row.maps) != len(titles) - 1:
            raise InvalidValueError(
                f"Expected a title for the photograph and for each of the {len(row.maps)} maps of a row, got "
                f"{len(titles)} titles."
            )
        for name, values in (("notes", row.notes), ("muted", row.muted)):
            if values and len(values) != len(row.maps):
                raise InvalidValueError(f"Expected {name} for each of {len(row.maps)} maps, got {len(values)}.")


def _dots(photograph: Pixels, style: Style, layout: Layout) -> float:
    """Dots per inch of the page, of which matplotlib draws only so many."""
    dots = photograph.shape[1] / layout.panel_width if style.dpi == "photograph" else style.dpi
    return min(max(dots, 1.0), MOST_DOTS, _MOST_PIXELS / max(layout.width, layout.height))


def _fill(axes: Axes, row: FigureRow, number: int, style: Style, signed: bool) -> None:
    """Draw the photograph, or with a number from 0 one of the maps over it."""
    pixels = row.photograph
    if number >= 0:
        values = np.clip(stretched(row.maps[number], pixels.shape[:2]), -1.0, 1.0)
        muted = bool(row.muted) and bool(row.muted[number])
        pixels = blended(pixels, values, style.colour_map, style.alpha, style.threshold, signed=signed, muted=muted)
    axes.imshow(pixels, aspect="auto", interpolation="lanczos")
    if number >= 0:
        _contours(axes, values, style.contours, row.window)
    if row.window is not None:
        _frame(axes, row.window, pixels.shape)


def _contours(
    axes: Axes, values: Map, levels: Sequence[float], window: tuple[float, float, float, float] | None
) -> None:
    """Lines at the levels that the map reaches, white on black so that they show on anything; none along the window."""
    shown = sorted({float(level) for level in levels if values.min() < level < values.max()})
    if not shown:
        return
    if window is not None:
        rows, columns = part_of(values.shape, window)
        inside = np.full(values.shape, np.nan)
        inside[rows, columns] = values[rows, columns]
        values = inside
    effects = require("matplotlib.patheffects", "Drawing pictures")
    lines = axes.contour(values, levels=shown, colors="white", linewidths=0.8, linestyles="solid")
    lines.set_path_effects([effects.withStroke(linewidth=1.8, foreground="black")])


def _frame(axes: Axes, window: tuple[float, float, float, float], shape: tuple[int, ...]) -> None:
    """A dashed line around a part of the photograph."""
    left, top, right, bottom = window
    height, width = shape[:2]
    patches = require("matplotlib.patches", "Drawing pictures")
    corner, size = (left * width - 0.5, top * height - 0.5), ((right - left) * width, (bottom - top) * height)
    for colour, dashes in (("black", "solid"), ("white", (0, (3, 3)))):
        axes.add_patch(patches.Rectangle(corner, *size, fill=False, edgecolor=colour, linestyle=dashes, linewidth=0.8))


def _panel(figure: Figure, layout: Layout, row: int, column: int) -> Axes:
    left = layout.row_lefts[row] + column * (layout.panel_width + GAP)
    axes = _axes(figure, layout, left, layout.row_tops[row], layout.panel_width, layout.row_heights[row])
    axes.set_axis_off()
    return axes


def _axes(figure: Figure, layout: Layout, left: float, top: float, width: float, height: float) -> Axes:
    bottom = layout.height - top - height
    return figure.add_axes((left / layout.width, bottom / layout.height, width / layout.width, height / layout.height))


def _label(axes: Axes, layout: Layout, row: int) -> None:
    """Write a label of lines left of a row, from bottom to top."""
    axes.text(
        -GAP / layout.panel_width,
        0.5,
        "\n".join(layout.labels[row]),
        transform=axes.transAxes,
        rotation=90,
        rotation_mode="anchor",
        horizontalalignment="center",
        verticalalignment="bottom",
        multialignment="center",
        fontsize=_FONT_SIZE,
        parse_math=False,
    )


def _note(axes: Axes, note: str) -> None:
    """A line below a panel."""
    axes.annotate(
        visible(note),
        (0.5, 0.0),
        (0.0, -72.0 * NOTE_HEIGHT + 3.0),
        xycoords="axes fraction",
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="baseline",
        fontsize=_SMALL,
        parse_math=False,
    )


def _caption(figure: Figure, layout: Layout) -> None:
    """Lines at the bottom of the page."""
    for number, line in enumerate(reversed(layout.caption)):
        figure.text(
            MARGIN / layout.width,
            (MARGIN / 2 + CAPTION_LINE * number) / layout.height,
            line,
            verticalalignment="bottom",
            fontsize=_SMALL,
            color="0.3",
            parse_math=False,
        )


def _colour_bar(figure: Figure, layout: Layout, style: Style, signed: bool) -> None:
    """The colours as they are drawn, over white: nothing where a map is 0 or below the threshold."""
    left = layout.width - BAR_WIDTH - BAR_LABELS
    top, bottom = layout.row_tops[0], layout.row_tops[-1] + layout.row_heights[-1]
    axes = _axes(figure, layout, left, top, BAR_WIDTH, bottom - top)
    low = -1.0 if signed else 0.0
    values = np.linspace(1.0, low, _SHADES)[:, np.newaxis]
    white = np.full((_SHADES, 1, 3), 255, dtype=np.uint8)
    shades = blended(white, values, style.colour_map, style.alpha, style.threshold, signed=signed, muted=False)
    axes.imshow(shades, aspect="auto", extent=(0.0, 1.0, low, 1.0), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([low, (low + 1.0) / 2, 1.0])
    axes.yaxis.tick_right()
    for spine in axes.spines.values():
        spine.set(linewidth=0.4, color="0.6")
    axes.tick_params(labelsize=_FONT_SIZE - 1.0, length=2, width=0.5, pad=2)
