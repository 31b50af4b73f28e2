"""The region methods: as functions of arrays, and end to end on PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.arrays.words import normalise, resize, softmax
from fusioncam_core.errors import GradientsUnavailableError
from fusioncam_core.explainers.gradient import GradCAM
from fusioncam_core.explainers.region import ISCAM, RISE, SSCAM, AblationCAM, GroupCAM, ScoreCAM
from fusioncam_core.methods.ablation import ablation_cam
from fusioncam_core.methods.groups import group_cam, k_means
from fusioncam_core.methods.rise import RandomMasks, rise
from fusioncam_core.methods.sampled import is_cam, ss_cam
from fusioncam_core.methods.score import score_cam
from fusioncam_core.models.black_box import BlackBox
from fusioncam_core.models.scoring import weighted_masks
from fusioncam_core.models.targets import Targets
from libraries import Library, assert_close

torch = pytest.importorskip("torch")

SIZE = (48, 48)

METHODS = {
    "score-cam": ScoreCAM,
    "score-cam of probabilities": lambda model, *layer, **keywords: ScoreCAM(
        model, *layer, channel_weights="probability", **keywords
    ),
    "score-cam by regression": lambda model, *layer, **keywords: ScoreCAM(
        model, *layer, channel_weights="regression", **keywords
    ),
    "group-cam": lambda model, *layer, **keywords: GroupCAM(model, *layer, groups=16, **keywords),
    "group-cam by k-means": lambda model, *layer, **keywords: GroupCAM(
        model, *layer, groups=8, grouping="k-means", **keywords
    ),
    "ablation-cam": AblationCAM,
    "ss-cam": lambda model, *layer, **keywords: SSCAM(model, *layer, samples=2, **keywords),
    "is-cam": lambda model, *layer, **keywords: ISCAM(model, *layer, steps=3, **keywords),
    "rise": lambda model, *layer, **keywords: RISE(model, *layer, masks=60, cells=4, **keywords),
}
"""Every region method, small enough for a test."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


def live_channels(shapes: dict[str, Any]) -> int:
    activations = shapes["activations"]
    return int((activations.max(axis=(2, 3)) > activations.min(axis=(2, 3))).sum())


class Network:
    """The shapes network, asked with NumPy: probabilities or logits of the golden targets under masks."""

    def __init__(self, model: Any, shapes: dict[str, Any]):
        self.model, self.images, self.target = model, shapes["images"], shapes["target"]
        self.asked = 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.asked += len(images)
        with torch.no_grad():
            return self.model(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))).numpy()

    def masked(self, masks: Any, owners: Any, *, probability: bool = False, erased: Any = None) -> np.ndarray:
        masks, owners = np.asarray(masks)[:, None], np.asarray(owners)
        images = self.images[owners] * masks
        outputs = self.logits(images if erased is None else images + erased[owners] * (1 - masks))
        values = softmax(outputs) if probability else outputs
        return values[np.arange(len(owners)), self.target[owners]]


@pytest.fixture
def network(model: Any, shapes: dict[str, Any]) -> Network:
    return Network(model, shapes)


def blurred(images: np.ndarray) -> np.ndarray:
    """A Gaussian of 25 pixels in a window of 51, edges mirrored, written as sums over the window."""
    offsets = np.arange(-25, 26)
    kernel = np.exp(-0.5 * (offsets / 25) ** 2)
    for axis in (2, 3):
        padded = np.pad(images, [(25, 25) if each == axis else (0, 0) for each in range(4)], mode="reflect")
        parts = [np.take(padded, np.arange(25 + o, 25 + o + images.shape[axis]), axis=axis) for o in offsets]
        images = sum(part * weight for part, weight in zip(parts, kernel / kernel.sum(), strict=True))
    return images.astype(np.float32)


