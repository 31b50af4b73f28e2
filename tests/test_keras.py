"""What is Keras's own: finding layers, softmax endings, layouts, precision, several inputs; on any of its backends."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EigenCAM, FusionCAM, FusionCamWarning, GradCAM, LayerCAM, ScoreCAM, adapt_model
from fusioncam_core.arrays.namespaces import indices_like, to_numpy
from fusioncam_core.errors import EvidenceWarning
from fusioncam_core.models.inputs import prepare
from fusioncam_core.models.outputs import ClassScores
from fusioncam_core.stores.fingerprints import Fingerprints
from libraries import framework

keras = framework("keras")
from keras import layers  # noqa: E402

import keras_models as models  # noqa: E402 - needs Keras

BACKEND = keras.config.backend()
STEPS = 4
"""So often TensorFlow runs a pass step by step before it records it: fusioncam_tensorflow.recording.STEPS."""
# TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def images(shapes: dict[str, Any]) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(shapes["images"][:2], 1, -1))


def maps_of(model: Any, images: Any, layer: Any = None, **keywords: Any) -> np.ndarray:
    return to_numpy(GradCAM(model, layer, **keywords)(images, 1).maps)


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "modifier None"])
def test_raw_maps_of_the_layer_are_those_of_tf_keras_vis(relu: bool) -> None:
    """Its `Gradcam` and `Layercam` with `expand_cam=False`, `normalize_cam=False` and that `activation_modifier`.

    They sum, over the channels of the layer's output, the output times the gradients' means, or times the positive
    gradients. Here the gradients of a class are the weights of the classifier behind a flattened layer.
    """
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="fc"),
        ]
    )
    random = np.random.default_rng(3)
    model.set_weights([random.normal(size=each.shape).astype(np.float32) for each in model.get_weights()])
    images, targets = random.random((2, 8, 8, 3), dtype=np.float32), [2, 0]
    kernel, bias, head, _ = model.get_weights()
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    outputs = np.einsum("nijchw,hwco->nijo", windows, kernel) + bias
    gradients = head[:, targets].T.reshape(2, 6, 6, 4)
    sums = {
        GradCAM: np.sum(outputs * gradients.mean(axis=(1, 2), keepdims=True), axis=-1),
        LayerCAM: np.sum(outputs * np.maximum(gradients, 0), axis=-1),
    }
    for method, expected in sums.items():
        assert expected.min() < 0
        own = method(model, "conv", relu=relu, normalised=False, size="layer")(images, targets).numpy().maps
        # Of values up to 10, in float32.
        np.testing.assert_allclose(own, np.maximum(expected, 0) if relu else expected, atol=1e-5, rtol=1e-6)


def small(*more: Any, activation: str | None = None, name: str | None = None) -> Any:
    """8 x 8 images, one convolution, and a classifier of three classes; the same weights on every backend."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, activation, name="fc"),
            *more,
        ],
        name=name,
    )
    return filled(model)


