"""What can be explained besides given classes. On PyTorch; the target functions run over every namespace."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from fusioncam_core import (
    RISE,
    BinaryLogit,
    BoxSimilarity,
    Candidates,
    ClassLogit,
    ClassProbability,
    Contrast,
    DetectionScore,
    EmbeddingSimilarity,
    EmptyMapWarning,
    Finer,
    FusionCAM,
    GradCAM,
    InvalidValueError,
    Regression,
    ResidualSoftmax,
    ScoreCAM,
    SegmentationLogit,
    YOLOCandidates,
)
from fusioncam_core.models.outputs import unpack
from libraries import Library, assert_close

OUTPUTS = np.array([[1, 5, 2], [4, 0, 7]], dtype=np.float32)

SHARES = np.exp(OUTPUTS.astype(np.float64)) / np.exp(OUTPUTS.astype(np.float64)).sum(axis=1, keepdims=True)
"""Their softmax."""

BOXES = np.array([[[0, 0, 2, 2], [1, 0, 3, 2], [8, 8, 9, 9]]], dtype=np.float32)
"""Of one image: overlaps with (0, 0, 2, 2) are 1, 2 of 6 and 0."""

CLASSES = np.array([[[0.9, 0.4], [0.1, 0.9], [1, 1]]], dtype=np.float32)


class TestTargetFunctions:
    """Each of them over every namespace, against values worked out by hand."""

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (ClassLogit(2), [2, 7]),
            (Regression(1, sign=-1), [-5, 0]),
            (Contrast(1, instead_of=0), [4, -4]),
            (EmbeddingSimilarity([3, 0, 4]), [11 / 5 / 30**0.5, 40 / 5 / 65**0.5]),
            (Finer(1, minus=(0, 2)), [5 - 1.5, 0 - 5.5]),
            (Finer(1, minus=2, alpha=0.5), [5 - 1, 0 - 3.5]),
            (ClassProbability(1), SHARES[:, 1]),
            (ClassProbability(1, log=True), np.log(SHARES[:, 1])),
            (ClassProbability(1, task="multilabel"), 1 / (1 + np.exp(-OUTPUTS[:, 1]))),
            (ClassProbability(1, task="multilabel", log=True), -np.log1p(np.exp(-OUTPUTS[:, 1]))),
            (ResidualSoftmax(1), OUTPUTS[:, 1] + np.log(SHARES[:, 1])),
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
        boxes, scores = library.asarray(BOXES), library.asarray(CLASSES)
        outputs = {"boxes": boxes, "logits": scores}
        # Class 0 has 0.9, class 1 has 0.4 against 0.3.
        assert_close(DetectionScore((0, 0, 2, 2), 0)(outputs), [0.9], boxes)
        assert_close(DetectionScore((0, 0, 2, 2), 1)(outputs), [0.4], boxes)

    def test_a_detector_that_finds_nothing(self, library: Library) -> None:
        boxes, scores = (library.asarray(np.zeros((2, 0, last), dtype=np.float32)) for last in (4, 3))
        assert_close(DetectionScore((0, 0, 2, 2), 0)({"boxes": boxes, "logits": scores}), [0, 0], boxes)

    def test_rule_out_other_classes(self, library: Library) -> None:
        """Logits of -infinity, as of a masked vocabulary, have no share, and those of the others are as without."""
        outputs = library.asarray(np.array([[1, -np.inf, 2]], dtype=np.float32))
        share = 1 / (1 + np.e)
        assert_close(ClassProbability(0)(outputs), [share], outputs)
        assert_close(ClassProbability(0, log=True)(outputs), [np.log(share)], outputs)
        assert_close(ResidualSoftmax(0)(outputs), [1 + np.log(share)], outputs)
        assert_close(Finer(0, minus=2)(outputs), [-1], outputs)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
    def test_embedding_of_any_dtype(self, library: Library, kind: Any) -> None:
        outputs = library.asarray(OUTPUTS)
        reference = np.array([3, 0, 4], dtype=kind)
        expected = [11 / 5 / 30**0.5, 40 / 5 / 65**0.5]
        for each in (reference, reference[None]):
            assert_close(EmbeddingSimilarity(each)(outputs), expected, outputs)

    def test_a_mask_of_the_images_size(self, library: Library) -> None:
        values = np.arange(2 * 2 * 2 * 3, dtype=np.float32).reshape(2, 2, 2, 3)
        outputs = library.asarray(values)
        mask = np.zeros((4, 6))
        mask[0, :3] = 1  # two pixels of the first cell's four, one of the second's
        assert_close(SegmentationLogit(1, mask)(outputs), [(2 * 6 + 7) / 3, (2 * 18 + 19) / 3], outputs)
        wide = np.zeros((3, 4), dtype=bool)
        wide[0, 1] = True  # a third of it lies in the first cell along the width, two thirds in the second
        assert_close(SegmentationLogit(1, wide)(outputs), [6 + 2 / 3, 18 + 2 / 3], outputs, rtol=1e-6)
        for shape in ((2, 2), (4, 4), (6, 4), (1, 3), (2, 3, 1)):
            with pytest.raises(InvalidValueError, match="or a larger one of the same proportions"):
                SegmentationLogit(1, np.ones(shape))(outputs)

    def test_detections_in_a_list(self, library: Library) -> None:
        """As torchvision has them: as many boxes as there are, or none."""
        outputs = [
            {
                "boxes": library.asarray(BOXES[0, :count]),
                "labels": library.asarray(np.array([1, 0, 1], dtype=np.int64)[:count]),
                "scores": library.asarray(np.array([0.5, 0.9, 1], dtype=np.float32)[:count]),
            }
            for count in (3, 0, 1)
        ]
        like = outputs[0]["boxes"]
        assert_close(DetectionScore((0, 0, 2, 2), 1)(outputs), [0.5, 0, 0.5], like)
        assert_close(DetectionScore((0, 0, 2, 2), 0)(outputs), [0.3, 0, 0], like)
        unlabelled = DetectionScore((0, 0, 2, 2), 0, Candidates(labels=None))
        assert_close(unlabelled(outputs), [0.5, 0, 0.5], like)
        assert_close(BoxSimilarity((0, 0, 2, 2), 1)(outputs), [0.5, 0, 0.5], like)
        # Labels 1, 0, 1: the vector's cosines with them are 0.8, 0.6, 0.8.
        assert_close(BoxSimilarity((0, 0, 2, 2), [0.6, 0.8])(outputs), [0.4, 0, 0.4], like)

    def test_raw_heads(self, library: Library) -> None:
        centres = np.concatenate([(BOXES[..., :2] + BOXES[..., 2:]) / 2, BOXES[..., 2:] - BOXES[..., :2]], axis=-1)
        newer = library.asarray(np.concatenate([centres, CLASSES], axis=-1).transpose(0, 2, 1))
        objectness = np.array([0.5, 1, 1], dtype=np.float32)[None, :, None]
        older = library.asarray(np.concatenate([centres, objectness, CLASSES], axis=-1))
        of_older = YOLOCandidates(axis=1, objectness=True)
        assert_close(DetectionScore((0, 0, 2, 2), 0, YOLOCandidates())(newer), [0.9], newer)
        assert_close(DetectionScore((0, 0, 2, 2), 1, YOLOCandidates())((newer, None)), [0.4], newer)
        assert_close(DetectionScore((0, 0, 2, 2), 1, of_older)(older), [0.3], older)
        assert_close(BoxSimilarity((0, 0, 2, 2), 0, of_older)(older), [0.5 * 0.9 / 0.97**0.5], older)

    def test_d_rise(self, library: Library) -> None:
        outputs = {
            "pred_boxes": library.asarray(BOXES),
            "logits": library.asarray(np.log(CLASSES / (1 - CLASSES * 0.999)).astype(np.float32)),
        }
        reading = Candidates(boxes="pred_boxes", activation="sigmoid")
        chances = CLASSES / (CLASSES + 1 - CLASSES * 0.999)
        vector = np.array([0.9, 0.4])
        cosines = chances @ vector / np.linalg.norm(chances, axis=-1) / np.linalg.norm(vector)
        expected = (np.array([[1, 1 / 3, 0]]) * cosines).max(axis=1)
        assert_close(BoxSimilarity((0, 0, 2, 2), vector, reading)(outputs), expected, outputs["pred_boxes"])


class TestRefused:
    """What cannot be meant is refused, where it is given if it can be told there."""

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: Finer(1, alpha=-1), "alpha is a number of at least 0: got -1"),
            (lambda: Finer(1, alpha=float("nan")), "alpha is a number of at least 0: got nan"),
            (lambda: Finer(1, count=0), "count is a number of classes, 1 or more: got 0"),
            (lambda: Finer(1, minus=(1, 2)), r"minus lists classes other than 1, one at least: got \(1, 2\)"),
            (lambda: Finer(1, minus=()), "one at least"),
            (lambda: ClassProbability(1, task="binary"), "task is 'multiclass' or 'multilabel': got 'binary'"),
            (lambda: EmbeddingSimilarity([0, 0]), "finite and not zero everywhere"),
            (lambda: EmbeddingSimilarity([1, np.nan]), "finite and not zero everywhere"),
            (lambda: EmbeddingSimilarity(np.ones((2, 3))), r"one embedding, \(D,\): got shape \(2, 3\)"),
            (lambda: DetectionScore((2, 0, 2, 2), 0), r"with x0 < x1 and y0 < y1: got \(2.0, 0.0, 2.0, 2.0\)"),
            (lambda: DetectionScore((0, 0, 2), 0), "A box is"),  # type: ignore[arg-type]
            (lambda: BoxSimilarity((0, 0, 2, 2), [0, 0]), "finite and not all 0"),
            (lambda: BoxSimilarity((0, 0, 2, 2), [[1, 0]]), r"got shape \(1, 2\)"),
            (lambda: Candidates(form="xyxy"), "form is 'corners' or 'centre': got 'xyxy'"),  # type: ignore[arg-type]
            (lambda: Candidates(activation="relu"), "activation is 'none', 'softmax' or 'sigmoid'"),  # type: ignore[arg-type]
            (lambda: YOLOCandidates(form="xywh"), "form is 'corners' or 'centre'"),  # type: ignore[arg-type]
            (lambda: YOLOCandidates(axis=0), "axis is 1 or 2, where the candidates are: got 0"),
        ],
    )
    def test_when_it_is_made(self, make: Any, said: str) -> None:
        with pytest.raises(InvalidValueError, match=said):
            make()

    @pytest.mark.parametrize(
        ("function", "outputs", "said"),
        [
            (ClassLogit(3), OUTPUTS, "3 classes, numbered from 0: got the class 3"),
            (Contrast(0, 5), OUTPUTS, "got the class 5"),
            (Finer(0, minus=9), OUTPUTS, "got the class 9"),
            (ResidualSoftmax(3), OUTPUTS, "got the class 3"),
            (ClassProbability(0), OUTPUTS[..., None], r"outputs of shape \(n, classes\): got \(2, 3, 1\)"),
            (EmbeddingSimilarity([1, 2]), OUTPUTS, r"embeddings of shape \(n, 2\), as the reference has, got \(2, 3\)"),
            (SegmentationLogit(0, [[np.nan, 1]]), OUTPUTS[:, :, None, None], "or a larger one"),
            (
                DetectionScore((0, 0, 1, 1), 7),
                {"boxes": BOXES, "logits": CLASSES},
                "2 classes, from 0: got the class 7",
            ),
            (BoxSimilarity((0, 0, 1, 1), 7), {"boxes": BOXES, "logits": CLASSES}, "2 classes, from 0: got the class 7"),
            (BoxSimilarity((0, 0, 1, 1), [1, 0, 0]), {"boxes": BOXES, "logits": CLASSES}, "probabilities of 3 classes"),
            (
                DetectionScore((0, 0, 1, 1), 0),
                {"boxes": CLASSES, "logits": CLASSES},
                r"boxes of four numbers, \(n, N, 4",
            ),
            (
                DetectionScore((0, 0, 1, 1), 0),
                {"box": BOXES, "logits": CLASSES},
                "no output 'boxes': it returned 'box'",
            ),
            (DetectionScore((0, 0, 1, 1), 0, YOLOCandidates()), BOXES, r"\(n, 4 \+ classes, N\), got \(1, 3, 4\)"),
        ],
    )
    def test_of_other_outputs(self, function: Any, outputs: Any, said: str) -> None:
        with pytest.raises(InvalidValueError, match=said):
            function(outputs)


def test_names() -> None:
    assert ClassLogit(2).name == "ClassLogit(2)"
    assert Finer(1, minus=(2, 3), alpha=0.5).name == "Finer(1, minus=(2, 3), alpha=0.5)"
    assert (
        SegmentationLogit(1, np.ones((4, 6)), channel_axis=-1).name
        == "SegmentationLogit(1, mask=<4x6>, channel_axis=-1)"
    )
    assert EmbeddingSimilarity([1, 2]).name == "EmbeddingSimilarity(reference=<2>)"
    assert DetectionScore((0, 0, 2, 2), 3).name == "DetectionScore(3, box=(0.0, 0.0, 2.0, 2.0))"


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

    def test_a_mask_of_the_images_size(self) -> None:
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 2, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        masks = np.zeros((2, 8, 8))
        masks[0, 2:4, 2:6] = masks[1, 4:, 4:] = 1
        images, cam = torch.rand(2, 1, 8, 8), ScoreCAM(network, "1")
        small = masks[:, ::2, ::2]
        of_images = cam(images, [SegmentationLogit(1, torch.from_numpy(each).bool()) for each in masks])
        of_outputs = cam(images, [SegmentationLogit(1, each) for each in small])
        torch.testing.assert_close(of_images.maps, of_outputs.maps)
        assert not torch.equal(of_images.maps[0], cam(images, SegmentationLogit(1, masks[1])).maps[0])

    @pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
    def test_one_reference_an_image_with_a_graph(self, model: Any, shapes: dict[str, Any], kind: str) -> None:
        import torch

        images = torch.from_numpy(shapes["images"][:3])
        weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        references = (weights.T * 2).to(getattr(torch, kind))
        assert references.requires_grad
        found = GradCAM(model)(images, [EmbeddingSimilarity(each) for each in references]).maps
        plain = references.detach().float()
        expected = GradCAM(model)(images, lambda outputs: torch.cosine_similarity(outputs, plain)).maps
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_classes_that_the_model_rules_out(self, model: Any, shapes: dict[str, Any]) -> None:
        """Logits of -infinity of classes nobody asks about, as a masked vocabulary has them."""
        import torch

        class Masked(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, images: Any) -> Any:
                return self.inner(images).masked_fill(torch.tensor([False, True, False, False, True]), float("-inf"))

        class Without(Masked):
            def forward(self, images: Any) -> Any:
                return self.inner(images)[:, [0, 2, 3]]

        images = shapes["images"][:3]
        for method in (GradCAM, ScoreCAM, FusionCAM):
            found = method(Masked())(images, 2).numpy()
            expected = method(Without())(images, 1).numpy()
            np.testing.assert_allclose(found.maps, expected.maps, atol=1e-6)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
            assert (found.class_probabilities[:, [1, 4]] == 0).all()
            of_functions = method(Masked())(images, [ClassLogit(2), ClassProbability(2), Finer(2, minus=0)])
            assert np.isfinite(of_functions.numpy().maps).all()
        with pytest.raises(InvalidValueError, match="infinity in the targets' scores"):
            GradCAM(Masked())(images, 1)
        with pytest.raises(InvalidValueError, match="infinity in the targets' scores"):
            GradCAM(Masked())(images, ClassLogit(1))

    @pytest.mark.filterwarnings("ignore:The gradient .* is zero everywhere for image 2")
    def test_detector_whose_boxes_vanish(self) -> None:
        """As many boxes as images have bright pixels in the first row, none where it is erased; a list of mappings."""
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)

        class Detector(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
                self.relu = torch.nn.ReLU()

            def forward(self, images: Any) -> Any:
                scores = torch.sigmoid(self.relu(self.conv(images)).mean(dim=1)[:, 0])
                found = []
                for image, each in zip(images, scores, strict=True):
                    kept = torch.nonzero(image[0, 0] > 0.5)[:, 0]
                    left = kept.to(each.dtype)
                    boxes = torch.stack([left, left * 0, left + 2, left * 0 + 2], dim=1)
                    found.append({"boxes": boxes, "scores": each[kept], "labels": kept % 2})
                return found

        images = torch.rand(3, 1, 8, 8)
        images[:, 0, 0] = 0.2
        images[0, 0, 0, [0, 4]] = images[1, 0, 0, [3, 5]] = 0.9
        targets = [DetectionScore((0, 0, 2, 2), 0), DetectionScore((4, 0, 6, 2), 1), DetectionScore((0, 0, 2, 2), 0)]
        for method in (GradCAM, ScoreCAM, FusionCAM, RISE):
            cam = method(Detector(), "relu", **({"masks": 30} if method is RISE else {}))
            with pytest.warns(EmptyMapWarning, match="image 2") if method in (GradCAM, RISE) else nullcontext():
                found = cam(images, targets)
            assert torch.isfinite(found.maps).all()
            assert found.scores[2] == 0
            assert found.maps[:2].amax() == 1
            alone = [cam(image[None], target).maps for image, target in zip(images[:2], targets[:2], strict=True)]
            torch.testing.assert_close(found.maps[:2], torch.cat(alone), atol=1e-6, rtol=0)
