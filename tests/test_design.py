"""Which masks a budget runs next: those that leave least of the map's variance."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from fusioncam_core.approximation.design import most_telling, relative, softmax_slopes
from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.methods.score import ChannelWeights, _score_cam, formula


def problem(seed: int = 0, masks: int = 12, pixels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A covariance (masks, masks) and slopes (masks, pixels)."""
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(masks, 4))
    return factor @ factor.T + np.diag(generator.uniform(0.1, 1, masks)), generator.normal(size=(masks, pixels))


def left(covariance: np.ndarray, slopes: np.ndarray, run: Any) -> float:
    """The variance of the map, over all pixels, once the scores of some masks are known: by the formula of the book."""
    run = list(run)
    explained = covariance[:, run] @ np.linalg.inv(covariance[np.ix_(run, run)]) @ covariance[run]
    return float(np.trace(slopes.T @ (covariance - explained) @ slopes))


@pytest.mark.parametrize("seed", range(5))
def test_each_choice_leaves_the_least(seed: int) -> None:
    covariance, slopes = problem(seed)
    chosen = most_telling(covariance, slopes, 6).tolist()
    for place, each in enumerate(chosen):
        before = chosen[:place]
        others = [mask for mask in range(12) if mask not in before]
        assert each == min(others, key=lambda mask: left(covariance, slopes, [*before, mask]))


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_all_are_chosen_once_in_any_unit(unit: float) -> None:
    """What rounding leaves of a gain may lie far below 0."""
    covariance, slopes = problem()
    assert sorted(most_telling(covariance * unit, slopes * unit, 12).tolist()) == list(range(12))


def test_what_is_sure_already_is_not_run() -> None:
    """Two masks that score alike weigh most: the second would say nothing that the first has not said."""
    covariance = np.array([[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]])
    slopes = np.array([[10.0], [9.0], [1.0]])
    assert most_telling(covariance, slopes, 2).tolist() == [0, 2]


def test_scores_that_cannot_vary() -> None:
    assert len(set(most_telling(np.zeros((4, 4)), np.ones((4, 3)), 4).tolist())) == 4


@pytest.mark.parametrize("weights", get_args(ChannelWeights))
def test_slopes_are_derivatives(weights: ChannelWeights) -> None:
    generator = np.random.default_rng(1)
    maps = generator.random((1, 8, 3, 4))
    scores = generator.normal(size=(1, 2, 8))
    slopes = formula(weights).slopes(maps[0].reshape(8, 12), scores[0])
    assert slopes.shape == (2, 8, 12)

    def combined(scores: np.ndarray) -> np.ndarray:
        return np.asarray(_score_cam(maps, scores, weights, xp=array_namespace(maps)).values).reshape(2, 12)

    for channel in range(8):
        moved = scores.copy()
        moved[..., channel] += 1e-5
        np.testing.assert_allclose(slopes[:, channel], (combined(moved) - combined(scores)) / 1e-5, atol=2e-5)


def test_large_scores_have_slopes() -> None:
    slopes = softmax_slopes(np.eye(3), np.array([[1000.0, 999.0, -1000.0]]))
    assert np.isfinite(slopes).all()
    assert np.abs(slopes[0, 0]).max() > 0.1


def test_what_moves_all_of_a_map_alike_moves_nothing() -> None:
    maps = np.array([[1.0, 4.0, -2.0], [-1.0, -3.0, -2.0]])
    slopes = np.stack([np.stack([0.5 * np.maximum(each, 0), np.array([1.0, 0.0, 1.0])]) for each in maps])
    moved = relative(slopes, maps)
    np.testing.assert_allclose(moved[0, 0], 0, atol=1e-12)
    np.testing.assert_allclose(moved[0, 1], slopes[0, 1], err_msg="the peak stays")
    np.testing.assert_allclose(moved[1], slopes[1], err_msg="a map without a peak")
