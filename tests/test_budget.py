"""Score-CAM within a budget or a tolerance: which masks are run, and what the others are predicted to score."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from fusioncam_core import ISCAM, SSCAM, FusionCAM, GradCAM, ScoreCAM, UnionCAM, score_cam
from fusioncam_core.approximation.budget import Limits, require_limits, score_channels
from fusioncam_core.approximation.gaussian_process import NOISE, GaussianProcess
from fusioncam_core.approximation.probabilities import ProbabilityProcess
from fusioncam_core.arrays.namespaces import array_namespace, to_numpy
from fusioncam_core.methods.score import ChannelWeights, formula
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk
from libraries import Library, assert_close, framework


def correlation(first: Any, second: Any) -> float:
    """Spearman's, of two maps."""
    ranks = [np.argsort(np.argsort(to_numpy(each).ravel())) for each in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


class TestGaussianProcess:
    MASKS = np.random.default_rng(0).random((40, 9))

    def test_what_was_run_is_known(self) -> None:
        scores = np.random.default_rng(1).normal(size=(12, 2))
        prediction = GaussianProcess(self.MASKS).prediction(np.arange(12), scores)
        np.testing.assert_array_equal(prediction.mean[:12], scores)
        np.testing.assert_array_equal(prediction.deviation[:12], 0)
        assert (prediction.deviation[12:] > 0).all()

    def test_scores_linear_in_the_root_of_the_area_are_predicted(self) -> None:
        scores = 3 + 20 * np.sqrt(self.MASKS.mean(axis=1, keepdims=True))
        prediction = GaussianProcess(self.MASKS).prediction(np.arange(20), scores[:20])
        np.testing.assert_allclose(prediction.mean, scores, atol=0.01 * np.ptp(scores))

    def test_the_formula_of_the_book(self) -> None:
        """Rasmussen and Williams, equations 2.25 and 2.26, with a residual of one target written out."""
        run, rest = np.arange(15), np.arange(15, 40)
        scores = np.random.default_rng(2).normal(size=(15, 1))
        prediction = GaussianProcess(self.MASKS).prediction(run, scores)
        distances = ((self.MASKS[:, None] - self.MASKS[None]) ** 2).sum(axis=2)
        kernel = np.exp(-distances / (2 * 0.7 * np.median(distances)))
        lengths = np.sqrt(self.MASKS.mean(axis=1))
        lengths = (lengths - lengths.mean()) / lengths.std()
        design = np.stack([np.ones(40), lengths], axis=1)
        line = np.linalg.inv(design[run].T @ design[run] + np.diag([0, 0.75])) @ design[run].T @ scores
        inverse = np.linalg.inv(kernel[np.ix_(run, run)] + NOISE * np.eye(15))
        residuals = scores - design[run] @ line
        expected = design @ line + kernel[:, run] @ inverse @ residuals
        np.testing.assert_allclose(prediction.mean[rest], expected[rest], atol=1e-10)
        # The tenth percentile of chi-squared with 13 degrees of freedom, from a table.
        scale = (residuals.T @ inverse @ residuals).item() / 7.042
        covariance = kernel - kernel[:, run] @ inverse @ kernel[run] + NOISE * np.eye(40)
        np.testing.assert_allclose(prediction.scale, scale, rtol=2e-3)
        scale = prediction.scale
        np.testing.assert_allclose(prediction.deviation[rest, 0] ** 2, scale * np.diagonal(covariance)[rest])
        for dtype, bound in ((np.float64, 1e-10), (np.float32, 1e-6)):
            found = prediction.covariance(rest, dtype)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, covariance[np.ix_(rest, rest)], atol=bound)

    def test_round_by_round_is_as_at_once(self) -> None:
        """Of masks that were run before, no matter in which rounds, or of others in between."""
        run, scores = np.random.default_rng(4).permutation(40)[:25], np.random.default_rng(2).normal(size=(40, 2))
        process, rest = GaussianProcess(self.MASKS), np.setdiff1d(np.arange(40), run)
        for seen in (run[:4], run[:4], run[:11], run[:12], run[5:9], run):
            found = process.prediction(seen, scores[seen])
            anew = GaussianProcess(self.MASKS).prediction(seen, scores[seen])
            for name in ("mean", "deviation", "scale"):
                np.testing.assert_allclose(getattr(found, name), getattr(anew, name), rtol=1e-10, err_msg=name)
        covariances = (each.covariance(rest, np.float64) for each in (found, anew))
        np.testing.assert_allclose(*covariances, atol=1e-12)

    def test_draws_have_the_covariance(self) -> None:
        run, rest = np.arange(15), np.arange(15, 40)
        prediction = GaussianProcess(self.MASKS).prediction(run, np.random.default_rng(2).normal(size=(15, 2)))
        noise = np.random.default_rng(3).normal(size=(20000, 25, 2))
        draws = prediction.draws(rest, noise)
        np.testing.assert_array_equal(draws[:, run], np.broadcast_to(prediction.mean[run], (20000, 15, 2)))
        np.testing.assert_allclose(draws.mean(axis=0), prediction.mean, atol=0.05)
        for target in range(2):
            seen = np.cov(draws[:, rest, target].T)
            expected = prediction.scale[target] * prediction.covariance(rest, np.float64)
            np.testing.assert_allclose(seen, expected, atol=0.06)

    def test_equal_masks(self) -> None:
        prediction = GaussianProcess(np.full((5, 4), 0.5)).prediction(np.arange(2), np.ones((2, 1)))
        np.testing.assert_allclose(prediction.mean, 1)


