"""Which argument and which result of a program is where in a graph."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.engines import ARGUMENT


def places(inputs: Sequence[Collection[str]], count: int) -> list[int]:
    """Which argument each input of a graph is: by its names, or, where inputs keep their order, its place.

    Args:
        inputs: the names of each.
        count: how many arguments there are.

    Raises:
        InvalidValueError: if some are missing, and it is not known which.
    """
    found = [numbered(names, ARGUMENT) for names in inputs]
    if any(place is None for place in found) and len(found) != count:
        raise InvalidValueError(f"Of {count} arguments {len(found)} are left, and it is not known which.")
    return [number if place is None else place for number, place in enumerate(found)]


def numbered(names: Collection[str], stem: str) -> int | None:
    """The number behind a stem in one of the names, such as "argument_3" or "result_0:0"."""
    numbers = (re.fullmatch(rf"{stem}(\d+)(:0)?", name) for name in names)
    return next((int(number[1]) for number in numbers if number is not None), None)
