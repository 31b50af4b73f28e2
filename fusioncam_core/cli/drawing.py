"""How `fusioncam explain` draws: its options, as those of `Explanation.plot`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.figures import PictureFormat
from fusioncam_core.results.overlay import colours_of
from fusioncam_core.results.style import DEFAULT_STYLE, Scale, Style

Seen = tuple[list[Any] | None, Preprocessing | None]
"""The photographs and the preprocessing that `save_explanation` takes."""

_OWN = "photograph"


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """The arguments about pictures."""
    add = parser.add_argument_group("pictures").add_argument
    formats = list(get_args(PictureFormat))
    add("--picture", choices=formats, default="png", help="the format of the pictures (default: %(default)s)")
    scales = "each map in its own range, or the maps of one image by their raw values (default: %(default)s)"
    add("--scale", choices=list(get_args(Scale)), default=DEFAULT_STYLE.scale, help=scales)
    add("--colour-map", metavar="NAME", help="of matplotlib (default: inferno; coolwarm if maps are signed)")
    add("--alpha", type=float, default=DEFAULT_STYLE.alpha, metavar="A", help="the most a map covers (%(default)s)")
    add("--contours", type=_levels, default=(), metavar="L[,L...]", help="draw lines at these values of a map")
    add("--threshold", type=float, default=0.0, metavar="T", help="draw nothing below it (default: 0)")
    add("--panels", type=_names, metavar="NAME[,NAME...]", help="stages to draw, such as gradient,union,maps")
    dots = "dots per inch, or photograph for all its pixels (default: %(default)g)"
    add("--dpi", type=_dots, default=DEFAULT_STYLE.dpi, metavar="N", help=dots)
    frames = "draw the whole photograph, or the window that the network saw (default: photograph)"
    add("--frame", choices=[_OWN, "window"], help=frames)


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0.3,0.6") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _dots(text: str) -> float | str:
    try:
        return text if text == _OWN else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of dots per inch nor {_OWN}") from None


def refuse_drawing(arguments: argparse.Namespace) -> None:
    """Refuse options about pictures where none are drawn.

    Raises:
        ValueError: naming the first that is given.
    """
    parser = argparse.ArgumentParser()
    add_drawing(parser)
    for name, usual in vars(parser.parse_args([])).items():
        if getattr(arguments, name) != usual:
            raise InvalidValueError(f"--maps-only draws no pictures: expected it without --{name.replace('_', '-')}.")


def style_of(arguments: argparse.Namespace) -> Style:
    """The style that the arguments ask for.

    Raises:
        ValueError: a value is out of range, or matplotlib has no such colour map.
        MissingExtra: matplotlib is not installed.
    """
    names = ("scale", "colour_map", "alpha", "contours", "threshold", "panels", "dpi")
    style = Style(**{name: getattr(arguments, name) for name in names})
    colours_of(style.colour_map, signed=False)
    return style


class Canvas:
    """What the maps are drawn on.

    Args:
        arguments: of the command.
        preprocessing: of its photographs.

    Raises:
        ValueError: `--frame` is asked for with a preprocessing that does not tell where the input lies.
    """

    def __init__(self, arguments: argparse.Namespace, preprocessing: Callable[[Any], Any]):
        self._own = preprocessing if isinstance(preprocessing, Preprocessing) else None
        if arguments.frame is not None and self._own is None:
            raise InvalidValueError(
                f"--frame {arguments.frame} needs a model with a fusioncam_core.Preprocessing, which tells where in "
                "the photograph the input lies: this one's is a function, and its inputs are drawn."
            )
        self._whole = arguments.frame != "window"

    def of(self, photograph: Any) -> Seen:
        """What the map of a photograph is drawn on."""
        if self._own is None:
            return None, None
        return ([photograph], self._own) if self._whole else ([self._own.window(photograph)], None)
