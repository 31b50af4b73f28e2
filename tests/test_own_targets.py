"""A function an image: every map equals that of its image explained alone, in every framework."""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import (
    RISE,
    AblationCAM,
    ClassLogit,
    Contrast,
    Finer,
    FusionCAM,
    GradCAM,
    GroupCAM,
    InvalidTypeError,
    InvalidValueError,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
)
from fusioncam_core.models.function_scores import OwnFunctionScores, rows_of_outputs
from fusioncam_core.models.targets import read_targets
from fusioncam_core.results.terminal import photograph_report
from libraries import framework

# TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .* map is zero everywhere"),
]

GOLDEN = Path(fusioncam_core.__file__).parent / "testing"

METHODS: dict[str, Callable[..., Any]] = {
    "grad-cam": GradCAM,
    "score-cam": ScoreCAM,
    "fusion-cam": FusionCAM,
    "rise": functools.partial(RISE, masks=24, cells=4),
}

MORE: dict[str, Callable[..., Any]] = {
    "ablation-cam": AblationCAM,
    "group-cam": functools.partial(GroupCAM, groups=8),
    "smooth": functools.partial(SmoothGradCAMPlusPlus, samples=2),
    "fusion of explainers": lambda model, layer, **options: FusionCAM(
        model, layer, gradient=GradCAM(model, layer), region=functools.partial(RISE, masks=24)(model), **options
    ),
    "score-cam, blurred": functools.partial(ScoreCAM, baseline="blur"),
    "score-cam within a budget": functools.partial(ScoreCAM, budget=8),
}


def column(outputs: Any, index: int) -> Any:
    return outputs[:, index]


class Reader:
    def __init__(self, index: int):
        self.index = index

    def score(self, outputs: Any) -> Any:
        return outputs[:, self.index] * 2


FIRST = [functools.partial(column, index=2), lambda outputs: outputs[:, 1] - outputs[:, 0], Reader(3).score]
SECOND = [ClassLogit(0), Contrast(2, instead_of=4), ClassLogit(1)]


ROWS = list(map(list, zip(FIRST, SECOND, strict=True)))


def torch_model(weights: dict[str, Any]) -> tuple[Any, str]:
    framework("torch")
    from torch_models import Shapes

    return Shapes(weights).eval(), "features"


def weights_of_two_layers() -> tuple[np.ndarray, np.ndarray]:
    """Of a 3 x 3 convolution to 6 channels, and of 5 classes."""
    generator = np.random.Generator(np.random.PCG64(1))
    return tuple(generator.normal(size=size).astype(np.float32) for size in ((3, 3, 3, 6), (6, 5)))  # type: ignore[return-value]


def pair() -> tuple[Any, dict[str, Any]]:
    tf = framework("tensorflow")
    kernel, dense = map(tf.Variable, weights_of_two_layers())
    return (
        lambda images: tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME")),
        lambda features: tf.reduce_mean(features, axis=(1, 2)) @ dense,
    ), {"backend_options": {"framework": "tensorflow"}}


def keras_model() -> tuple[Any, dict[str, Any]]:
    keras = framework("keras")
    images = keras.Input((24, 24, 3))
    features = keras.layers.Conv2D(6, 3, 2, "same", activation="relu", use_bias=False, name="features")
    classes = keras.layers.Dense(5, use_bias=False)
    model = keras.Model(images, classes(keras.layers.GlobalAveragePooling2D()(features(images))))
    for layer, weights in zip((features, classes), weights_of_two_layers(), strict=True):
        layer.set_weights([weights])
    return model, {}


def jax_functions() -> tuple[Any, dict[str, Any]]:
    jax = framework("jax")
    kernel, dense = map(jax.numpy.asarray, weights_of_two_layers())

    def features(images: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=numbers))

    return (features, lambda values: values.mean(axis=(1, 2)) @ dense), {"backend_options": {"framework": "jax"}}


