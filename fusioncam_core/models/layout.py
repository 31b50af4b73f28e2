"""Where the batch, the channels and the positions are in a layer's output.

In order of belief: what the user says, what was measured (`fusioncam_core.models.probe`), what the shape suggests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.errors import EvidenceWarning, InvalidValueError, warn
from fusioncam_core.models.probe import Evidence, Patches, measured_axes

Reshape = Callable[[Array], Array] | Sequence[int] | None
"""What a user may say of a layer: its grid of tokens, or a linear function to (B, C, *spatial)."""

CONVOLUTIONAL = re.compile(r"conv|batchnorm|groupnorm|instancenorm|pool", re.IGNORECASE)
"""Kinds of layers that have their channels where their framework has them."""

PREFIXES = (0, 1, 2, 4, 5)
"""Tokens before the patches: none, a class token, class and distillation tokens, four registers, class and four."""


@dataclass(frozen=True)
class Layout:
    """How a layer's activations become (B, C, *spatial), and its gradients (B, K, ...) with them.

    Attributes:
        channel_axis: 1 or -1, in the layer's own layout.
        prefix: tokens before those of the patches, to be dropped; 0 for what is no row of tokens.
        grid: the patches' grid, for rows of tokens, in the order of the input's axes; None otherwise.
        order: the grid's axes from the slowest to the fastest in the row; None for the order they have.
        batch_axis: of the layer's own output.
        rows: how many of its rows an image has.
        interleaved: whether these lie apart from each other, those of all images side by side.
        row: the one of them that is explained; None for all, as an axis of space.
        axes: for each axis of space its axis behind the batch (the rows first, if there are several and all count);
            None for the usual ones.
        function: a user's own, which does everything.
    """

    channel_axis: int
    prefix: int = 0
    grid: tuple[int, ...] | None = None
    function: Callable[[Array], Array] | None = None
    order: tuple[int, ...] | None = None
    batch_axis: int = 0
    rows: int = 1
    interleaved: bool = False
    row: int | None = None
    axes: tuple[int, ...] | None = None

    @property
    def plain(self) -> bool:
        """Whether the batch is the first axis, with one row an image."""
        return self.batch_axis == 0 and self.rows == 1

    def channels_first(self, values: Array, *, xp: Namespace) -> Array:
        """(B, C, *spatial) from activations in the layer's own layout."""
        if self.function is not None:
            return self.function(values)
        values = self._by_image(values, xp)
        if self.grid is not None:
            return self._on_the_grid(values, self.grid, xp)
        if self.axes is None:
            return values if self.channel_axis == 1 else xp.moveaxis(values, -1, 1)
        (channels,) = set(range(values.ndim - 1)) - set(self.axes)
        return _permuted(values, (0, channels + 1, *(axis + 1 for axis in self.axes)), xp)

    def _by_image(self, values: Array, xp: Namespace) -> Array:
        """(B, ...), or (B, rows, ...) where an image has several and all of them count."""
        if self.batch_axis != 0:
            values = xp.moveaxis(values, self.batch_axis, 0)
        if self.rows == 1:
            return values
        images, rest = values.shape[0] // self.rows, tuple(values.shape[1:])
        if self.interleaved:
            values = xp.moveaxis(xp.reshape(values, (self.rows, images, *rest)), 1, 0)
        else:
            values = xp.reshape(values, (images, self.rows, *rest))
        return values if self.row is None else values[:, self.row, ...]

    def _on_the_grid(self, tokens: Array, grid: tuple[int, ...], xp: Namespace) -> Array:
        patches = tokens[:, self.prefix : self.prefix + math.prod(grid), :]
        order = tuple(range(len(grid))) if self.order is None else self.order
        rolled = xp.reshape(patches, (patches.shape[0], *(grid[axis] for axis in order), patches.shape[2]))
        places = tuple(1 + order.index(axis) for axis in range(len(grid)))
        return _permuted(rolled, (0, rolled.ndim - 1, *places), xp)


def _permuted(values: Array, axes: Sequence[int], xp: Namespace) -> Array:
    """The axes in that order, moved one by one."""
    now = list(range(values.ndim))
    for place, axis in enumerate(axes):
        here = now.index(axis)
        if here != place:
            values = xp.moveaxis(values, here, place)
            now.insert(place, now.pop(here))
    return values


def find_layout(
    shape: Sequence[int],
    size: tuple[int, ...],
    channel_axis: int,
    reshape: Reshape,
    layer: str,
    evidence: Evidence | None = None,
    kind: str = "",
) -> Layout:
    """The layout of activations of this shape, for inputs of this spatial size.

    Args:
        shape: of the activations.
        size: the spatial size of the model's input.
        channel_axis: 1 or -1, what the backend expects of the layer.
        reshape: a grid or a function of the user's, or None to infer.
        layer: for messages.
        evidence: what was measured of the layer; None if nothing was.
        kind: the layer's class.

    Raises:
        InvalidValueError: if neither what was measured nor the shape says where channels and space are, or a given grid
            does not fit.
    """
    if callable(reshape):
        return Layout(channel_axis, function=reshape)
    if reshape is not None:
        return _given_grid(shape, tuple(int(length) for length in reshape), layer, evidence)
    found = measured_layout(evidence, size, channel_axis)
    found = found or structural_layout(evidence, shape, size, channel_axis, kind)
    if found is None:
        raise unclear(shape, size, layer, evidence)
    return found


