"""Where the channels and the positions are in a layer's output: first, last, or a row of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.errors import InvalidValueError

Reshape = Callable[[Array], Array] | Sequence[int] | None
"""What a user may say of a layer: its grid of tokens, or a linear function to (B, C, *spatial)."""

PREFIXES = (0, 1, 2, 4, 5)
"""Tokens before the patches: none, a class token, class and distillation tokens, four registers, class and four."""


@dataclass(frozen=True)
class Layout:
    """How a layer's activations (B, ...) become (B, C, *spatial), and its gradients (B, K, ...) with them.

    Attributes:
        channel_axis: 1 or -1, in the layer's own layout.
        prefix: tokens before those of the patches, to be dropped; 0 for what is no row of tokens.
        grid: the patches' grid, for rows of tokens; None otherwise.
        function: a user's own, which does everything.
    """

    channel_axis: int
    prefix: int = 0
    grid: tuple[int, ...] | None = None
    function: Callable[[Array], Array] | None = None

    def channels_first(self, values: Array, *, xp: Namespace) -> Array:
        """(B, C, *spatial) from activations in the layer's own layout."""
        if self.function is not None:
            return self.function(values)
        if self.grid is not None:
            patches = values[:, self.prefix :, :]
            values = xp.reshape(patches, (patches.shape[0], *self.grid, patches.shape[2]))
        return values if self.channel_axis == 1 else xp.moveaxis(values, -1, 1)


def find_layout(shape: Sequence[int], size: tuple[int, ...], channel_axis: int, reshape: Reshape, layer: str) -> Layout:
    """The layout of activations of this shape, for inputs of this spatial size.

    Args:
        shape: of the activations, batch first.
        size: the spatial size of the model's input.
        channel_axis: 1 or -1, what the backend expects of the layer.
        reshape: a grid or a function of the user's, or None to infer.
        layer: for messages.

    Raises:
        ValueError: if the shape is neither channels and space nor tokens of a grid, or a given grid does not fit.
    """
    if callable(reshape):
        return Layout(channel_axis, function=reshape)
    if reshape is not None:
        return _given_grid(shape, tuple(int(length) for length in reshape), layer)
    if len(shape) == len(size) + 2:
        return Layout(_channel_axis(shape, size, channel_axis))
    found = token_grid(shape, size)
    if found is None:
        raise InvalidValueError(
            f"The output of layer {layer!r} has shape {tuple(shape)}, and where in the input of {size} its values "
            "lie is not plain. Give reshape=: the grid of its tokens, such as (14, 14), or a linear function from "
            "it to (batch, channels, *spatial)."
        )
    return Layout(-1, *found)


def has_space(shape: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether a layer's output of this shape has channels and more than one position."""
    if len(shape) == len(size) + 2:
        return math.prod(shape[2:]) > 1 and math.prod(shape[1:-1]) > 1
    return token_grid(shape, size) is not None


def is_row(shape: Sequence[int], size: tuple[int, ...], grid: Sequence[int] | None = None) -> bool:
    """Whether a layer's output of this shape, for one image, is a row of tokens; of the given grid if there is one."""
    if grid is None:
        return len(shape) < len(size) + 2 and token_grid(shape, size) is not None
    return len(shape) == 3 and shape[0] == 1 and 0 <= shape[1] - math.prod(grid) <= max(PREFIXES)


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


def _given_grid(shape: Sequence[int], grid: tuple[int, ...], layer: str) -> Layout:
    prefix = shape[1] - math.prod(grid)
    if len(shape) != 3 or prefix < 0:
        raise InvalidValueError(
            f"reshape={grid} holds {math.prod(grid)} tokens, and the output of layer {layer!r} has shape "
            f"{tuple(shape)}: (batch, tokens, channels) with at least as many was expected."
        )
    return Layout(-1, prefix, grid)


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
