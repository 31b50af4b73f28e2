"""Objects from maps: the pixels that reach a threshold, as they hang together, with a box around each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.checks import require_count, require_map, require_percentage, require_word
from fusioncam_core.arrays.namespaces import Array, array_namespace, to_numpy
from fusioncam_core.arrays.words import is_constant
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require

Threshold = float | Literal["otsu", "percentile"]

Components = Literal["all", "largest"]

THRESHOLD = 0.2
"""A share of the map's largest value: where Zhou et al. (arXiv 1512.04150, section 3.2) cut maps for boxes."""

Masks = npt.NDArray[np.bool_]

Values = npt.NDArray[Any]

Found = TypeVar("Found")


@dataclass(frozen=True, repr=False)
class Box:
    """The box around one object of a map, in the map's pixels; upper ends lie outside, as in slices.

    Attributes:
        lower: the first pixel along each axis of space, in the axes' order: (y, x) of an image.
        upper: one more than the last pixel: `upper - lower` is the box's extent.
        score: the mean of the map over the object's pixels, in the map's unit.
        area: how many pixels the object has, which need not fill the box.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import object_boxes
        >>> ((box,),) = object_boxes(np.array([[[1.0, 0.5, 0, 0], [0, 0, 0, 0]]]))
        >>> box.xyxy, box.score, box.area
        ((0, 0, 2, 1), 0.75, 2)
        >>> box.slices
        (slice(0, 1, None), slice(0, 2, None))
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    score: float
    area: int

    @property
    def x0(self) -> int:
        """The first column."""
        return self.lower[-1]

    @property
    def x1(self) -> int:
        """One more than the last column."""
        return self.upper[-1]

    @property
    def y0(self) -> int:
        """The first row; ValueError for a box along one axis."""
        return self._row(self.lower)

    @property
    def y1(self) -> int:
        """One more than the last row; ValueError for a box along one axis."""
        return self._row(self.upper)

    def _row(self, ends: tuple[int, ...]) -> int:
        if len(ends) < 2:
            raise InvalidValueError("The box lies along one axis, and has no rows: take x0 and x1.")
        return ends[-2]

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """`x0, y0, x1, y1`, as `fusioncam_core.metrics.box_masks` and drawing libraries take them; of an image's box.

        Raises:
            ValueError: if space has not two axes.
        """
        if len(self.lower) != 2:
            raise InvalidValueError(
                f"x0, y0, x1, y1 is a box in an image: got one along {len(self.lower)} axes. Take lower and upper."
            )
        return self.x0, self.y0, self.x1, self.y1

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts the box out of the map: `map[box.slices]`."""
        return tuple(slice(low, high) for low, high in zip(self.lower, self.upper, strict=True))

    def __repr__(self) -> str:
        names = dict(enumerate("xyz")) if len(self.lower) <= 3 else {}
        axes = [names.get(place, str(place)) for place in range(len(self.lower))][::-1]
        ends = zip(axes, self.lower, self.upper, strict=True)
        spans = ", ".join(f"{axis} {low} to {high}" for axis, low, high in list(ends)[::-1])
        return f"<Box {spans}: {self.area} pixels, score {self.score:.3g}>"


class _Chosen(NamedTuple):
    """How objects are found: `object_boxes` says what each means."""

    threshold: Threshold
    percentile: float | None
    components: Components
    minimum_area: int