class TestScoreCAMOfProbabilities:
    def test_golden(self, library: Library, network: Network, shapes: dict[str, Any]) -> None:
        activations = library.asarray(shapes["activations"])

        def scorer(masks: Any, images: Any) -> Any:
            return library.asarray(network.masked(masks, images, probability=True))

        maps = score_cam(activations, scorer, channel_weights="probability", size=SIZE)
        assert_close(maps, shapes["xplaincam_score_cam"], activations, atol=1e-5)

    def test_by_hand(self, library: Library) -> None:
        activations = library.asarray(np.array([[[2, 2, 6], [0, 10, 5], [3, 3, 3]]], dtype=np.float32))
        probabilities = {(0, 0, 1): 0.5, (0, 1, 0.5): 0.25, (0, 0, 0): 0.9}

        def scorer(masks: Any, images: Any) -> Any:
            found = [probabilities[tuple(mask.tolist())] for mask in np.asarray(masks)]
            return library.asarray(np.array(found, dtype=np.float32))

        # 0.5 (0, 0, 1) + 0.25 (0, 1, 0.5), and the constant channel's mask adds nothing.
        expected = np.array([[0, 0.25, 0.625]]) / 0.625
        assert_close(score_cam(activations, scorer, channel_weights="probability"), expected, activations)

    def test_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = ScoreCAM(model, channel_weights="probability")(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["xplaincam_score_cam"], atol=1e-4)
        assert explanation.evaluations == 8 + live_channels(shapes), "no black mask: it could not matter"

    @pytest.mark.parametrize("make", [lambda word: score_cam(np.ones((1, 1, 2)), max, channel_weights=word)])
    def test_another_word(self, model: Any, make: Callable[[str], Any]) -> None:
        with pytest.raises(ValueError, match="'softmax', 'probability' or 'regression', and 'logit' came"):
            make("logit")
        with pytest.raises(ValueError, match="'softmax', 'probability' or 'regression', and 'logit' came"):
            ScoreCAM(model, channel_weights="logit")


