"""Metrics on models: one that looks at a known square, one that never changes, and other libraries' values."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EmptyMapWarning, FusionCAM, GradCAM
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.metrics import METRICS
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.metrics.measures import (
    ADCC,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    BoxIoU,
    Coherency,
    Complexity,
    EnergyInMask,
    IoU,
    IoUCurve,
    MaskAUC,
    PointingGame,
)
from fusioncam_core.metrics.metric import find_metric
from fusioncam_core.metrics.perturbing import GRAIN, ROAD, Deletion, Infidelity, Insertion, MaxSensitivity
from fusioncam_core.models.inputs import prepare
from libraries import framework

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from given_maps import SHARE, SIDE, Given, Looks, inverted, perfect, white  # noqa: E402

PROBABILITIES: dict[str, Any] = {"output_kind": "probabilities"}


def explained(cam: Any, images: np.ndarray, targets: Any = 1) -> ExplainedBatch:
    return ExplainedBatch(cam, prepare(cam.adapter, images, None), cam(images, targets))


def value(metric: Any, cam: Any, images: np.ndarray | None = None, ground_truth: Any = None) -> list[float]:
    """A metric's values of white images, to four digits."""
    found = metric.measure(explained(cam, white() if images is None else images), ground_truth)
    return [round(float(each), 4) for each in to_numpy(found.values)]


@pytest.fixture
def right() -> Given:
    return Given(Looks(), perfect, **PROBABILITIES)


@pytest.fixture
def wrong() -> Given:
    return Given(Looks(), inverted, **PROBABILITIES)