def filled(model: Any) -> Any:
    """The model with random weights that do not depend on the backend."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def tiny() -> np.ndarray:
    return np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)


class TestFindingLayers:
    def test_the_keras_plugin_is_asked_before_the_frameworks(self) -> None:
        assert type(adapt_model(small())).__name__ == "KerasAdapter"

    @pytest.mark.parametrize("layer", ["backbone/relu4", "relu4"], ids=["path", "bare name"])
    def test_by_name_in_a_nested_model(self, layer: str) -> None:
        assert adapt_model(models.nested()).find(layer) == "backbone/relu4"

    def test_by_object(self) -> None:
        model = models.nested()
        layer = model.get_layer("backbone").get_layer("relu4")
        assert adapt_model(model).find(layer) == "backbone/relu4"

    def test_object_of_another_model(self) -> None:
        with pytest.raises(ValueError, match="The ReLU given as layer is not a part of shapes"):
            adapt_model(models.nested()).find(models.functional().get_layer("relu4"))

    def test_end_of_a_path(self) -> None:
        outer = keras.Sequential([keras.Input(models.SIZE), models.nested()], name="outer")
        assert adapt_model(outer).find("backbone/relu4") == "shapes/backbone/relu4"

    def test_name_that_exists_twice_lists_both_paths(self) -> None:
        images = keras.Input((8, 8, 3))
        left, right = small(name="left")(images), small(name="right")(images)
        model = keras.Model(images, layers.Add(name="both")([left, right]), name="pair")
        with pytest.raises(ValueError, match="pair has 2 layers of the name 'conv': 'left/conv', 'right/conv'"):
            adapt_model(model).find("conv")
        assert adapt_model(model).find("right/conv") == "right/conv"

    def test_whole_path_wins_over_the_end_of_another(self) -> None:
        images = keras.Input((10, 10, 3))
        model = keras.Model(images, small(name="inner")(layers.Conv2D(3, 3, name="conv")(images)))
        assert adapt_model(model).find("conv") == "conv"

    def test_two_layers_of_one_path(self, tiny: np.ndarray) -> None:
        class Twins(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="twins")
                self.first = layers.Conv2D(2, 3, name="conv")
                self.second = layers.Conv2D(2, 3, name="conv")

            def call(self, images: Any) -> Any:
                return keras.ops.mean(self.second(self.first(images)), axis=(1, 2))

        model = Twins()
        model(tiny)
        adapter = adapt_model(model)
        with pytest.raises(
            ValueError, match=r"twins has 2 layers of the name 'conv': 'conv\[0\]', 'conv\[1\]'\. Give the whole path"
        ):
            adapter.find("conv")
        assert [layer.name for layer in GradCAM(model).layers(tiny)] == ["conv[0]", "conv[1]"]
        layers_by_name = {"conv[0]": model.first, "conv[1]": model.second}
        captured = adapter.capture(prepare(adapter, tiny, None), list(layers_by_name), None, None).layers
        values = tiny
        for name, layer in layers_by_name.items():
            assert adapter.find(name) == adapter.find(layer) == name
            values = layer(values)
            np.testing.assert_allclose(to_numpy(captured[name].activations), to_numpy(values), atol=1e-6)

    @pytest.mark.parametrize("make", [lambda: keras.Sequential([layers.Dense(2)], name="new"), models.Subclassed])
    def test_model_that_is_not_built(self, make: Any) -> None:
        with pytest.raises(ValueError, match="is not built: its layers have no variables yet"):
            adapt_model(make())

    def test_layer_that_does_not_run(self, tiny: np.ndarray) -> None:
        class Idle(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="idle")
                self.used = small()
                self.unused = layers.Conv2D(2, 3, name="unused")

            def call(self, images: Any) -> Any:
                return self.used(images)

        model = Idle()
        model.unused.build((None, 8, 8, 3))
        model(tiny)
        with pytest.raises(ValueError, match="The layer 'unused' of idle did not run on these inputs"):
            GradCAM(model, "unused")(tiny)

    def test_default_is_the_last_one_in_space_behind_normalisation_and_activation(self, tiny: np.ndarray) -> None:
        keras.utils.set_random_seed(0)  # some weights give a map that is zero, which warns
        images = keras.Input((8, 8, 3))
        values = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(images))
        values = layers.Dropout(0.5, name="dropout")(keras.ops.relu(values))
        model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(values)))
        cam = GradCAM(model)
        assert cam.layer_names is None, "it is found by a run"
        cam(tiny, 1)
        # An operation that is no layer can be explained, and dropout, which returns what it gets, need not be.
        assert cam.layer_names == (next(each.name for each in model.operations if each.name.startswith("relu")),)

    def test_layers_are_listed_in_the_order_they_run(self, tiny: np.ndarray) -> None:
        listed = GradCAM(small()).layers(tiny)
        assert [(each.name, each.kind, each.shape[1:], each.default) for each in listed] == [
            ("conv", "Conv2D", (6, 6, 4), True),
            ("pool", "GlobalAveragePooling2D", (4,), False),
            ("fc", "Dense", (3,), False),
        ]

    def test_nothing_in_space(self, tiny: np.ndarray) -> None:
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(3)], name="flat")
        with pytest.raises(ValueError, match="No layer of flat has an output with channels and more than one position"):
            GradCAM(model)(tiny)


class TestEndings:
    """A softmax or sigmoid at the end is looked behind; the model is not edited."""

    def softmax_ends(self) -> dict[str, Any]:
        images = keras.Input((8, 8, 3))
        operation = keras.Model(images, keras.ops.softmax(small()(images)))

        class Wrapped(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.inner = small(activation="softmax")

            def call(self, images: Any) -> Any:
                return self.inner(images)

        wrapped = Wrapped()
        wrapped(np.zeros((1, 8, 8, 3), dtype=np.float32))
        return {
            "dense": small(activation="softmax"),
            "activation": small(layers.Activation("softmax")),
            "softmax": small(layers.Softmax(axis=1)),
            "dropout": small(layers.Softmax(), layers.Dropout(0.5)),
            "operation": operation,
            "subclassed": wrapped,
        }

    @pytest.mark.parametrize("end", ["dense", "activation", "softmax", "dropout", "operation", "subclassed"])
    @pytest.mark.parametrize("output_kind", ["logits", "probabilities"])
    def test_softmax(self, tiny: np.ndarray, end: str, output_kind: Any) -> None:
        model, plain = self.softmax_ends()[end], small()
        plain.set_weights(model.get_weights())
        explanation = FusionCAM(model, output_kind=output_kind)(tiny).numpy()
        expected = FusionCAM(plain)(tiny).numpy()
        np.testing.assert_allclose(explanation.scores, expected.scores, atol=1e-6)
        np.testing.assert_allclose(explanation.class_probabilities, to_numpy(model(tiny)), atol=1e-6)
        np.testing.assert_allclose(explanation.maps, expected.maps, atol=1e-5)

    def test_one_sigmoid(self, tiny: np.ndarray) -> None:
        model = small(layers.Dense(1, "sigmoid"))
        explanation = GradCAM(model, task="binary")(tiny, 1).numpy()
        positive = to_numpy(model(tiny))[:, 0]
        np.testing.assert_allclose(
            explanation.class_probabilities, np.stack([1 - positive, positive], axis=1), atol=1e-6
        )
        np.testing.assert_allclose(explanation.scores, np.log(positive / (1 - positive)), atol=1e-5)

    def test_a_sigmoid_for_each_class(self, tiny: np.ndarray) -> None:
        model = small(activation="sigmoid")
        explanation = ScoreCAM(model, task="multilabel")(tiny, [[0, 2], [0, 2]]).numpy()
        np.testing.assert_allclose(explanation.probabilities, to_numpy(model(tiny))[:, [0, 2]], atol=1e-6)

    @pytest.mark.parametrize("units", [1, 3])
    def test_sigmoid_is_no_task_for_softmax(self, tiny: np.ndarray, units: int) -> None:
        with pytest.raises(ValueError, match=r"ends in a sigmoid.*Say task='binary'.* or task='multilabel'"):
            GradCAM(small(layers.Dense(units, "sigmoid")))(tiny)

    @pytest.mark.parametrize("task", ["multilabel", "binary"])
    def test_softmax_is_one_task(self, tiny: np.ndarray, task: Any) -> None:
        with pytest.raises(ValueError, match=r"ends in a softmax.*Say task='multiclass'"):
            GradCAM(small(activation="softmax"), task=task)(tiny)

    def test_softmax_out_of_reach_is_pointed_out(self, tiny: np.ndarray) -> None:
        class Hidden(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="hidden")
                self.inner = small()

            def call(self, images: Any) -> Any:
                return keras.ops.softmax(self.inner(images) / 2)  # no layer returns what goes into it

        model = Hidden()
        model(tiny)
        with pytest.warns(
            FusionCamWarning, match="outputs of hidden look like probabilities.*output_kind='probabilities'"
        ):
            GradCAM(model)(tiny)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FusionCamWarning)
            explanation = GradCAM(model, output_kind="probabilities")(tiny).numpy()
        np.testing.assert_allclose(explanation.class_probabilities, to_numpy(model(tiny)), atol=1e-6)

    def test_softmax_inside_is_no_ending(self, tiny: np.ndarray) -> None:
        model = small(layers.Softmax(), layers.Dense(4))
        explanation = GradCAM(model)(tiny).numpy()
        expected = to_numpy(model(tiny))
        np.testing.assert_allclose(explanation.scores, expected.max(axis=1), atol=1e-6)

    def test_one_of_several_outputs(self, tiny: np.ndarray) -> None:
        images = keras.Input((8, 8, 3))
        values = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="conv")(images))
        outputs = {"kind": layers.Dense(3, "softmax")(values), "size": layers.Dense(1, "sigmoid")(values)}
        model = filled(keras.Model(images, outputs))
        kind = ScoreCAM(model, output="kind")(tiny).numpy()
        np.testing.assert_allclose(kind.class_probabilities, to_numpy(model(tiny)["kind"]), atol=1e-6)
        size = ScoreCAM(model, output="size", task="binary")(tiny, 1).numpy()
        np.testing.assert_allclose(size.probabilities, to_numpy(model(tiny)["size"])[:, 0], atol=1e-6)
        with pytest.raises(TypeError, match="several outputs, 'kind', 'size'"):
            GradCAM(model)(tiny)


class TestRunning:
    def test_last_call_of_a_shared_layer_counts(self) -> None:
        convolution = layers.Conv2D(1, 1, use_bias=False, name="shared")
        images = keras.Input((2, 2, 1))
        values = convolution(convolution(images))
        outputs = layers.Dense(2, use_bias=False, name="fc")(layers.Flatten()(values))
        model = keras.Model(images, outputs)
        model.get_layer("shared").set_weights([np.full((1, 1, 1, 1), 3.0)])
        weights = np.arange(8.0).reshape(4, 2)
        model.get_layer("fc").set_weights([weights])
        adapter = adapt_model(model)
        inputs = prepare(adapter, np.array([1.0, 2, 3, 4], dtype=np.float32).reshape(1, 2, 2, 1), None)
        capture = adapter.capture(inputs, ["shared"], _first_class, None).layers["shared"]
        np.testing.assert_allclose(to_numpy(capture.activations).ravel(), [9, 18, 27, 36])
        np.testing.assert_allclose(to_numpy(capture.gradients).ravel(), weights[:, 0])
        replaced = adapter.forward_with(inputs, "shared", capture.activations * 2)
        np.testing.assert_allclose(to_numpy(replaced)[0], 2 * np.array([9, 18, 27, 36]) @ weights)

    @pytest.fixture
    def twice(self) -> Any:
        """A convolution that runs twice, with one between its calls that runs once."""
        images, shared = keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="shared")
        between = layers.Conv2D(3, 1, name="between")(keras.ops.relu(shared(images)))
        values = layers.GlobalAveragePooling2D(name="pool")(keras.ops.relu(shared(between)))
        return filled(keras.Model(images, layers.Dense(3, name="fc")(values), name="twice"))

    def test_several_layers_and_calls_in_one_pass(self, twice: Any, tiny: np.ndarray) -> None:
        shared, between, fc = (twice.get_layer(name) for name in ("shared", "between", "fc"))

        def behind_second(values: Any) -> Any:
            return fc(keras.ops.mean(keras.ops.relu(values), axis=(1, 2)))

        def behind_between(values: Any) -> Any:
            return behind_second(shared(values))

        def behind_first(values: Any) -> Any:
            return behind_between(between(keras.ops.relu(values)))

        first = to_numpy(shared(tiny))
        middle = to_numpy(between(np.maximum(first, 0)))
        second = to_numpy(shared(middle))
        by_hand = {
            "shared": (second, behind_second),
            "between": (middle, behind_between),
            "shared#0": (first, behind_first),
            "shared#1": (second, behind_second),
        }
        names, targets = list(by_hand), np.array([[0, 2], [1, 1]])
        adapter = adapt_model(twice)
        assert [adapter.find(name) for name in names] == names
        inputs = prepare(adapter, tiny, None)
        capture = adapter.capture(inputs, names, ClassScores(), indices_like(targets, inputs, adapter.namespace))
        assert list(capture.layers) == names
        np.testing.assert_allclose(to_numpy(capture.outputs), to_numpy(twice(tiny)), atol=1e-5)
        for name, (values, behind) in by_hand.items():
            layer = capture.layers[name]
            np.testing.assert_allclose(to_numpy(layer.activations), values, atol=1e-5, err_msg=name)
            for column in range(2):
                expected = _gradient(behind, values, targets[:, column])
                found = to_numpy(layer.gradients)[column]
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
        assert np.abs(to_numpy(capture.layers["shared#0"].gradients - capture.layers["shared#1"].gradients)).max() > 0.1

    def test_a_call_is_replaced(self, twice: Any, tiny: np.ndarray) -> None:
        adapter, shared = adapt_model(twice), twice.get_layer("shared")
        inputs = prepare(adapter, tiny, None)
        ones = adapter.as_array(np.ones((2, 8, 8, 3), dtype=np.float32))
        rest = shared(twice.get_layer("between")(ones))
        for call, values in ((0, rest), (1, ones)):
            expected = twice.get_layer("fc")(keras.ops.mean(keras.ops.relu(values), axis=(1, 2)))
            found = adapter.forward_with(inputs, f"shared#{call}", ones)
            np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-5)

    @pytest.mark.skipif(BACKEND != "jax", reason="a loop that JAX compiles")
    def test_a_layer_in_a_loop(self, tiny: np.ndarray) -> None:
        class Looping(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="looping")
                self.conv = layers.Conv2D(3, 3, padding="same", name="conv")
                self.relu = layers.ReLU(name="relu")
                self.head = layers.Dense(3, name="head")

            def call(self, images: Any) -> Any:
                values = keras.ops.fori_loop(0, 2, lambda _, values: self.conv(values), self.relu(images))
                return self.head(keras.ops.mean(values, axis=(1, 2)))

        model = Looping()
        model.conv.build(tiny.shape)
        model(tiny)
        with pytest.raises(ValueError, match="The layer 'conv' of looping runs inside a loop"):
            GradCAM(model, "conv")(tiny)
        assert tuple(GradCAM(model, "relu")(tiny, 1).maps.shape) == (2, 8, 8)

    def test_calls_are_counted(self, twice: Any, tiny: np.ndarray) -> None:
        listed = GradCAM(twice).layers(tiny)
        assert {each.name: each.calls for each in listed if each.name in ("shared", "between")} == {
            "shared": 2,
            "between": 1,
        }
        with pytest.raises(
            ValueError, match="'shared' of twice ran 2 times: expected a call from #0 to #1, got 'share"
        ):
            GradCAM(twice, "shared#2")(tiny)

    def test_layer_that_the_score_does_not_depend_on(self, tiny: np.ndarray) -> None:
        images = keras.Input((8, 8, 3))
        side = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="side")(images))
        main = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="main")(images)))
        model = keras.Model(images, [main, side], name="forked")
        if BACKEND == "jax":  # a traced gradient of zeros does not tell why it is zero
            with pytest.warns(FusionCamWarning, match="zero everywhere"):
                GradCAM(model, "side")(tiny)
        else:
            with pytest.raises(ValueError, match="scores of forked do not depend on the layer 'side'"):
                GradCAM(model, "side")(tiny)

    def test_random_layers_that_are_always_on_leave_their_seeds_alone(self, tiny: np.ndarray) -> None:
        class Noisy(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.norm = layers.BatchNormalization()
                self.dropout = layers.Dropout(0.5, seed=1)
                self.inner = small()

            def call(self, images: Any) -> Any:
                return self.inner(self.dropout(self.norm(images, training=True), training=True))

        model = Noisy()
        model(tiny)
        before = models.model_state(model)
        with pytest.warns(EvidenceWarning, match="change with the other images of its batch"):
            FusionCAM(model)(tiny, 1)
        _assert_equal(before, models.model_state(model))

    def test_losses_and_attributes_of_a_run_do_not_stay(self, tiny: np.ndarray) -> None:
        class Keeps(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.last = None
                self.inner = small(layers.ActivityRegularization(l2=0.1))

            def call(self, images: Any) -> Any:
                self.last = self.inner(images)
                self.add_loss(keras.ops.sum(self.last))
                return self.last

        model = Keeps()
        model(tiny)
        before, last, losses = (
            models.model_state(model),
            to_numpy(model.last),
            [to_numpy(each) for each in model.losses],
        )
        FusionCAM(model)(tiny, 1)
        _assert_equal(before, models.model_state(model))
        np.testing.assert_array_equal(to_numpy(model.last), last)
        np.testing.assert_allclose([to_numpy(each) for each in model.losses], losses)

    @pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's modules are layers where Keras runs on it")
    def test_modules_of_pytorch_are_put_back_into_training(self, tiny: np.ndarray) -> None:
        import torch

        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        pool = layers.GlobalAveragePooling2D(data_format="channels_first")
        model = keras.Sequential([layers.TorchModuleWrapper(module), pool, layers.Dense(3)])
        images = np.ascontiguousarray(np.moveaxis(tiny, -1, 1))
        model(images)
        module.train()
        average = module[1].running_mean.clone()
        explanation = FusionCAM(model, backend_options={"channels": "first"})(images, 1)
        assert explanation.layer == "torch_module_wrapper"
        assert module[1].training
        assert torch.equal(module[1].running_mean, average)

    def test_user_in_inference_mode(self, tiny: np.ndarray) -> None:
        if BACKEND != "torch":
            pytest.skip("a mode of PyTorch")
        import torch

        model = small()
        expected = maps_of(model, tiny)
        with torch.inference_mode():
            maps = maps_of(model, tiny)
        np.testing.assert_allclose(maps, expected, atol=1e-6)

    def test_training_changes_what_is_explained(self, tiny: np.ndarray) -> None:
        model = small()
        cam = ScoreCAM(model)
        before = to_numpy(cam(tiny, 1).scores)
        kernel, bias = model.get_layer("fc").get_weights()
        model.get_layer("fc").set_weights([2 * kernel, 2 * bias])
        np.testing.assert_allclose(to_numpy(cam(tiny, 1).scores), 2 * before, rtol=1e-5)

    def test_inputs_of_a_wrong_shape(self) -> None:
        with pytest.raises(ValueError, match=r"small cannot run on inputs of shape \(1, 3, 8, 8\) \(float32\): "):
            GradCAM(small(name="small"))(np.zeros((1, 3, 8, 8), dtype=np.float32))

    def test_a_single_image(self, tiny: np.ndarray) -> None:
        assert tuple(GradCAM(small())(tiny[0], 1).maps.shape) == (1, 8, 8)

    @pytest.mark.parametrize("options", [{"channel": "first"}, {"jit": True}])
    def test_unknown_option(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=f"The Keras on {BACKEND} backend has no option"):
            GradCAM(small(), backend_options=options)
        with pytest.raises(TypeError, match=r"GradCAM has no option .* goes into backend_options=\{"):
            GradCAM(small(), **options)

    def test_keras_on_what_does_not_differentiate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keras.config, "backend", lambda: "openvino")
        with pytest.raises(ValueError, match=r"'openvino', which does not differentiate\. Set KERAS_BACKEND to tens"):
            adapt_model(small())


class TestLayouts:
    def test_channels_first(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        models.need_channels_first()
        model = models.functional(size=(3, 48, 48), data_format="channels_first")
        models.load_shapes(model, shapes_weights)
        explanation = GradCAM(model, "relu4")(shapes["images"], shapes["target"])
        np.testing.assert_allclose(to_numpy(explanation.maps), shapes["grad_cam"], atol=1e-5)
        assert explanation.image_channel_axis == 1

    def test_layer_without_a_data_format_has_that_of_the_last_one_before_it(self, tiny: np.ndarray) -> None:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Permute((3, 1, 2)),
                layers.Activation("relu", name="before"),
                layers.Permute((2, 3, 1)),
                layers.Conv2D(4, 3, data_format="channels_last"),
                layers.Activation("relu", name="behind"),
                layers.GlobalAveragePooling2D(data_format="channels_last"),
                layers.Dense(3),
            ]
        )
        adapter = adapt_model(model)
        captured = adapter.capture(prepare(adapter, tiny, None), ["behind"], None, None).layers
        assert tuple(captured["behind"].activations.shape) == (2, 6, 6, 4)
        assert captured["behind"].channel_axis == -1

    def test_model_that_is_a_layer_has_that_of_its_last_one(self, tiny: np.ndarray) -> None:
        images = keras.Input((8, 8, 3))
        features = keras.Model(images, layers.ReLU()(layers.Conv2D(3, 3)(images)), name="features")
        head = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
        model = keras.Sequential([keras.Input((3, 8, 8)), layers.Permute((2, 3, 1)), features, *head])
        adapter = adapt_model(model, {"channels": "first"})
        capture = adapter.capture(prepare(adapter, np.moveaxis(tiny, -1, 1), None), ["features"], None, None)
        assert (adapter.input_channel_axis, capture.layers["features"].channel_axis) == (1, -1)

    def test_layers_are_listed_anew_for_images_of_another_size(self) -> None:
        images = keras.Input((None, None, 3))
        values = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(images))
        cam = GradCAM(keras.Model(images, layers.Dense(2)(values)))
        shapes = [cam.layers(np.zeros((1, side, side, 3), dtype=np.float32))[0].shape for side in (8, 10)]
        assert shapes == [(1, 6, 6, 4), (1, 8, 8, 4)]

    def test_channels_of_the_input_can_be_said(self, tiny: np.ndarray) -> None:
        model = keras.Sequential([keras.Input((3, 8, 8)), layers.Permute((2, 3, 1)), small()])
        images = np.ascontiguousarray(np.moveaxis(tiny, -1, 1))
        expected = FusionCAM(model.layers[-1], "conv")(tiny, 1)
        explanation = FusionCAM(model, "conv", backend_options={"channels": "first"})(images, 1)
        np.testing.assert_allclose(to_numpy(explanation.maps), to_numpy(expected.maps), atol=1e-5)
        with pytest.raises(ValueError, match="channels is 'first' or 'last': got 'middle'"):
            adapt_model(model, {"channels": "middle"})

    @pytest.mark.parametrize("axes", [1, 3])
    def test_rows_and_volumes(self, axes: int) -> None:
        convolution = {1: layers.Conv1D, 3: layers.Conv3D}[axes]
        pool = {1: layers.GlobalAveragePooling1D, 3: layers.GlobalAveragePooling3D}[axes]
        size = (8,) * axes
        model = keras.Sequential(
            [keras.Input((*size, 2)), convolution(4, 3, activation="relu"), pool(), layers.Dense(3)]
        )
        images = np.random.default_rng(0).random((2, *size, 2), dtype=np.float32)
        explanation = FusionCAM(model)(images, 1).numpy()
        assert explanation.maps.shape == (2, *size)
        np.testing.assert_allclose(explanation.parts["region"].reshape(2, -1).max(axis=1), 1, atol=1e-6)


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
    def test_maps_are_float32_and_near(
        self, images: np.ndarray, shapes: dict[str, Any], shapes_weights: dict[str, Any], policy: str
    ) -> None:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model = models.load_shapes(models.sequential(activation="softmax"), shapes_weights)
        finally:
            keras.config.set_dtype_policy(before)
        explanation = FusionCAM(model, "relu4")(images, shapes["target"][:2])
        assert explanation.maps.dtype == GradCAM(small()).adapter.namespace.float32
        # Eight bits of a number's fraction are left in bfloat16, eleven in float16.
        atol = 0.01 if "float16" in policy and "b" not in policy else 0.05
        for part, name in (("gradient", "grad_cam"), ("region", "region_map")):
            np.testing.assert_allclose(to_numpy(explanation.parts[part]), shapes[name][:2], atol=atol)


class TestSeveralInputs:
    def model(self, structure: str) -> Any:
        """Images, and a number for each that is added to the first class's logit."""
        images, shift = keras.Input((8, 8, 3), name="images"), keras.Input((1,), name="shift")
        inner = small()
        first_only = layers.Dense(3, use_bias=False, name="first_only")
        outputs = layers.Add()([inner(images), first_only(shift)])
        first_only.set_weights([np.array([[1.0, 0, 0]])])
        inputs = {"images": images, "shift": shift} if structure == "dict" else [images, shift]
        return keras.Model(inputs, outputs), inner

    @pytest.mark.parametrize("structure", ["dict", "list"])
    def test_one_of_them_is_explained(self, tiny: np.ndarray, structure: str) -> None:
        model, inner = self.model(structure)
        shift = np.array([[5.0], [7.0]], dtype=np.float32)
        inputs = {"images": tiny, "shift": shift} if structure == "dict" else [tiny, shift]
        explanation = FusionCAM(model, "conv", masked_input="images" if structure == "dict" else 0)(inputs, 0)
        plain = FusionCAM(inner, "conv")(tiny, 0)
        np.testing.assert_allclose(to_numpy(explanation.scores), to_numpy(plain.scores) + shift[:, 0], atol=1e-5)
        np.testing.assert_allclose(to_numpy(explanation.parts["region"]), to_numpy(plain.parts["region"]), atol=1e-4)

    def test_a_single_one_by_name(self, tiny: np.ndarray) -> None:
        images, inner = keras.Input((8, 8, 3), name="images"), small()
        model = keras.Model({"images": images}, inner(images))
        np.testing.assert_allclose(maps_of(model, tiny), maps_of(inner, tiny), atol=1e-6)

    def test_arguments_of_a_subclass(self, tiny: np.ndarray) -> None:
        class TwoArguments(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.inner = small()

            def call(self, images: Any, shift: Any) -> Any:
                return self.inner(images) + shift

        model, shift = TwoArguments(), np.ones((2, 3), dtype=np.float32)
        model(tiny, shift)
        by_name = GradCAM(model, masked_input="images")({"images": tiny, "shift": shift}, 1)
        by_place = GradCAM(model, masked_input=0)((tiny, shift), 1)
        expected = maps_of(model.inner, tiny)
        np.testing.assert_allclose(to_numpy(by_name.maps), expected, atol=1e-6)
        np.testing.assert_allclose(to_numpy(by_place.maps), expected, atol=1e-6)


class TestApplications:
    """Networks as people have them: alone, as a backbone in a Sequential, and in a subclass."""

    class Wrapper(keras.Model):
        def __init__(self, network: Any):
            super().__init__(name="wrapper")
            self.network = network

        def call(self, images: Any) -> Any:
            return self.network(images)

    # With random weights nothing speaks for some of the classes.
    @pytest.mark.filterwarnings("ignore:The grad-cam map is zero:fusioncam_core.FusionCamWarning")
    @pytest.mark.parametrize(
        ("make", "layer"),
        [
            (keras.applications.MobileNetV2, "out_relu"),
            pytest.param(keras.applications.ResNet50, "conv5_block3_out", marks=pytest.mark.slow),
        ],
        ids=["MobileNetV2", "ResNet50"],
    )
    def test_the_same_map_three_times(self, make: Any, layer: str) -> None:
        network = make(input_shape=(96, 96, 3), weights=None, classes=10)
        nested = keras.Sequential([keras.Input((96, 96, 3)), network])
        wrapped = self.Wrapper(network)
        images, targets = np.random.default_rng(0).random((1, 96, 96, 3), dtype=np.float32), [range(10)]
        wrapped(images)
        alone = to_numpy(GradCAM(network, layer)(images, targets).maps)
        assert alone.max() == 1
        for model in (nested, wrapped):
            cam = GradCAM(model)
            np.testing.assert_array_equal(to_numpy(cam(images, targets).maps), alone)
            assert cam.layer_names == (f"{network.name}/{layer}",)

    def test_the_same_region_map_three_times(self) -> None:
        network = models.functional(activation="softmax")
        nested, wrapped = keras.Sequential([keras.Input(models.SIZE), network]), self.Wrapper(network)
        images = np.random.default_rng(0).random((1, *models.SIZE), dtype=np.float32)
        wrapped(images)
        alone = to_numpy(FusionCAM(network)(images, 1).maps)
        for model in (nested, wrapped):
            np.testing.assert_allclose(to_numpy(FusionCAM(model)(images, 1).maps), alone, atol=1e-6)


def _gradient(function: Any, at: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Of the sum of each image's score for its class, by the framework's own means."""

    def score(values: Any) -> Any:
        return keras.ops.sum(function(values) * keras.ops.one_hot(classes, 3))

    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(score)(jax.numpy.asarray(at)))
    if BACKEND == "torch":
        import torch

        values = torch.tensor(at, requires_grad=True)
        return torch.autograd.grad(score(values), values)[0].numpy()
    import tensorflow as tf

    values = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(values)
        scored = score(values)
    return tape.gradient(scored, values).numpy()


def _first_class(outputs: Any, targets: Any) -> Any:
    return outputs[:, :1]


def _on_xla(model: Any) -> Any:
    pytest.skip("TensorFlow's CPU kernels pool channels-last images only")


def _assert_equal(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        else:
            assert after[name] == value, name


def test_scores_are_those_of_the_model(tiny: np.ndarray) -> None:
    model = small()
    adapter = adapt_model(model)
    outputs = ClassScores().logits(adapter.forward(prepare(adapter, tiny, None)))
    np.testing.assert_allclose(to_numpy(outputs), to_numpy(model(tiny)), atol=1e-6)


def test_example_of_a_transfer_model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from examples import transfer_learning_keras as example

    monkeypatch.setattr(example, "train", lambda model: None)
    assert example.main(["--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert "of the map on 9% of the image" in capsys.readouterr().out


def test_the_product_of_the_maps_of_two_layers(tiny: np.ndarray) -> None:
    """A word of namespaces that TensorFlow's lacked."""
    model = filled(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
                layers.Conv2D(4, 3, padding="same", activation="relu", name="second"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
            ]
        )
    )
    names = ["first", "second"]
    product = np.prod([to_numpy(GradCAM(model, name)(tiny, 1).maps) for name in names], axis=0)
    low, high = (limit(product, axis=(1, 2), keepdims=True) for limit in (np.min, np.max))
    united = to_numpy(GradCAM(model, names, combine="product")(tiny, 1).maps)
    np.testing.assert_allclose(united, (product - low) / (high - low), atol=1e-5)


class TestFingerprints:
    """By which an evaluation knows a model again."""

    def net(self, mean: float = 0.0, activation: str = "relu") -> Any:
        parts = [layers.BatchNormalization(), layers.Conv2D(2, 3, activation=activation, kernel_initializer="ones")]
        model = keras.Sequential([keras.Input((4, 4, 3)), *parts])
        parts[0].moving_mean.assign(mean * np.ones(3))
        return model

    def test_equal_models_have_equal_ones(self) -> None:
        nets = [self.net(), self.net(), self.net(mean=1e-4), self.net(activation="gelu")]
        words = [Fingerprints().model(adapt_model(each)) for each in nets]
        assert words[0] == words[1]
        assert len(set(words)) == 3


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone runs step by step in Python")
class TestRecurrentOnTensorFlow:
    @staticmethod
    def model(steps: int = 40) -> Any:
        keras.utils.set_random_seed(0)
        kept = [layers.Conv1D(4, 3, padding="same", name="conv"), layers.LSTM(5), layers.Dense(3)]
        return keras.Sequential([keras.Input((steps, 2)), *kept])

    def test_steps_run_in_a_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The cell is called to trace it, and not for each step: 1,000 of them took four seconds a call."""
        calls = []
        call = layers.LSTMCell.call

        def counted(*arguments: Any, **keywords: Any) -> Any:
            calls.append(1)
            return call(*arguments, **keywords)

        model, signals = self.model(), np.random.default_rng(0).random((2, 40, 2), dtype=np.float32)
        monkeypatch.setattr(layers.LSTMCell, "call", counted)
        cam = GradCAM(model, "conv")
        cam(signals)
        traced = len(calls)
        cam(signals)
        assert len(calls) == traced < 40

    def test_the_gradients_are_those_of_a_tape(self) -> None:
        import tensorflow as tf

        model, signals = self.model(), np.random.default_rng(1).random((2, 40, 2), dtype=np.float32)
        activations = model.layers[0](signals)
        with tf.GradientTape() as tape:
            tape.watch(activations)
            score = tf.reduce_sum(model.layers[2](model.layers[1](activations))[:, 1])
        weights = tf.reduce_mean(tape.gradient(score, activations), axis=1, keepdims=True)
        expected = np.maximum(to_numpy(tf.reduce_sum(weights * activations, axis=2)), 0)
        found = GradCAM(model, "conv", normalised=False, size="layer")(signals, 1).maps
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-6)
        scored = GradCAM(model, "conv", normalised=False, size="layer")(signals, lambda outputs: outputs[:, 1]).maps
        np.testing.assert_allclose(to_numpy(scored), expected, atol=1e-6)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many images there were each time that Python ran a layer of Keras', `Rescaling`; None for any number."""
    found: list[int | None] = []
    call = layers.Rescaling.call

    def counted(self: Any, values: Any) -> Any:
        found.append(values.shape[0])
        return call(self, values)

    monkeypatch.setattr(layers.Rescaling, "call", counted)
    return found


class OfAUser(layers.Layer):
    """Multiplies by what it has been told in one of the ways in which layers are."""

    def __init__(self, way: str):
        super().__init__()
        self.factor, self._factor, self.factors, self.named = 1.0, 1.0, [1.0], {"factor": 1.0}
        self._way = way

    def call(self, values: Any) -> Any:
        ways = {"public": self.factor, "private": self._factor, "list": self.factors[0], "dict": self.named["factor"]}
        return values * ways[self._way]

    def tell(self, factor: float) -> None:
        self.factor = self._factor = self.factors[0] = self.named["factor"] = factor

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def squeeze(values: Any) -> Any:
    """The values without all axes of one."""
    return keras.ops.squeeze(values)


class InARow(keras.Model):
    """A model that does not say what it takes."""

    def __init__(self, row: list[Any]):
        super().__init__()
        self.row = row

    def call(self, values: Any) -> Any:
        for each in self.row:
            values = each(values)
        return values


class LooksAtValues(layers.Layer):
    """Does something else with bright images, by their values: nothing can record it."""

    def call(self, values: Any) -> Any:
        return values if float(keras.ops.max(values)) < 1e3 else values * 0

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs step by step, and records")
class TestRecordedOnTensorFlow:
    """Grad-CAM over a data set ran step by step: at half of the speed of the network itself, which is recorded."""

    @staticmethod
    def model(*between: Any, functional: bool = True) -> Any:
        keras.utils.set_random_seed(0)
        kept = [layers.Conv2D(4, 3, name="conv"), *between, layers.GlobalAveragePooling2D(), layers.Dense(3)]
        if functional:
            return keras.Sequential([keras.Input((8, 8, 3)), *kept])
        model = InARow(kept)
        model(np.zeros((2, 8, 8, 3), np.float32))
        return model

    @staticmethod
    def images(count: int) -> np.ndarray:
        return np.random.default_rng(count).random((count, 8, 8, 3), dtype=np.float32)

    @pytest.mark.parametrize("functional", [True, False])
    @pytest.mark.parametrize(
        "targets", [None, [2, 0], "top2", lambda outputs: outputs[:, 1]], ids=["one", "two", "top", "function"]
    )
    def test_the_maps_stay_the_same(self, functional: bool, targets: Any) -> None:
        cam = GradCAM(self.model(functional=functional), "conv", relu=False)
        several = [targets] * 5 if isinstance(targets, list) else targets
        first = to_numpy(cam(self.images(5), several).maps)
        for _ in range(STEPS + 1):
            found = to_numpy(cam(self.images(5), several).maps)
            np.testing.assert_allclose(found, first, atol=1e-6)
        alone = GradCAM(self.model(functional=functional), "conv", relu=False)
        for count in (1, 3):
            several = [targets] * count if isinstance(targets, list) else targets
            expected = to_numpy(alone(self.images(count), several).maps)
            np.testing.assert_allclose(to_numpy(cam(self.images(count), several).maps), expected, atol=1e-6)

    def test_one_graph_for_any_number_of_images(self, ran: list[int | None]) -> None:
        cam = GradCAM(self.model(layers.Rescaling(2.0)), "conv")
        for _ in range(STEPS):
            cam(self.images(2))
        ran.clear()
        for count in (2, 3, 4, 1, 2):
            cam(self.images(count))
        assert ran == [None]

    def test_masked_images_of_any_number_and_size_share_the_networks_graph(self, ran: list[int | None]) -> None:
        cam = FusionCAM(self.model(layers.Rescaling(2.0)), "conv")
        cam(self.images(2))
        assert ran.count(None) == 1
        ran.clear()
        cam(self.images(3))
        assert ran == [3]  # the capture, step by step

    def test_a_model_that_squeezes_is_recorded_for_each_number(self) -> None:
        """A graph for any number would not know how many axes the outputs have."""
        plain = self.model()
        outputs = layers.Lambda(squeeze, output_shape=(3,))(plain.outputs[0])
        cam, other = GradCAM(keras.Model(plain.inputs, outputs), "conv"), GradCAM(plain, "conv")
        for count in (2, 2, 2, 2, 2, 1, 3, 1):
            expected = to_numpy(other(self.images(count), 1).maps)
            np.testing.assert_allclose(to_numpy(cam(self.images(count), 1).maps), expected, atol=1e-6)

    def test_with_several_inputs_one_for_each_number(self, ran: list[int | None]) -> None:
        image, age = keras.Input((8, 8, 3)), keras.Input((1,))
        features = layers.Rescaling(2.0)(layers.Conv2D(4, 3, name="conv")(image))
        joined = layers.Concatenate()([layers.GlobalAveragePooling2D()(features), age])
        cam = GradCAM(keras.Model([image, age], layers.Dense(3)(joined)), "conv", masked_input=0)

        def explain(count: int) -> None:
            cam((self.images(count), np.ones((count, 1), np.float32)))

        for _ in range(STEPS):
            explain(2)
        ran.clear()
        for count in (2, 3, 2, 3):
            explain(count)
        assert ran == [2, 3]

    def test_methods_without_gradients_are_recorded_as_well(self, ran: list[int | None]) -> None:
        cam = EigenCAM(self.model(layers.Rescaling(2.0)), "conv")
        for _ in range(STEPS + 1):
            cam(self.images(2))
        ran.clear()
        cam(self.images(3))
        assert not ran

    def test_a_layer_that_looks_at_values_runs_step_by_step(self) -> None:
        cam = GradCAM(self.model(LooksAtValues()), "conv")
        plain = GradCAM(self.model(), "conv")
        for _ in range(STEPS + 4):
            np.testing.assert_array_equal(to_numpy(cam(self.images(3)).maps), to_numpy(plain(self.images(3)).maps))

    @pytest.mark.parametrize("way", ["public", "private", "list", "dict"])
    def test_what_a_users_layer_is_told_later_is_heard(self, way: str) -> None:
        """Whatever it goes by: of users' code nothing is recorded."""
        layer = OfAUser(way)
        cam = GradCAM(self.model(layer), "conv", relu=False, normalised=False)
        before = [to_numpy(cam(self.images(2), 0).maps) for _ in range(STEPS + 2)][-1]
        layer.tell(2.0)
        np.testing.assert_allclose(to_numpy(cam(self.images(2), 0).maps), 2 * before, rtol=1e-5)

    def test_what_a_users_function_goes_by_is_heard(self) -> None:
        factor = [1.0]
        layer = layers.Activation(lambda values: values * factor[0])
        cam = GradCAM(self.model(layer), "conv", relu=False, normalised=False)
        before = [to_numpy(cam(self.images(2), 0).maps) for _ in range(STEPS + 2)][-1]
        factor[0] = 2.0
        np.testing.assert_allclose(to_numpy(cam(self.images(2), 0).maps), 2 * before, rtol=1e-5)

    def test_what_a_layer_of_keras_is_told_later_is_heard(self, ran: list[int | None]) -> None:
        layer = layers.Rescaling(1.0)
        cam = GradCAM(self.model(layer), "conv", relu=False, normalised=False)
        before = [to_numpy(cam(self.images(2), 0).maps) for _ in range(STEPS + 2)][-1]
        ran.clear()
        cam(self.images(2), 0)
        assert not ran, "it is recorded"
        layer.scale = 2.0
        np.testing.assert_allclose(to_numpy(cam(self.images(2), 0).maps), 2 * before, rtol=1e-5)

    def test_wrong_images_are_refused_in_the_same_words(self) -> None:
        model = self.model()
        cam = GradCAM(model, "conv")
        for _ in range(STEPS + 2):
            cam(self.images(2))
        with pytest.raises(ValueError, match="cannot run") as refused:
            cam(self.images(2)[..., :2])
        with pytest.raises(ValueError, match="cannot run") as other:
            GradCAM(model, "conv")(self.images(2)[..., :2])
        assert str(refused.value) == str(other.value)
        assert to_numpy(cam(self.images(2)).maps).max() == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a warning of TensorFlow's")
def test_several_explainers_are_no_cause_for_warnings_of_retracing(
    images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    model = TestRecurrentOnTensorFlow.model()
    signals = np.random.default_rng(0).random((1, 40, 2), dtype=np.float32)
    for _ in range(7):
        ScoreCAM(model, "conv")(signals, 1)
        GradCAM(model, "conv")(signals, 1)
    model = TestRecordedOnTensorFlow.model()
    for _ in range(7):
        cam = GradCAM(model, "conv")
        for _ in range(STEPS + 1):
            cam(images[:, :8, :8])
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]
