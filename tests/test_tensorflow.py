"""What is TensorFlow's own: the array words, pairs of functions, traces, placement."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, ScoreCAM, adapt_model, array_namespace
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.models.outputs import ClassScores
from libraries import framework

tf = framework("tensorflow")
from fusioncam_tensorflow import namespace as xp  # noqa: E402 - needs TensorFlow

# TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VALUES = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


class TestWords:
    @pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    def test_take_along_axis(self, axis: int, compiled: bool) -> None:
        order = np.argsort(VALUES, axis=axis)
        function = functools.partial(xp.take_along_axis, axis=axis)
        if compiled:
            function = tf.function(function, autograph=False)
        expected = np.sort(VALUES, axis=axis)
        np.testing.assert_array_equal(function(tf.constant(VALUES), tf.constant(order)), expected)

    @pytest.mark.parametrize(("source", "destination"), [(0, -1), (-1, 1), (2, 0), (1, 1), (-3, -2)])
    def test_moveaxis(self, source: int, destination: int) -> None:
        moved = xp.moveaxis(tf.constant(VALUES), source, destination)
        np.testing.assert_array_equal(moved, np.moveaxis(VALUES, source, destination))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ((8, 1, 12, 12), (12, 48)),
            ((48, 12), (8, 1, 12, 12)),
            ((4, 1, 2, 3), (1, 5, 3, 6)),
            ((7, 2, 3), (7, 3, 4)),
            ((2, 3), (3, 4)),
        ],
    )
    def test_matmul_broadcasts(self, first: tuple[int, ...], second: tuple[int, ...]) -> None:
        generator = np.random.default_rng(0)
        for _ in range(5):  # a kernel that writes out of bounds is not wrong each time
            left, right = (generator.random(shape, dtype=np.float32) for shape in (first, second))
            product = xp.matmul(tf.constant(left), tf.constant(right))
            np.testing.assert_allclose(product, left @ right, rtol=1e-5)

    def test_svd_has_the_order_of_the_standard(self) -> None:
        left, values, right = xp.linalg.svd(tf.constant(VALUES), full_matrices=False)
        assert (left.shape, values.shape, right.shape) == ((3, 4, 4), (3, 4), (3, 4, 5))
        np.testing.assert_allclose(left * values[:, None, :] @ right, VALUES, atol=1e-5)

    def test_argmax_and_sort(self) -> None:
        array = tf.constant(VALUES)
        places = xp.argmax(array, axis=1, keepdims=True)
        assert places.dtype == tf.int64
        np.testing.assert_array_equal(places, VALUES.argmax(axis=1, keepdims=True))
        np.testing.assert_array_equal(xp.sort(array, axis=0, descending=True), np.sort(VALUES, axis=0)[::-1])

    @pytest.mark.parametrize(
        ("dtype", "kinds"),
        [
            ("bool", {"bool"}),
            ("int64", {"integral", "numeric"}),
            ("float16", {"real floating", "numeric"}),
            ("bfloat16", {"real floating", "numeric"}),
            ("complex64", {"complex floating", "numeric"}),
        ],
    )
    def test_kinds_of_dtypes(self, dtype: str, kinds: set[str]) -> None:
        known = ("bool", "integral", "real floating", "complex floating", "numeric")
        assert {kind for kind in known if xp.isdtype(tf.as_dtype(dtype), kind)} == kinds
        assert xp.isdtype(tf.as_dtype(dtype), ("bool", "numeric"))

    def test_limits_of_bfloat16(self) -> None:
        assert float(xp.finfo(tf.bfloat16).eps) == 2**-7

    def test_asarray_converts(self) -> None:
        assert xp.asarray([1, 2], dtype=tf.float32).dtype == tf.float32
        assert xp.asarray(tf.constant([1.5]), dtype=tf.int32).numpy().tolist() == [1]

    def test_constants_in_a_function(self) -> None:
        @tf.function(autograph=False)
        def double(values: Any) -> Any:
            assert xp.is_traced(values)
            return values * xp.constant_like(np.full(3, 2.0), values)

        assert not xp.is_traced(tf.constant(1.0))
        assert double(tf.constant([1.0, 2, 3])).numpy().tolist() == [2, 4, 6]

    def test_tensors_have_a_namespace_and_variables_are_no_arrays(self) -> None:
        assert array_namespace(tf.constant(VALUES)) is xp
        with pytest.raises(TypeError, match="Expected an array, got a "):
            array_namespace(tf.Variable(VALUES))


KERNEL = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32))
IMAGES = np.random.default_rng(0).random((3, 8, 8, 3), dtype=np.float32)


TENSORFLOW = {"framework": "tensorflow"}


def features(images: Any) -> Any:
    return tf.nn.relu(tf.nn.conv2d(images, KERNEL, strides=1, padding="SAME"))


def head(activations: Any) -> Any:
    return tf.reduce_mean(activations, axis=(1, 2))


class TestPairs:
    def test_plain_functions_need_the_framework_said(self) -> None:
        assert adapt_model((features, head), TENSORFLOW).model_name == "(features, head)"
        with pytest.raises(TypeError, match=r"No plugin adapts a model of type builtins\.tuple"):
            adapt_model((features, head))

    def test_tensorflow_in_one_of_them_says_it(self) -> None:
        class Module(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                self.kernel = tf.Variable(KERNEL)

            def features(self, images: Any) -> Any:
                return tf.nn.relu(tf.nn.conv2d(images, self.kernel, strides=1, padding="SAME"))

        def scaled(scale: Any, activations: Any) -> Any:
            return scale * head(activations)

        expected = to_numpy(GradCAM((features, head), backend_options=TENSORFLOW)(IMAGES, 1).maps)
        bound = functools.partial(scaled, tf.constant(2.0))
        for pair in ((tf.function(features), head), (Module().features, head), (features, bound)):
            np.testing.assert_allclose(to_numpy(GradCAM(pair)(IMAGES, 1).maps), expected, atol=1e-6)

    def test_module_by_itself(self) -> None:
        with pytest.raises(TypeError, match=r"A tf\.Module has no layers .* pair \(features, head\), got a Module"):
            adapt_model(tf.Module())

    def test_one_layer_only(self) -> None:
        adapter = adapt_model((features, head), TENSORFLOW)
        assert [adapter.find(name) for name in ("features", "features#0")] == ["features", "features#0"]
        for other in ("head", features):
            with pytest.raises(ValueError, match=r"\(features, head\) has no layer .* Nearest names: 'features'"):
                adapter.find(other)
        with pytest.raises(ValueError, match=r"'features' of \(features, head\) ran 1 time.* got 'features#1'"):
            adapter.find("features#1")

    def test_the_layer_by_both_of_its_names(self) -> None:
        adapter = adapt_model((features, head), TENSORFLOW)
        targets = tf.constant([[0, 2]] * 3)
        layers = adapter.capture(adapter.as_array(IMAGES), ["features", "features#0"], ClassScores(), targets).layers
        # The head is a mean over 8 x 8, and each class a channel.
        expected = np.zeros((2, 3, 8, 8, 4), dtype=np.float32)
        expected[0, ..., 0] = expected[1, ..., 2] = 1 / 64
        for name in ("features", "features#0"):
            np.testing.assert_allclose(layers[name].activations, features(IMAGES), atol=1e-6)
            np.testing.assert_allclose(layers[name].gradients, expected, atol=1e-8)
            assert layers[name].channel_axis == -1

    def test_channels_first(self) -> None:
        def first(images: Any) -> Any:
            return tf.transpose(features(tf.transpose(images, (0, 2, 3, 1))), (0, 3, 1, 2))

        def first_head(activations: Any) -> Any:
            return tf.reduce_mean(activations, axis=(2, 3))

        expected = FusionCAM((features, head), backend_options=TENSORFLOW)(IMAGES, 1)
        explanation = FusionCAM((tf.function(first), first_head), backend_options={"channels": "first"})(
            np.moveaxis(IMAGES, -1, 1), 1
        )
        np.testing.assert_allclose(to_numpy(explanation.maps), to_numpy(expected.maps), atol=1e-5)
        with pytest.raises(ValueError, match="channels is 'first' or 'last': got 'None'"):
            adapt_model((tf.function(first), first_head), {"channels": "None"})

    def test_features_that_are_no_activations(self) -> None:
        def nothing(images: Any) -> Any:
            return [features(images)]

        with pytest.raises(
            ValueError, match=r"first function of .* must return a floating-point tensor .*: got a list"
        ):
            GradCAM((nothing, head), backend_options=TENSORFLOW)(IMAGES)

    def test_features_without_space(self) -> None:
        with pytest.raises(ValueError, match="has an output with channels and more than one position"):
            GradCAM((tf.function(lambda images: head(features(images))), tf.identity))(IMAGES)

    def test_head_that_ignores_the_features(self) -> None:
        with pytest.raises(ValueError, match=r"\(features, <lambda>\) do not depend on the layer 'features'"):
            GradCAM((features, lambda activations: tf.zeros((3, 5))), backend_options=TENSORFLOW)(IMAGES, 1)

    def test_inputs_of_a_wrong_shape(self) -> None:
        with pytest.raises(ValueError, match=r"\(features, head\) cannot run on inputs of shape \(1, 8, 8, 2\)"):
            GradCAM((features, head), backend_options=TENSORFLOW)(np.zeros((1, 8, 8, 2), dtype=np.float32))

    @pytest.mark.parametrize("images", [[1.0], "images"])
    def test_images_that_are_no_array(self, images: Any) -> None:
        with pytest.raises(TypeError, match="Images are"):
            GradCAM((features, head), backend_options=TENSORFLOW)(images)

    def test_several_inputs(self) -> None:
        def shifted(images: Any, shift: Any) -> Any:
            return features(images) + tf.reshape(shift, (-1, 1, 1, 1))

        explainer = GradCAM((shifted, head), backend_options=TENSORFLOW, masked_input="images")
        explanation = explainer({"images": IMAGES, "shift": np.zeros(3, dtype=np.float32)}, 1)
        expected = GradCAM((features, head), backend_options=TENSORFLOW)(IMAGES, 1)
        np.testing.assert_array_equal(explanation.maps, expected.maps)


class TestTraces:
    """Masked images run compiled: a new trace for a new shape, and for nothing else."""

    @pytest.mark.parametrize("kind", ["keras", "pair"])
    def test_one_for_each_shape_of_a_chunk(self, kind: str) -> None:
        traced: list[tuple[int, ...]] = []

        def noted(images: Any) -> Any:
            if not tf.executing_eagerly():
                traced.append(tuple(images.shape))
            return features(images)

        if kind == "keras":
            cam = FusionCAM(_keras_model(noted), batch_size=4)
        else:
            cam = FusionCAM((noted, head), batch_size=4, backend_options=TENSORFLOW)
        cam(IMAGES, 1)
        # Twelve maps four at a time; the black image by itself.
        assert sorted(traced) == [(1, 8, 8, 3), (4, 8, 8, 3)]
        cam(IMAGES[::-1].copy(), [2, 0, 3])
        assert len(traced) == 2
        cam(IMAGES[:2] + 1, 0)  # two masks at once, which three images never gave
        assert traced[2:] == [(2, 8, 8, 3)]

    def test_a_model_without_a_value_for_its_batch_size(self) -> None:
        """Shapes in a trace are static: a model may calculate with them."""

        def flat(activations: Any) -> Any:
            return tf.reduce_mean(tf.reshape(activations, (activations.shape[0], 64, 4)), axis=1)

        expected = ScoreCAM((features, head), backend_options=TENSORFLOW, batch_size=3)(IMAGES, 1)
        explanation = ScoreCAM((features, flat), backend_options=TENSORFLOW, batch_size=3)(IMAGES, 1)
        np.testing.assert_allclose(to_numpy(explanation.maps), to_numpy(expected.maps), atol=1e-6)


def _keras_model(function: Any) -> Any:
    keras = _keras_on_tensorflow()

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.relu = keras.layers.ReLU()

        def call(self, images: Any) -> Any:
            return head(self.relu(function(images)))

    model = Model()
    model(IMAGES)
    return model


def _keras_on_tensorflow() -> Any:
    keras = framework("keras")
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras runs on something else in this process")
    return keras


class TestKeras:
    def test_what_runs_in_a_function_of_the_model_cannot_be_seen(self) -> None:
        keras = _keras_on_tensorflow()

        class Decorated(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="decorated")
                self.relu = keras.layers.ReLU(name="relu")

            @tf.function
            def call(self, images: Any) -> Any:
                return head(self.relu(features(images)))

        model = Decorated()
        model(IMAGES)
        with pytest.raises(ValueError, match="'relu' of decorated did not run on these inputs, or it runs inside a tf"):
            GradCAM(model, "relu")(IMAGES)

    def test_masked_images_through_xla(self) -> None:
        model = _keras_model(features)
        expected = ScoreCAM(model)(IMAGES, 1)
        explanation = ScoreCAM(model, backend_options={"jit_compile": True})(IMAGES, 1)
        np.testing.assert_allclose(to_numpy(explanation.maps), to_numpy(expected.maps), atol=1e-6)


PLACED = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from fusioncam_core import FusionCAM, adapt_model

with tf.device("CPU:1"):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
    )
explanation = FusionCAM(model)(np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32), 1)
assert explanation.maps.device.endswith("CPU:1"), explanation.maps.device
assert explanation.images.device.endswith("CPU:1"), explanation.images.device
assert explanation.parts["region"].device.endswith("CPU:1"), explanation.parts["region"].device

with tf.device("CPU:1"):
    kernel = tf.Variable(np.ones((3, 3, 3, 4), np.float32))


class Pair(tf.Module):
    def __init__(self):
        self.kernel = kernel

    def features(self, images):
        return tf.nn.conv2d(images, self.kernel, 1, "SAME")


explanation = FusionCAM((Pair().features, lambda values: tf.reduce_mean(values, (1, 2))))(
    np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32), 1
)
assert explanation.maps.device.endswith("CPU:1"), explanation.maps.device
# Afterwards the thread works where it did.
assert tf.constant(1.0).device.endswith("CPU:0"), tf.constant(1.0).device
"""


def test_everything_runs_where_the_model_is() -> None:
    _keras_on_tensorflow()
    subprocess.run([sys.executable, "-c", PLACED], check=True, timeout=120)
