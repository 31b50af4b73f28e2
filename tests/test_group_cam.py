"""Group-CAM: as a function of arrays, and on PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.words import normalise, resize, softmax
from fusioncam_core.explainers.region import GroupCAM
from fusioncam_core.methods.groups import group_cam, k_means
from libraries import Library, assert_close, framework

framework("torch")

from masked_network import SIZE, Network, blurred  # noqa: E402


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def network(model: Any, shapes: dict[str, Any]) -> Network:
    return Network(model, shapes)


class TestGroupCAM:
    ACTIVATIONS = np.array([[[1, 0, 0], [1, 0, 2], [0, 3, 0], [0, 1, 1]]], dtype=np.float32)
    GRADIENTS = np.array([[[1, 1, 1], [3, 0, 0], [-1, -1, -1], [2, 5, 5]]], dtype=np.float32)

    def test_golden(self, eager: Library, network: Network, shapes: dict[str, Any]) -> None:
        activations, gradients = eager.asarray(shapes["activations"]), eager.asarray(shapes["gradients"])
        erased = blurred(shapes["images"])
        black = softmax(network.logits(erased))[np.arange(8), shapes["target"]]

        def scorer(masks: Any, images: Any) -> Any:
            found = network.masked(masks, images, probability=True, erased=erased)
            return eager.asarray(found - black[np.asarray(images)])

        for batch_size in (1, 7, 64):
            maps = group_cam(activations, gradients, scorer, groups=16, percentile=0, size=SIZE, batch_size=batch_size)
            assert_close(maps, shapes["group_cam"], activations, atol=1e-5)

    def test_by_hand(self, eager: Library) -> None:
        activations, gradients = eager.asarray(self.ACTIVATIONS), eager.asarray(self.GRADIENTS)
        # Weights 1, 1, -1, 4: the groups are (2, 0, 2) and relu(0, 4 - 3, 4) = (0, 1, 4).
        increases = {(1, 0, 1): 0.2, (0, 0.25, 1): 0.4}

        def scorer(masks: Any, images: Any) -> Any:
            return eager.asarray(np.array([increases[tuple(m.tolist())] for m in np.asarray(masks)], np.float32))

        maps = group_cam(activations, gradients, scorer, groups=2, percentile=0)
        # 0.2 (1, 0, 1) + 0.4 (0, 0.25, 1) = (0.2, 0.1, 0.6), from 0.1 to 0.6.
        assert_close(maps, [[0.2, 0, 1]], activations)

    def test_a_group_that_lowers_the_probability_counts_nothing(self, eager: Library) -> None:
        activations, gradients = eager.asarray(self.ACTIVATIONS), eager.asarray(self.GRADIENTS)

        def scorer(masks: Any, images: Any) -> Any:
            return eager.asarray(np.where(np.asarray(masks)[:, 0] > 0, -0.5, 0.3).astype(np.float32))

        assert_close(group_cam(activations, gradients, scorer, groups=2, percentile=0), [[0, 0.25, 1]], activations)

    def test_groups_without_evidence_are_not_scored(self, eager: Library) -> None:
        activations, gradients = eager.asarray(self.ACTIVATIONS), eager.asarray(-self.GRADIENTS)
        asked: list[Any] = []

        def scorer(masks: Any, images: Any) -> Any:
            asked.extend(np.asarray(masks).tolist())
            return eager.asarray(np.ones(len(np.asarray(images)), dtype=np.float32))

        # Only (0, 3, 0) - 4 (0, 1, 1) = (0, -1, -4) and -(2, 0, 2) are left: nothing positive.
        assert_close(group_cam(activations, gradients, scorer, groups=2, percentile=0), [[0, 0, 0]], activations)
        assert asked == []

    def test_percentile_of_a_groups_map(self, eager: Library) -> None:
        activations, gradients = eager.asarray(self.ACTIVATIONS), eager.asarray(self.GRADIENTS)

        def scorer(masks: Any, images: Any) -> Any:
            return eager.asarray(np.ones(len(np.asarray(images)), dtype=np.float32))

        # The medians are 2 and 1: of (2, 0, 2) nothing is above, and (0, 1, 4) becomes (0, 0, 4).
        assert_close(group_cam(activations, gradients, scorer, groups=2, percentile=50), [[0, 0, 1]], activations)

    def test_each_target_takes_its_own_masks_score(self, eager: Library) -> None:
        activations = eager.asarray(self.ACTIVATIONS)
        gradients = eager.asarray(np.stack([self.GRADIENTS, self.GRADIENTS[:, ::-1]], axis=1))

        def scorer(masks: Any, images: Any) -> Any:
            sums = np.asarray(masks).sum(axis=-1)
            return eager.asarray(np.stack([sums, sums**2], axis=1).astype(np.float32))

        maps = group_cam(activations, gradients, scorer, groups=2, percentile=0)
        for column, power in enumerate((1, 2)):
            alone = group_cam(
                activations,
                gradients[:, column, ...],
                lambda masks, images, power=power: eager.asarray(np.asarray(masks).sum(axis=-1) ** power),
                groups=2,
                percentile=0,
            )
            assert_close(maps[:, column, ...], np.asarray(alone), activations)

    def test_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GroupCAM(model, groups=16, percentile=0, blur=25)(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["group_cam"], atol=1e-4)
        weighted = shapes["gradients"].mean(axis=(2, 3), keepdims=True) * shapes["activations"]
        groups = np.maximum(weighted.reshape(8, 16, 3, 12, 12).sum(axis=2), 0)
        live = int((groups.max(axis=(2, 3)) > 0).sum())
        assert live < 8 * 16, "some groups speak against the target everywhere"
        assert explanation.evaluations == 8 + 8 + live, "plain images, blurred ones, masked ones"

    def test_a_baseline_of_ones_own_replaces_the_blur(self, model: Any, shapes: dict[str, Any]) -> None:
        for row in (0, 1, 4):
            own = GroupCAM(model, groups=16, percentile=0, baseline=blurred(shapes["images"])[row])
            maps = own(shapes["images"][row], int(shapes["target"][row])).maps.numpy()
            np.testing.assert_allclose(maps[0], shapes["group_cam"][row], atol=1e-4)
        black = GroupCAM(model, groups=16, percentile=0, baseline="zero")(shapes["images"][:2], shapes["target"][:2])
        assert np.abs(black.maps.numpy() - shapes["group_cam"][:2]).max() > 0.1

    def test_defaults_are_those_of_the_authors_code(self, network: Network, model: Any, shapes: dict[str, Any]) -> None:
        """Its steps in NumPy: the 70th percentile of a group's map, a blur of sigma 50 in a window of 51 pixels."""
        ndimage = pytest.importorskip("scipy.ndimage")
        erased = ndimage.gaussian_filter(shapes["images"], (0, 0, 50, 50), mode="mirror", radius=(0, 0, 25, 25))
        black = softmax(network.logits(erased))[np.arange(8), shapes["target"]]
        weighted = shapes["gradients"].mean(axis=(2, 3), keepdims=True) * shapes["activations"]
        total = np.zeros((8, *SIZE))
        for group in np.split(weighted, 16, axis=1):
            maps = np.maximum(group.sum(axis=1), 0)
            threshold = np.percentile(maps, 70, axis=(1, 2), keepdims=True)
            masks = normalise(resize(np.where(maps > threshold, maps, 0), SIZE))
            found = network.masked(masks, np.arange(8), probability=True, erased=erased)
            total += np.maximum(found - black, 0)[:, None, None] * masks
        maps = GroupCAM(model, groups=16)(shapes["images"], shapes["target"]).maps.numpy()
        np.testing.assert_allclose(maps, normalise(total), atol=1e-4)
        assert np.abs(maps - shapes["group_cam"]).max() > 0.1, "the published Fusion-CAM code leaves a step out"

    @pytest.mark.parametrize("blur", [0, -1.0, float("nan"), float("inf")])
    def test_no_blur(self, model: Any, blur: float) -> None:
        with pytest.raises(ValueError, match="blur is a positive number of pixels"):
            GroupCAM(model, blur=blur)

    def test_as_many_groups_as_channels_and_more(self, model: Any, shapes: dict[str, Any]) -> None:
        few, many = (GroupCAM(model, groups=groups)(shapes["images"][:2], 0) for groups in (48, 1000))
        np.testing.assert_array_equal(few.maps.numpy(), many.maps.numpy())

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"groups": 0}, "groups is a whole number of at least 1: got 0"),
            ({"groups": 1.5}, "groups is a whole number"),
            ({"grouping": "random"}, "'order' or 'k-means': got 'random'"),
            ({"percentile": 101}, "between 0 and 100"),
            ({"seed": -1}, "seed is a whole number of at least 0"),
        ],
    )
    def test_wrong_options(self, model: Any, keywords: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GroupCAM(model, **keywords)
        with pytest.raises(ValueError, match=message):
            group_cam(self.ACTIVATIONS, self.GRADIENTS, lambda masks, images: masks[:, 0], **keywords)


class TestKMeans:
    POINTS = np.array([[0, 0], [10, 0], [0.5, 0], [0, 10], [10.5, 0], [0, 10.5], [0.2, 0.2]])

    @pytest.mark.parametrize("seed", range(5))
    def test_three_heaps(self, seed: int) -> None:
        labels = k_means(self.POINTS, 3, seed)
        together = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
        assert together == {frozenset({0, 2, 6}), frozenset({1, 4}), frozenset({3, 5})}

    def test_repeats_with_its_seed(self) -> None:
        points = np.random.default_rng(1).random((60, 5))
        np.testing.assert_array_equal(k_means(points, 7, 3), k_means(points, 7, 3))
        assert any((k_means(points, 7, 3) != k_means(points, 7, seed)).any() for seed in range(4, 8))

    def test_no_point_is_nearer_to_another_centre(self) -> None:
        points = np.random.default_rng(2).random((60, 5))
        labels = k_means(points, 7, 0)
        centres = np.stack([points[labels == group].mean(axis=0) for group in range(7)])
        distances = np.linalg.norm(points[:, None] - centres, axis=-1)
        np.testing.assert_array_equal(distances.argmin(axis=1), labels)

    def test_more_groups_than_distinct_points(self) -> None:
        labels = k_means(np.array([[1.0], [1.0], [5.0]]), 3, 0)
        assert labels[0] == labels[1] != labels[2]

    def test_groups_alike_channels(self, eager: Library) -> None:
        left, right = [4.0, 2, 0], [0, 2.0, 4]
        activations = eager.asarray(np.array([[left, right, left, right]], dtype=np.float32))
        gradients = eager.asarray(np.ones((1, 4, 3), dtype=np.float32))
        seen: list[Any] = []

        def scorer(masks: Any, images: Any) -> Any:
            seen.extend(np.asarray(masks).tolist())
            return eager.asarray(np.asarray(masks)[:, 0])

        maps = group_cam(activations, gradients, scorer, groups=2, grouping="k-means", percentile=0)
        assert sorted(seen) == [[0, 0.5, 1], [1, 0.5, 0]], "by order both groups would be constant"
        assert_close(maps, [[1, 0.5, 0]], activations)


def test_group_cam_masks_with_each_targets_gradients(model: Any, shapes: dict[str, Any]) -> None:
    cam = GroupCAM(model, groups=4, percentile=0, blur=25)
    alone = [cam(shapes["images"], target).evaluations - 16 for target in range(5)]
    five = cam(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
    assert five.evaluations == 16 + sum(alone)