def measured_layout(evidence: Evidence | None, size: tuple[int, ...], channel_axis: int) -> Layout | None:
    """The layout that the measurement tells, if it is clear."""
    if evidence is None or evidence.batch_axis is None or not evidence.sees:
        return None
    if evidence.patches is not None:
        return _of_patches(evidence.patches, evidence.batch_axis)
    expected = expected_axes(evidence, len(size), channel_axis)

    def in_proportion(axes: tuple[int, ...]) -> bool:
        return _in_proportion([evidence.inner[axis] for axis in axes], size)

    axes = measured_axes(evidence, expected, in_proportion)
    if axes is None:
        return None
    return _of_axes(evidence, axes, size)


def _of_patches(patches: Patches, batch_axis: int) -> Layout:
    return Layout(-1, patches.before, patches.grid, order=patches.order, batch_axis=batch_axis)


def _of_axes(evidence: Evidence, axes: tuple[int, ...], size: tuple[int, ...]) -> Layout | None:
    """None where more than the channels is left over, or rows are no axis of the input."""
    inner = len(evidence.inner)
    rest = [axis for axis in range(inner) if axis not in axes]
    folded = Layout(1, rows=evidence.rows, interleaved=evidence.interleaved, batch_axis=evidence.batch_axis or 0)
    if evidence.rows > 1 and 0 not in axes:
        if len(evidence.changed) != 1 or len(rest) != 2:
            return None
        behind = tuple(axis - 1 for axis in axes)
        return replace(folded, channel_axis=_end(behind, inner - 1), row=evidence.changed[0], axes=behind)
    if len(rest) != 1 or (evidence.rows > 1 and size[axes.index(0)] != evidence.rows):
        return None
    return replace(folded, channel_axis=_end(axes, inner), axes=axes)


def _end(axes: Sequence[int], inner: int) -> int:
    """1 if the channels come first behind the batch, else -1: in between they are not asked for."""
    return 1 if 0 not in axes and inner > len(axes) else -1


def expected_axes(evidence: Evidence, count: int, channel_axis: int) -> tuple[int, ...] | None:
    """The axes of space that the structure suggests, among those behind the batch."""
    inner = len(evidence.inner) - (1 if evidence.rows > 1 else 0)
    first = 1 if evidence.rows > 1 else 0
    if inner == count + 1:
        return tuple(axis + first for axis in (range(1, inner) if channel_axis == 1 else range(inner - 1)))
    if evidence.rows > 1 and inner == count:  # one axis of the input is folded into the batch
        behind = range(2, inner + 1) if channel_axis == 1 else range(1, inner)
        return (0, *behind)
    return None


def structural_layout(
    evidence: Evidence | None, shape: Sequence[int], size: tuple[int, ...], channel_axis: int, kind: str = ""
) -> Layout | None:
    """The layout that the shape suggests, where it leaves one reading; None otherwise.

    What was measured and not clear leaves maps in the input's proportions: with channels on one side only, or of a
    layer whose kind says on which. A matrix between tokens, as an attention has, is as square as many inputs are, and
    no map. What does not see the input, or was not measured, is read as its shape suggests.
    """
    measured = evidence is not None and evidence.sees
    if evidence is not None and (evidence.rows > 1 or evidence.batch_axis not in (0, None)):
        return None
    if len(shape) != len(size) + 2:
        found = None if measured else token_grid(shape, size)
        return None if found is None else Layout(-1, *found)
    if not measured:
        return Layout(_channel_axis(shape, size, channel_axis))
    if evidence is not None and evidence.between_tokens and not CONVOLUTIONAL.search(kind):
        return None
    fits = _fitting(shape, size, _in_proportion) or _fitting(shape, size, _within)
    if len(fits) == 1:
        return Layout(fits[0])
    return Layout(_channel_axis(shape, size, channel_axis)) if fits and CONVOLUTIONAL.search(kind) else None


def _fitting(
    shape: Sequence[int], size: tuple[int, ...], fit: Callable[[Sequence[int], tuple[int, ...]], bool]
) -> list[int]:
    """The ends at which channels may be, so that the rest fits the input."""
    return [axis for axis in (1, -1) if fit(shape[2:] if axis == 1 else shape[1:-1], size)]


