"""What a model is told between two explanations is heard, whatever was compiled before: attributes and functions."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import libraries
from fusioncam_core import FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.models.told import LARGE, LONG, UNHEARD, heard

FACTORS = [1.0]
"""A global that a function names."""

METHODS: dict[str, Callable[..., Any]] = {
    "grad-cam": functools.partial(GradCAM, relu=False),
    "score-cam": ScoreCAM,
    "fusion-cam": functools.partial(FusionCAM, budget=4),
}

EACH = ["grad-cam", "score-cam", pytest.param("fusion-cam", marks=pytest.mark.slow)]

IMAGES = np.random.default_rng(0).random((2, 12, 12, 3), dtype=np.float32)


def explained_again(
    model: Any, layer: Any, method: str, tell: Callable[[], object], images: Any = IMAGES, **options: Any
) -> Any:
    """What is explained after the model is told something is what a new explainer explains, and not that of before.

    Returns:
        The explainer that was there before.
    """
    made = functools.partial(METHODS[method], model, layer, progress=False, **options)
    cam = made()
    before = [cam(images, 0).numpy() for _ in range(6)][-1]
    tell()
    after, expected = cam(images, 0).numpy(), made()(images, 0).numpy()
    np.testing.assert_allclose(after.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(after.maps, expected.maps, atol=1e-6)
    assert np.abs(after.scores - before.scores).max() > 1e-3
    return cam


class TestHeard:
    @pytest.mark.parametrize(
        "make",
        [
            lambda value: value,
            lambda value: [0, [value]],
            lambda value: (value, "a"),
            lambda value: {"a": [value]},
            lambda value: {value},
            lambda value: np.asarray([value]),
            lambda value: np.float32(value),
            lambda value: lambda: value,
            lambda value: lambda other=value: other,
            lambda value: lambda *, other=value: other,
            lambda value: functools.partial(print, [value]),
            lambda value: functools.partial(print, end=value),
        ],
    )
    def test_what_is_equal_and_what_is_not(self, make: Callable[[float], Any]) -> None:
        assert heard(make(1.0)) == heard(make(1.0))
        assert heard(make(1.0)) != heard(make(2.0))

    def test_a_global_that_a_function_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def function() -> float:
            return FACTORS[0]

        before = heard(function)
        assert heard(function) == before
        monkeypatch.setitem(globals(), "FACTORS", [2.0])
        assert heard(function) != before

    def test_a_global_that_is_named_in_a_comprehension(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def function() -> list[float]:
            return [FACTORS[0] * each for each in (1.0, 2.0)]

        before = heard(function)
        assert heard(function) == before
        monkeypatch.setitem(globals(), "FACTORS", [2.0])
        assert heard(function) != before

    def test_another_array_at_the_same_address(self) -> None:
        """Of an array that is gone the memory is soon another one's."""
        held = [np.zeros(LARGE)]
        before = heard(held)
        assert heard(held) == before
        for _ in range(20):
            held[0] = np.ones(LARGE)
            assert heard(held) != before

    def test_nothing_is_kept_alive(self) -> None:
        held = [np.zeros(LARGE)]
        gone = weakref.ref(held[0])
        before = heard([held, lambda: held])
        held.clear()
        gc.collect()
        assert gone() is None
        assert before != heard([held, lambda: held])

    def test_what_holds_itself(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        assert heard(endless) == heard(endless)

    def test_nothing_is_asked_for_what_it_lacks(self) -> None:
        class Asked:
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(name)

        lazy = Asked()
        assert heard(lazy) == UNHEARD
        function = lambda: lazy  # noqa: E731
        assert heard(function) == heard(function)

    def test_what_tells_nothing(self) -> None:
        assert heard(object()) == UNHEARD
        many = [0.0] * (LONG + 1)
        assert heard(many) == heard(list(many))
        assert heard(many) != heard(many[1:])


# --- Keras, on the backend that it runs on here


@pytest.fixture(scope="module")
def keras() -> Any:
    return libraries.framework("keras")


def keras_model(keras: Any, layer: Any, activation: str | None = None) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    found = keras.layers.Conv2D(6, 3, name="conv", activation="relu")(inputs)
    found = layer(keras.layers.GlobalAveragePooling2D()(found))
    return keras.Model(inputs, keras.layers.Dense(4, activation=activation, name="dense")(found))


def of_a_user(keras: Any, way: str) -> Any:
    """A layer that multiplies by what it has been told in one of the ways in which layers are."""

    class OfAUser(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.factor, self._factor, self._factors = 1.0, 1.0, [1.0]
            self._named, self._array = {"factor": [1.0]}, np.ones(6, dtype=np.float32)

        def call(self, values: Any) -> Any:
            ways = {
                "public": self.factor,
                "private": self._factor,
                "list": self._factors[0],
                "dict": self._named["factor"][0],
                "array": keras.ops.convert_to_tensor(self._array),
            }
            return values * ways[way]

        def tell(self, factor: float) -> None:
            if way == "public":
                self.factor = factor
            elif way == "private":
                self._factor = factor
            elif way == "list":
                self._factors[0] = factor
            elif way == "dict":
                self._named["factor"][0] = factor
            else:
                self._array *= factor

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    return OfAUser()


class TestKeras:
    @pytest.mark.parametrize("method", EACH)
    @pytest.mark.parametrize("way", ["public", "private", "list", "dict", "array"])
    def test_attributes_of_a_users_layer(self, keras: Any, way: str, method: str) -> None:
        layer = of_a_user(keras, way)
        explained_again(keras_model(keras, layer), "conv", method, lambda: layer.tell(-3.0))

    @pytest.mark.parametrize("method", EACH)
    def test_attributes_of_a_layer_of_keras(self, keras: Any, method: str) -> None:
        layer = keras.layers.Rescaling(1.0)
        explained_again(keras_model(keras, layer), "conv", method, lambda: setattr(layer, "scale", -3.0))

    @pytest.mark.parametrize("method", EACH)
    def test_what_a_layer_of_keras_has_learnt_by_adapting(self, keras: Any, method: str) -> None:
        """Its mean is an attribute that no variable holds."""
        layer = keras.layers.Normalization(axis=-1)
        values = np.random.default_rng(1).random((8, 6), dtype=np.float32)
        layer.adapt(values)
        explained_again(keras_model(keras, layer), "conv", method, lambda: layer.adapt(-3 * values + 1))

    @pytest.mark.parametrize("method", EACH)
    def test_what_a_function_closes_over(self, keras: Any, method: str) -> None:
        factors = [1.0]
        layer = keras.layers.Activation(lambda values: values * factors[0])
        explained_again(keras_model(keras, layer), "conv", method, lambda: factors.__setitem__(0, -3.0))

    @pytest.mark.parametrize("method", EACH)
    def test_a_global_that_a_function_names(self, keras: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = keras.layers.Activation(lambda values: values * FACTORS[0])
        explained_again(
            keras_model(keras, layer), "conv", method, lambda: monkeypatch.setitem(globals(), "FACTORS", [-3.0])
        )

    @pytest.mark.parametrize("method", EACH)
    def test_another_activation_at_the_end(self, keras: Any, method: str) -> None:
        """Logits were taken from what goes into the softmax."""
        model = keras_model(keras, keras.layers.Identity(), "softmax")
        last = model.get_layer("dense")
        explained_again(model, "conv", method, lambda: setattr(last, "activation", keras.activations.tanh))

    def test_what_stays_as_it_is_compiles_nothing_anew(self, keras: Any) -> None:
        layer = of_a_user(keras, "list")
        cam = ScoreCAM(keras_model(keras, layer), "conv", progress=False)
        for _ in range(2):
            cam(IMAGES, 0)
        assert cam.adapter.changes == 0
        layer.tell(2.0)
        for _ in range(2):
            cam(IMAGES, 0)
        assert cam.adapter.changes == 1

    def test_names_that_keras_counts_stay(self, keras: Any) -> None:
        METHODS["grad-cam"](keras_model(keras, of_a_user(keras, "list")), "conv")(IMAGES, 0)
        first = keras.layers.Layer().name
        METHODS["grad-cam"](keras_model(keras, of_a_user(keras, "list")), "conv")(IMAGES, 0)
        number = int(first.rpartition("_")[2]) if "_" in first else 0
        assert keras.layers.Layer().name == f"layer_{number + 1}"


# --- pairs of TensorFlow functions


class TestPairs:
    @pytest.mark.parametrize("method", EACH)
    @pytest.mark.parametrize("way", ["attribute", "list", "closure"])
    def test_what_the_head_goes_by(self, way: str, method: str) -> None:
        tf = libraries.framework("tensorflow")
        weights = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
        factors = [1.0]

        class Features(tf.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 6)).astype(np.float32)
                self.kernel = tf.Variable(kernel)

            def __call__(self, images: Any) -> Any:
                return tf.nn.relu(tf.nn.conv2d(images, self.kernel, 1, "VALID"))

        class Head(tf.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self._factor, self.factors = 1.0, [1.0]
                self.kernel = tf.Variable(weights)

            def __call__(self, activations: Any) -> Any:
                told = {"attribute": self._factor, "list": self.factors[0], "closure": factors[0]}[way]
                return tf.reduce_mean(activations, axis=(1, 2)) @ self.kernel * told

        head = Head()

        def tell() -> None:
            if way == "attribute":
                head._factor = 3.0
            else:
                (head.factors if way == "list" else factors)[0] = 3.0

        explained_again((Features(), head), None, method, tell)


# --- functions of JAX


class TestFunctions:
    @pytest.mark.parametrize("method", EACH)
    @pytest.mark.parametrize("way", ["list", "array", "global"])
    def test_what_the_head_goes_by(self, way: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its parameters may be what it closes over, too."""
        jax = libraries.framework("jax")
        random = np.random.default_rng(0)
        kernel, weights = random.standard_normal((3, 3, 3, 6)), random.standard_normal((6, 4))
        factors, parameters = [1.0], {"weights": jax.numpy.asarray(weights, dtype="float32")}
        kernel = jax.numpy.asarray(kernel, dtype="float32")

        def features(images: Any) -> Any:
            dimensions = ("NHWC", "HWIO", "NHWC")
            return jax.nn.relu(
                jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=dimensions)
            )

        def head(activations: Any) -> Any:
            factor = FACTORS[0] if way == "global" else factors[0]
            return activations.mean(axis=(1, 2)) @ parameters["weights"] * factor

        def tell() -> None:
            if way == "global":
                monkeypatch.setitem(globals(), "FACTORS", [3.0])
            elif way == "array":
                parameters["weights"] = 3 * parameters["weights"]
            else:
                factors[0] = 3.0

        explained_again((features, head), None, method, tell, backend_options={"framework": "jax"})

    def test_parameters_that_are_trained_meanwhile(self) -> None:
        """Those that a function closes over: in a loop each may lie where an earlier one did."""
        jax = libraries.framework("jax")
        parameters = {"weights": jax.numpy.asarray(np.random.default_rng(0).standard_normal((3, 4)), dtype="float32")}

        def features(images: Any) -> Any:
            return jax.nn.relu(images - 0.3)

        def head(activations: Any) -> Any:
            return activations.mean(axis=(1, 2)) @ parameters["weights"]

        def train() -> None:
            for _ in range(40):
                parameters["weights"] = parameters["weights"] * 1.05

        for _ in range(4):
            explained_again((features, head), None, "score-cam", train, backend_options={"framework": "jax"})

    @pytest.mark.parametrize("method", EACH)
    @pytest.mark.parametrize("what", ["array", "number", "one more"])
    def test_a_dict_of_parameters_that_is_written_to(self, what: str, method: str) -> None:
        """Of a pair with its parameters: arrays are no news, what else is in it is compiled in."""
        jax = libraries.framework("jax")
        random = np.random.default_rng(0)
        parameters: dict[str, Any] = {"bias": 0.3, "weights": [jax.numpy.asarray(random.standard_normal((3, 4)))]}
        from fusioncam_jax import tap

        def function(parameters: Any, images: Any) -> Any:
            features = tap("early", jax.nn.relu(images - parameters["bias"]))
            return features.mean(axis=(1, 2)) @ sum(parameters["weights"])

        def tell() -> None:
            if what == "number":
                parameters["bias"] = 0.6
            elif what == "array":
                parameters["weights"][0] = -parameters["weights"][0]
            else:
                parameters["weights"].append(jax.numpy.asarray(3 * random.standard_normal((3, 4))))

        cam = explained_again((function, parameters), "early", method, tell)
        assert cam.adapter.changes == (0 if what == "array" else 1)

    @pytest.mark.parametrize("method", EACH)
    def test_variables_of_linen_that_are_written_to(self, method: str) -> None:
        linen = pytest.importorskip("flax.linen")
        jax = libraries.framework("jax")
        module = linen.Sequential([linen.Conv(6, (3, 3)), linen.relu, lambda x: x.mean(axis=(1, 2)), linen.Dense(4)])
        variables = dict(module.init(jax.random.key(0), IMAGES))

        def tell() -> None:
            variables["params"] = jax.tree.map(lambda each: each[::-1], variables["params"])

        explained_again((module, variables), "layers_0", method, tell)

    @pytest.mark.parametrize("method", EACH)
    @pytest.mark.parametrize("what", ["layer", "function"])
    def test_a_list_in_a_module_of_equinox_that_is_written_to(self, what: str, method: str) -> None:
        equinox = pytest.importorskip("equinox")
        jax = libraries.framework("jax")
        keys = jax.random.split(jax.random.key(0), 3)

        class Network(equinox.Module):
            layers: list[Any]

            def __call__(self, image: Any) -> Any:
                for layer in self.layers[:-1]:
                    image = layer(image)
                return self.layers[-1](image.mean(axis=(1, 2)))

        convolution = equinox.nn.Conv2d(3, 6, 3, key=keys[0])
        model = Network([convolution, jax.nn.relu, equinox.nn.Linear(6, 4, key=keys[1])])

        def tell() -> None:
            if what == "layer":
                model.layers[2] = equinox.nn.Linear(6, 4, key=keys[2])
            else:
                model.layers[1] = jax.numpy.tanh

        explained_again(model, "layers[0]", method, tell, np.moveaxis(IMAGES, -1, 1))

    def test_functions_that_share_their_parameters_are_told_apart(self) -> None:
        """Each goes by something else; neither was told anything new."""
        jax = libraries.framework("jax")
        parameters = {"weights": jax.numpy.ones((3, 4))}
        from fusioncam_jax import tap

        def by(factor: float) -> Any:
            def function(parameters: Any, images: Any) -> Any:
                return tap("early", factor * images).mean(axis=(1, 2)) @ parameters["weights"]

            return function

        cams = [METHODS["grad-cam"]((by(factor), parameters), "early") for factor in (1.0, 2.0)]
        for _ in range(2):
            for cam in cams:
                cam(IMAGES, 0)
        assert [cam.adapter.changes for cam in cams] == [0, 0]

    def test_many_that_share_their_parameters(self) -> None:
        """Of the first it is no longer known what it was told: it is compiled anew."""
        from fusioncam_core.models.session import REMEMBERED, ModelSession

        session = ModelSession()
        for number in range(REMEMBERED + 1):
            session.hear([1], number)
        assert session.changes == 0
        session.hear([2], 0)
        assert session.changes == 1

    def test_what_the_function_itself_notes_is_no_news(self) -> None:
        """Such as how often it was traced: it would be compiled with every call."""
        jax = libraries.framework("jax")
        from fusioncam_jax import tap

        seen: list[int] = []

        def function(parameters: Any, images: Any) -> Any:
            seen.append(images.shape[0])
            return tap("early", images).mean(axis=(1, 2)) @ parameters

        cam = ScoreCAM((function, jax.numpy.ones((3, 4))), "early", progress=False)
        for _ in range(2):
            cam(IMAGES, 0)
        traced = len(seen)
        for _ in range(3):
            cam(IMAGES, 0)
        assert (len(seen), cam.adapter.changes) == (traced, 0)


# --- what was converted for an engine


class TestEngines:
    @pytest.mark.parametrize("way", ["_factor", "_factors", "_named", "_tensor"])
    def test_modules_of_pytorch(self, way: str) -> None:
        pytest.importorskip("openvino")
        torch = libraries.framework("torch")

        class OfAUser(torch.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self._factor, self._factors, self._named = 1.0, [1.0], {"factor": 1.0}
                self._tensor = torch.ones(6)

            def forward(self, values: Any) -> Any:
                self.last = values.detach()  # what a model keeps of a call is no news
                return values * self._factor * self._factors[0] * self._named["factor"] * self._tensor

        torch.manual_seed(0)
        pooled = (torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        user, images = OfAUser(), torch.from_numpy(np.moveaxis(IMAGES, -1, 1).copy())
        model = torch.nn.Sequential(*pooled, user, torch.nn.Linear(6, 4)).eval()
        cam = ScoreCAM(model, "1", engine="openvino", progress=False)
        before = [cam(images, 0).numpy() for _ in range(3)][-1]
        assert cam.adapter.changes == 0
        if way == "_factor":
            user._factor = -3.0
        elif way == "_tensor":
            user._tensor = -3.0 * user._tensor
        elif way == "_factors":
            user._factors[0] = -3.0
        else:
            user._named["factor"] = -3.0
        after, expected = cam(images, 0).numpy(), ScoreCAM(model, "1", progress=False)(images, 0).numpy()
        np.testing.assert_allclose(after.maps, expected.maps, atol=1e-5)
        assert np.abs(after.maps - before.maps).max() > 1e-3

    def test_static_attributes_of_flax(self) -> None:
        pytest.importorskip("openvino")
        pytest.importorskip("jax2onnx")
        nnx = libraries.framework("flax.nnx")

        class Network(nnx.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                keys = nnx.Rngs(0)
                self.conv, self.last = nnx.Conv(3, 6, (3, 3), rngs=keys), nnx.Linear(6, 4, rngs=keys)
                self._factor = 1.0

            def __call__(self, images: Any) -> Any:
                return self.last(nnx.relu(self.conv(images)).mean((1, 2)) * self._factor)

        model = Network()
        cam = ScoreCAM(model, "conv", engine="openvino", progress=False)
        before = [cam(IMAGES, 0).numpy() for _ in range(2)][-1]
        model._factor = -3.0
        after, expected = cam(IMAGES, 0).numpy(), ScoreCAM(model, "conv", progress=False)(IMAGES, 0).numpy()
        np.testing.assert_allclose(after.maps, expected.maps, atol=1e-5)
        assert np.abs(after.maps - before.maps).max() > 1e-3
