"""SS-CAM and IS-CAM: as functions of arrays, and on PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.words import normalise, resize, softmax
from fusioncam_core.explainers.region_sampled import ISCAM, SSCAM
from fusioncam_core.methods.sampled import is_cam, ss_cam
from fusioncam_core.methods.score import score_cam
from libraries import Library, assert_close, framework

framework("torch")

from masked_network import SIZE, Network  # noqa: E402


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def network(model: Any, shapes: dict[str, Any]) -> Network:
    return Network(model, shapes)


class TestSampled:
    """SS-CAM and IS-CAM with a scorer that adds up the mask."""

    ACTIVATIONS = np.array([[[1, 0, 0, 2], [0, 3, 0, 0], [7, 7, 7, 7]]], dtype=np.float32)
    SUMS = np.array([1.5, 1.0])

    def expected(self, scores: Any) -> np.ndarray:
        combined = softmax(np.array(scores, dtype=np.float64)) @ self.ACTIVATIONS[0]
        return normalise(np.maximum(combined, 0), spatial_ndim=1)[None]

    @staticmethod
    def scorer(library: Library, asked: list[np.ndarray]) -> Callable[..., Any]:
        def add(masks: Any, images: Any) -> Any:
            asked.append(np.asarray(masks))
            return library.asarray(asked[-1].sum(axis=-1))

        return add

    def test_is_cam_by_hand(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        asked: list[np.ndarray] = []
        maps = is_cam(activations, self.scorer(eager, asked), steps=4)
        # The factors are 0, 0, 1/4, 3/4 and 6/4, and their sum over 4 is 5/8; the constant channel is black: 0.
        assert_close(maps, self.expected([*0.625 * self.SUMS, 0]), activations)
        masks = np.concatenate(asked)
        assert [mask.max() for mask in masks] == [0.25, 0.25, 0.75, 0.75, 1.5, 1.5, 0]
        assert len(asked) == 4, "three steps of two channels, and the black mask once"

    def test_ss_cam_by_hand(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        noise = [
            np.mean([np.random.default_rng([5, k, i]).standard_normal(4, dtype=np.float32).sum() for i in range(6)])
            for k in range(2)
        ]
        assert abs(noise[0] - noise[1]) > 0.1
        asked: list[np.ndarray] = []
        maps = ss_cam(activations, self.scorer(eager, asked), samples=6, std=0.5, seed=5)
        assert_close(maps, self.expected([*(self.SUMS + 0.5 * np.array(noise)), 0]), activations)
        assert sum(len(masks) for masks in asked) == 6 * 2 + 1

    def test_noise_has_its_standard_deviation(self, eager: Library) -> None:
        activations = np.zeros((1, 1, 40, 40), dtype=np.float32)
        activations[0, 0, :, 20:] = 1
        asked: list[np.ndarray] = []

        def scorer(masks: Any, images: Any) -> Any:
            asked.append(np.asarray(masks))
            return eager.asarray(np.zeros(len(asked[-1]), dtype=np.float32))

        ss_cam(eager.asarray(activations), scorer, samples=20)
        noise = np.concatenate(asked) - activations[0]
        assert noise.std() == pytest.approx(2, abs=0.03)
        assert noise.mean() == pytest.approx(0, abs=0.03)
        assert len({mask.tobytes() for mask in noise}) == 20

    def test_noise_does_not_depend_on_the_batch(self, eager: Library) -> None:
        both = np.concatenate([self.ACTIVATIONS[:, ::-1], self.ACTIVATIONS])
        maps = ss_cam(eager.asarray(both), self.scorer(eager, []), samples=3, batch_size=4)
        alone = eager.asarray(self.ACTIVATIONS)
        expected = ss_cam(alone, self.scorer(eager, []), samples=3, batch_size=1)
        assert_close(maps[1:, ...], np.asarray(expected), alone)

    def test_little_noise_is_score_cam(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        smooth = ss_cam(activations, self.scorer(eager, []), samples=2, std=1e-6)
        assert_close(smooth, np.asarray(score_cam(activations, self.scorer(eager, []))), activations, atol=1e-5)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda model: SSCAM(model, samples=0), "samples is a whole number of at least 1"),
            (lambda model: SSCAM(model, std=0), "std is a positive number"),
            (lambda model: SSCAM(model, seed=-3), "seed is a whole number of at least 0: got -3"),
            (lambda model: ISCAM(model, steps=1), "steps is a whole number of at least 2: got 1"),
        ],
    )
    def test_wrong_numbers(self, model: Any, make: Callable[[Any], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make(model)

    def test_ss_cam_equals_a_loop(self, model: Any, network: Network, shapes: dict[str, Any]) -> None:
        row, samples = 3, 2
        activations = shapes["activations"][row]
        masks = normalise(resize(activations, SIZE))
        scores = np.zeros(48)
        for channel, sample in itertools.product(range(48), range(samples)):
            noise = np.random.default_rng([9, channel, sample]).standard_normal(SIZE, dtype=np.float32)
            dead = activations[channel].max() == activations[channel].min()
            mask = 0 * noise if dead else masks[channel] + np.float32(1.5) * noise
            scores[channel] += network.masked(mask[None], [row])[0] / samples
        expected = np.einsum("k,kij->ij", softmax(scores), activations)
        explanation = SSCAM(model, samples=samples, std=1.5, seed=9)(shapes["images"][row], int(shapes["target"][row]))
        np.testing.assert_allclose(explanation.maps.numpy()[0], normalise(resize(expected, SIZE)), atol=1e-5)

    def test_is_cam_equals_a_loop(self, model: Any, network: Network, shapes: dict[str, Any]) -> None:
        row, steps = 4, 3
        masks = normalise(resize(shapes["activations"][row], SIZE))
        factors = [sum(j / steps for j in range(i)) for i in range(steps + 1)]
        assert factors == pytest.approx([0, 0, 1 / 3, 1])
        scores = sum(network.masked(factor * masks, [row] * 48) for factor in factors) / steps
        expected = np.einsum("k,kij->ij", softmax(scores), shapes["activations"][row])
        explanation = ISCAM(model, steps=steps)(shapes["images"][row], int(shapes["target"][row]))
        np.testing.assert_allclose(explanation.maps.numpy()[0], normalise(resize(expected, SIZE)), atol=1e-5)