class TestProbabilities:
    MASKS = np.random.default_rng(0).random((60, 9))
    LOGITS = 40 * (MASKS[:, :3].mean(axis=1, keepdims=True) - 0.6)
    SCORES = 1 / (1 + np.exp(-LOGITS))
    RUN = np.arange(24)

    @pytest.mark.parametrize("origin", [0.0, 0.4, 1.0])
    def test_what_was_run_is_known_and_the_rest_are_probabilities(self, origin: float) -> None:
        prediction = ProbabilityProcess(self.MASKS, np.array([origin])).prediction(
            self.RUN, self.SCORES[self.RUN] - origin
        )
        np.testing.assert_array_equal(prediction.mean[self.RUN], self.SCORES[self.RUN] - origin)
        np.testing.assert_array_equal(prediction.deviation[self.RUN], 0)
        assert (prediction.deviation[24:] > 0).all()
        noise = np.random.default_rng(1).normal(size=(200, 36, 1))
        for values in (prediction.mean, prediction.draws(np.arange(24, 60), noise)):
            assert ((values + origin >= -1e-12) & (values + origin <= 1 + 1e-12)).all()

    def test_the_origin_changes_nothing_else(self) -> None:
        plain = ProbabilityProcess(self.MASKS).prediction(self.RUN, self.SCORES[self.RUN])
        moved = ProbabilityProcess(self.MASKS, np.array([0.4])).prediction(self.RUN, self.SCORES[self.RUN] - 0.4)
        np.testing.assert_allclose(moved.mean + 0.4, plain.mean, atol=1e-12)
        np.testing.assert_allclose(moved.deviation, plain.deviation, atol=1e-12)

    def test_they_are_nearer_than_those_of_a_process_of_the_scores(self) -> None:
        ours, plain = (
            process(self.MASKS).prediction(self.RUN, self.SCORES[self.RUN]).mean
            for process in (ProbabilityProcess, GaussianProcess)
        )
        assert np.abs(ours - self.SCORES).mean() < 0.75 * np.abs(plain - self.SCORES).mean()

    def test_steepness_is_a_derivative(self) -> None:
        """Of the mean score, when all logits move: by a shift of the scores that were run."""
        prediction = ProbabilityProcess(self.MASKS).prediction(self.RUN, self.SCORES[self.RUN])
        step = 1e-4
        inside = (self.SCORES[self.RUN] + 1e-3) / 1.002
        odds = inside / (1 - inside) * np.exp(step)
        moved = odds / (1 + odds) * 1.002 - 1e-3
        # An end is an end: what would be beyond it stays there, and is not asked about.
        within = ((prediction.mean > 0.05) & (prediction.mean < 0.95) & (prediction.deviation > 0))[:, 0]
        after = ProbabilityProcess(self.MASKS).prediction(self.RUN, moved).mean
        slopes = (after - prediction.mean)[within] / step
        np.testing.assert_allclose(slopes, prediction.steepness[within], rtol=0.15)