class Largest(TorchDispatchMode):
    """How many elements the largest array has that is made meanwhile."""

    pixels = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = function(*arguments, **(keywords or {}))
        if isinstance(found, torch.Tensor):
            self.pixels = max(self.pixels, found.untyped_storage().nbytes() // found.element_size())
        return found


class TestOneSquare:
    """White images: the probability is the share of the square that is seen."""

    def test_drop(self, right: Given, wrong: Given) -> None:
        assert value(AverageDrop(), right) == [0, 0]
        assert value(AverageDrop(), wrong) == [1, 1]

    def test_increase_and_gain(self) -> None:
        model = Looks(outside=0.5)  # 0.5 with everything in sight, 1 with the square alone
        right, wrong = (Given(model, maps, **PROBABILITIES) for maps in (perfect, inverted))
        assert value(AverageIncrease(), right) == [1, 1]
        assert value(AverageIncrease(), wrong) == [0, 0]
        assert value(AverageGain(), right) == [1, 1]
        assert value(AverageGain(), wrong) == [0, 0]

    def test_insertion_and_deletion(self, right: Given, wrong: Given) -> None:
        """Nine steps of 64 pixels: the square is the first, or the last of them."""
        first, last = SHARE / 2, 1 - SHARE / 2
        assert value(Insertion(steps=9, baseline="zero"), right) == [round(last, 4)] * 2
        assert value(Insertion(steps=9, baseline="zero"), wrong) == [round(first, 4)] * 2
        assert value(Deletion(steps=9), right) == [round(first, 4)] * 2
        assert value(Deletion(steps=9), wrong) == [round(last, 4)] * 2

    def test_curves(self, right: Given) -> None:
        found = Deletion(steps=9).measure(explained(right, white()))
        np.testing.assert_allclose(found.fractions, np.arange(10) / 9)
        np.testing.assert_allclose(to_numpy(found.curves), np.tile([1.0] + [0.0] * 9, (2, 1)), atol=1e-6)

    @pytest.mark.parametrize(("baseline", "expected"), [("zero", 0), (0.25, 0.25), ([0.1, 0.2, 0.3], 0.2), ("blur", 1)])
    def test_substrates(self, right: Given, baseline: Any, expected: float) -> None:
        """The blur of a white image is white."""
        curves = to_numpy(Deletion(steps=9, baseline=baseline).measure(explained(right, white())).curves)
        np.testing.assert_allclose(curves[:, 1:], expected, atol=1e-5)

    def test_road(self) -> None:
        """A white square on black: what is imputed of it has the brightness around it."""
        images = white() * perfect(white())[:, None].astype(np.float32)
        right, wrong = (Given(Looks(), maps, **PROBABILITIES) for maps in (perfect, inverted))
        metric = ROAD(fractions=(SHARE, 1 - SHARE), noise=0.0)
        # With the square gone it is black; with all but the square gone all is white.
        assert value(metric, right, images) == [0.5, 0.5]
        assert value(metric, wrong, images) == [-0.5, -0.5]

    def test_infidelity(self, right: Given, wrong: Given) -> None:
        """What a square erases of the map is, in the right unit, what the probability loses."""
        assert value(Infidelity(), right) == [0, 0]
        assert min(value(Infidelity(), wrong)) > 0.02

    def test_infidelity_by_hand(self, right: Given) -> None:
        found = Infidelity(samples=1, sides=(1, 1)).measure(explained(right, white()))
        np.testing.assert_allclose(to_numpy(found.values), 0, atol=1e-6)
        flat = Given(Looks(), lambda images: np.ones((len(images), SIDE, SIDE)), **PROBABILITIES)
        # A mean of 1 everywhere predicts a loss in proportion to the area, and one square is always fitted.
        assert value(Infidelity(samples=1, seed=3), flat) == [0, 0]
        assert min(value(Infidelity(samples=30, seed=3), flat)) > 0

    def test_complexity(self, right: Given, wrong: Given) -> None:
        assert value(Complexity(), right) == [round(SHARE, 4)] * 2
        assert value(Complexity(), wrong) == [round(1 - SHARE, 4)] * 2

    def test_coherency_and_adcc(self, right: Given) -> None:
        assert value(Coherency(), right) == [1, 1]
        assert value(ADCC(), right) == [round(3 / (1 + 1 / (1 - SHARE) + 1), 4)] * 2
        # The map of the image is its brightness, and that of the image under it is its square.
        ramp = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (1, 3, SIDE, 1))
        bright = Given(Looks(), lambda images: images.mean(axis=1), **PROBABILITIES)
        row = np.linspace(0, 1, SIDE)
        expected = (1 + np.corrcoef(row, row**2)[0, 1]) / 2
        np.testing.assert_allclose(value(Coherency(), bright, ramp), expected, atol=1e-4)

    def test_sensitivity(self) -> None:
        """The map is the image's brightness, so that it moves as the noise does."""
        bright = Given(Looks(), lambda images: images.mean(axis=1), **PROBABILITIES)
        ramp = np.tile(np.linspace(0, 2, SIDE, dtype=np.float32), (2, 3, SIDE, 1))
        generator = np.random.default_rng(0)
        noise = [2 * generator.uniform(-0.05, 0.05, (3, SIDE, SIDE)).mean(axis=0) for _ in range(4)]
        expected = max(np.linalg.norm(each) for each in noise) / np.linalg.norm(ramp[0, 0])
        np.testing.assert_allclose(value(MaxSensitivity(samples=4, radius=0.05), bright, ramp), expected, atol=1e-4)
        still = Given(Looks(), perfect, **PROBABILITIES)
        assert value(MaxSensitivity(samples=2), still) == [0, 0]

    @pytest.mark.filterwarnings("ignore::fusioncam_core.errors.EmptyMapWarning")
    def test_sensitivity_of_nothing(self) -> None:
        empty = Given(Looks(), lambda images: 0 * perfect(images), **PROBABILITIES)
        assert value(MaxSensitivity(samples=2), empty) == [0, 0]
        calls = iter(range(3))
        # The map of the plain images is zero, those of the noisy ones are not.
        moving = Given(Looks(), lambda images: min(next(calls), 1) * perfect(images), **PROBABILITIES)
        assert np.isnan(value(MaxSensitivity(samples=2), moving)).all()

    def test_infidelity_makes_no_array_of_all_samples(self) -> None:
        seen = explained(Given(Looks(), perfect, batch_size=4, **PROBABILITIES), white(4))
        with Largest() as made:
            Infidelity(samples=100).measure(seen)
        assert made.pixels == 100 * SIDE**2, "the squares themselves; with the batch's axis it was four times that"

    @pytest.mark.parametrize(
        ("metric", "best", "worst"),
        [(PointingGame(), 1, 0), (EnergyInMask(), 1, 0), (IoU(), 1, 0), (MaskAUC(), 1, 0)],
    )
    def test_localisation(self, right: Given, wrong: Given, metric: Any, best: float, worst: float) -> None:
        ground_truth = perfect(white()) > 0
        assert value(metric, right, ground_truth=ground_truth) == [best, best]
        assert value(metric, wrong, ground_truth=ground_truth) == [worst, worst]
        with pytest.raises(ValueError, match="compares maps with masks of the objects: got none"):
            value(metric, right)


