from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import contribution_weights, denoise, fuse, fusion_cam, grad_cam, score_cam, similarity
from libraries import Library, assert_close

SIZE = (48, 48)
POSITIVE = [0, 1, 4]
"""The golden cases in which every contribution is positive."""


class TestGradCAM:
    def test_golden(self, library: Library, shapes: dict[str, Any]) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        function = library.compile(lambda a, g: grad_cam(a, g, size=SIZE))
        assert_close(function(activations, gradients), shapes["grad_cam"], activations, atol=1e-5)

    def test_by_hand(self, eager: Library) -> None:
        activations = eager.asarray(np.array([[[[1, 0], [0, 0]], [[0, 2], [0, 4]]]], dtype=np.float32))
        gradients = eager.asarray(np.array([[[[4, 0], [0, 0]], [[-1, -1], [1, 3]]]], dtype=np.float32))
        # Weights 1 and 1/2: the sum is [[1, 1], [0, 2]], from 0 to 2.
        assert_close(grad_cam(activations, gradients), [[[0.5, 0.5], [0, 1]]], activations)

    def test_negative_evidence_is_cut(self, eager: Library) -> None:
        activations = eager.asarray(np.array([[[1.0, 2.0, 3.0]], [[1.0, 0.0, 2.0]]], dtype=np.float32))
        gradients = eager.asarray(np.array([[[-1.0, -1.0, -1.0]], [[1.0, 1.0, 1.0]]], dtype=np.float32))
        assert_close(grad_cam(activations, gradients), [[0, 0, 0], [0.5, 0, 1]], activations)

    def test_several_targets_equal_one_each(self, eager: Library, shapes: dict[str, Any]) -> None:
        activations = eager.asarray(shapes["activations"])
        other = np.roll(shapes["gradients"], 3, axis=1)
        both = eager.asarray(np.stack([shapes["gradients"], other], axis=1))
        maps = grad_cam(activations, both, size=SIZE)
        one = [grad_cam(activations, eager.asarray(each), size=SIZE) for each in (shapes["gradients"], other)]
        assert_close(maps, np.stack([np.asarray(each) for each in one], axis=1), activations)

    def test_channels_last(self, eager: Library, shapes: dict[str, Any]) -> None:
        activations, gradients = (np.moveaxis(shapes[name], 1, -1) for name in ("activations", "gradients"))
        like = eager.asarray(activations)
        maps = grad_cam(like, eager.asarray(gradients), size=SIZE, channel_axis=-1)
        assert_close(maps, shapes["grad_cam"], like, atol=1e-5)

    def test_zero_gradient_gives_zeros(self, eager: Library, shapes: dict[str, Any]) -> None:
        activations = eager.asarray(shapes["activations"])
        maps = grad_cam(activations, eager.asarray(np.zeros_like(shapes["activations"])), size=SIZE)
        assert_close(maps, np.zeros((8, *SIZE)), activations)

    def test_layer_of_one_position_gives_zeros(self, eager: Library) -> None:
        activations = eager.asarray(np.ones((1, 4, 1, 1), dtype=np.float32))
        assert_close(grad_cam(activations, activations, size=(3, 3)), np.zeros((1, 3, 3)), activations)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("stage", ["activations", "gradients"])
    def test_not_finite(self, eager: Library, stage: str, value: float) -> None:
        arrays = {name: np.ones((1, 2, 3, 3), dtype=np.float32) for name in ("activations", "gradients")}
        arrays[stage][0, 1, 2, 0] = value
        with pytest.raises(ValueError, match=f"NaN or infinity in the {stage}"):
            grad_cam(*(eager.asarray(each) for each in arrays.values()))

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"gradients have shape \(1, 2, 3, 4\)"):
            grad_cam(np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 4)))
        with pytest.raises(ValueError, match="a batch, channels and at least one axis of space"):
            grad_cam(np.ones((1, 2)), np.ones((1, 2)))
        with pytest.raises(ValueError, match="one length for each axis of space"):
            grad_cam(np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 3)), size=(4,))
        with pytest.raises(ValueError, match="channel_axis is 1 or -1"):
            grad_cam(np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 3)), channel_axis=2)