class Masks:
    """Maps of blobs, whose masks score more the more of one corner they show; what was run is written down."""

    def __init__(self, images: int = 2, channels: int = 120, targets: int = 1):
        generator = np.random.default_rng(0)
        places = generator.uniform(0, 7, (images, channels, 2, 1, 1))
        rows, columns = np.mgrid[:7, :7]
        distances = (rows - places[:, :, 0]) ** 2 + (columns - places[:, :, 1]) ** 2
        strengths = generator.uniform(0.2, 2, (images, channels, 1, 1))
        self.maps = (strengths * np.exp(-distances / generator.uniform(1, 9, (images, channels, 1, 1)))).astype("f4")
        self.maps[:, ::10] = 0.3
        low, high = self.maps.min(axis=(2, 3), keepdims=True), self.maps.max(axis=(2, 3), keepdims=True)
        masks = np.where(high > low, (self.maps - low) / np.where(high > low, high - low, 1), 0)
        corners = [masks[:, :, :4, :4], masks[:, :, 3:, 3:]]
        self.scores = np.stack([np.sqrt(corner.sum(axis=(2, 3))) for corner in corners[:targets]], axis=1).astype("f4")
        self.run: list[tuple[int, int]] = []

    def score_maps(self, maps: Any, chunk: Chunk) -> Any:
        pairs = list(zip(chunk.images.tolist(), chunk.channels.tolist(), strict=True))
        self.run += pairs
        return np.stack([self.scores[image, :, channel] for image, channel in pairs])

    def found(self, channel_weights: ChannelWeights = "softmax", **limits: Any) -> Any:
        return score_channels(
            self.maps,
            self.score_maps,
            lambda: np.zeros((len(self.maps), self.scores.shape[1]), "f4"),
            limits=Limits(**limits),
            formula=formula(channel_weights, in_unit=False),
            batching=Batching(8),
            xp=array_namespace(self.maps),
        )


class TestScoreChannels:
    @pytest.mark.parametrize("targets", [1, 2])
    @pytest.mark.parametrize("budget", [1, 2, 3, 20, 50, 107])
    def test_a_budget_is_kept(self, budget: int, targets: int) -> None:
        masks = Masks(targets=targets)
        found = masks.found(budget=budget)
        assert found.masks_run.tolist() == [budget, budget]
        assert len(masks.run) == len(set(masks.run)) == 2 * budget, "no mask twice"
        run = np.zeros((2, 120), dtype=bool)
        run[tuple(np.transpose(masks.run))] = True
        for target in range(targets):
            np.testing.assert_array_equal(found.scores[:, target][run], masks.scores[:, target][run])
        np.testing.assert_array_equal(found.scores[:, :, ::10], 0, err_msg="constant channels have the black score")
        assert (found.uncertainty > 0).all()

    @pytest.mark.parametrize("channel_weights", get_args(ChannelWeights))
    def test_no_mask_is_run_twice_whatever_its_weight(self, channel_weights: ChannelWeights) -> None:
        """Of scores below black's, in large units, the weights are far below 0."""
        masks = Masks()
        masks.scores = 100 * (masks.scores - masks.scores.max() / 2)
        found = masks.found(channel_weights, budget=60)
        assert len(masks.run) == len(set(masks.run)) == 2 * 60
        assert found.masks_run.tolist() == [60, 60]

    @pytest.mark.parametrize("limits", [{"budget": 108}, {"budget": 5000}, {"tolerance": 1e-9}, {}])
    def test_all_that_there_are(self, limits: Any) -> None:
        masks = Masks()
        found = masks.found(**limits)
        assert found.masks_run.tolist() == [108, 108]
        np.testing.assert_array_equal(found.scores[:, :, 1], masks.scores[:, :, 1])
        np.testing.assert_array_equal(found.scores, np.where(np.arange(120) % 10 == 0, 0, masks.scores))
        np.testing.assert_array_equal(found.uncertainty, 0)

    def test_what_is_not_run_is_predicted(self) -> None:
        masks = Masks()
        found = masks.found(budget=50)
        errors = (found.scores - masks.scores)[:, 0, np.arange(120) % 10 != 0]
        assert np.abs(errors).max() < 0.35 * np.ptp(masks.scores)
        assert np.sqrt((errors**2).mean()) < 0.07 * np.ptp(masks.scores)

    def test_what_matters_is_run(self) -> None:
        masks = Masks()
        masks.found(budget=50)
        ranges = np.ptp(masks.maps, axis=(2, 3))
        weights = np.exp(masks.scores[:, 0] - masks.scores[:, 0].max(axis=1, keepdims=True)) * ranges
        for image in range(2):
            foremost = set(np.argsort(-weights[image])[:20].tolist())
            run = {channel for owner, channel in masks.run if owner == image}
            assert len(foremost & run) >= 18

    @pytest.mark.parametrize("tolerance", [0.3, 0.1, 0.03])
    def test_a_tolerance_is_reached(self, tolerance: float) -> None:
        masks = Masks()
        found = masks.found(tolerance=tolerance)
        assert (found.uncertainty <= tolerance).all()
        assert (found.masks_run < 108).all()
        exact = score_cam_of(masks.maps, np.where(np.arange(120) % 10 == 0, 0, masks.scores))
        assert np.abs(score_cam_of(masks.maps, found.scores) - exact).max() <= tolerance

    def test_a_smaller_tolerance_takes_more(self) -> None:
        masks_run = [Masks().found(tolerance=tolerance).masks_run.sum() for tolerance in (0.3, 0.1, 0.03, 0.01)]
        assert masks_run == sorted(masks_run)
        assert masks_run[0] < masks_run[-1]

    def test_the_first_limit_that_is_reached_counts(self) -> None:
        assert Masks().found(tolerance=1e-6, budget=40).masks_run.tolist() == [40, 40]
        assert Masks().found(tolerance=0.5, budget=90).masks_run.max() < 90

    def test_images_do_not_depend_on_each_other(self) -> None:
        together, alone = Masks(), Masks()
        both = together.found(budget=40)
        alone.maps, alone.scores = alone.maps[1:], alone.scores[1:]
        np.testing.assert_array_equal(alone.found(budget=40).scores[0], both.scores[1])

    def test_nothing_but_constant_channels(self) -> None:
        masks = Masks()
        masks.maps[:] = 0.3
        found = masks.found(budget=10)
        assert found.masks_run.tolist() == [0, 0]
        np.testing.assert_array_equal(found.scores, 0)