class TestAConstantModel:
    @pytest.fixture
    def cam(self) -> Given:
        return Given(Looks(constant=0.25), perfect, **PROBABILITIES)

    @pytest.mark.parametrize(
        ("metric", "expected"),
        [
            (AverageDrop(), 0),
            (AverageIncrease(), 0),
            (AverageGain(), 0),
            (Insertion(), 0.25),
            (Deletion(), 0.25),
            (ROAD(), 0),
            (Infidelity(), 0),
        ],
    )
    def test_nothing_changes_it(self, cam: Given, metric: Any, expected: float) -> None:
        assert value(metric, cam) == [expected, expected]

    def test_without_a_probability(self) -> None:
        cam = Given(Looks(constant=0.0), perfect, **PROBABILITIES)
        assert np.isnan(value(AverageDrop(), cam)).all()
        assert value(AverageIncrease(), cam) == [0, 0], "it stays at 0, and could have risen"
        certain = Given(Looks(constant=1.0), perfect, **PROBABILITIES)
        assert np.isnan(value(AverageGain(), certain)).all()


@pytest.mark.parametrize("name", list(METRICS))
def test_a_map_with_nan_has_no_value_and_spoils_no_other(name: str) -> None:
    def maps(images: np.ndarray) -> np.ndarray:
        found = np.array(perfect(images)) * images.mean(axis=(1, 2, 3))[:, None, None]
        found[0 if len(found) < 3 else 1, 0, 0] = np.nan
        return found

    images = white(3) * np.array([1.0, 0.8, 0.6], dtype=np.float32)[:, None, None, None]
    images[:, :, ::3] *= 0.5
    ground_truth = perfect(images) > 0
    metric = METRICS[name]()
    broken = value(metric, Given(Looks(outside=0.2), maps, **PROBABILITIES), images, ground_truth)
    whole = value(
        metric,
        Given(
            Looks(outside=0.2), lambda each: perfect(each) * each.mean(axis=(1, 2, 3))[:, None, None], **PROBABILITIES
        ),
        images,
        ground_truth,
    )
    assert np.isnan(broken[1])
    if name not in ("max-sensitivity", "coherency", "adcc"):  # these explain again, and NaN comes again
        assert [broken[0], broken[2]] == [whole[0], whole[2]]