def _within(spatial: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether the layer's extent is nowhere longer than the input, with strides that may differ by axis."""
    return all(here <= length for here, length in zip(spatial, size, strict=True))


def unclear(shape: Sequence[int], size: tuple[int, ...], layer: str, evidence: Evidence | None) -> InvalidValueError:
    """The error for an output of which neither measurement nor shape says where space lies in it."""
    seen = ""
    if evidence is not None and evidence.rows > 1:
        seen = (
            f" An image has {evidence.rows} rows of its batch: frames, views or windows that the model has folded into "
            "it."
        )
    elif evidence is not None and not evidence.sees:
        seen = " It does not change with the explained input."
    elif evidence is not None:
        seen = " When parts of the image were changed, no axis of it, and no grid of its tokens, followed them clearly."
    return InvalidValueError(
        f"The output of layer {layer!r} has shape {tuple(shape)}, and where in the input of {size} its values lie is "
        f"not plain.{seen} Give reshape=: the grid of its tokens, such as (14, 14), or a linear function from it to "
        "(batch, channels, *spatial); or take another layer."
    )


def has_space(shape: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether a layer's output of this shape has channels and more than one position."""
    if len(shape) == len(size) + 2:
        return math.prod(shape[2:]) > 1 and math.prod(shape[1:-1]) > 1
    return token_grid(shape, size) is not None


def may_have_space(shape: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether an output of this shape may be a map, or a row of tokens, of an image: a measurement decides."""
    if len(shape) == 3 and len(size) > 1:
        return shape[1] > 1 and shape[2] > 1
    folded = shape[0] > 1 and len(shape) >= len(size) + 1
    usual = len(shape) == len(size) + 2 and math.prod(shape[2:]) > 1 and math.prod(shape[1:-1]) > 1
    return usual or (folded and math.prod(shape[2:]) > 1)


def is_attention(shape: Sequence[int], size: tuple[int, ...], tokens: Container[int]) -> bool:
    """Whether a layer's output of this shape holds tokens by the heads of an attention, such as (B, heads, N, C).

    Args:
        shape: of the output, batch first.
        size: the spatial size of the model's input.
        tokens: how many there are in the model's rows of tokens.
    """
    if len(shape) != len(size) + 2 or not any(length in tokens for length in shape[1:]):
        return False
    return not any(_in_proportion(spatial, size) for spatial in (shape[2:], shape[1:-1]))


def token_grid(shape: Sequence[int], size: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
    """The prefix and the grid of a row of tokens (B, N, C), if its patches are as wide as they are high.

    Of the prefixes that fit, the shortest is taken; patches must tile the input and be more than the prefix. A row of
    single numbers is none: a pooled (B, C, 1) often has as many channels as some grid has patches.
    """
    if len(shape) != 3 or len(size) < 2 or shape[2] == 1:
        return None
    for prefix in PREFIXES:
        patch = _patch_side(shape[1] - prefix, size)
        if patch is not None and shape[1] > 2 * prefix:
            return prefix, tuple(length // patch for length in size)
    return None


def _patch_side(tokens: int, size: tuple[int, ...]) -> int | None:
    """The side of the square patches that cut the input into so many tokens, more than one."""
    if tokens < 2 or math.prod(size) % tokens:
        return None
    side = round((math.prod(size) / tokens) ** (1 / len(size)))
    tiles = side > 0 and all(length % side == 0 for length in size)
    return side if tiles and math.prod(length // side for length in size) == tokens else None


def _given_grid(shape: Sequence[int], grid: tuple[int, ...], layer: str, evidence: Evidence | None) -> Layout:
    """The user's grid; where the patches begin in the row is measured, and is behind all other tokens otherwise."""
    patches = None if evidence is None else evidence.patches
    batch_axis = 0 if evidence is None or evidence.batch_axis is None else evidence.batch_axis
    if len(shape) != 3 or shape[1 - min(batch_axis, 1)] < math.prod(grid):
        raise InvalidValueError(
            f"reshape={grid} holds {math.prod(grid)} tokens, and the output of layer {layer!r} has shape "
            f"{tuple(shape)}: (batch, tokens, channels) with at least as many was expected."
        )
    tokens = shape[1 - min(batch_axis, 1)]
    if patches is None:
        return Layout(-1, tokens - math.prod(grid), grid, batch_axis=batch_axis)
    if grid != patches.grid:
        warn(
            f"reshape={grid} was given for layer {layer!r}, and a grid of {patches.grid} was measured, with "
            f"{patches.before} tokens before it and {patches.after} behind it. The given one is used.",
            EvidenceWarning,
        )
    fits = math.prod(grid) == math.prod(patches.grid)
    before = patches.before if fits else tokens - math.prod(grid)
    return Layout(-1, before, grid, order=patches.order if grid == patches.grid else None, batch_axis=batch_axis)


def _channel_axis(shape: Sequence[int], size: tuple[int, ...], expected: int) -> int:
    """The expected axis, unless only the other one leaves the proportions of the input."""
    other = -expected
    fits = {axis: _in_proportion(shape[2:] if axis == 1 else shape[1:-1], size) for axis in (1, -1)}
    return other if fits[other] and not fits[expected] else expected


def _in_proportion(spatial: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether the layer's extent is that of the input, up to a common stride and a rounding by one."""
    strides = [length / here for here, length in zip(spatial, size, strict=True)]
    stride = max(strides)
    return all(abs(length / stride - here) < 1 for here, length in zip(spatial, size, strict=True))
