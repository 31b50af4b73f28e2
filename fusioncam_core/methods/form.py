"""How every method ends: what is negative cut or kept, resized, normalised or left in the method's own units."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from fusioncam_core.arrays.checks import require_finite, require_flag
from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _normalised, _normalised_about_zero, _resize, relu

Units = tuple[Array | float, ...]

Cut = Literal["before", "after", "none"]

FormName = Literal["normalised", "signed", "raw"]

FORM_NAMES: tuple[str, ...] = get_args(FormName)


@dataclass(frozen=True)
class Form:
    """The form in which a method's maps are given.

    Attributes:
        relu: whether the method's last relu is taken. Without it what speaks against the target stays, as negative
            values.
        normalised: whether each map is normalised: to [0, 1] by its minimum and maximum or, without the relu, to
            [-1, 1] by its largest magnitude, so that 0 stays 0. Otherwise the values are in the method's own units.

    Raises:
        TypeError: if one is neither True nor False.
    """

    relu: bool = True
    normalised: bool = True

    def __post_init__(self) -> None:
        require_flag(self.relu, "relu")
        require_flag(self.normalised, "normalised")

    @property
    def usual(self) -> bool:
        """Whether the maps are in [0, 1], as the papers have them."""
        return self.relu and self.normalised

    @property
    def name(self) -> FormName:
        """What maps of this form are called in an explanation."""
        if not self.normalised:
            return "raw"
        return "normalised" if self.relu else "signed"


USUAL = Form()


class Combined(NamedTuple):
    """What a method sums up, before the steps with which all methods end.

    Attributes:
        values: (B, K, *spatial), of the layer's size if that is where the method sums.
        units: what they are to be multiplied with to be in the method's own units: numbers, and arrays that broadcast
            to (B, K, 1, ...). Their product may be larger than any number, and is not needed for maps in [0, 1].
        cut: whether the method's last relu comes before or after the resize; "none" if it has none.
    """

    values: Array
    units: Units = ()
    cut: Cut = "before"


class Finished(NamedTuple):
    """Maps (B, K, *size), and of normalised ones what they were before.

    Attributes:
        maps: in their form.
        raw_range: (B, K, 2) the lowest and highest value of each map before it was normalised, in the method's own
            units, if that was asked for; None otherwise.
    """

    maps: Array
    raw_range: Array = None


def finished(combined: Combined, size: tuple[int, ...], form: Form, *, ranges: bool = False, xp: Namespace) -> Finished:
    """`N(U(relu(combined)))`, or `N(relu(U(combined)))`, without what the form leaves out; `ranges` asks for raw ones.

    Raises:
        ValueError: if values in the method's own units lie beyond their dtype's range.
    """
    options: dict[str, Any] = {"cut": combined.cut, "size": tuple(size), "form": form, "ranges": ranges}
    made = _finished(combined.values, combined.units, **options, xp=xp)
    if not form.normalised:
        require_finite(made.maps, "raw map", xp)
    return made


class _Ended(NamedTuple):
    """What a method summed up, as `Combined` has it, and what became of it, as `Finished` has it."""

    values: Array
    units: Units
    cut: Cut
    maps: Array
    raw_range: Array


def ended(
    formula: Callable[..., Combined], *arrays: Any, size: tuple[int, ...], form: Form, xp: Namespace
) -> tuple[Combined, Finished]:
    """What a method's formula sums up of arrays, and its maps with their raw ranges: in one program.

    Args:
        formula: as `as_one_program` takes functions.
        *arrays: that it takes.
        size: of the maps.
        form: of the maps.
        xp: the namespace.

    Raises:
        ValueError: as `finished`.
    """
    made = _ended(*arrays, formula=formula, size=tuple(size), form=form, xp=xp)
    if not form.normalised:
        require_finite(made.maps, "raw map", xp)
    return Combined(made.values, made.units, made.cut), Finished(made.maps, made.raw_range)


@as_one_program
def _ended(*arrays: Any, formula: Callable[..., Combined], size: tuple[int, ...], form: Form, xp: Namespace) -> _Ended:
    combined = formula(*arrays, xp=xp)
    found = _finished(combined.values, combined.units, cut=combined.cut, size=size, form=form, ranges=True, xp=xp)
    return _Ended(*combined, *found)


@as_one_program
def _finished(
    values: Array, units: Units, *, cut: Cut, size: tuple[int, ...], form: Form, ranges: bool, xp: Namespace
) -> Finished:
    cut = cut if form.relu else "none"
    values = relu(values, xp=xp) if cut == "before" else values
    values = _resize(values, size, xp=xp)
    values = relu(values, xp=xp) if cut == "after" else values
    if not form.normalised:
        return Finished(functools.reduce(operator.mul, units, values))
    maps, low, high = normalised(values, form, len(size), xp=xp)
    if not ranges:
        return Finished(maps)
    lowest, highest = (functools.reduce(operator.mul, units, each) for each in (low, high))
    return Finished(maps, range_of(lowest, highest, len(size), xp=xp))


def range_of(low: Array, high: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """(..., 2) of two values a map (kept axes)."""
    return xp.reshape(xp.stack([low, high], axis=-1), (*low.shape[: low.ndim - spatial_ndim], 2))


def normalised(values: Array, form: Form, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """`N` in the way of the form, and of each map (kept axes) its lowest and highest value before."""
    scale = _normalised if form.relu else _normalised_about_zero
    return scale(values, spatial_ndim, xp=xp)
