"""Where the panels of a figure lie, in inches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

RESOLUTION = 200.0  # dots per inch
PANEL_WIDTH = 2.1  # inches, and so on below
WIDTH_LIMITS = (1.4, 4.2)  # of the panels for very tall and very wide photographs: a title must fit
HEIGHT_LIMITS = (1.0, 3.2)
PROPORTIONS = 10.0  # one side of a panel over the other: longer photographs are drawn shorter, not as high as a house
HIGHEST = 60.0  # of all rows: matplotlib draws at most 2**16 pixels, and nobody looks at as many
GAP = 0.06
TITLE_HEIGHT = 0.24
NOTE_HEIGHT = 0.15
CAPTION_LINE = 0.125
LABEL_WIDTH = 0.36  # of one or two lines
LABEL_LINE = 0.15  # of each further one
LABEL_LINES = 3  # that one line of a label is wrapped to, at most
BAR_WIDTH = 0.1
BAR_LABELS = 0.42
MARGIN = 0.08
LETTERS_PER_INCH = 14  # of titles and labels
SMALL_LETTERS_PER_INCH = 19  # of notes and the caption


class Layout(NamedTuple):
    """Where the panels lie, from the top left corner.

    Attributes:
        width, height: of the whole figure.
        panel_width: of every panel.
        row_lefts, row_tops, row_heights: of the panels of each row, without their notes.
        labels: the lines beside each row.
        caption: the lines below the last row.
    """

    width: float
    height: float
    panel_width: float
    row_lefts: list[float]
    row_tops: list[float]
    row_heights: list[float]
    labels: list[list[str]]
    caption: list[str]


def laid_out(
    proportions: Sequence[tuple[int, int]],
    columns: int,
    across: int,
    *,
    labels: Sequence[str],
    notes: bool,
    caption: str,
) -> Layout:
    """The layout of rows of panels under one line of titles.

    Args:
        proportions: of each row's photograph, (height, width).
        columns: how many panels a row has.
        across: how many rows stand beside each other, of one size.
        labels: beside each row; "" for nothing.
        notes: whether there is something below the panels.
        caption: below everything; "" for nothing.
    """
    panel_width = width_of_panels(proportions[0])
    heights = [panel_width * _ratio(*each) for each in proportions]
    gap = GAP + (NOTE_HEIGHT if notes else 0.0)
    first = heights[::across]
    tops = [TITLE_HEIGHT + sum(first[:line]) + gap * line for line in range(len(first))]
    wrapped = [_wrapped(label, height) for label, height in zip(labels, heights, strict=True)]
    label = _label_width(max(map(len, wrapped)))
    block = label + columns * (panel_width + GAP)
    width = MARGIN + across * block + BAR_WIDTH + BAR_LABELS
    letters = max(20, int((width - 2 * MARGIN) * SMALL_LETTERS_PER_INCH))
    lines = textwrap.wrap(caption, letters, break_on_hyphens=False)
    below = (NOTE_HEIGHT if notes else 0.0) + MARGIN + (GAP + CAPTION_LINE * len(lines) if lines else 0.0)
    return Layout(
        width,
        tops[-1] + first[-1] + below,
        panel_width,
        [MARGIN + label + block * (row % across) for row in range(len(heights))],
        [tops[row // across] for row in range(len(heights))],
        heights,
        wrapped,
        lines,
    )


def _wrapped(label: str, height: float) -> list[str]:
    """The lines of a label as they fit beside a row of this height; what is too long ends in dots."""
    if not label:
        return []
    letters = int(height * LETTERS_PER_INCH)
    return [
        part
        for line in label.split("\n")
        for part in textwrap.wrap(line, letters, max_lines=LABEL_LINES, placeholder="…", break_on_hyphens=False)
    ]


def _label_width(lines: int) -> float:
    return LABEL_WIDTH + LABEL_LINE * max(0, lines - 2) if lines else 0.0


def rows_that_fit(proportions: tuple[int, int]) -> int:
    """How many rows of panels for a photograph of (height, width) fit in one figure."""
    height = width_of_panels(proportions) * _ratio(*proportions)
    return max(1, int(HIGHEST / (height + GAP + NOTE_HEIGHT)))


def _ratio(height: int, width: int) -> float:
    """A panel's height over its width: the photograph's, unless that is extreme."""
    return float(min(max(height / width, 1 / PROPORTIONS), PROPORTIONS))


def width_of_panels(proportions: tuple[int, int]) -> float:
    """The width that keeps panels for a photograph of (height, width) within the limits."""
    ratio = _ratio(*proportions)
    narrowest, widest = WIDTH_LIMITS
    lowest, highest = HEIGHT_LIMITS
    return min(max(PANEL_WIDTH, min(lowest / ratio, widest)), max(highest / ratio, narrowest))