class TestObjects:
    """The square of 8 x 8 pixels, beside boxes that are wider."""

    def test_iou_over_thresholds(self, right: Given) -> None:
        masks = perfect(white()) > 0
        masks[1, 8:16, 16:24] = True
        found = IoUCurve(steps=4).measure(explained(right, white()), masks)
        expected = [[SHARE, 1, 1, 1, 1], [2 * SHARE, 0.5, 0.5, 0.5, 0.5]]
        np.testing.assert_allclose(to_numpy(found.curves), expected, rtol=1e-6)
        np.testing.assert_allclose(to_numpy(found.values), [(SHARE + 7) / 8, (2 * SHARE + 3.5) / 8], rtol=1e-6)
        assert found.fractions is not None
        assert found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]

    def test_box_iou(self, right: Given, wrong: Given) -> None:
        masks = np.zeros((2, SIDE, SIDE), dtype=bool)
        masks[0, 8:16, 8:24] = True
        masks[1] = True
        assert value(BoxIoU(), right, ground_truth=masks) == [0.5, round(SHARE, 4)]
        assert value(BoxIoU(), wrong, ground_truth=masks) == [round(2 * SHARE, 4), 1]
        masks[0, 8:16, 16:24] = False
        masks[0, 0, 0] = True
        assert value(BoxIoU(), right, ground_truth=masks)[0] == 1, "the object that fits best"
        zeros = Given(Looks(), lambda images: 0 * perfect(images), **PROBABILITIES)
        with pytest.warns(EmptyMapWarning):
            assert value(BoxIoU(), zeros, ground_truth=masks) == [0, 0]
        assert np.isnan(value(BoxIoU(), right, ground_truth=~masks & False)).all()

    def test_they_need_masks(self, right: Given) -> None:
        for metric in (IoUCurve(), BoxIoU()):
            with pytest.raises(ValueError, match="compares maps with masks of the objects: got none"):
                value(metric, right)