class TestGroupCAM:
    ACTIVATIONS = np.array([[[1, 0, 0], [1, 0, 2], [0, 3, 0], [0, 1, 1]]], dtype=np.float32)
    GRADIENTS = np.array([[[1, 1, 1], [3, 0, 0], [-1, -1, -1], [2, 5, 5]]], dtype=np.float32)

    def test_golden(self, library: Library, network: Network, shapes: dict[str, Any]) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        erased = blurred(shapes["images"])
        black = softmax(network.logits(erased))[np.arange(8), shapes["target"]]

        def scorer(masks: Any, images: Any) -> Any:
            found = network.masked(masks, images, probability=True, erased=erased)
            return library.asarray(found - black[np.asarray(images)])

        for batch_size in (1, 7, 64):
            maps = group_cam(activations, gradients, scorer, groups=16, size=SIZE, batch_size=batch_size)
            assert_close(maps, shapes["group_cam"], activations, atol=1e-5)

    def test_by_hand(self, library: Library) -> None:
        activations, gradients = library.asarray(self.ACTIVATIONS), library.asarray(self.GRADIENTS)
        # Weights 1, 1, -1, 4: the groups are (2, 0, 2) and relu(0, 4 - 3, 4) = (0, 1, 4).
        increases = {(1, 0, 1): 0.2, (0, 0.25, 1): 0.4}

        def scorer(masks: Any, images: Any) -> Any:
            return library.asarray(np.array([increases[tuple(m.tolist())] for m in np.asarray(masks)], np.float32))

        maps = group_cam(activations, gradients, scorer, groups=2)
        # 0.2 (1, 0, 1) + 0.4 (0, 0.25, 1) = (0.2, 0.1, 0.6), from 0.1 to 0.6.
        assert_close(maps, [[0.2, 0, 1]], activations)

    def test_a_group_that_lowers_the_probability_counts_nothing(self, library: Library) -> None:
        activations, gradients = library.asarray(self.ACTIVATIONS), library.asarray(self.GRADIENTS)

        def scorer(masks: Any, images: Any) -> Any:
            return library.asarray(np.where(np.asarray(masks)[:, 0] > 0, -0.5, 0.3).astype(np.float32))

        assert_close(group_cam(activations, gradients, scorer, groups=2), [[0, 0.25, 1]], activations)

    def test_groups_without_evidence_are_not_scored(self, library: Library) -> None:
        activations, gradients = library.asarray(self.ACTIVATIONS), library.asarray(-self.GRADIENTS)
        asked: list[Any] = []

        def scorer(masks: Any, images: Any) -> Any:
            asked.extend(np.asarray(masks).tolist())
            return library.asarray(np.ones(len(np.asarray(images)), dtype=np.float32))

        # Only (0, 3, 0) - 4 (0, 1, 1) = (0, -1, -4) and -(2, 0, 2) are left: nothing positive.
        assert_close(group_cam(activations, gradients, scorer, groups=2), [[0, 0, 0]], activations)
        assert asked == []

    def test_percentile_of_a_groups_map(self, library: Library) -> None:
        activations, gradients = library.asarray(self.ACTIVATIONS), library.asarray(self.GRADIENTS)

        def scorer(masks: Any, images: Any) -> Any:
            return library.asarray(np.ones(len(np.asarray(images)), dtype=np.float32))

        # The medians are 2 and 1: of (2, 0, 2) nothing is above, and (0, 1, 4) becomes (0, 0, 4).
        assert_close(group_cam(activations, gradients, scorer, groups=2, percentile=50), [[0, 0, 1]], activations)

    def test_each_target_takes_its_own_masks_score(self, library: Library) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        gradients = library.asarray(np.stack([self.GRADIENTS, self.GRADIENTS[:, ::-1]], axis=1))

        def scorer(masks: Any, images: Any) -> Any:
            sums = np.asarray(masks).sum(axis=-1)
            return library.asarray(np.stack([sums, sums**2], axis=1).astype(np.float32))

        maps = group_cam(activations, gradients, scorer, groups=2)
        for column, power in enumerate((1, 2)):
            alone = group_cam(
                activations,
                gradients[:, column, ...],
                lambda masks, images, power=power: library.asarray(np.asarray(masks).sum(axis=-1) ** power),
                groups=2,
            )
            assert_close(maps[:, column, ...], np.asarray(alone), activations)

    def test_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GroupCAM(model, groups=16)(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["group_cam"], atol=1e-4)
        weighted = shapes["gradients"].mean(axis=(2, 3), keepdims=True) * shapes["activations"]
        groups = np.maximum(weighted.reshape(8, 16, 3, 12, 12).sum(axis=2), 0)
        live = int((groups.max(axis=(2, 3)) > 0).sum())
        assert live < 8 * 16, "some groups speak against the target everywhere"
        assert explanation.evaluations == 8 + 8 + live, "plain images, blurred ones, masked ones"

    def test_a_baseline_of_ones_own_replaces_the_blur(self, model: Any, shapes: dict[str, Any]) -> None:
        for row in (0, 1, 4):
            own = GroupCAM(model, groups=16, baseline=blurred(shapes["images"])[row])
            maps = own(shapes["images"][row], int(shapes["target"][row])).maps.numpy()
            np.testing.assert_allclose(maps[0], shapes["group_cam"][row], atol=1e-4)
        black = GroupCAM(model, groups=16, baseline="zero")(shapes["images"][:2], shapes["target"][:2])
        assert np.abs(black.maps.numpy() - shapes["group_cam"][:2]).max() > 0.1

    def test_as_many_groups_as_channels_and_more(self, model: Any, shapes: dict[str, Any]) -> None:
        few, many = (GroupCAM(model, groups=groups)(shapes["images"][:2], 0) for groups in (48, 1000))
        np.testing.assert_array_equal(few.maps.numpy(), many.maps.numpy())

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"groups": 0}, "groups is a whole number of at least 1, and 0 came"),
            ({"groups": 1.5}, "groups is a whole number"),
            ({"grouping": "random"}, "'order' or 'k-means', and 'random' came"),
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

    def test_groups_alike_channels(self, library: Library) -> None:
        left, right = [4.0, 2, 0], [0, 2.0, 4]
        activations = library.asarray(np.array([[left, right, left, right]], dtype=np.float32))
        gradients = library.asarray(np.ones((1, 4, 3), dtype=np.float32))
        seen: list[Any] = []

        def scorer(masks: Any, images: Any) -> Any:
            seen.extend(np.asarray(masks).tolist())
            return library.asarray(np.asarray(masks)[:, 0])

        maps = group_cam(activations, gradients, scorer, groups=2, grouping="k-means")
        assert sorted(seen) == [[0, 0.5, 1], [1, 0.5, 0]], "by order both groups would be constant"
        assert_close(maps, [[1, 0.5, 0]], activations)