def object_boxes(
    maps: Array,
    threshold: Threshold = THRESHOLD,
    *,
    percentile: float | None = None,
    components: Components = "all",
    minimum_area: int = 1,
    spatial_ndim: int = 2,
) -> Any:
    """The boxes around the objects of each map, the largest object first.

    An object is a connected component of the pixels that are positive and reach the threshold: pixels that touch, also
    at a corner, belong together. What is negative speaks against the class, and counts as 0. A map that is constant,
    zero or nowhere positive says nothing about where, and has no object.

    Which threshold is right depends on the method and on the images: choose it on images of their own
    (`fusioncam_core.metrics.max_box_acc` has the accuracy at each one), not on those that are reported.

    Args:
        maps: (..., *spatial), floating; of any library. Need not lie in [0, 1].
        threshold: a share of the map's largest value, in [0, 1] (0: all that is positive); "otsu", the value that
            leaves the least variance on both sides of it (Otsu 1979, doi 10.1109/TSMC.1979.4310076), looked for among
            all values of the map; or "percentile", that one of the map's values.
        percentile: in [0, 100], with `threshold="percentile"`: 90 keeps a tenth of the pixels, if so many are positive.
        components: "all" objects or the "largest" one.
        minimum_area: objects of fewer pixels are left out.
        spatial_ndim: how many of the last axes are space: 2 for images, 3 for volumes and clips.

    Returns:
        A list of `Box` for each map, in nested lists as the leading axes are: of (B, *spatial) B lists of boxes, of
        (B, K, *spatial) B lists of K lists.

    Raises:
        TypeError: if the maps are not floating.
        ValueError: for NaN or infinity in a map, or an option out of range.
        MissingExtra: if SciPy is not installed.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import object_boxes
        >>> maps = np.array([[[1.0, 0.8, 0, 0], [0, 0, 0, 0.6]]])
        >>> object_boxes(maps, 0.5)
        [[<Box x 0 to 2, y 0 to 1: 2 pixels, score 0.9>, <Box x 3 to 4, y 1 to 2: 1 pixels, score 0.6>]]
    """
    chosen = _options(threshold, percentile, components, minimum_area)
    return _of_each(_host(maps, spatial_ndim), spatial_ndim, lambda each: list(_boxes(each, chosen)))


def object_masks(
    maps: Array,
    threshold: Threshold = THRESHOLD,
    *,
    percentile: float | None = None,
    components: Components = "all",
    minimum_area: int = 1,
    spatial_ndim: int = 2,
) -> Masks:
    """The pixels of the objects of each map, as `object_boxes` finds them.

    Args:
        maps: (..., *spatial), floating; of any library.
        threshold: and the others as for `object_boxes`.
        percentile: with `threshold="percentile"`.
        components: "all" objects or the "largest" one.
        minimum_area: objects of fewer pixels are left out.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) booleans of NumPy's; False everywhere for a map without an object.

    Raises:
        TypeError: if the maps are not floating.
        ValueError: for NaN or infinity in a map, or an option out of range.
        MissingExtra: if SciPy is not installed.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import object_masks
        >>> maps = np.array([[[1.0, 0.8, 0, 0], [0, 0, 0, 0.6]]])
        >>> object_masks(maps, 0.5, components="largest")
        array([[[ True,  True, False, False],
                [False, False, False, False]]])
    """
    chosen = _options(threshold, percentile, components, minimum_area)
    values = _host(maps, spatial_ndim)
    masks = np.zeros(values.shape, dtype=bool)
    for place in np.ndindex(values.shape[: values.ndim - spatial_ndim]):
        labels, kept, _ = _objects(values[place], chosen)
        masks[place] = np.isin(labels, kept)
    return masks


def _options(threshold: Any, percentile: float | None, components: Any, minimum_area: int) -> _Chosen:
    """The options, if they are ones."""
    if isinstance(threshold, str):
        if threshold not in ("otsu", "percentile"):
            raise InvalidValueError(f"threshold is a share, 'otsu' or 'percentile': got {threshold!r}.")
    elif isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise InvalidTypeError(
            f"threshold is a share in [0, 1], 'otsu' or 'percentile': got {type(threshold).__qualname__}."
        )
    elif not 0 <= threshold <= 1:
        raise InvalidValueError(
            f"threshold is a share of the map's largest value, in [0, 1]: got {threshold!r}. A percentile is asked for "
            "by threshold='percentile', percentile=90."
        )
    if (threshold == "percentile") != (percentile is not None):
        raise InvalidValueError(
            f"threshold='percentile' and percentile= belong together: got threshold={threshold!r} and "
            f"percentile={percentile!r}."
        )
    if percentile is not None:
        require_percentage(percentile)
    require_word(components, "components", Components)
    return _Chosen(threshold, percentile, components, require_count(minimum_area, "minimum_area"))


