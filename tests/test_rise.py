"""RISE: its masks, as a function of arrays, and on PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.words import normalise
from fusioncam_core.explainers.region_sampled import RISE
from fusioncam_core.methods.rise import RandomMasks, rise
from libraries import Library, assert_close, framework

torch = framework("torch")

from masked_network import SIZE, Network  # noqa: E402


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def network(model: Any, shapes: dict[str, Any]) -> Network:
    return Network(model, shapes)


class TestRandomMasks:
    def test_grids_are_enlarged_and_cut_at_random_places(self) -> None:
        # Two cells of two pixels, enlarged to six pixels by a linear resize: (a, a, 2/3 a + b/3, a/3 + 2/3 b, b, b).
        rows = [np.array([a, a, (2 * a + b) / 3, (a + 2 * b) / 3, b, b]) for a in (0, 1) for b in (0, 1)]
        possible = {tuple(np.round(row[shift : shift + 4], 5)) for row in rows for shift in (0, 1)}
        masks = RandomMasks(200, (4,), cells=2, probability=0.5, seed=0)(np.arange(200))
        assert {tuple(np.round(mask.astype(float), 5)) for mask in masks} == possible
        assert len(possible) == 6

    @pytest.mark.parametrize("size", [(30,), (24, 31), (9, 10, 11)])
    def test_share_of_what_is_seen(self, size: tuple[int, ...]) -> None:
        masks = RandomMasks(3000, size, cells=4, probability=0.3, seed=1)(np.arange(3000))
        assert masks.shape == (3000, *size)
        assert masks.dtype == np.float32
        assert masks.min() >= 0
        assert masks.max() <= 1 + 1e-6
        np.testing.assert_allclose(masks.mean(axis=0), 0.3, atol=0.05)

    def test_each_mask_is_the_same_whenever_it_is_made(self) -> None:
        masks = RandomMasks(20, (12, 9), cells=3, probability=0.5, seed=4)
        again = RandomMasks(20, (12, 9), cells=3, probability=0.5, seed=4)
        np.testing.assert_array_equal(masks(np.arange(20))[[7, 3]], again(np.array([7, 3])))
        assert (RandomMasks(20, (12, 9), cells=3, probability=0.5, seed=5)(np.arange(20)) != masks(np.arange(20))).any()

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"masks": 0}, "masks is a whole number of at least 1"),
            ({"cells": 0}, "cells is a whole number of at least 1"),
            ({"probability": 1}, "between 0 and 1: got 1"),
            ({"seed": -1}, "seed is a whole number of at least 0"),
        ],
    )
    def test_wrong_numbers(self, model: Any, keywords: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RISE(model, **keywords)
        with pytest.raises(ValueError, match=message):
            rise(np.zeros((1, 1, 4), np.float32), lambda masks, images: masks[:, 0], **keywords)


class TestRISE:
    def test_is_the_weighted_sum_of_its_masks(self, eager: Library) -> None:
        images = eager.asarray(np.zeros((2, 3, 8, 6), dtype=np.float32))
        masks = RandomMasks(40, (8, 6), cells=3, probability=0.5, seed=2)(np.arange(40))
        places = np.array([[1, 4], [6, 2]])
        seen = np.stack([masks[:, row, column] for row, column in places])
        expected = normalise(np.einsum("bn,nij->bij", seen, masks))

        def scorer(drawn: Any, owners: Any) -> Any:
            rows, columns = places[np.asarray(owners)].T
            return eager.asarray(np.asarray(drawn)[np.arange(len(rows)), rows, columns])

        for batch_size in (1, 7, 64):
            maps = rise(images, scorer, masks=40, cells=3, seed=2, batch_size=batch_size)
            assert_close(maps, expected, images, atol=1e-5)

    def test_finds_the_pixel_that_matters(self) -> None:
        maps = rise(np.zeros((1, 1, 9, 9), np.float32), lambda masks, owners: masks[:, 4, 7], cells=3, masks=2000)
        assert maps[0, 4, 7] > 0.85
        # Pixels further away than a cell (of three) and its enlargement are seen independently of that one.
        assert maps[0, :, :3].max() < 0.3

    def test_channels_last_and_several_targets(self, eager: Library) -> None:
        images = eager.asarray(np.zeros((1, 6, 5, 3), dtype=np.float32))

        def scorer(drawn: Any, owners: Any) -> Any:
            return eager.asarray(np.asarray(drawn).reshape(-1, 30)[:, [3, 27]])

        maps = rise(images, scorer, masks=30, channel_axis=-1)
        assert tuple(maps.shape) == (1, 2, 6, 5)
        one = rise(images, lambda drawn, owners: eager.asarray(np.asarray(drawn)[:, 5, 2]), masks=30, channel_axis=-1)
        assert_close(maps[:, 1, ...], np.asarray(one), images, atol=1e-6)

    def test_scores_that_are_not_finite(self) -> None:
        with pytest.raises(ValueError, match="NaN or infinity in the scores of the masked images"):
            rise(np.zeros((1, 1, 4), np.float32), lambda masks, owners: masks[:, 0] * np.nan, masks=3)

    def test_equals_a_loop(self, model: Any, network: Network, shapes: dict[str, Any]) -> None:
        masks = RandomMasks(25, SIZE, cells=7, probability=0.5, seed=6)(np.arange(25))
        explanation = RISE(model, masks=25, seed=6)(shapes["images"][:2], shapes["target"][:2])
        for row in range(2):
            probabilities = network.masked(masks, [row] * 25, probability=True)
            expected = normalise(np.einsum("n,nij->ij", probabilities, masks))
            np.testing.assert_allclose(explanation.maps.numpy()[row], expected, atol=1e-5)
        assert explanation.evaluations == 2 + 2 * 25
        assert explanation.layer == "none"

    def test_a_layer_is_not_looked_for(self) -> None:
        flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        explanation = RISE(flat, masks=20)(np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32))
        assert explanation.maps.shape == (1, 8, 8)
