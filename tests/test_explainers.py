"""The one call shape: targets, batches, shapes, errors. On PyTorch; the contract covers the other frameworks."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import (
    EXPLAINERS,
    EigenCAM,
    Explanation,
    FusionCAM,
    GradCAM,
    GroupCAM,
    InvalidTypeError,
    LayerCAM,
    ScoreCAM,
    adapt_model,
)
from fusioncam_core.arrays.words import blur
from fusioncam_core.explainers.arguments import own_parameters

torch = pytest.importorskip("torch")

OWN = [name for name, each in EXPLAINERS.items() if each.__module__.startswith("fusioncam_core.")]
"""Other tests define methods, too."""

CHEAP = {"smooth-grad-cam++": {"samples": 2}, "ss-cam": {"samples": 2}, "is-cam": {"steps": 3}, "rise": {"masks": 20}}
"""Options that make a method cheap enough for a test."""


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


def count_sizes(model: Any) -> list[int]:
    """Filled with how many images each forward pass of the model has."""
    sizes: list[int] = []
    model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
    return sizes


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
            (5, r"Shapes has 5 classes, numbered 0 to 4.* 5\b"),
            ([0] * 7 + [99], r"\b99\b"),
            (-1, "count from 0.* -1"),
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
        cam = FusionCAM(model, "features", batch_size=5)
        cam.layers(shapes["images"])  # what is measured of the layer is kept
        sizes = count_sizes(model)
        explanation = cam(shapes["images"], [[0, 1]] * 8)
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
        with pytest.raises(ValueError, match=r"task is one of 'multiclass', 'multilabel', 'binary'.* 'single'"):
            GradCAM(model, task="single")

    def test_single_output_of_multiclass(self) -> None:
        one = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        with pytest.raises(ValueError, match="Say task='binary'"):
            GradCAM(one)(torch.rand(1, 3, 6, 6))

    def test_outputs_with_space(self) -> None:
        with pytest.raises(ValueError, match=r"outputs of shape \(1, 2, 4, 4\).*\(batch, classes\)"):
            GradCAM(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()), "0")(torch.rand(1, 3, 6, 6))


class TestBadInput:
    @pytest.mark.parametrize(
        ("images", "kind", "message"),
        [
            (np.zeros((2, 3, 48, 48), np.uint8), TypeError, "preprocessed floating-point images.* an array of .*uint8"),
            (np.zeros((48, 48), np.float32), ValueError, r"4 axes \(or 3 for one image\).* shape \(48, 48\)"),
            (np.zeros((1, 1, 3, 48, 48), np.float32), ValueError, r"4 axes .*\(1, 1, 3, 48, 48\)"),
            (np.zeros((0, 3, 48, 48), np.float32), ValueError, r"empty batch.* \(0, 3, 48, 48\)"),
            ([np.zeros((3, 48, 48))], TypeError, "Stack equal-sized images"),
            ("coffee.png", TypeError, r"builtins\.str"),
            (np.full((1, 3, 48, 48), np.nan, np.float32), ValueError, "NaN or infinity in the"),
        ],
    )
    def test_images(self, model: Any, images: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            FusionCAM(model)(images)

    @pytest.mark.parametrize(
        ("keywords", "kind", "message"),
        [
            ({"percentile": 101}, ValueError, r"between 0 and 100.* 101\b"),
            ({"batch_size": 0}, ValueError, "positive number of images"),
            ({"contributions": "absolute"}, ValueError, "'clipped'.* 'signed'.* 'absolute'"),
            ({"backend_options": {"channels": "middle"}}, ValueError, "'first' or 'last'.* 'middle'"),
            (
                {"backend_options": {"colour": 3}},
                TypeError,
                r"no option 'colour' \(it knows channels, compile, autocast\)",
            ),
        ],
    )
    def test_keywords(self, model: Any, keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            FusionCAM(model, **keywords)

    @pytest.mark.parametrize("name", OWN)
    def test_misspelt_keywords(self, model: Any, name: str) -> None:
        method = EXPLAINERS[name]
        with pytest.raises(
            InvalidTypeError, match=rf"^{method.__name__} has no option 'batchsize'; did you mean 'batch_size'\?"
        ):
            method(model, batchsize=3)
        with pytest.raises(InvalidTypeError, match=rf"^{method.__name__} has no option 'colour'\. .*backend_options"):
            method(model, colour=3)

    @pytest.mark.parametrize("name", OWN)
    def test_misspelt_keywords_of_its_own(self, model: Any, name: str) -> None:
        own = own_parameters(EXPLAINERS[name])
        for keyword in own:
            misspelt = keyword[:2] + keyword[1:]
            with pytest.raises(TypeError, match=f"no option '{misspelt}'; did you mean '{keyword}'"):
                EXPLAINERS[name](model, **{misspelt: None})

    @pytest.mark.parametrize("keyword", ["channels", "framework", "jit_compile", "compile", "autocast"])
    def test_what_belongs_to_a_backend_is_named_so(self, model: Any, keyword: str) -> None:
        with pytest.raises(TypeError, match=rf"no option '{keyword}'.*backend_options={{\.\.\.}}"):
            GradCAM(model, **{keyword: "last"})

    def test_arguments_that_do_not_fit_the_constructor(self, model: Any) -> None:
        with pytest.raises(InvalidTypeError, match=r"GradCAM: missing a required argument: 'model'"):
            GradCAM()
        with pytest.raises(InvalidTypeError, match="GradCAM: too many positional arguments"):
            GradCAM(model, "features", "score-cam")

    def test_options_for_an_adapter_come_when_it_is_made(self, model: Any) -> None:
        adapter = adapt_model(model, {"channels": "first"})
        assert GradCAM(adapter).adapter is adapter
        with pytest.raises(TypeError, match="already has its options: leave channels out"):
            GradCAM(adapter, backend_options={"channels": "first"})


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

    def test_it_has_no_hash(self, model: Any, shapes: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(GradCAM(model)(shapes["images"][:1]))


class TestExplainersAsValues:
    """Constructor arguments can be listed, shown, compared, copied and stored."""

    def cheap(self, name: str, model: Any, **options: Any) -> Any:
        return EXPLAINERS[name](model, "features", batch_size=8, **CHEAP.get(name, {}), **options)

    @pytest.mark.parametrize("name", OWN)
    def test_arguments_are_listed_with_their_defaults(self, model: Any, name: str) -> None:
        listed = EXPLAINERS[name](model).get_params()
        assert list(listed)[:2] == ["model", "layer"]
        assert listed["model"] is model
        assert listed["layer"] is None
        shared = {"task": "multiclass", "output_kind": "logits", "batch_size": "auto", "backend_options": {}}
        assert {name: listed[name] for name in shared} == shared
        assert listed["baseline"] == EXPLAINERS[name].option_defaults["baseline"]
        for argument, default in own_parameters(EXPLAINERS[name]).items():
            assert listed[argument] == default
        budgeted = name in ("score-cam", "ss-cam", "is-cam", "fusion-cam", "union-cam")
        assert ("budget" in listed) == ("tolerance" in listed) == budgeted

    @pytest.mark.parametrize("name", OWN)
    def test_arguments_make_an_equal_explainer(self, model: Any, shapes: dict[str, Any], name: str) -> None:
        explainer = self.cheap(name, model)
        listed = explainer.get_params()
        assert listed["layer"] == "features"
        assert listed["batch_size"] == 8
        assert listed | CHEAP.get(name, {}) == listed
        again = EXPLAINERS[name](**listed)
        assert again == explainer
        images, target = shapes["images"][:1], shapes["target"][:1]
        np.testing.assert_array_equal(again(images, target).maps, explainer(images, target).maps)

    @pytest.mark.parametrize("name", OWN)
    def test_words(self, model: Any, name: str) -> None:
        method = EXPLAINERS[name]
        assert repr(method(model)) == f"{method.__name__}(Shapes)"
        given = repr(
            method(model, model.features, baseline=np.zeros(3, np.float32), backend_options={"channels": "first"})
        )
        words = "layer=<Sequential>, baseline=<3 float32>, backend_options={'channels': 'first'}"
        assert given == f"{method.__name__}(Shapes, {words})"

    def test_arguments_make_the_same_parts(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, "features", region="group-cam", batch_size=8)
        again = FusionCAM(**cam.get_params())
        assert again == cam
        images, target = shapes["images"][:1], shapes["target"][:1]
        np.testing.assert_array_equal(again(images, target).maps, cam(images, target).maps)

    def test_words_of_parts(self, model: Any) -> None:
        cam = FusionCAM(model, ["features.7", "features"], region=ScoreCAM(model, budget=8), percentile=5)
        assert repr(cam) == "FusionCAM(Shapes, layer=['features.7', 'features'], region=<ScoreCAM>, percentile=5)"

    @pytest.mark.parametrize("name", OWN)
    def test_equality_and_hash(self, model: Any, shapes_weights: dict[str, Any], name: str) -> None:
        from torch_models import Shapes

        method = EXPLAINERS[name]
        explainer = method(model, "features")
        equal = [method(model, layer="features"), method(model, "features", task="multiclass", progress=None)]
        for each in equal:
            assert each == explainer
            assert hash(each) == hash(explainer)
        assert {explainer, *equal} == {explainer}
        others = [
            method(model),
            method(model, "features", batch_size=3),
            method(model, "features", baseline=np.zeros(3)),
            method(model, "features", baseline=np.ones(3)),
            method(Shapes(shapes_weights).eval(), "features"),
            EXPLAINERS["grad-cam" if name != "grad-cam" else "layer-cam"](model, "features"),
        ]
        assert all(each != explainer for each in others)
        assert len({explainer, *others}) == 1 + len(others)
        assert method(model, baseline=np.ones(3)) == method(model, baseline=np.ones(3)), "arrays by their values"
        assert explainer != name

    def test_equality_of_parts(self, model: Any) -> None:
        region = ScoreCAM(model, budget=8)
        assert FusionCAM(model, region=region) == FusionCAM(model, region=region)
        assert FusionCAM(model, region=region) == FusionCAM(model, region=ScoreCAM(model, budget=8))
        assert FusionCAM(model, region=region) != FusionCAM(model, region=ScoreCAM(model, budget=9))
        assert FusionCAM(model, region_options={"samples": 3}, region="ss-cam") == FusionCAM(
            model, region="ss-cam", region_options={"samples": 3}
        )

    @pytest.mark.parametrize("name", OWN)
    def test_copies(self, model: Any, shapes: dict[str, Any], name: str) -> None:
        explainer, images, target = self.cheap(name, model), shapes["images"][:1], shapes["target"][:1]
        expected = explainer(images, target).maps
        shallow = copy.copy(explainer)
        assert shallow is not explainer
        assert shallow == explainer
        assert shallow.get_params()["model"] is model
        deep = copy.deepcopy(explainer)
        assert deep != explainer, "a copy has a model of its own"
        for each in (shallow, deep, pickle.loads(pickle.dumps(explainer))):
            assert type(each) is type(explainer)
            assert each.get_params() | {"model": None} == explainer.get_params() | {"model": None}
            np.testing.assert_array_equal(each(images, target).maps, expected)

    def test_a_copy_forgets_the_default_layer(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = GradCAM(model)
        assert cam.layer_names is None
        cam(shapes["images"][:1])
        assert cam.layer_names == ("features",)
        assert copy.copy(cam).layer_names is None

    def test_parts_keep_one_model_between_them(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, "features", region=GroupCAM(model, "features", groups=4), batch_size=8)
        again = pickle.loads(pickle.dumps(cam))
        assert again.get_params()["region"].get_params()["model"] is again.get_params()["model"]
        images, target = shapes["images"][:1], shapes["target"][:1]
        np.testing.assert_array_equal(again(images, target).maps, cam(images, target).maps)


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
        # The layers share the pass of eight images and, where images are masked, the black one of each group of four.
        shared = 8 + 2 * method.needs_masks
        assert explanation.evaluations == sum(each.evaluations for each in single) - shared

    @pytest.mark.parametrize("method", [GradCAM, LayerCAM, EigenCAM])
    def test_they_share_one_pass(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        cam = method(model, self.LAYERS, batch_size=8)
        cam.layers(shapes["images"])  # what is measured of the layers is kept
        sizes = count_sizes(model)
        assert cam(shapes["images"], shapes["target"]).evaluations == 8
        assert sizes == [8]
        assert cam.layer_names == self.LAYERS

    def test_masked_ones_share_the_pass_and_the_black_image(self, model: Any, shapes: dict[str, Any]) -> None:
        live = 0
        for layer in self.LAYERS:
            captured = adapt_model(model).capture(torch.from_numpy(shapes["images"]), [layer], None, None).layers[layer]
            activations = captured.activations
            live += int((activations.amax(dim=(2, 3)) > activations.amin(dim=(2, 3))).sum())
        assert live < 8 * (48 + 48), "both layers cannot do without the black image"
        cam = ScoreCAM(model, self.LAYERS, batch_size=8)
        cam.layers(shapes["images"])  # what is measured of the layers is kept
        sizes = count_sizes(model)
        explanation = cam(shapes["images"], shapes["target"])
        assert explanation.evaluations == sum(sizes) == 8 + live + 1

    def test_layers_of_different_extent(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model, ["features.1", "features.9"])(shapes["images"], shapes["target"])
        assert explanation.maps.shape == (8, 48, 48)

    def test_unknown_combination(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"combine is one of 'mean', 'max', 'product'.* 'sum'"):
            GradCAM(model, self.LAYERS, combine="sum")


class TestWhatIsSaidToBeProbabilities:
    @staticmethod
    def model(ending: Any) -> Any:
        torch.manual_seed(0)
        conv, linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 3)
        return torch.nn.Sequential(conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear, ending)

    @pytest.mark.parametrize("method", [GradCAM, ScoreCAM])
    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_logits_are_refused(self, method: Any, task: Any) -> None:
        model, images = self.model(torch.nn.Softplus()), 9 * torch.rand(2, 3, 8, 8)
        with pytest.raises(ValueError, match=r"Expected probabilities, in \[0, 1\], .* got outputs .*'logits'"):
            method(model, "0", output_kind="probabilities", task=task)(images * 9, 0)

    def test_sigmoids_are_no_softmax(self) -> None:
        model, images = self.model(torch.nn.Sigmoid()), torch.rand(2, 3, 8, 8)
        with pytest.warns(
            fusioncam_core.EmptyMapWarning, match="do not add up to 1: they are .* off.*task='multilabel'"
        ):
            GradCAM(model, "0", output_kind="probabilities")(images, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ScoreCAM(model, "0", output_kind="probabilities", task="multilabel")(images, 0)
            ScoreCAM(self.model(torch.nn.Softmax(1)), "0", output_kind="probabilities")(images, 0)