def _host(maps: Array, spatial_ndim: int) -> Values:
    """The maps as finite values on the host, what is negative as 0."""
    require_map(maps, "maps", spatial_ndim, array_namespace(maps))
    values: Values = to_numpy(maps)
    broken = ~np.isfinite(values).all(axis=tuple(range(-spatial_ndim, 0)))
    if broken.any():
        places = [tuple(map(int, place)) for place in np.argwhere(broken)]
        raise InvalidValueError(
            f"NaN or infinity in the map at {places[0] if places[0] else 'hand'}: no object can be found in it. Leave "
            "it out, and look for what made it so."
        )
    positive: Values = np.maximum(values, 0)
    return positive


def _of_each(values: Values, spatial_ndim: int, find: Callable[[Values], Found]) -> Any:
    """What is found in each map, in nested lists."""
    if values.ndim == spatial_ndim:
        return find(values)
    return [_of_each(each, spatial_ndim, find) for each in values]


def _boxes(values: Values, chosen: _Chosen) -> Iterator[Box]:
    labels, kept, areas = _objects(values, chosen)
    spans = _ndimage().find_objects(labels) if kept else ()
    for label in kept:
        span = spans[label - 1]
        inside = values[span][labels[span] == label]
        yield Box(
            tuple(int(each.start) for each in span),
            tuple(int(each.stop) for each in span),
            float(inside.mean(dtype=np.float64)),
            int(areas[label]),
        )


def _objects(values: Values, chosen: _Chosen) -> tuple[npt.NDArray[np.int32], list[int], npt.NDArray[np.int64]]:
    """Labels of components (*spatial), 0 outside; those of objects, the largest first; how many pixels each label has.

    Of two of one size the first in reading order comes first.
    """
    ndimage = _ndimage()
    reached = _reached(values, chosen)
    labels, count = ndimage.label(reached, structure=np.ones((3,) * values.ndim, dtype=bool))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    order = [int(each) + 1 for each in np.argsort(-areas[1:], kind="stable")]
    kept = [label for label in order if areas[label] >= chosen.minimum_area]
    return labels, kept[:1] if chosen.components == "largest" else kept, areas


def _ndimage() -> Any:
    return require("scipy.ndimage", "Finding objects in maps", "objects")


def _reached(values: Values, chosen: _Chosen) -> Masks:
    """Which pixels of a map that is nowhere negative (*spatial) belong to objects."""
    if bool(is_constant(values, values.ndim, xp=array_namespace(values))):
        return np.zeros(values.shape, dtype=bool)
    reached: Masks = (values >= _level(values, chosen)) & (values > 0)
    return reached


def _level(values: Values, chosen: _Chosen) -> Any:
    """The threshold in the map's unit and dtype, in which .7 of a map of .7 reaches it."""
    if chosen.threshold == "otsu":
        return _otsu(values)
    if chosen.threshold == "percentile":
        return np.percentile(values, chosen.percentile or 0.0)
    return values.dtype.type(chosen.threshold) * values.max()


def _otsu(values: Values) -> Any:
    """The least value of the upper class, of all splits of a map's values the one with most variance between classes.

    The values themselves are looked at, not a histogram of them: no width of bins decides.
    """
    ordered = np.sort(values.ravel())
    wide = ordered.astype(np.float64) / float(ordered[-1])
    below = np.arange(1, wide.size)
    sums = np.cumsum(wide)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (wide.size - below)
    between = below * (wide.size - below) * (means[1] - means[0]) ** 2
    # Equal values lie on one side.
    between = np.where(ordered[1:] > ordered[:-1], between, -math.inf)
    return ordered[1:][np.argmax(between)]
