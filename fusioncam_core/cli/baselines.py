"""What an erased pixel is: `--baseline`, as explainers have it."""

from __future__ import annotations

import argparse
import math

HELP = "an erased pixel: zero, blur, or a number or one a channel in the model's units (default: the method's own)"

METAVAR = "B[,B...]"

_WORDS = ("zero", "blur")


def baseline_given(text: str) -> str | float | tuple[float, ...]:
    """A word, a number, or one number a channel.

    Raises:
        ArgumentTypeError: for anything else.
    """
    if text in _WORDS:
        return text
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of zero, blur, a number such as 0.5, and one a channel such as 0.5,0.4,0.4"
        )
    return values if len(values) > 1 else values[0]
