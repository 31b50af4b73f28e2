"""The masked step as a function of arrays alone, which a framework can write down for an engine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.arrays.words import _linear_weights, _normalise
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.axes import masks_of, under_masks
from fusioncam_core.models.engines import Shape
from fusioncam_core.models.function_scores import RawOutputs, Scores
from fusioncam_core.models.inputs import Which, leaf, taken, with_leaf
from fusioncam_core.models.outputs import ClassScores, arrays_in
from fusioncam_core.models.structure import Form

MASKS, IMAGES, SMALL = "masks", "images", "small_"
"""What the free lengths are called: how many masks, how many images, and the maps' in each axis of space."""


class Way(NamedTuple):
    """Which of the masked steps.

    Attributes:
        normalised: whether the masks are `N(U(maps))`, or else `U(maps)`.
        resized: whether maps have another size than the images.
        erased: whether images of what is erased come with the images.
    """

    normalised: bool
    resized: bool
    erased: bool


@dataclass(frozen=True)
class MaskedProgram:
    """(owners (n,), maps (n, *spatial), matrices, erased images, the inputs' arrays (B, ...)) -> logits (n, classes).

    Images are gathered, maps resized, normalised and multiplied inside of it, so that a chunk goes in as maps of the
    layer's size. The matrices (old, new), one for each axis of space, are what resizes: as arguments, so that maps of
    any size will do. It looks at no length, so that all that its shapes leave free stay free.

    Attributes:
        adapter: of the model.
        scores: read the logits off the outputs; `RawOutputs` leaves all their arrays.
        which: the explained one of several inputs.
        channel_axis: of the explained input.
        size: its lengths in space.
        form: of the inputs.
        way: which step.
    """

    adapter: ModelAdapter
    scores: Scores | RawOutputs
    which: Which
    channel_axis: int | None
    size: tuple[int, ...]
    form: Form
    way: Way

    def __call__(self, owners: Array, maps: Array, *rest: Array) -> tuple[Array, ...]:
        """What the engine computes."""
        xp, axes = self.adapter.namespace, len(self.size)
        matrices, rest = (rest[:axes], rest[axes:]) if self.way.resized else ((), rest)
        erased, rest = (rest[0], rest[1:]) if self.way.erased else (None, rest)
        inputs = taken(self.form.filled(rest), owners, xp)
        images = leaf(inputs, self.which)
        masks = maps
        for axis, matrix in enumerate(matrices, start=1):
            masks = xp.moveaxis(xp.matmul(xp.moveaxis(masks, axis, -1), matrix), -1, axis)
        masks = _normalise(masks, axes, xp=xp) if self.way.normalised else masks
        erased = None if erased is None else xp.take(erased, owners, axis=0)
        masked = under_masks(images, masks_of(images, masks, self.channel_axis, xp=xp), erased)
        return self._read(self.adapter.forward(with_leaf(inputs, self.which, masked)))

    def _read(self, outputs: Any) -> tuple[Array, ...]:
        if isinstance(self.scores, ClassScores):
            return (self.scores.logits(outputs),)
        return tuple(array for _, array in arrays_in(outputs))

    @property
    def rows(self) -> str | None:
        """The length by whose rows the logits can be taken apart; other outputs may have any axes."""
        return MASKS if isinstance(self.scores, ClassScores) else None

    def shapes(self, arrays: Sequence[Array]) -> tuple[Shape, ...]:
        """Of its arguments; `arrays` are the inputs'."""
        small = tuple(f"{SMALL}{axis}" for axis in range(len(self.size)))
        maps: Shape = (MASKS, *(small if self.way.resized else self.size))
        matrices: list[Shape] = list(zip(small, self.size, strict=True)) if self.way.resized else []
        own = [_free(each, shared) for each, shared in zip(arrays, self.form.slots, strict=True)]
        images = _free(leaf(self.form.filled(arrays), self.which), False)
        return ((MASKS,), maps, *matrices, *([images] if self.way.erased else []), *own)

    def matrices(self, small: Sequence[int]) -> list[np.ndarray[Any, Any]]:
        """Those that resize maps of a size to the images'."""
        return [matrix(int(old), new) for old, new in zip(small, self.size, strict=True)] if self.way.resized else []

    def arguments(
        self, owners: Any, maps: Any, matrices: Sequence[Any], erased: Any | None, arrays: Sequence[Any]
    ) -> list[Any]:
        """All of them in their order."""
        return [owners, maps, *matrices, *([erased] if self.way.erased else []), *arrays]


def _free(array: Array, shared: bool) -> Shape:
    """The shape of an input: with any number of rows, unless all images share it."""
    shape = tuple(int(length) for length in array.shape)
    return shape if shared or not shape else (IMAGES, *shape[1:])


@functools.lru_cache(maxsize=64)
def matrix(old: int, new: int) -> np.ndarray[Any, Any]:
    """The (old, new) matrix of a linear resize, for the right of a product, in float32."""
    return np.ascontiguousarray(_linear_weights(old, new).T.astype(np.float32))
