"""The one call shape: targets, batches, shapes, errors. On PyTorch; the contract covers the other frameworks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fusioncam_core import Explanation, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.arrays.words import blur

torch = pytest.importorskip("torch")


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


def assert_same(first: Explanation, second: Explanation, atol: float = 1e-6) -> None:
    first, second = first.numpy(), second.numpy()
    np.testing.assert_allclose(first.maps, second.maps, atol=atol)
    np.testing.assert_array_equal(first.targets, second.targets)
    for name in first.parts:
        np.testing.assert_allclose(first.parts[name], second.parts[name], atol=atol, err_msg=name)
    for name in first.weights:
        np.testing.assert_allclose(first.weights[name], second.weights[name], atol=atol, err_msg=name)


class TestTargets:
    def test_none_takes_each_images_top_class(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model)(shapes["images"]).numpy()
        np.testing.assert_array_equal(explanation.targets, shapes["logits"].argmax(axis=1))
        np.testing.assert_allclose(explanation.scores, shapes["logits"].max(axis=1), atol=1e-5)

    def test_probabilities(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model)(shapes["images"], 3).numpy()
        exponentials = np.exp(shapes["logits"])
        expected = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(explanation.class_probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(explanation.probabilities, expected[:, 3], atol=1e-5)

    @pytest.mark.parametrize("targets", [2, np.int64(2), [2] * 8, np.full(8, 2, np.int32), torch.full((8,), 2)])
    def test_one_class_in_many_spellings(self, model: Any, shapes: dict[str, Any], targets: Any) -> None:
        explanation = GradCAM(model)(shapes["images"], targets)
        assert explanation.maps.shape == (8, 48, 48)
        assert explanation.targets.tolist() == [2] * 8

    @pytest.mark.parametrize("method", [FusionCAM, GradCAM, ScoreCAM])
    def test_several_targets_equal_one_call_each(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        cam = method(model, batch_size=4)
        targets = np.stack([shapes["target"], (shapes["target"] + 1) % 5, np.full(8, 4)], axis=1)
        together = cam(shapes["images"], targets).numpy()
        assert together.maps.shape == (8, 3, 48, 48)
        for column in range(3):
            alone = cam(shapes["images"], targets[:, column]).numpy()
            np.testing.assert_allclose(together.maps[:, column], alone.maps, atol=1e-6)
            for name in alone.weights:
                np.testing.assert_allclose(together.weights[name][:, column], alone.weights[name], atol=1e-6)

    def test_one_column_keeps_its_axis(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model)(shapes["images"], shapes["target"][:, None])
        assert explanation.maps.shape == explanation.parts["union"].shape == (8, 1, 48, 48)
        assert explanation.targets.shape == explanation.weights["weight_region"].shape == (8, 1)

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([1, 2], r"Targets of shape \(2,\) came with 8 images"),
            (np.zeros((8, 2, 2), int), r"Targets of shape \(8, 2, 2\)"),
            (np.zeros((8, 0), int), r"Targets of shape \(8, 0\)"),
            ([[1, 2], [3]] * 4, "every image needs the same number"),
            (5, "Shapes has 5 classes, numbered 0 to 4, and the target 5 came"),
            ([0] * 7 + [99], "the target 99 came"),
            (-1, "count from 0, and the target -1 came"),
        ],
    )
    def test_wrong_values(self, model: Any, shapes: dict[str, Any], targets: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FusionCAM(model)(shapes["images"], targets)

    @pytest.mark.parametrize("targets", [1.0, [True] * 8, "coffee"])
    def test_not_integers(self, model: Any, shapes: dict[str, Any], targets: Any) -> None:
        with pytest.raises(TypeError, match="whole class numbers"):
            GradCAM(model)(shapes["images"], targets)


class TestBatches:
    @pytest.mark.parametrize("method", [FusionCAM, GradCAM, ScoreCAM])
    def test_batch_equals_one_call_an_image(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        cam = method(model, batch_size=4)
        together = cam(shapes["images"], shapes["target"]).numpy()
        for row in range(8):
            alone = cam(shapes["images"][row], int(shapes["target"][row])).numpy()
            np.testing.assert_allclose(together.maps[row], alone.maps[0], atol=1e-6)

    @pytest.mark.parametrize("contributions", ["clipped", "signed"])
    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_batch_size_does_not_matter(
        self, model: Any, shapes: dict[str, Any], batch_size: int, contributions: Any
    ) -> None:
        cam = FusionCAM(model, batch_size=batch_size, contributions=contributions)
        expected = FusionCAM(model, contributions=contributions)(shapes["images"], shapes["target"])
        # "signed" divides by what is left of two contributions: in case 5 rounding counts 22 times.
        atol = 1e-6 if contributions == "clipped" else 2e-5
        actual = cam(shapes["images"], shapes["target"])
        np.testing.assert_allclose(actual.maps.numpy(), expected.maps.numpy(), atol=atol)

    def test_the_model_never_sees_more_than_batch_size(self, model: Any, shapes: dict[str, Any]) -> None:
        sizes = []
        model.register_forward_hook(lambda m, inputs, outputs: sizes.append(len(inputs[0])))
        explanation = FusionCAM(model, "features", batch_size=5)(shapes["images"], [[0, 1]] * 8)
        assert max(sizes) == 5
        assert sum(sizes) == explanation.evaluations

    def test_evaluations_are_those_the_method_needs(self, model: Any, shapes: dict[str, Any]) -> None:
        activations = shapes["activations"]
        live = int((activations.max(axis=(2, 3)) > activations.min(axis=(2, 3))).sum())
        assert live < activations.shape[0] * activations.shape[1], "some channels are constant in these images"
        images, target = shapes["images"], shapes["target"]
        assert GradCAM(model)(images, target).evaluations == 8
        assert ScoreCAM(model, batch_size=8)(images, target).evaluations == 8 + live + 1
        assert FusionCAM(model, batch_size=8)(images, target).evaluations == 8 + live + 1 + 3 * 8

    def test_several_targets_share_the_masked_passes(self, model: Any, shapes: dict[str, Any]) -> None:
        one = ScoreCAM(model)(shapes["images"], 0)
        five = ScoreCAM(model)(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
        assert five.evaluations == one.evaluations

    def test_one_image_without_a_batch_axis(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, batch_size=4)
        explanation = cam(shapes["images"][0], 0)
        assert explanation.maps.shape == (1, 48, 48)
        assert_same(explanation, cam(shapes["images"][:1], [0]))

    def test_not_square(self, model: Any) -> None:
        images = np.random.default_rng(0).random((2, 3, 96, 160), dtype=np.float32)
        explanation = FusionCAM(model)(images)
        assert explanation.maps.shape == (2, 96, 160)
        for part in explanation.parts.values():
            assert part.shape == (2, 96, 160)
        assert 0 <= explanation.maps.min() < explanation.maps.max() <= 1


class TestBaseline:
    def test_erased_pixels_take_the_baseline(self, model: Any, shapes: dict[str, Any]) -> None:
        images = torch.from_numpy(shapes["images"][:2])
        grey = torch.full((3,), 0.5)
        with torch.no_grad():
            expected = model(torch.full((1, 3, 48, 48), 0.5)).softmax(dim=1)[0, 1]
        for baseline in (0.5, grey, [0.5, 0.5, 0.5], np.full((3, 48, 48), 0.5)):
            explanation = FusionCAM(model, baseline=baseline)(images, 1)
            weights = explanation.weights["probability_baseline"]
            torch.testing.assert_close(weights, expected.expand(2), atol=1e-6, rtol=0)

    def test_zero_as_a_number_equals_the_default(self, model: Any, shapes: dict[str, Any]) -> None:
        expected = FusionCAM(model, batch_size=8)(shapes["images"], shapes["target"])
        # Rounding apart: the default runs its one black image alone, a number's is run in a batch of eight.
        actual = FusionCAM(model, baseline=0.0, batch_size=8)(shapes["images"], shapes["target"])
        assert_same(actual, expected, atol=5e-6)
        assert actual.evaluations == expected.evaluations + 7

    def test_blurred(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model, baseline="blur")(shapes["images"], shapes["target"])
        with torch.no_grad():
            blurred = model(torch.from_numpy(blur(shapes["images"], 48 / 9))).softmax(dim=1)
        expected = blurred[torch.arange(8), torch.from_numpy(shapes["target"])]
        torch.testing.assert_close(explanation.weights["probability_baseline"], expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("baseline", ["grey", [0.1, 0.2], np.zeros((3, 5, 5)), np.zeros((2, 3, 48, 48))])
    def test_wrong(self, model: Any, shapes: dict[str, Any], baseline: Any) -> None:
        with pytest.raises(ValueError, match="baseline"):
            ScoreCAM(model, baseline=baseline)(shapes["images"])


class TestOutputKinds:
    def test_probabilities_equal_logits_for_the_masks(self, model: Any, shapes: dict[str, Any]) -> None:
        class Ends(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, images: Any) -> Any:
                return self.inner(images).softmax(dim=1)

        explanation = FusionCAM(Ends(), "inner.features", output_kind="probabilities")(shapes["images"], 2).numpy()
        expected = FusionCAM(model)(shapes["images"], 2).numpy()
        np.testing.assert_allclose(explanation.class_probabilities, expected.class_probabilities, atol=1e-6)
        # log p is the logit less the logarithm of the sum of all: each mask's scores move by their own constant.
        np.testing.assert_allclose(explanation.scores, np.log(expected.probabilities), atol=1e-5)

    def test_binary(self, model: Any, shapes: dict[str, Any]) -> None:
        class One(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, images: Any) -> Any:
                logits = self.inner(images)
                return logits[:, :1] - logits[:, 1:2]

        class Two(One):
            def forward(self, images: Any) -> Any:
                logit = super().forward(images)
                return torch.cat([0 * logit, logit], dim=1)

        class Opposite(One):
            def forward(self, images: Any) -> Any:
                return -super().forward(images)

        cam = FusionCAM(One(), "inner.features", task="binary")
        softmax = FusionCAM(Two(), "inner.features")(shapes["images"], 1)
        assert_same(cam(shapes["images"], 1), softmax, atol=1e-5)
        torch.testing.assert_close(
            cam(shapes["images"], 1).class_probabilities, softmax.class_probabilities, atol=1e-6, rtol=0
        )
        opposite = FusionCAM(Opposite(), "inner.features", task="binary")(shapes["images"], 1)
        torch.testing.assert_close(cam(shapes["images"], 0).maps, opposite.maps, atol=1e-6, rtol=0)

    def test_multilabel(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model, task="multilabel")(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(explanation.class_probabilities, 1 / (1 + np.exp(-shapes["logits"])), atol=1e-5)
        np.testing.assert_allclose(explanation.parts["region"], shapes["region_map"], atol=1e-5)

    def test_wrong_kind(self, model: Any) -> None:
        with pytest.raises(ValueError, match="task is one of 'multiclass', 'multilabel', 'binary', and 'single' came"):
            GradCAM(model, task="single")

    def test_single_output_of_multiclass(self) -> None:
        one = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        with pytest.raises(ValueError, match="Say task='binary'"):
            GradCAM(one)(torch.rand(1, 3, 6, 6))

    def test_outputs_with_space(self) -> None:
        with pytest.raises(ValueError, match=r"outputs of shape \(1, 2, 4, 4\), and \(batch, classes\)"):
            GradCAM(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()), "0")(torch.rand(1, 3, 6, 6))


class TestBadInput:
    @pytest.mark.parametrize(
        ("images", "kind", "message"),
        [
            (np.zeros((2, 3, 48, 48), np.uint8), TypeError, "preprocessed floating-point images, and an array of"),
            (np.zeros((48, 48), np.float32), ValueError, r"4 axes \(or 3 for one image\), and an array of shape"),
            (np.zeros((1, 1, 3, 48, 48), np.float32), ValueError, r"\(1, 1, 3, 48, 48\) came"),
            (np.zeros((0, 3, 48, 48), np.float32), ValueError, "An empty batch came"),
            ([np.zeros((3, 48, 48))], TypeError, "Stack equal-sized images"),
            ("coffee.png", TypeError, "a builtins.str came"),
            (np.full((1, 3, 48, 48), np.nan, np.float32), ValueError, "NaN or infinity in the"),
        ],
    )
    def test_images(self, model: Any, images: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            FusionCAM(model)(images)

    @pytest.mark.parametrize(
        ("keywords", "kind", "message"),
        [
            ({"percentile": 101}, ValueError, "between 0 and 100, and 101 came"),
            ({"batch_size": 0}, ValueError, "positive number of images"),
            ({"contributions": "absolute"}, ValueError, "'clipped' or 'signed'"),
            ({"channels": "middle"}, ValueError, "'first' or 'last'"),
            ({"batchsize": 3}, TypeError, "no option 'batchsize'; did you mean 'batch_size'?"),
            ({"colour": 3}, TypeError, r"no option 'colour' \(it knows channels, compile, autocast\)"),
        ],
    )
    def test_keywords(self, model: Any, keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            FusionCAM(model, **keywords)


class TestExplanation:
    def test_repr_names_what_was_done(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model)(shapes["images"])
        assert repr(explanation) == (
            "<Explanation of Shapes by grad-cam at layer 'features': maps 8x48x48, 8 model evaluations>"
        )

    def test_maps_stay_in_the_framework_and_numpy_converts(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model)(shapes["images"])
        arrays = [explanation.maps, *explanation.parts.values(), *explanation.weights.values()]
        assert all(isinstance(each, torch.Tensor) and not each.requires_grad for each in arrays)
        converted = explanation.numpy()
        arrays = [converted.maps, *converted.parts.values(), *converted.weights.values()]
        assert all(isinstance(each, np.ndarray) for each in arrays)

    def test_save_writes_pictures_maps_and_numbers(self, model: Any, shapes: dict[str, Any], tmp_path: Any) -> None:
        pytest.importorskip("matplotlib")
        explanation = FusionCAM(model)(shapes["images"][:2], [[0, 1], [2, 3]])
        files = explanation.save(tmp_path / "out", names=["first", "second"])
        assert sorted(file.name for file in files) == sorted(
            f"{name}.{ending}" for name in ("first", "second") for ending in ("png", "npz", "json")
        )
        with np.load(tmp_path / "out" / "second.npz") as arrays:
            np.testing.assert_array_equal(arrays["maps"], explanation.numpy().maps[1])
        numbers = json.loads((tmp_path / "out" / "second.json").read_text())
        assert numbers["method"] == "fusion-cam"

    def test_shows_itself_in_a_notebook(self, model: Any, shapes: dict[str, Any]) -> None:
        pytest.importorskip("matplotlib")
        assert GradCAM(model)(shapes["images"][:1])._repr_png_().startswith(b"\x89PNG")

    def test_layers(self, model: Any, shapes: dict[str, Any]) -> None:
        layers = GradCAM(model).layers(shapes["images"])
        assert [layer.name for layer in layers if layer.default] == ["features"]
        assert {layer.name: layer.shape for layer in layers}["features.5"] == (1, 32, 12, 12)
        assert [layer.name for layer in layers][-1] == "fc"
        assert not layers[-1].spatial


class TestSeveralLayers:
    LAYERS = ("features.7", "features.9")

    @pytest.mark.parametrize("combine", ["mean", "max", "product"])
    @pytest.mark.parametrize("method", [GradCAM, FusionCAM])
    def test_maps_are_combined(self, model: Any, shapes: dict[str, Any], method: Any, combine: str) -> None:
        explanation = method(model, self.LAYERS, combine=combine, batch_size=4)(
            shapes["images"], shapes["target"]
        ).numpy()
        single = [
            method(model, layer, batch_size=4)(shapes["images"], shapes["target"]).numpy() for layer in self.LAYERS
        ]
        for layer, each in zip(self.LAYERS, single, strict=True):
            np.testing.assert_allclose(explanation.parts[layer], each.maps, atol=1e-6)
        maps = np.stack([each.maps for each in single])
        united = {"mean": maps.mean(axis=0), "max": maps.max(axis=0), "product": maps.prod(axis=0)}[combine]
        low, high = united.min(axis=(1, 2), keepdims=True), united.max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(explanation.maps, (united - low) / (high - low), atol=1e-5)
        assert explanation.layer == "features.7, features.9"
        assert explanation.evaluations == sum(each.evaluations for each in single)

    def test_layers_of_different_extent(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model, ["features.1", "features.9"])(shapes["images"], shapes["target"])
        assert explanation.maps.shape == (8, 48, 48)

    def test_unknown_combination(self, model: Any) -> None:
        with pytest.raises(ValueError, match="combine is one of 'mean', 'max', 'product', and 'sum' came"):
            GradCAM(model, self.LAYERS, combine="sum")