class TestOtherLibraries:
    def test_average_drop_and_increase_of_torch_cam(
        self, shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        metrics = framework("torchcam.metrics")
        cam, extractor, images = self.both(shapes, shapes_weights)
        theirs = metrics.ClassificationMetric(extractor, functools.partial(torch.softmax, dim=1))
        theirs.update(images, shapes["target"].tolist())
        expected = theirs.summary()
        ours = explained(cam, images, shapes["target"])
        drops = to_numpy(AverageDrop().measure(ours).values)
        assert 0.05 < drops.mean() < 0.95
        np.testing.assert_allclose(drops.mean(), expected["avg_drop"], atol=1e-5)
        increases = to_numpy(AverageIncrease().measure(ours).values)
        np.testing.assert_allclose(increases.mean(), expected["conf_increase"], atol=1e-6)

    @pytest.mark.parametrize("steps", [5, 7, 16, 20])
    def test_insertion_and_deletion_of_torch_cam(
        self, shapes: dict[str, Any], shapes_weights: dict[str, Any], steps: int
    ) -> None:
        metrics = framework("torchcam.metrics")
        cam, extractor, images = self.both(shapes, shapes_weights)
        theirs = metrics.DeletionInsertionMetric(extractor, functools.partial(torch.softmax, dim=1), steps=steps)
        theirs.update(images, shapes["target"].tolist())
        expected = theirs.summary()
        ours = explained(cam, images, shapes["target"])
        deletion = to_numpy(Deletion(steps=steps).measure(ours).values)
        insertion = to_numpy(Insertion(steps=steps, baseline="zero").measure(ours).values)
        np.testing.assert_allclose(deletion.mean(), expected["deletion_auc"], atol=1e-5)
        np.testing.assert_allclose(insertion.mean(), expected["insertion_auc"], atol=1e-5)
        assert insertion.mean() > deletion.mean()

    def both(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> Any:
        """Our explainer, torch-cam's view of the same maps and model, and the images."""
        from torch_models import Shapes
        from torchcam_extractor import GivenMaps

        cam = GradCAM(Shapes(shapes_weights).eval(), "features")
        # Pixels that are equal for us are equal for torch-cam as well.
        maps = (cam(shapes["images"], shapes["target"]).maps / GRAIN).round() * GRAIN
        extractor = GivenMaps(maps, lambda images: images)
        extractor.model = Shapes(shapes_weights).eval()
        return cam, extractor, torch.from_numpy(shapes["images"])

    def test_masked_probabilities_of_the_golden_vectors(
        self, shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        from torch_models import Shapes

        cam = Given(Shapes(shapes_weights).eval(), lambda images: shapes["denoised_map"], batch_size=8)
        ours = explained(cam, shapes["images"], shapes["target"])
        np.testing.assert_allclose(to_numpy(ours.masked), shapes["masked_probabilities"][:, 0], atol=1e-5)


CONTINUOUS = [name for name in METRICS if name not in ("pointing-game", "iou", "iou-curve", "box-iou")]
CHEAP = {"max-sensitivity": MaxSensitivity(samples=2), "infidelity": Infidelity(samples=8)}


def values_of_four(shapes: dict[str, Any], name: str, cam: Any, *, channels: int = 1) -> np.ndarray:
    """A metric of four golden images, whose channels an explainer wants on this axis."""
    images, targets, ground_truth = shapes["images"][:4], shapes["target"][:4], shapes["masks"][:4] > 0
    metric = CHEAP.get(name, METRICS[name]())
    images = np.ascontiguousarray(np.moveaxis(images, 1, channels))
    return to_numpy(metric.measure(explained(cam, images, targets), ground_truth).values)


def on_torch(shapes_weights: dict[str, Any], batch_size: int) -> Any:
    from torch_models import Shapes

    return GradCAM(Shapes(shapes_weights).eval(), "features", batch_size=batch_size)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_batch_size_does_not_matter(shapes: dict[str, Any], shapes_weights: dict[str, Any], name: str) -> None:
    expected = values_of_four(shapes, name, on_torch(shapes_weights, 1))
    for batch_size in (3, 8):
        found = values_of_four(shapes, name, on_torch(shapes_weights, batch_size))
        np.testing.assert_allclose(found, expected, atol=1e-4)


# What ROAD imputes is what eager JAX compiles longest, and test_eager_jax.py has its values.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "road" else ()) for name in CONTINUOUS]
)
def test_framework_does_not_matter(shapes: dict[str, Any], shapes_weights: dict[str, Any], name: str) -> None:
    framework("jax")
    from jax_models import tapped_function

    expected = values_of_four(shapes, name, on_torch(shapes_weights, 1))
    found = values_of_four(shapes, name, GradCAM(tapped_function(shapes_weights), "conv4", batch_size=4), channels=-1)
    # Pixels whose ranks rounding exchanges can move a curve a little, far below a step.
    np.testing.assert_allclose(found, expected, atol=1e-4)


class TestFinding:
    def test_by_name(self) -> None:
        assert find_metric("deletion") == Deletion()
        assert find_metric(Deletion) == Deletion()
        assert find_metric(Deletion(steps=3)).steps == 3

    @pytest.mark.parametrize("metric", [3, None, FusionCAM])
    def test_no_metric(self, metric: Any) -> None:
        with pytest.raises(TypeError, match=r"A metric is .* a metric itself"):
            find_metric(metric)

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match=r"A metric is one of 'average-drop', .*: got 'drop'"):
            find_metric("drop")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Deletion(steps=0), "steps is a whole number"),
            (lambda: ROAD(fractions=(0.5, 1.0)), "between 0 and 1"),
            (lambda: Infidelity(sides=(0.5, 0.1)), "the smaller one first"),
            (lambda: MaxSensitivity(samples=0), "samples is a whole number"),
            (lambda: IoUCurve(steps=0), "steps is a whole number"),
            (lambda: BoxIoU(threshold=1.5), "threshold is a share of the map's largest value: got 1.5"),
        ],
    )
    def test_options_out_of_range(self, make: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()


def test_evidence(shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
    """Fusion-CAM on the shapes: better than the same maps upside down, by every metric of faithfulness."""
    from torch_models import Shapes

    model = Shapes(shapes_weights).eval()
    cam = FusionCAM(model, "features", batch_size=8)
    maps = cam(shapes["images"], shapes["target"]).maps.numpy()
    upside_down = Given(model, lambda images: 1 - maps, batch_size=8)
    for metric in (AverageDrop(), Insertion(), Deletion(), ROAD(), Infidelity()):
        ours, worse = (
            to_numpy(metric.measure(explained(each, shapes["images"], shapes["target"])).values).mean()
            for each in (cam, upside_down)
        )
        assert (ours > worse) == (metric.better == "higher"), metric.name