def arrays(name: str) -> dict[str, Any]:
    return dict(np.load(GOLDEN / f"{name}.npz"))


def three_images() -> np.ndarray:
    return np.ascontiguousarray(arrays("shapes_golden")["images"][:3, :, 12:36, 12:36])


def alone(cam: Any, images: Any, rows: list[list[Any]]) -> dict[str, np.ndarray]:
    """Of each image explained alone, by bare functions: (B, K) maps, scores and weights."""
    found = [[cam(image[None], function).numpy() for function in row] for image, row in zip(images, rows, strict=True)]
    picked = {"maps": lambda each: each.maps, "scores": lambda each: each.scores}
    for name in found[0][0].weights:
        picked[name] = lambda each, name=name: each.weights[name]
    return {name: np.array([[pick(each)[0] for each in row] for row in found]) for name, pick in picked.items()}


def assert_same(together: Any, expected: dict[str, np.ndarray], *, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(together.maps, expected["maps"], atol=atol)
    np.testing.assert_allclose(together.scores, expected["scores"], atol=1e-5)
    for name, values in together.weights.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", ["fusion-cam", "rise"])
@pytest.mark.parametrize("make", [pair, keras_model, jax_functions], ids=lambda each: each.__name__)
def test_equals_each_image_alone_in_every_framework(make: Callable[..., Any], method: str) -> None:
    model, options = make()
    images, functions = three_images().transpose(0, 2, 3, 1)[:2], FIRST[:2]  # each costs JAX compilations
    cam = METHODS[method](model, "features", **options)
    expected = alone(cam, images, [[function] for function in functions])
    together = cam(images, functions).numpy()
    assert together.maps.shape == (2, 24, 24)
    # XLA's and oneDNN's sums depend on how many images there are.
    assert_same(together, {name: values[:, 0] for name, values in expected.items()}, atol=2e-6)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_other_functions_do_not_compile_the_model_again() -> None:
    import jax.numpy as jnp

    traces = 0

    def model(parameters: Any, images: Any) -> Any:
        nonlocal traces
        traces += 1
        means = [images.mean(axis=(1, 2, 3)), images[:, :4].mean(axis=(1, 2, 3))]
        return {"logits": jnp.stack(means, axis=1) * parameters["scale"]}

    images = three_images().transpose(0, 2, 3, 1)
    cam = RISE((model, {"scale": jnp.ones(())}), masks=24, cells=4)

    def explained(factor: float) -> np.ndarray:
        scored = [lambda outputs, index=index: outputs["logits"][:, index] * factor for index in (0, 1, 0)]
        return cam(images, scored).numpy().scores

    first, before = explained(1), traces
    np.testing.assert_allclose(explained(2), first * 2, rtol=1e-5)
    assert traces == before


class TestOnPyTorch:
    @pytest.fixture
    def model(self, shapes_weights: dict[str, Any]) -> Any:
        """In float64: convolutions of float32 round otherwise with another number of images."""
        return torch_model(shapes_weights)[0].double()

    @pytest.mark.parametrize("method", [*METHODS, *MORE])
    def test_equals_each_image_alone(self, model: Any, method: str) -> None:
        images, cam = three_images(), {**METHODS, **MORE}[method](model, "features")
        expected = alone(cam, images, ROWS)
        assert_same(cam(images, ROWS).numpy(), expected)
        assert_same(cam(images, FIRST).numpy(), {name: values[:, 0] for name, values in expected.items()})

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_in_any_batches(self, model: Any, batch_size: int) -> None:
        images = three_images()
        cam = FusionCAM(model, "features", batch_size=batch_size)
        assert_same(cam(images, ROWS).numpy(), alone(FusionCAM(model, "features"), images, ROWS))

    def test_no_more_runs_of_the_model_than_for_one_function(self, model: Any) -> None:
        images = three_images()
        for method in METHODS.values():
            cam = method(model, "features")
            assert cam(images, ROWS).evaluations == cam(images, [FIRST[:2]] * 3).evaluations

    def test_of_compiled_shapes(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A device that wants fixed shapes runs every function on whole batches, padding included."""
        images = three_images()
        expected = alone(FusionCAM(model, "features"), images, ROWS)
        cam = FusionCAM(model, "features", batch_size=5)
        cam.adapter.execution = replace(cam.adapter.execution, fixed_shapes=True)
        assert_same(cam(images, ROWS).numpy(), expected)

    @pytest.mark.parametrize("method", ["grad-cam", "fusion-cam"])
    def test_of_a_model_with_a_batch_of_its_own(self, model: Any, method: str) -> None:
        import torch

        class InPairs(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, images: Any) -> Any:
                return self.inner(images.view(2, 3, 24, 24))

        images = three_images()
        expected = alone(METHODS[method](model, "features"), images, ROWS)
        assert_same(METHODS[method](InPairs(), "inner.features")(images, ROWS).numpy(), expected)

    def test_finds_a_layer_for_the_functions(self, model: Any) -> None:
        images = three_images()
        cam = GradCAM(model)
        assert cam(images, FIRST).layer == GradCAM(model)(images).layer

    def test_the_same_function_for_each_is_one_for_all(self, model: Any) -> None:
        images, function = three_images(), FIRST[0]
        listed = GradCAM(model, "features")(images, [function] * 3).numpy()
        np.testing.assert_array_equal(listed.maps, GradCAM(model, "features")(images, function).numpy().maps)
        assert read_targets([function] * 3, 3).shared
        assert not read_targets(FIRST, 3).shared

    @pytest.mark.parametrize("batch_size", [1, 2, "auto"])
    def test_of_a_source(self, model: Any, batch_size: Any) -> None:
        images = three_images()
        cam = GradCAM(model, "features", batch_size=batch_size)
        expected = alone(cam, images, ROWS)
        for targets, pick in ((ROWS, slice(None)), (FIRST, 0)):
            found = list(cam.explain_many(images, targets))
            np.testing.assert_allclose([each.numpy().maps[0] for each in found], expected["maps"][:, pick], atol=1e-6)
        with pytest.raises(InvalidValueError, match=r"got them for 2, .* A function for all images is given bare"):
            list(cam.explain_many(images, FIRST[:2]))

    def test_are_let_go(self, model: Any) -> None:
        class Held:
            def __call__(self, outputs: Any) -> Any:
                return outputs[:, 0]

        cam, images = FusionCAM(model, "features", region="rise", region_options={"masks": 4}), three_images()
        held = weakref.WeakSet()
        for _ in range(4):
            functions = [Held(), Held(), Held()]
            held.update(functions)
            cam(images, functions)
        del functions
        gc.collect()
        assert len(held) <= 3, "of the latest call alone"

    def test_names_stand_in_the_numbers(self, model: Any, tmp_path: Any) -> None:
        explanation = GradCAM(model, "features")(three_images(), [ClassLogit(2), FIRST[0], Contrast(1, 0)])
        assert explanation.target_names == (("ClassLogit(2)",), ("column",), ("Contrast(1, instead_of=0)",))
        assert [each.target_names for each in explanation] == [(row,) for row in explanation.target_names]
        explanation.save(tmp_path, class_names=[f"class {number}" for number in range(5)], pictures=False)
        written = json.loads((tmp_path / "image-1.json").read_text())["targets"][0]
        assert (written["class"], written["name"]) == (None, "column")
        assert GradCAM(model, "features")(three_images()).target_names == ()
        lines = list(photograph_report("x.jpg", next(iter(explanation)).numpy(), None, [tmp_path / "x.png"]))
        assert lines[2] == f"  ClassLogit(2): value {float(explanation.scores[0]):.3f}"


class TestOutputsOfOneImage:
    """A function sees what belongs to its own image, in whatever the model returns it."""

    ROWS = np.arange(6.0).reshape(3, 2)

    @pytest.mark.parametrize("numbers", [[1], [0, 2], [1, 2]])
    def test_rows(self, numbers: list[int]) -> None:
        outputs = {
            "logits": self.ROWS,
            "nested": (self.ROWS + 10, [self.ROWS + 20]),
            "shared": np.zeros(5),
            "number": 3,
            "listed": [{"boxes": np.zeros((count, 4))} for count in (0, 1, 3)],
            "lengths": [np.zeros((count, 6)) for count in (3, 1, 3)],
            "heads": [self.ROWS, self.ROWS + 1, self.ROWS + 2],
            "auxiliary": [{"logits": self.ROWS + number} for number in range(3)],
            "pair": (self.ROWS, np.zeros((1, 2)), np.zeros((2, 2))),
        }
        cut = rows_of_outputs(outputs, np.array(numbers), 3)
        np.testing.assert_array_equal(cut["logits"], self.ROWS[numbers])
        np.testing.assert_array_equal(cut["nested"][0], self.ROWS[numbers] + 10)
        np.testing.assert_array_equal(cut["nested"][1][0], self.ROWS[numbers] + 20)
        assert cut["shared"].shape == (5,)
        assert cut["number"] == 3
        assert [len(each["boxes"]) for each in cut["listed"]] == [[0, 1, 3][number] for number in numbers]
        assert [len(each) for each in cut["lengths"]] == [[3, 1, 3][number] for number in numbers]
        np.testing.assert_array_equal(cut["heads"][2], self.ROWS[numbers] + 2)
        np.testing.assert_array_equal(cut["auxiliary"][2]["logits"], self.ROWS[numbers] + 2)
        assert [each.shape for each in cut["pair"]] == [(len(numbers), 2), (1, 2), (2, 2)]

    def test_detections_of_as_many_boxes_as_images(self) -> None:
        outputs = [{"boxes": np.full((3, 4), number)} for number in range(3)]
        assert rows_of_outputs(outputs, np.array([1]), 3) == [outputs[1]]

    def test_attributes(self) -> None:
        class Outputs:
            def __init__(self, logits: Any):
                self.logits, self.steps = logits, 7

        cut = rows_of_outputs(Outputs(self.ROWS), np.array([2]), 3)
        np.testing.assert_array_equal(cut.logits, self.ROWS[2:])
        assert cut.steps == 7

    def test_all_of_them_are_given_whole(self) -> None:
        outputs = {"logits": self.ROWS}
        assert rows_of_outputs(outputs, np.arange(3), 3) is outputs


class TestRefused:
    def refused(self, targets: Any, batch: int = 3) -> str:
        with pytest.raises((InvalidValueError, InvalidTypeError)) as caught:
            read_targets(targets, batch)
        return str(caught.value)

    def test_another_number_than_images(self) -> None:
        said = self.refused(FIRST[:2])
        assert "Got 2 target functions for 3 images. A flat list is one function an image; " in said
        assert "[[first, second]] * 3" in said
        assert "Got 1 row of target functions for 3 images" in self.refused([FIRST])

    def test_rows_of_several_lengths(self) -> None:
        assert "same number of target functions, one at least: got 1 and 2" in self.refused([FIRST[:1], FIRST[:2]], 2)
        assert "one at least: got 0 and 1" in self.refused([FIRST[:1], []], 2)

    def test_flat_and_nested(self) -> None:
        assert "a flat list of functions or rows of them, got both" in self.refused([FIRST[0], [FIRST[1]]], 2)

    def test_classes_among_functions(self) -> None:
        said = self.refused([FIRST[0], 3], 2)
        assert "not both in one list: got 3 among functions. ClassLogit(3) is class 3 as a function" in said
        assert "got 'top5' among functions." in self.refused([[FIRST[0], "top5"]], 1)

    def test_what_a_function_returns(self, shapes_weights: dict[str, Any]) -> None:
        cam = GradCAM(torch_model(shapes_weights)[0], "features")
        with pytest.raises(
            InvalidValueError, match=r"lambda returned shape \(\) for 1 image, .*\(outputs\[:, 3\], not"
        ):
            cam(three_images(), [*FIRST[:2], lambda outputs: outputs.sum()])
        with pytest.raises(InvalidTypeError, match="lambda returned a float, and an array of one score an image"):
            cam(three_images(), [*FIRST[:2], lambda outputs: 1.0])

    @pytest.mark.parametrize("kind", [np.int64, np.uint8, bool, np.float32])
    def test_labels(self, shapes_weights: dict[str, Any], kind: Any) -> None:
        labels = np.eye(5)[[0, 2, 4]].astype(kind)
        with pytest.raises((InvalidTypeError, InvalidValueError), match=r"look like labels.*np\.flatnonzero\(row\)"):
            GradCAM(torch_model(shapes_weights)[0], "features")(three_images(), labels)

    def test_classes_zero_and_one_are_no_labels(self, shapes_weights: dict[str, Any]) -> None:
        cam = GradCAM(torch_model(shapes_weights)[0], "features")
        assert cam(three_images(), [[0, 1]] * 3).maps.shape == (3, 2, 24, 24)


class TestChosenOnThePlainImage:
    @pytest.mark.parametrize("method", ["grad-cam", "score-cam"])
    def test_equals_the_classes_named(self, shapes_weights: dict[str, Any], method: str) -> None:
        model, images = torch_model(shapes_weights)[0], three_images()
        cam = METHODS[method](model, "features")
        logits = cam(images, "top5").numpy()
        found = cam(images, Finer(count=2)).numpy()
        named = [Finer(int(row[0]), minus=(int(row[1]), int(row[2]))) for row in logits.targets]
        expected = cam(images, named).numpy()
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-6)
        assert found.target_names[0][0].startswith(f"Finer({named[0].index}, minus=")
        assert found.evaluations == expected.evaluations + 3

    def test_by_the_nearest_logits(self) -> None:
        outputs = np.array([[1.0, 5.0, 2.5, 2.0, -9.0]])
        assert Finer(count=2).on_plain(outputs) == Finer(1, (2, 3), count=2)
        assert Finer(3, count=2).on_plain(outputs) == Finer(3, (2, 0), count=2)
        assert Finer(minus=(1, 4)).on_plain(outputs) == Finer(1, (4,))
        with pytest.raises(InvalidValueError, match="5 others than class 1 cannot be chosen"):
            Finer(count=5).on_plain(outputs)
        with pytest.raises(InvalidTypeError, match="chooses its classes by the outputs for the plain image"):
            Finer()(outputs)


def test_own_scores_know_their_rows() -> None:
    scores = OwnFunctionScores(((column,), (Reader(1).score,)))
    assert scores.of_rows([1, 1, 0]).rows == (scores.rows[1], scores.rows[1], scores.rows[0])


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("method", ["score-cam", "rise"])
def test_of_nested_outputs_in_tensorflow(method: str) -> None:
    (features, head), options = pair()

    def several(values: Any) -> Any:
        classes = head(values)
        return {"classes": classes, "others": [classes * 2, None]}

    images, cam = three_images().transpose(0, 2, 3, 1), METHODS[method]
    functions = [lambda outputs, index=index: outputs["others"][0][:, index] for index in (1, 2, 1)]
    found = cam((features, several), "features", output="classes", **options)(images, functions).numpy()
    expected = cam((features, head), "features", **options)(images, [ClassLogit(1), ClassLogit(2), ClassLogit(1)])
    np.testing.assert_allclose(found.scores, expected.numpy().scores * 2, rtol=1e-5)
    if method == "rise":
        np.testing.assert_allclose(found.maps, expected.numpy().maps, atol=1e-5)
