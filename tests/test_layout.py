from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.models.layout import find_layout, has_space, is_attention, token_grid


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        (196, (224, 224), (0, (14, 14))),
        (197, (224, 224), (1, (14, 14))),
        (198, (224, 224), (2, (14, 14))),
        (200, (224, 224), (4, (14, 14))),
        (201, (224, 224), (5, (14, 14))),
        (50, (224, 224), (1, (7, 7))),
        (61, (96, 160), (1, (6, 10))),
        (65, (32, 32, 32), (1, (4, 4, 4))),
        (3, (224, 224), None),  # one class token and two others: nothing tiles
        (195, (224, 224), None),
        (1, (224, 224), None),
        (11, (40, 16), (1, (5, 2))),
    ],
)
def test_token_grid(tokens: int, size: tuple[int, ...], expected: Any) -> None:
    assert token_grid((2, tokens, 64), size) == expected


def test_tokens_become_a_grid_without_their_prefix() -> None:
    tokens = np.arange(2 * 7 * 3).reshape(2, 7, 3).astype(np.float32)
    layout = find_layout(tokens.shape, (16, 24), -1, None, "blocks.3")
    assert (layout.prefix, layout.grid) == (1, (2, 3))
    grid = layout.channels_first(tokens, xp=np)
    assert grid.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(grid[1, 2], tokens[1, 1:, 2].reshape(2, 3))


def test_given_grid_for_patches_that_are_not_square() -> None:
    layout = find_layout((1, 9, 4), (64, 64), -1, (4, 2), "blocks.3")
    assert (layout.prefix, layout.grid) == (1, (4, 2))
    with pytest.raises(ValueError, match=r"reshape=\(4, 4\) holds 16 tokens, and the output of layer 'blocks.3'"):
        find_layout((1, 9, 4), (64, 64), -1, (4, 4), "blocks.3")


def test_what_cannot_be_inferred_asks_for_reshape() -> None:
    with pytest.raises(ValueError, match=r"Give reshape=: the grid of its tokens, such as \(14, 14\)"):
        find_layout((1, 195, 64), (224, 224), -1, None, "blocks.3")


def test_function() -> None:
    layout = find_layout((1, 6, 4), (3, 2), 1, lambda values: values[:, ::-1, None], "x")
    values = np.arange(24.0).reshape(1, 6, 4)
    np.testing.assert_array_equal(layout.channels_first(values, xp=np), values[:, ::-1, None])


@pytest.mark.parametrize(
    ("shape", "size", "expected", "axis"),
    [
        ((1, 320, 7, 7), (224, 224), 1, 1),
        ((1, 7, 7, 320), (224, 224), 1, -1),
        ((1, 7, 7, 320), (224, 224), -1, -1),
        ((1, 320, 7, 7), (224, 224), -1, 1),
        ((1, 7, 7, 7), (224, 224), 1, 1),
        ((1, 7, 7, 7), (224, 224), -1, -1),
        ((1, 64, 7, 10), (100, 150), 1, 1),  # strides of 16, rounded up
        ((1, 7, 10, 64), (100, 150), 1, -1),
        ((1, 64, 40), (160,), 1, 1),
        ((1, 40, 64), (160,), -1, -1),
        ((1, 16, 4, 4, 4), (32, 32, 32), 1, 1),
        ((1, 4, 4, 4, 16), (32, 32, 32), 1, -1),
    ],
)
def test_channel_axis(shape: tuple[int, ...], size: tuple[int, ...], expected: int, axis: int) -> None:
    assert find_layout(shape, size, expected, None, "x").channel_axis == axis


@pytest.mark.parametrize(
    ("shape", "space"),
    [
        ((1, 8, 7, 7), True),
        ((1, 8, 1, 1), False),
        ((1, 1, 1, 8), False),
        ((1, 8), False),
        ((1, 50, 8), True),
        ((1, 8, 8), False),
        ((1, 64, 1), False),  # a pooled output, though 64 patches of 28 pixels would tile
    ],
)
def test_has_space(shape: tuple[int, ...], space: bool) -> None:
    assert has_space(shape, (224, 224)) is space


@pytest.mark.parametrize(
    ("shape", "attention"),
    [
        ((1, 12, 197, 64), True),
        ((1, 12, 1, 197), True),
        ((1, 197, 12, 64), True),
        ((1, 197, 14, 14), False),
        ((1, 14, 14, 197), False),
        ((1, 64, 28, 56), False),  # strides of 8 and 4, and no tokens
        ((1, 197, 64), False),
    ],
)
def test_is_attention(shape: tuple[int, ...], attention: bool) -> None:
    assert is_attention(shape, (224, 224), {197}) is attention