def score_cam_of(maps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`N(sum_k softmax(s)_k A_k)` of maps that are not negative."""
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    combined = np.einsum("bkc,bchw->bkhw", weights / weights.sum(axis=2, keepdims=True), maps)
    low, high = (f(combined, axis=(2, 3), keepdims=True) for f in (np.min, np.max))
    return (combined - low) / (high - low)


@pytest.mark.parametrize("several", [False, True])
def test_arrays_of_every_library(eager: Library, several: bool) -> None:
    """Which masks are run follows from scores: that is no compiled function."""
    masks = Masks(images=1)
    counts: list[int] = []

    def scorer(shown: Any, images: Any) -> Any:
        values = np.sqrt(to_numpy(shown)[:, :4, :4].sum(axis=(1, 2)))
        counts.append(len(values))
        return eager.asarray(values[:, None] if several else values)

    activations = eager.asarray(masks.maps)
    exact = score_cam(activations, scorer)
    counts.clear()
    maps = score_cam(activations, scorer, budget=60, batch_size=16)
    assert sum(counts) == 60 + 1
    assert max(counts) <= 16
    assert_close(maps, to_numpy(exact), activations, atol=0.02)


@pytest.mark.parametrize(
    ("budget", "tolerance", "message"),
    [
        (0, None, r"budget is a whole number of at least 1.* 0\b"),
        (2.5, None, "budget is a whole number"),
        (None, 0, r"between 0 and 1.* 0\b"),
        (None, 1.5, r"between 0 and 1.* 1\.5\b"),
    ],
)
def test_limits_out_of_range(budget: Any, tolerance: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_limits(budget, tolerance)


class TestExplainers:
    @pytest.fixture
    def model(self, shapes_weights: dict[str, Any]) -> Any:
        framework("torch")
        from torch_models import Shapes

        return Shapes(shapes_weights).eval()

    def live(self, shapes: dict[str, Any]) -> np.ndarray:
        activations = shapes["activations"]
        return (activations.max(axis=(2, 3)) > activations.min(axis=(2, 3))).sum(axis=1)

    def test_half_of_the_masks(self, model: Any, shapes: dict[str, Any]) -> None:
        exact = ScoreCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        half = ScoreCAM(model, "features", batch_size=8, budget=24)(shapes["images"], shapes["target"])
        assert half.evaluations == 8 + 8 * 24 + 1
        assert half.masks_run.tolist() == [24] * 8
        assert half.uncertainty.shape == (8,)
        assert min(correlation(*pair) for pair in zip(half.maps, exact.maps, strict=True)) > 0.97
        np.testing.assert_array_equal(exact.masks_run, self.live(shapes))
        np.testing.assert_array_equal(exact.uncertainty, 0)

    def test_a_budget_for_all_is_exact(self, model: Any, shapes: dict[str, Any]) -> None:
        exact = FusionCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        same = FusionCAM(model, "features", batch_size=8, budget=48)(shapes["images"], shapes["target"])
        np.testing.assert_allclose(same.maps, exact.maps, atol=1e-5)
        assert same.evaluations == exact.evaluations

    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM])
    def test_ensembles_hand_it_on(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        explanation = method(model, "features", batch_size=8, budget=20)(shapes["images"], [[0, 1]] * 8)
        assert explanation.evaluations == 8 + 8 * 20 + 1 + 3 * 16
        assert explanation.masks_run.tolist() == [20] * 8
        assert explanation.uncertainty.shape == (8, 2)
        assert explanation.numpy().uncertainty.dtype == np.float32

    def test_tolerance(self, model: Any, shapes: dict[str, Any]) -> None:
        exact = ScoreCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        near = ScoreCAM(model, "features", batch_size=8, tolerance=0.1)(shapes["images"], shapes["target"])
        assert (near.uncertainty <= 0.1).all()
        assert near.masks_run.sum() < exact.masks_run.sum()
        assert abs(near.maps - exact.maps).max() < 0.1

    @pytest.mark.parametrize(("method", "samples"), [(SSCAM, 3), (ISCAM, 3)])
    def test_every_sample_counts(self, model: Any, shapes: dict[str, Any], method: Any, samples: int) -> None:
        options = {"samples": 3} if method is SSCAM else {"steps": 4}
        cam = method(model, "features", batch_size=8, budget=50, **options)
        explanation = cam(shapes["images"], shapes["target"])
        assert explanation.masks_run.tolist() == [48] * 8
        assert explanation.evaluations == 8 + 8 * 48 + 1
        with pytest.raises(ValueError, match=r"One channel takes 3 masks.* budget .* 2\b"):
            method(model, "features", budget=2, **options)(shapes["images"], 0)

    def test_a_regression_comes_near_with_half_of_the_masks(self, model: Any, shapes: dict[str, Any]) -> None:
        """Also where black is likely itself: what is predicted is what the masks leave, not what they add."""
        for target in (0, 1):
            exact, half = (
                ScoreCAM(model, "features", batch_size=8, channel_weights="regression", budget=budget)(
                    shapes["images"], target
                )
                for budget in (None, 24)
            )
            assert half.masks_run.tolist() == [24] * 8
            shown = [place for place in range(8) if exact.maps[place].max() > 0]
            assert shown
            found = [correlation(half.maps[place], exact.maps[place]) for place in shown]
            assert np.mean(found) > 0.9, "0.86 by a process of the probabilities themselves"

    @pytest.mark.parametrize("budget", [None, 20])
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            (ScoreCAM, {"channel_weights": "probability"}),
            (ScoreCAM, {"channel_weights": "regression"}),
            (FusionCAM, {"variant": "calibrated"}),
        ],
    )
    def test_the_values_of_a_function_are_no_probabilities(
        self, model: Any, shapes: dict[str, Any], method: Any, options: Any, budget: int | None
    ) -> None:
        """In whatever unit they are, the map is the same: nothing is cut off at 1."""
        cam = method(model.double(), "features", batch_size=8, budget=budget, **options)
        images = shapes["images"][:4].astype("f8")
        one, hundredfold = (
            cam(images, lambda outputs, unit=unit: unit * (outputs[:, 1] - outputs[:, 0])).maps for unit in (1, 100)
        )
        assert one.max() == 1
        np.testing.assert_allclose(hundredfold, one, atol=1e-6)

    def test_several_layers(self, model: Any, shapes: dict[str, Any]) -> None:
        layers = ["features.7", "features.9"]
        explanation = ScoreCAM(model, layers, budget=20, batch_size=8)(shapes["images"][:2], 1)
        assert explanation.masks_run.tolist() == [40, 40]
        assert explanation.uncertainty.shape == (2,)

    def test_of_other_methods(self, model: Any) -> None:
        with pytest.raises(ValueError, match="Group-CAM runs all of its masks: budget cannot limit it"):
            FusionCAM(model, region="group-cam", budget=10)
        with pytest.raises(ValueError, match="budget came with a region explainer: give them to that one"):
            FusionCAM(model, region=ScoreCAM(model), budget=10)
        with pytest.raises(TypeError, match="no option 'budget'"):
            GradCAM(model, budget=10)
        assert FusionCAM(model, region=ScoreCAM(model, budget=10))

    def test_others_say_nothing_of_masks(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model)(shapes["images"]).numpy()
        assert explanation.masks_run is None
        assert explanation.uncertainty is None