class TestScoreCAM:
    ACTIVATIONS = np.array([[[1, 0, 0, 2], [0, 3, 0, 0], [7, 7, 7, 7]]], dtype=np.float32)

    def test_by_hand(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        asked = []

        def scorer(masks: Any, images: Any) -> Any:
            asked.append((np.asarray(masks), np.asarray(images)))
            scores = {(0.5, 0, 0, 1): np.log(2), (0, 1, 0, 0): np.log(4), (0, 0, 0, 0): -np.log(2)}
            return eager.asarray(np.array([scores[tuple(mask.tolist())] for mask in np.asarray(masks)], np.float32))

        # The softmax of log 2, log 4 and log 1/2 is 4/13, 8/13 and 1/13.
        combined = (4 * self.ACTIVATIONS[0, 0] + 8 * self.ACTIVATIONS[0, 1] + 1 * self.ACTIVATIONS[0, 2]) / 13
        expected = (combined - combined.min()) / (combined.max() - combined.min())
        assert_close(score_cam(activations, scorer), expected[None], activations)
        assert [len(masks) for masks, _ in asked] == [2, 1], "two live channels, and the black mask once"

    def test_constant_channels_are_not_scored(self, eager: Library) -> None:
        values = np.zeros((2, 50, 4, 4), dtype=np.float32)
        values[0, [3, 17], 1, 2] = 1
        values[1, 5, 0, 0] = 1
        seen: list[int] = []

        def scorer(masks: Any, images: Any) -> Any:
            seen.extend(np.asarray(images).tolist())
            return eager.asarray(np.ones(len(np.asarray(images)), dtype=np.float32))

        score_cam(eager.asarray(values), scorer, batch_size=2)
        assert seen == [0, 0, 1, 0, 1], "the live channels of both images, then their black masks"

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_golden_region_map_from_channel_scores(
        self, eager: Library, shapes: dict[str, Any], shapes_weights: dict[str, Any], batch_size: int
    ) -> None:
        torch = pytest.importorskip("torch")
        from torch_models import Shapes

        network = Shapes(shapes_weights).eval()
        activations = eager.asarray(shapes["activations"])
        largest = 0

        def scorer(masks: Any, images: Any) -> Any:
            nonlocal largest
            masks, images = np.array(np.asarray(masks)), np.asarray(images)
            largest = max(largest, len(masks))
            with torch.no_grad():
                logits = network(torch.from_numpy(shapes["images"][images] * masks[:, None])).numpy()
            return eager.asarray(logits[np.arange(len(images)), shapes["target"][images]])

        maps = score_cam(activations, scorer, size=SIZE, batch_size=batch_size)
        assert_close(maps, shapes["region_map"], activations, atol=1e-5)
        assert largest == min(batch_size, 64)

    def test_several_targets_share_the_masks(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        masks_seen = 0

        def scorer(masks: Any, images: Any) -> Any:
            nonlocal masks_seen
            masks_seen += len(np.asarray(masks))
            sums = np.asarray(masks).sum(axis=-1)
            return eager.asarray(np.stack([sums, -sums], axis=1).astype(np.float32))

        maps = score_cam(activations, scorer)
        assert masks_seen == 3
        one = [
            score_cam(activations, lambda m, i, sign=sign: eager.asarray(sign * np.asarray(m).sum(axis=-1)))
            for sign in (np.float32(1), np.float32(-1))
        ]
        assert_close(maps, np.stack([np.asarray(each) for each in one], axis=1), activations)

    def test_one_channel(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS[:, :1])
        maps = score_cam(activations, lambda m, i: eager.asarray(np.full(1, 5, dtype=np.float32)))
        assert_close(maps, [[0.5, 0, 0, 1]], activations)

    def test_only_constant_channels_give_zeros(self, eager: Library) -> None:
        activations = eager.asarray(np.ones((2, 3, 4, 4), dtype=np.float32))
        maps = score_cam(activations, lambda m, i: eager.asarray(np.zeros(2, dtype=np.float32)))
        assert_close(maps, np.zeros((2, 4, 4)), activations)

    def test_scores_that_are_not_finite(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        with pytest.raises(ValueError, match="scores of the masked images"):
            score_cam(activations, lambda m, i: eager.asarray(np.full(len(np.asarray(i)), np.nan, dtype=np.float32)))


class TestDenoise:
    def test_golden(self, library: Library, shapes: dict[str, Any]) -> None:
        maps = library.asarray(shapes["grad_cam"])
        assert_close(library.compile(denoise)(maps), shapes["denoised_map"], maps, atol=1e-5)

    def test_by_hand(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[0.2, 0.4], [0.6, 1.0]]], dtype=np.float32))
        # The 50th percentile is 0.5: 0.2 and 0.4 become 0.
        assert_close(denoise(maps, 50), [[[0, 0], [0.6, 1]]], maps)

    def test_percentile_0_keeps_all(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[0.0, 0.25], [0.5, 1.0]]], dtype=np.float32))
        assert_close(denoise(maps, 0), [[[0, 0.25], [0.5, 1]]], maps)

    def test_percentile_outside(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 100"):
            denoise(np.zeros((2, 2)), 101)


class TestContributionWeights:
    def test_golden_signed(self, eager: Library, shapes: dict[str, Any]) -> None:
        if eager.name.startswith("jax"):
            pytest.skip("the golden probabilities are float64")
        above = shapes["masked_probabilities"] - shapes["baseline_probability"][:, None]
        first, second = eager.asarray(above[:, 0]), eager.asarray(above[:, 1])
        weights = contribution_weights(first, second, contributions="signed")
        for column, weight in enumerate(weights):
            assert_close(weight, shapes["contribution_weights"][:, column], first, atol=1e-5)

    def test_golden_fusion_weights(self, eager: Library, shapes: dict[str, Any]) -> None:
        if eager.name.startswith("jax"):
            pytest.skip("the golden probabilities are float64")
        union = eager.asarray(shapes["masked_probabilities"][:, 2] - shapes["baseline_probability"])
        region = eager.asarray(shapes["contribution_weights"][:, 1])
        weights = contribution_weights(union, region, contributions="signed")
        for column, weight in enumerate(weights):
            assert_close(weight, shapes["fusion_weights"][:, column], union, atol=1e-5)

    @pytest.mark.parametrize(
        ("first", "second", "clipped"),
        [(0.3, 0.1, (0.75, 0.25)), (0.3, -0.1, (1, 0)), (-0.3, -0.1, (0.5, 0.5)), (0, 0, (0.5, 0.5)), (0, 0.2, (0, 1))],
    )
    def test_clipped(self, library: Library, first: float, second: float, clipped: tuple[float, float]) -> None:
        arrays = [library.asarray(np.array([value], dtype=np.float32)) for value in (first, second)]
        weights = library.compile(contribution_weights)(*arrays)
        for weight, expected in zip(weights, clipped, strict=True):
            assert_close(weight, [expected], arrays[0])

    def test_both_zero_signed_is_finite(self, eager: Library) -> None:
        zero = eager.asarray(np.zeros(1, dtype=np.float32))
        for weight in contribution_weights(zero, zero, contributions="signed"):
            assert_close(weight, [0], zero)

    def test_unknown_mode(self) -> None:
        with pytest.raises(ValueError, match="'clipped' or 'signed': got 'absolute'"):
            contribution_weights(np.zeros(1), np.zeros(1), contributions="absolute")

    def test_not_finite(self) -> None:
        with pytest.raises(ValueError, match="second contributions"):
            contribution_weights(np.zeros(1), np.array([np.nan]))


class TestFuse:
    def test_golden_similarity(self, library: Library, shapes: dict[str, Any]) -> None:
        a, b = _weighted(shapes)
        first, second = library.asarray(a), library.asarray(b)
        assert_close(library.compile(similarity)(first, second), shapes["similarity"], first, atol=1e-5)

    def test_golden_fusion(self, library: Library, shapes: dict[str, Any]) -> None:
        a, b = _weighted(shapes)
        first, second = library.asarray(a), library.asarray(b)
        assert_close(library.compile(fuse)(first, second), shapes["fusion_cam"], first, atol=1e-5)

    def test_by_hand(self, eager: Library) -> None:
        a = eager.asarray(np.array([[[1, 0.5, 0]]], dtype=np.float32))
        b = eager.asarray(np.array([[[1, 0, 0]]], dtype=np.float32))
        assert_close(similarity(a, b), [[[1, 0.5, 1]]], a)
        # 1 | 0.5 * 0.5 + 0.5 * 0.25 = 0.375 | 0
        assert_close(fuse(a, b), [[[1, 0.375, 0]]], a)

    def test_weights_scale_the_maps(self, eager: Library) -> None:
        a = eager.asarray(np.array([[[1, 0.5, 0]]], dtype=np.float32))
        b = eager.asarray(np.array([[[0.5, 0, 0]]], dtype=np.float32))
        weights = (eager.asarray(np.array([1], dtype=np.float32)), eager.asarray(np.array([2], dtype=np.float32)))
        assert_close(fuse(a, b, weights=weights), [[[1, 0.375, 0]]], a)

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match="resize one to the other's"):
            fuse(np.zeros((2, 3)), np.zeros((3, 2)))