class TestAblationCAM:
    ACTIVATIONS = np.array([[[1, 0, 0], [0, 2, 0], [0, 0, 5]]], dtype=np.float32)

    @pytest.mark.parametrize("score", [3.0, -3.0])
    def test_by_hand(self, library: Library, score: float) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        ablated = library.asarray(np.array([[score - 2, score - 0.5, score + 1]], dtype=np.float32))
        # Drops 2, 1/2 and -1: (2, 1, relu(-5)); a negative logit does not turn evidence round.
        maps = ablation_cam(activations, library.asarray(np.array([score], dtype=np.float32)), ablated)
        assert_close(maps, [[1, 0.5, 0]], activations)

    def test_several_targets(self, library: Library) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        scores = library.asarray(np.array([[1, 2]], dtype=np.float32))
        ablated = library.asarray(np.array([[[0, 1, 1], [2, 2, 1]]], dtype=np.float32))
        assert_close(ablation_cam(activations, scores, ablated), [[[1, 0, 0], [0, 0, 1]]], activations)

    def test_equals_grad_cam_before_a_global_mean(self, model: Any, shapes: dict[str, Any]) -> None:
        # The head is linear in the channels' means: a channel's drop is its weight times its mean, by which HiResCAM
        # would weigh it; here the map is sum_k drop_k A_k, computed from the arrays.
        means = shapes["activations"].mean(axis=(2, 3))
        drops = shapes["gradients"].sum(axis=(2, 3)) * means
        expected = np.maximum(np.einsum("bk,bkij->bij", drops, shapes["activations"]), 0)
        expected = normalise(resize(expected, SIZE))
        explanation = AblationCAM(model)(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), expected, atol=1e-4)

    def test_channels_that_are_zero_are_not_run(self, model: Any, shapes: dict[str, Any]) -> None:
        live = int((shapes["activations"] != 0).any(axis=(2, 3)).sum())
        assert live < 8 * 48
        ran: list[int] = []
        model.register_forward_hook(lambda module, inputs, outputs: ran.append(len(inputs[0])))
        explanation = AblationCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        assert explanation.evaluations == 8 + live == sum(ran)
        assert max(ran) == 8

    def test_layer_that_runs_twice(self) -> None:
        class Twice(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.twofold = torch.nn.Conv2d(2, 2, 1, bias=False)
                self.twofold.weight.data = 2 * torch.eye(2)[:, :, None, None]

            def forward(self, images: Any) -> Any:
                return self.twofold(self.twofold(images)).sum(dim=(2, 3))

        images = np.zeros((1, 2, 2, 2), dtype=np.float32)
        images[0, 0, 0, 0] = images[0, 1, 1, 1] = 1
        explanation = AblationCAM(Twice(), "twofold")(images, 1)
        assert explanation.maps.numpy().tolist() == [[[0, 0], [0, 1]]]
        assert explanation.evaluations == 1 + 2

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"scores have shape \(2,\) and ablated scores \(1, 3\)"):
            ablation_cam(self.ACTIVATIONS, np.zeros(2, np.float32), np.zeros((1, 3), np.float32))

    def test_tokens(self) -> None:
        class Tokens(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.patches = torch.nn.Conv2d(3, 8, 4, stride=4)
                self.block = torch.nn.Linear(8, 8)
                self.head = torch.nn.Linear(8, 3)

            def forward(self, images: Any) -> Any:
                tokens = self.patches(images).flatten(2).transpose(1, 2)
                tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
                return self.head(self.block(tokens).relu().mean(dim=1))

        torch.manual_seed(0)
        network, images = Tokens(), np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
        explanation = AblationCAM(network, "block")(images)
        assert explanation.maps.shape == (2, 16, 16)
        assert explanation.evaluations == 2 + 2 * 8
        own = AblationCAM(network, "block", reshape=lambda tokens: tokens[:, 1:].mT.unflatten(-1, (4, 4)))(images)
        np.testing.assert_array_equal(own.maps.numpy(), explanation.maps.numpy())
        half = AblationCAM(network, "block", reshape=lambda tokens: tokens[:, 1:, :4].mT.unflatten(-1, (4, 4)))
        with pytest.raises(ValueError, match=r"shape \(2, 17, 8\), and which of its axes holds the 4 channels"):
            half(images)


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

    def test_is_cam_by_hand(self, library: Library) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        asked: list[np.ndarray] = []
        maps = is_cam(activations, self.scorer(library, asked), steps=4)
        # The factors are 0, 0, 1/4, 3/4 and 6/4, and their sum over 4 is 5/8; the constant channel is black: 0.
        assert_close(maps, self.expected([*0.625 * self.SUMS, 0]), activations)
        masks = np.concatenate(asked)
        assert [mask.max() for mask in masks] == [0.25, 0.25, 0.75, 0.75, 1.5, 1.5, 0]
        assert len(asked) == 4, "three steps of two channels, and the black mask once"

    def test_ss_cam_by_hand(self, library: Library) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        noise = [
            np.mean([np.random.default_rng([5, k, i]).standard_normal(4, dtype=np.float32).sum() for i in range(6)])
            for k in range(2)
        ]
        assert abs(noise[0] - noise[1]) > 0.1
        asked: list[np.ndarray] = []
        maps = ss_cam(activations, self.scorer(library, asked), samples=6, std=0.5, seed=5)
        assert_close(maps, self.expected([*(self.SUMS + 0.5 * np.array(noise)), 0]), activations)
        assert sum(len(masks) for masks in asked) == 6 * 2 + 1

    def test_noise_has_its_standard_deviation(self, library: Library) -> None:
        activations = np.zeros((1, 1, 40, 40), dtype=np.float32)
        activations[0, 0, :, 20:] = 1
        asked: list[np.ndarray] = []

        def scorer(masks: Any, images: Any) -> Any:
            asked.append(np.asarray(masks))
            return library.asarray(np.zeros(len(asked[-1]), dtype=np.float32))

        ss_cam(library.asarray(activations), scorer, samples=20)
        noise = np.concatenate(asked) - activations[0]
        assert noise.std() == pytest.approx(2, abs=0.03)
        assert noise.mean() == pytest.approx(0, abs=0.03)
        assert len({mask.tobytes() for mask in noise}) == 20

    def test_noise_does_not_depend_on_the_batch(self, library: Library) -> None:
        both = np.concatenate([self.ACTIVATIONS[:, ::-1], self.ACTIVATIONS])
        maps = ss_cam(library.asarray(both), self.scorer(library, []), samples=3, batch_size=4)
        alone = library.asarray(self.ACTIVATIONS)
        expected = ss_cam(alone, self.scorer(library, []), samples=3, batch_size=1)
        assert_close(maps[1:, ...], np.asarray(expected), alone)

    def test_little_noise_is_score_cam(self, library: Library) -> None:
        activations = library.asarray(self.ACTIVATIONS)
        smooth = ss_cam(activations, self.scorer(library, []), samples=2, std=1e-6)
        assert_close(smooth, np.asarray(score_cam(activations, self.scorer(library, []))), activations, atol=1e-5)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda model: SSCAM(model, samples=0), "samples is a whole number of at least 1"),
            (lambda model: SSCAM(model, std=0), "std is a positive number"),
            (lambda model: SSCAM(model, seed=-3), "seed is a whole number of at least 0, and -3 came"),
            (lambda model: ISCAM(model, steps=1), "steps is a whole number of at least 2, and 1 came"),
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
            ({"probability": 1}, "between 0 and 1, and 1 came"),
            ({"seed": -1}, "seed is a whole number of at least 0"),
        ],
    )
    def test_wrong_numbers(self, model: Any, keywords: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RISE(model, **keywords)
        with pytest.raises(ValueError, match=message):
            rise(np.zeros((1, 1, 4), np.float32), lambda masks, images: masks[:, 0], **keywords)


class TestRISE:
    def test_is_the_weighted_sum_of_its_masks(self, library: Library) -> None:
        images = library.asarray(np.zeros((2, 3, 8, 6), dtype=np.float32))
        masks = RandomMasks(40, (8, 6), cells=3, probability=0.5, seed=2)(np.arange(40))
        places = np.array([[1, 4], [6, 2]])
        seen = np.stack([masks[:, row, column] for row, column in places])
        expected = normalise(np.einsum("bn,nij->bij", seen, masks))

        def scorer(drawn: Any, owners: Any) -> Any:
            rows, columns = places[np.asarray(owners)].T
            return library.asarray(np.asarray(drawn)[np.arange(len(rows)), rows, columns])

        for batch_size in (1, 7, 64):
            maps = rise(images, scorer, masks=40, cells=3, seed=2, batch_size=batch_size)
            assert_close(maps, expected, images, atol=1e-5)

    def test_finds_the_pixel_that_matters(self) -> None:
        maps = rise(np.zeros((1, 1, 9, 9), np.float32), lambda masks, owners: masks[:, 4, 7], cells=3, masks=2000)
        assert maps[0, 4, 7] > 0.85
        # Pixels further away than a cell (of three) and its enlargement are seen independently of that one.
        assert maps[0, :, :3].max() < 0.3

    def test_channels_last_and_several_targets(self, library: Library) -> None:
        images = library.asarray(np.zeros((1, 6, 5, 3), dtype=np.float32))

        def scorer(drawn: Any, owners: Any) -> Any:
            return library.asarray(np.asarray(drawn).reshape(-1, 30)[:, [3, 27]])

        maps = rise(images, scorer, masks=30, channel_axis=-1)
        assert tuple(maps.shape) == (1, 2, 6, 5)
        one = rise(images, lambda drawn, owners: library.asarray(np.asarray(drawn)[:, 5, 2]), masks=30, channel_axis=-1)
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


class TestBlackBox:
    @staticmethod
    def answer(images: Any) -> Any:
        """Class 1 looks at the right half, class 0 at the left."""
        half = images.shape[-1] // 2
        return np.stack([images[..., :half].mean(axis=(1, 2, 3)), images[..., half:].mean(axis=(1, 2, 3))], axis=1)

    def test_numpy(self) -> None:
        seen: list[Any] = []

        def answer(images: Any) -> Any:
            seen.append(images)
            return 9 * self.answer(images)

        images = np.ones((2, 3, 12, 12))
        explanation = RISE(BlackBox(answer, input_ndim=4), masks=300)(images, [[0, 1]] * 2)
        left, right = explanation.maps[0]
        assert left[:, :6].mean() > left[:, 6:].mean() + 0.3
        assert right[:, 6:].mean() > right[:, :6].mean() + 0.3
        assert isinstance(explanation.maps, np.ndarray)
        assert all(each.dtype == np.float32 for each in seen)
        assert sum(len(each) for each in seen) == explanation.evaluations == 2 + 2 * 300
        one = RISE(BlackBox(answer, input_ndim=4), masks=300)(images[0], [[0, 1]])
        np.testing.assert_allclose(one.maps[0], explanation.maps[0], atol=1e-5)

    def test_another_library_channels_last_and_several_inputs(self) -> None:
        def answer(images: Any, factor: Any) -> Any:
            assert isinstance(images, torch.Tensor)
            return torch.stack([factor * images[:, :4].mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3))], dim=1)

        box = BlackBox(answer, channels="last", like=torch.zeros(()))
        inputs = {"images": np.ones((1, 8, 8, 3), np.float32), "factor": torch.full((1,), 5.0)}
        explanation = RISE(box, masks=200, masked_input="images")(inputs, 0)
        assert isinstance(explanation.maps, torch.Tensor)
        assert explanation.maps[0, :4].mean() > explanation.maps[0, 4:].mean() + 0.2

    def test_what_it_cannot_do(self) -> None:
        images = np.ones((1, 3, 12, 12), np.float32)
        with pytest.raises(GradientsUnavailableError, match="answer is a black box: it gives outputs and no gradients"):
            GradCAM(BlackBox(self.answer))(images)
        with pytest.raises(TypeError, match=r"it has no layers to explain.*RISE"):
            ScoreCAM(BlackBox(self.answer))(images)
        assert GradCAM(BlackBox(self.answer)).layers(images) == []

    def test_wrong_arguments(self) -> None:
        with pytest.raises(TypeError, match="A function of images was expected, and a str came"):
            BlackBox("model.onnx")
        with pytest.raises(ValueError, match="'first' or 'last', and 'middle' came"):
            BlackBox(self.answer, channels="middle")
        with pytest.raises(TypeError, match="floating-point dtype"):
            BlackBox(self.answer, like=np.zeros(1, dtype=np.int64))
        with pytest.raises(TypeError, match="Images are a NumPy array or one like ndarray, and a torch"):
            RISE(BlackBox(self.answer), masks=2)(torch.zeros(1, 3, 4, 4))


