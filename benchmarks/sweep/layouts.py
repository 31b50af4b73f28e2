"""Where channels and positions are in the outputs of layers, written down by hand for each family of models."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = np.ndarray[Any, Any]


class UnknownLayoutError(Exception):
    """Nothing is written down for a layer's output of this shape."""


@dataclass(frozen=True)
class Layout:
    """How a family's activations (B, ...) become (B, C, *spatial).

    Attributes:
        channels: "first" or "last", of outputs that have as many axes as the input.
        before, after: tokens in front of and behind the patches, in rows of tokens (B, N, C).
        patch: the patch's side along each axis, if the tokens are those of one fixed patch; None: the one whose grid
            has the right number of positions.
        tokens: whether rows of tokens have a place at all; not so among convolutions, nor where what looks like them
            are queries or latents.
        stretched: whether height and width may have strides of their own, as behind a pooling to a fixed extent.
        order: the axes of space in which tokens are laid out, the slowest first; None for the input's own order.
        own: for families that no rule describes: (values, size) -> (B, C, *spatial).
    """

    channels: str = "first"
    before: int = 0
    after: int = 0
    patch: Sequence[int] | None = None
    tokens: bool = True
    stretched: bool = False
    order: Sequence[int] | None = None
    own: Callable[[Values, tuple[int, ...]], Values] | None = None

    def channels_first(self, values: Values, size: tuple[int, ...]) -> Values:
        """(B, C, *spatial).

        Raises:
            UnknownLayoutError: for a shape that the rule does not cover.
        """
        if self.own is not None:
            return self.own(values, size)
        if values.ndim == len(size) + 2:
            placed = values if self.channels == "first" else np.moveaxis(values, -1, 1)
            if self.stretched or _in_proportion(placed.shape[-2:], size[-2:]):
                return placed
        if values.ndim == 3 and self.tokens:
            return self._tokens(values, size)
        raise UnknownLayoutError(f"nothing is written down for an output of shape {values.shape}")

    def _tokens(self, values: Values, size: tuple[int, ...]) -> Values:
        patches = values[:, self.before : values.shape[1] - self.after]
        grid = self._grid(patches.shape[1], size)
        order = tuple(range(len(size))) if self.order is None else tuple(self.order)
        rows = patches.reshape(patches.shape[0], *(grid[axis] for axis in order), patches.shape[2])
        return rows.transpose(0, rows.ndim - 1, *(1 + order.index(axis) for axis in range(len(size))))

    def _grid(self, tokens: int, size: tuple[int, ...]) -> tuple[int, ...]:
        if self.patch is not None:
            grids = [tuple(length // side for length, side in zip(size, self.patch, strict=True))]
        else:
            grids = [
                tuple(rounded(length / side) for length in size)
                for side in range(1, max(size) + 1)
                for rounded in (math.ceil, math.floor)
            ]
        for grid in grids:
            if math.prod(grid) == tokens:
                return grid
        raise UnknownLayoutError(f"{tokens} tokens are no grid of patches of an input of {size}")


def _in_proportion(lengths: Sequence[int], size: Sequence[int]) -> bool:
    """Whether height and width have one stride, up to the rounding of each."""
    return abs(lengths[0] - lengths[1] * size[0] / size[1]) < 1.5


FIRST = Layout()
MAPS = Layout(tokens=False)
LAST = Layout(channels="last")


PATCHES = r"(.*\.)?patch_embed\w*(\.\w+)*"


@dataclass(frozen=True)
class ByLayer:
    """Layouts by patterns of layers' names, the first that matches counts; all others are `rest`.

    What embeds patches has no other tokens yet in any family.
    """

    rest: Layout
    rules: Sequence[tuple[str, Layout]] = ()

    def of(self, layer: str) -> Layout:
        """The layout of a layer's output."""
        name = layer.partition("#")[0]
        rules = [*self.rules, (PATCHES, FIRST)]
        return next((layout for pattern, layout in rules if re.fullmatch(pattern, name)), self.rest)