def _weighted(shapes: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    weights = shapes["fusion_weights"].astype(np.float32)[:, :, None, None]
    return weights[:, 0] * shapes["union_map"], weights[:, 1] * shapes["region_map"]


class TestFusionCAM:
    @pytest.fixture
    def golden(self, eager: Library, shapes: dict[str, Any]) -> Any:
        """Calls fusion_cam on the golden maps with the golden probabilities."""

        def call(contributions: str) -> Any:
            probabilities = iter(shapes["masked_probabilities"].astype(np.float32).T)
            return fusion_cam(
                eager.asarray(shapes["grad_cam"]),
                eager.asarray(shapes["region_map"]),
                lambda masks: eager.asarray(next(probabilities)),
                baseline=eager.asarray(shapes["baseline_probability"].astype(np.float32)),
                contributions=contributions,
            )

        return call

    @pytest.mark.parametrize("part", ["denoised", "union", "similarity"])
    def test_golden_parts(self, golden: Any, eager: Library, shapes: dict[str, Any], part: str) -> None:
        name = {"denoised": "denoised_map", "union": "union_map"}.get(part, part)
        like = eager.asarray(shapes["grad_cam"])
        assert_close(golden("signed").parts[part], shapes[name], like, atol=1e-5)

    def test_golden_map(self, golden: Any, eager: Library, shapes: dict[str, Any]) -> None:
        assert_close(golden("signed").maps, shapes["fusion_cam"], eager.asarray(shapes["grad_cam"]), atol=1e-5)

    def test_modes_agree_where_contributions_are_positive(self, golden: Any) -> None:
        signed, clipped = (np.asarray(golden(mode).maps) for mode in ("signed", "clipped"))
        np.testing.assert_allclose(signed[POSITIVE], clipped[POSITIVE], atol=1e-6)
        others = [case for case in range(8) if case not in POSITIVE]
        assert np.abs(signed[others] - clipped[others]).max(axis=(1, 2)).min() > 0.05

    def test_black_is_asked_for_when_not_given(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[0.0, 0.5], [0.2, 1.0]]], dtype=np.float32))
        sums = []

        def probability(masks: Any) -> Any:
            sums.append(float(np.asarray(masks).sum()))
            return eager.asarray(np.array([0.1 + sums[-1] / 10], dtype=np.float32))

        fusion = fusion_cam(maps, maps, probability, percentile=0)
        assert sums == pytest.approx([0, 1.7, 1.7, 1.7])
        assert_close(fusion.weights["contribution_region"], [0.17], maps)
        assert_close(fusion.weights["weight_denoised"], [0.5], maps)

    def test_maps_of_different_shapes(self) -> None:
        with pytest.raises(ValueError, match="they must be equal"):
            fusion_cam(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), lambda masks: masks)

    def test_stage_is_named_when_not_finite(self) -> None:
        broken = np.full((1, 2, 2), np.nan)
        with pytest.raises(ValueError, match="NaN or infinity in the region map"):
            fusion_cam(np.zeros((1, 2, 2)), broken, lambda masks: masks)