class TestErasing:
    def test_another_erased_image_starts_anew(self, model: Any, shapes: dict[str, Any]) -> None:
        images = torch.from_numpy(shapes["images"][:2])
        masked = GradCAM(model, "features").see(images, Targets(np.array([[1], [2]]), several=False)).masked
        black = masked.black_probabilities()
        assert masked.evaluations == 1
        grey = masked.erasing(torch.full_like(images, 0.5))
        assert grey.evaluations == 0
        with torch.no_grad():
            expected = model(torch.full_like(images, 0.5)).softmax(dim=1)[[0, 1], [1, 2], None]
        torch.testing.assert_close(grey.black_probabilities(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(masked.black_probabilities(), black, atol=0, rtol=0)
        assert (grey.evaluations, masked.evaluations) == (2, 1)


class TestWeightedMasks:
    def test_padding_counts_nothing(self, library: Library) -> None:
        masks = library.asarray(np.array([[1, 0], [0, 1], [5, 5], [7, 7]], dtype=np.float32))
        scores = library.asarray(np.array([[2], [3], [1], [100]], dtype=np.float32))
        summed = weighted_masks(masks, scores, np.array([0, 0, 1, 1]), 3, 2, xp=array_namespace(masks))
        assert_close(summed, [[[2, 3]], [[5, 5]]], masks)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
class TestAllOfThem:
    def test_shape_and_range(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        maps = method(model)(shapes["images"][:2, :, :40]).maps.numpy()
        assert maps.shape == (2, 40, 48)
        assert np.isfinite(maps).all()
        np.testing.assert_array_equal(maps.min(axis=(1, 2)), 0)
        np.testing.assert_array_equal(maps.max(axis=(1, 2)), 1)

    def test_the_shape_is_found(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        maps = method(model)(shapes["images"], shapes["target"]).maps.numpy()
        inside = shapes["masks"] > 0
        assert maps[inside].mean() > 1.2 * maps[~inside].mean()

    def test_batch_equals_one_call_an_image(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        cam = method(model)
        together = cam(shapes["images"][:4], shapes["target"][:4]).maps.numpy()
        for row in range(4):
            alone = cam(shapes["images"][row], int(shapes["target"][row])).maps.numpy()
            np.testing.assert_allclose(together[row], alone[0], atol=1e-5)

    def test_batch_size_does_not_matter(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        expected = method(model)(shapes["images"][:3], shapes["target"][:3])
        for batch_size in (1, 7, 64):
            cam = method(model, batch_size=batch_size)
            actual = cam(shapes["images"][:3], shapes["target"][:3])
            np.testing.assert_allclose(actual.maps.numpy(), expected.maps.numpy(), atol=1e-5)

    def test_it_repeats_exactly(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        # With "auto" the rounding follows the sizes that prove fastest.
        first, second = (method(model, batch_size=8)(shapes["images"][:2], 1).maps.numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)

    @pytest.mark.filterwarnings("ignore:The group-cam map is zero")
    def test_evaluations_are_the_images_the_model_saw(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        sizes: list[int] = []
        model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
        explanation = method(model, "features", batch_size=5)(shapes["images"], [[0, 1]] * 8)
        assert max(sizes) == 5
        assert sum(sizes) == explanation.evaluations

    def test_targets_equal_one_call_each(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        together = method(model)(shapes["images"][:2], [[0, 3], [1, 2]])
        for column, targets in enumerate(([0, 1], [3, 2])):
            alone = method(model)(shapes["images"][:2], targets)
            np.testing.assert_allclose(together.maps.numpy()[:, column], alone.maps.numpy(), atol=1e-5)

    def test_progress_reaches_its_total(
        self, model: Any, shapes: dict[str, Any], method: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from contextlib import contextmanager

        from fusioncam_core.explainers import base

        totals, done = [], []

        @contextmanager
        def watched(total: Any, description: str, progress: Any) -> Any:
            totals.append(total)
            yield done.append

        monkeypatch.setattr(base, "progress_bar", watched)
        method(model, batch_size=7)(shapes["images"][:3], [[0, 1]] * 3)
        assert sum(done) == totals[0]


SHARED = {name: method for name, method in METHODS.items() if not name.startswith("group")}


@pytest.mark.parametrize("method", SHARED.values(), ids=SHARED)
def test_five_targets_cost_what_one_does(model: Any, shapes: dict[str, Any], method: Any) -> None:
    one = method(model)(shapes["images"], 0)
    five = method(model)(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
    assert five.evaluations == one.evaluations


def test_group_cam_masks_with_each_targets_gradients(model: Any, shapes: dict[str, Any]) -> None:
    alone = [GroupCAM(model, groups=4)(shapes["images"], target).evaluations - 16 for target in range(5)]
    five = GroupCAM(model, groups=4)(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
    assert five.evaluations == 16 + sum(alone)


NUMBERS_OF_EVALUATIONS = {
    "score-cam": (lambda model: ScoreCAM(model, batch_size=8), 1),
    "ss-cam": (lambda model: SSCAM(model, samples=2, batch_size=8), 2),
    "is-cam": (lambda model: ISCAM(model, steps=4, batch_size=8), 3),
}


@pytest.mark.parametrize("name", NUMBERS_OF_EVALUATIONS)
def test_constant_channels_are_not_run(model: Any, shapes: dict[str, Any], name: str) -> None:
    make, masks = NUMBERS_OF_EVALUATIONS[name]
    explanation = make(model)(shapes["images"], shapes["target"])
    assert explanation.evaluations == 8 + masks * live_channels(shapes) + 1


# Of 4 x 4 x 4 cells sixty masks see too little.
VOLUMES = {**METHODS, "rise": lambda model, *layer, **keywords: RISE(model, *layer, masks=400, cells=2, **keywords)}


@pytest.mark.parametrize("method", VOLUMES.values(), ids=VOLUMES)
@pytest.mark.parametrize("ndim", [1, 3])
def test_signals_and_volumes(method: Any, ndim: int) -> None:
    class Bright(torch.nn.Module):
        """The logit of class 1 is how much of the image is brighter than a half."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = {1: torch.nn.Conv1d, 3: torch.nn.Conv3d}[ndim](1, 2, 1)
            self.layer.weight.data = torch.tensor([1.0, 2.0]).reshape(2, 1, *(1,) * ndim)
            self.layer.bias.data = torch.tensor([-0.5, -1.0])
            self.relu = torch.nn.ReLU()

        def forward(self, images: Any) -> Any:
            bright = 4 * self.relu(self.layer(images)).flatten(1).mean(dim=1)
            return torch.stack([0 * bright, bright], dim=1)

    images = np.zeros((2, 1, *(8,) * ndim), dtype=np.float32)
    images[0, 0, :3] = images[1, 0, 5:] = 1
    maps = method(Bright(), "relu")(images, 1).maps.numpy()
    assert maps.shape == (2, *(8,) * ndim)
    assert np.isfinite(maps).all()
    assert 0 == maps.min() < maps.max() == 1
    inside = images[:, 0] > 0
    assert maps[inside].mean() > 1.5 * maps[~inside].mean()


@pytest.mark.parametrize("method", [m for name, m in METHODS.items() if name != "rise"])
def test_constant_activations_give_zeros(method: Any) -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 3, 1)
            self.layer.weight.data.zero_()

        def forward(self, images: Any) -> Any:
            return self.layer(images).mean(dim=(2, 3))

    with pytest.warns(UserWarning, match="zero everywhere"):
        maps = method(Constant(), "layer")(np.ones((1, 1, 6, 6), np.float32)).maps.numpy()
    np.testing.assert_array_equal(maps, np.zeros((1, 6, 6)))
