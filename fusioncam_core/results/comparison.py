"""Methods beside each other on the same photographs, as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.results.drawable import check_class_names, check_drawable
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.figures import FigureRow, figure
from fusioncam_core.results.layout import RESOLUTION, rows_that_fit
from fusioncam_core.results.pictures import input_picture, input_title, label_of, method_title, middle_of, pixels_of
from fusioncam_core.results.scaling import is_signed, scaled
from fusioncam_core.results.style import DEFAULT_STYLE, OwnResolution
from fusioncam_core.results.terminal import target_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 8
"""Shown at most, unless more are asked for: as in a notebook's view of an explanation."""


def methods_figure(
    explanations: Mapping[str, Explanation] | Sequence[Explanation],
    photographs: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    most: int = ROWS,
    dpi: float | OwnResolution = RESOLUTION,
) -> Figure:
    """A figure of methods by photographs: a row for each image and target, a column for each method.

    Choose this beside `evaluate`, to see what its numbers are of: the same images, explained by each method. Every map
    is scaled to its own range, as methods give it, so that colours compare places within a map, not maps.

    Args:
        explanations: of the same images and targets, by what the methods are to be called; or in a sequence, by their
            own titles.
        photographs: what the maps are drawn on, Pillow images or (H, W, 3) uint8, one an image; None takes the inputs.
        class_names: of all classes, for the labels of rows.
        most: rows at most, from the first image on.
        dpi: dots per inch, or "photograph": a panel then has as many as the first photograph has pixels.

    Returns:
        A matplotlib figure: `figure.savefig("methods.pdf")` writes it in any format.

    Raises:
        TypeError: if there is no explanation.
        ValueError: if they are of other images or targets, there are not as many photographs as images, `dpi` is out
            of range, or a map is neither 2-D nor, as of clips and volumes, 3-D.
        MissingExtra: if matplotlib or Pillow is not installed.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM, LayerCAM, methods_figure
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> import numpy as np
        >>> explanations = [GradCAM(model, "0")(strip, 0), LayerCAM(model, "0")(strip, 0)]
        >>> drawn = methods_figure(explanations, [np.zeros((1, 4, 3), np.uint8)], ["red", "green"])
        >>> [axes.get_title() for axes in drawn.axes]
        ['Photograph', 'Grad-CAM', 'LayerCAM', '']
    """
    named = _named(explanations)
    first = next(iter(named.values()))
    for name, each in named.items():
        _require_the_same(name, each, first)
        check_drawable(each)
    check_class_names(first, class_names)
    count = len(first.images)
    if photographs is not None and len(photographs) != count:
        raise InvalidValueError(f"There are {count} images, but {len(photographs)} photographs.")
    rows = list(itertools.islice(_rows(named, photographs, class_names), require_count(most, "most")))
    shown = rows[: rows_that_fit(rows[0].photograph.shape[:2])]
    return figure(shown, [input_title(first) if photographs is None else "Photograph", *named], dpi=dpi)


def _named(explanations: Any) -> dict[str, Explanation]:
    """The explanations as NumPy, by what their methods are called."""
    if isinstance(explanations, Mapping):
        named = dict(explanations)
    elif isinstance(explanations, Sequence) and all(isinstance(each, Explanation) for each in explanations):
        named = {method_title(each): each for each in explanations}
        if len(named) < len(explanations):
            raise InvalidValueError("Two explanations are of one method: give a mapping from what they are called.")
    else:
        named = {}
    if not named or not all(isinstance(each, Explanation) for each in named.values()):
        what = type(explanations).__qualname__
        raise InvalidTypeError(f"Expected explanations, one or more, by what their methods are called: got {what}.")
    return {str(name): each.numpy() for name, each in named.items()}


def _require_the_same(name: str, explanation: Explanation, first: Explanation) -> None:
    """Raise InvalidValueError unless both are of the same images and targets."""
    shapes = [tuple(each.images.shape[:1]) + tuple(each.targets.shape) for each in (explanation, first)]
    if shapes[0] != shapes[1] or not np.array_equal(explanation.targets, first.targets):
        raise InvalidValueError(
            f"Methods are compared for the same images and targets: {name!r} has targets "
            f"{explanation.targets.tolist()}, and the first method {first.targets.tolist()}. Give targets=."
        )
    if explanation.images.shape == first.images.shape and not np.array_equal(explanation.images, first.images):
        raise InvalidValueError(f"Methods are compared on the same images: those of {name!r} are others.")


def _rows(
    named: Mapping[str, Explanation], photographs: Sequence[Any] | None, class_names: Sequence[str] | None
) -> Iterator[FigureRow]:
    first = next(iter(named.values()))
    for index in range(len(first)):
        pixels = input_picture(first, index) if photographs is None else pixels_of(photographs[index], DEFAULT_STYLE)
        maps = [scaled(each, "maps", index, "each", signed=is_signed(each, "maps")) for each in named.values()]
        for k, numbers in enumerate(target_numbers(first, index, class_names)):
            yield FigureRow(pixels, [middle_of(own[k]) for own in maps], label_of(numbers))
