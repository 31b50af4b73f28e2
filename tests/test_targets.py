"""What can be explained besides given classes. On PyTorch; the target functions run over every namespace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import (
    BinaryLogit,
    ClassLogit,
    Contrast,
    DetectionScore,
    EmbeddingSimilarity,
    FusionCAM,
    GradCAM,
    InvalidValueError,
    Regression,
    ScoreCAM,
    SegmentationLogit,
)
from fusioncam_core.models.outputs import unpack
from libraries import Library, assert_close

OUTPUTS = np.array([[1, 5, 2], [4, 0, 7]], dtype=np.float32)


class TestTargetFunctions:
    """Each of them over every namespace, against values worked out by hand."""

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (ClassLogit(2), [2, 7]),
            (Regression(1, sign=-1), [-5, 0]),
            (Contrast(1, instead_of=0), [4, -4]),
            (EmbeddingSimilarity([3, 0, 4]), [11 / 5 / 30**0.5, 40 / 5 / 65**0.5]),
        ],
        ids=lambda each: type(each).__name__,
    )
    def test_of_vectors(self, library: Library, function: Any, expected: list[float]) -> None:
        outputs = library.asarray(OUTPUTS)
        assert_close(library.compile(function)(outputs), expected, outputs)

    def test_named_output(self, library: Library) -> None:
        outputs = library.asarray(OUTPUTS)
        assert_close(ClassLogit(0, output="main")({"main": outputs, "other": outputs * 0}), [1, 4], outputs)

    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_binary(self, library: Library, shape: tuple[int, ...]) -> None:
        outputs = library.asarray(np.array([3, -2], dtype=np.float32).reshape(shape))
        assert_close(BinaryLogit()(outputs), [3, -2], outputs)
        assert_close(BinaryLogit(positive=False)(outputs), [-3, 2], outputs)

    def test_embedding_of_zeros_is_not_nan(self, library: Library) -> None:
        outputs = library.asarray(np.zeros((1, 2), dtype=np.float32))
        assert_close(EmbeddingSimilarity([1, 0])(outputs), [0], outputs)

    def test_segmentation(self, library: Library) -> None:
        values = np.arange(2 * 2 * 2 * 3, dtype=np.float32).reshape(2, 2, 2, 3)
        outputs = library.asarray(values)
        mask = np.array([[True, False, False], [False, True, False]])
        # Of image 0, class 1: pixels 6 and 10.
        assert_close(SegmentationLogit(1, mask)(outputs), [8, 20], outputs)
        assert_close(SegmentationLogit(0)(outputs), [2.5, 14.5], outputs)
        last = library.asarray(np.moveaxis(values, 1, -1))
        assert_close(SegmentationLogit(1, mask, channel_axis=-1)(last), [8, 20], last)
        with pytest.raises(ValueError, match=r"shape \(2, 3\).* got one of \(2, 2\) with 4"):
            SegmentationLogit(1, np.ones((2, 2)))(outputs)
        with pytest.raises(ValueError, match=r"at least one pixel, got one of \(2, 3\) with 0"):
            SegmentationLogit(1, np.zeros((2, 3)))(outputs)

    def test_detection(self, library: Library) -> None:
        boxes = library.asarray(np.array([[[0, 0, 2, 2], [1, 0, 3, 2], [8, 8, 9, 9]]], dtype=np.float32))
        scores = library.asarray(np.array([[[0.9, 0.4], [0.1, 0.9], [1, 1]]], dtype=np.float32))
        outputs = {"boxes": boxes, "logits": scores}
        # Overlaps with the box are 1, 2 of 6 and 0: class 0 has 0.9, class 1 has 0.4 against 0.3.
        assert_close(DetectionScore((0, 0, 2, 2), 0)(outputs), [0.9], boxes)
        assert_close(DetectionScore((0, 0, 2, 2), 1)(outputs), [0.4], boxes)

    def test_a_detector_that_finds_nothing(self, library: Library) -> None:
        boxes, scores = (library.asarray(np.zeros((2, 0, last), dtype=np.float32)) for last in (4, 3))
        assert_close(DetectionScore((0, 0, 2, 2), 0)({"boxes": boxes, "logits": scores}), [0, 0], boxes)


class TestPosition:
    """Of the explained one of several outputs."""

    PAIR = (np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))

    @pytest.mark.parametrize(("which", "expected"), [(0, 0), (1, 1), (-1, 1), (-2, 0), (np.int64(1), 1)])
    def test_negative_ones_count_from_the_end(self, which: int, expected: int) -> None:
        assert unpack(self.PAIR, which) is self.PAIR[expected]
        assert unpack(list(self.PAIR), which) is self.PAIR[expected]

    @pytest.mark.parametrize("which", [2, -3, True, "logits"])
    def test_there_are_no_others(self, which: Any) -> None:
        with pytest.raises(
            InvalidValueError, match=rf"no output {which!r}: it returned 2 outputs, 0 to 1, or -2 to -1"
        ):
            unpack(self.PAIR, which)

    @pytest.mark.parametrize("which", [0, -1, "logit"])
    def test_of_names(self, which: Any) -> None:
        with pytest.raises(InvalidValueError, match=rf"no output {which!r}: it returned 'logits', 'aux'"):
            unpack({"logits": self.PAIR[0], "aux": self.PAIR[1]}, which)

    @pytest.mark.parametrize("which", [0, -1, "logits"])
    def test_of_one_array(self, which: Any) -> None:
        with pytest.raises(InvalidValueError, match=rf"no output {which!r}: it returned one ndarray"):
            unpack(self.PAIR[0], which)


class TestOnPyTorch:
    @pytest.fixture
    def model(self, shapes_weights: dict[str, Any]) -> Any:
        pytest.importorskip("torch")
        from torch_models import Shapes

        return Shapes(shapes_weights).eval()

    @pytest.mark.parametrize("method", [GradCAM, ScoreCAM, FusionCAM])
    def test_top_classes_equal_those_classes_given(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        cam = method(model)
        top = cam(shapes["images"], "top3").numpy()
        expected = np.argsort(-shapes["logits"], axis=1)[:, :3]
        np.testing.assert_array_equal(top.targets, expected)
        np.testing.assert_allclose(top.maps, cam(shapes["images"], expected).numpy().maps, atol=1e-6)

    def test_top_needs_a_number(self, model: Any, shapes: dict[str, Any]) -> None:
        for word in ("top", "top0", "best"):
            with pytest.raises(TypeError, match="a word such as 'top5'"):
                GradCAM(model)(shapes["images"], word)

    @pytest.mark.parametrize("method", [GradCAM, ScoreCAM])
    def test_no_more_top_classes_than_there_are(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        assert method(model)(shapes["images"][:2], "top5").maps.shape == (2, 5, 48, 48)
        with pytest.raises(InvalidValueError, match="Shapes has 5 classes: expected 'top5' at most, got 'top6'"):
            method(model)(shapes["images"][:2], "top6")

    @pytest.mark.parametrize("method", [GradCAM, ScoreCAM])
    def test_a_function_for_a_class_equals_the_class(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        by_class = method(model)(shapes["images"], 2).numpy()
        by_function = method(model)(shapes["images"], lambda outputs: outputs[:, 2]).numpy()
        np.testing.assert_allclose(by_function.maps, by_class.maps, atol=1e-6)
        np.testing.assert_allclose(by_function.scores, by_class.scores, atol=1e-6)

    def test_contributions_of_a_function_are_its_own_values(self, model: Any, shapes: dict[str, Any]) -> None:
        import torch

        images = torch.from_numpy(shapes["images"])
        explanation = FusionCAM(model)(images, ClassLogit(1))
        with torch.no_grad():
            black = model(images[:1] * 0)[0, 1]
            denoised = model(images * explanation.parts["denoised"][:, None])[:, 1]
        torch.testing.assert_close(explanation.weights["probability_baseline"], black.expand(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(explanation.weights["contribution_denoised"], denoised - black, atol=1e-5, rtol=0)

    def test_contrast_is_not_either_class(self, model: Any, shapes: dict[str, Any]) -> None:
        contrast = GradCAM(model)(shapes["images"], Contrast(0, instead_of=1)).numpy()
        alone = GradCAM(model)(shapes["images"], 0).numpy()
        np.testing.assert_allclose(contrast.scores, shapes["logits"][:, 0] - shapes["logits"][:, 1], atol=1e-5)
        assert np.abs(contrast.maps - alone.maps).max() > 0.1

    def test_several_functions_in_one_call(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model)
        together = cam(shapes["images"], [[ClassLogit(0), Contrast(1, 2)]] * 8).numpy()
        assert together.maps.shape == (8, 2, 48, 48)
        alone = cam(shapes["images"], Contrast(1, 2)).numpy()
        np.testing.assert_allclose(together.maps[:, 1], alone.maps, atol=1e-6)
        assert ScoreCAM(model)(shapes["images"], [[ClassLogit(0), Contrast(1, 2)]] * 8).evaluations == (
            ScoreCAM(model)(shapes["images"], 0).evaluations
        )

    def test_function_of_a_wrong_shape(self, model: Any, shapes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"returned shape \(\d, 5\).* one score an image"):
            GradCAM(model)(shapes["images"], lambda outputs: outputs)

    def test_segmentation_network(self) -> None:
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        mask = np.zeros((8, 8))
        mask[2:4, 2:4] = 1
        explanation = GradCAM(network, "1")(torch.rand(2, 1, 8, 8), SegmentationLogit(1, mask))
        assert explanation.maps.shape == (2, 8, 8)
        assert explanation.maps.max() == 1
