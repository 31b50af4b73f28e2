"""Keras models as people bring them: hidden sigmoids, half precision, frames, loops, segmentation, what is none."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusioncam_core import (
    RISE,
    AblationCAM,
    BlackBox,
    FusionCAM,
    FusionCamWarning,
    GradCAM,
    LayerCAM,
    ScoreCAM,
    SegmentationLogit,
    adapt_model,
)
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.models.inputs import prepare
from libraries import framework

keras = framework("keras")
from keras import layers, ops  # noqa: E402 - needs Keras

BACKEND = keras.config.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="what TensorFlow alone has")
# TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# --- by hand


def gradient(function: Callable[[Any], Any], at: Any) -> np.ndarray:
    """Of the sum of a function's values, by the framework's own means."""
    at = to_numpy(at)
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda values: ops.sum(function(values)))(jax.numpy.asarray(at)))
    if BACKEND == "torch":
        import torch

        values = torch.tensor(at, requires_grad=True)
        return torch.autograd.grad(ops.sum(function(values)), values)[0].numpy()
    import tensorflow as tf

    values = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(values)
        score = ops.sum(function(values))
    return tape.gradient(score, values).numpy()


def grad_cam(activations: Any, gradients: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Grad-CAM of channels-last activations (B, *spatial, C)."""
    space = tuple(range(1, gradients.ndim - 1))
    maps = np.maximum((to_numpy(activations) * gradients.mean(axis=space, keepdims=True)).sum(axis=-1), 0)
    for axis, length in enumerate(size, start=1):
        maps = resized(maps, length, axis)
    low, high = (limit(maps, axis=tuple(range(1, maps.ndim)), keepdims=True) for limit in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def resized(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Linear, half-pixel centres, edges clamped."""
    here = values.shape[axis]
    places = np.clip((np.arange(length) + 0.5) * here / length - 0.5, 0, here - 1)
    low = np.floor(places).astype(int)
    share = (places - low).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    return np.take(values, low, axis) * (1 - share) + np.take(values, np.minimum(low + 1, here - 1), axis) * share


def filled(model: Any, *, seed: int = 0, spread: float = 1.0) -> Any:
    """The model with random weights that do not depend on the backend."""
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(scale=spread, size=weight.shape) for weight in model.get_weights()])
    return model


def silent(function: Callable[[], Any]) -> Any:
    """What the function returns, if nothing of ours warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionCamWarning)
        return function()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)


# --- probabilities


def classifier(units: int, *tail: Any, **dense: Any) -> Any:
    """Pooled convolutions, `units` logits of moderate size, and what comes behind them."""
    inputs = keras.Input((8, 8, 3))
    values = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    values = layers.Dense(units, name="logits", **dense)(layers.GlobalAveragePooling2D(name="pool")(values))
    for each in tail:
        values = each(values)
    return filled(keras.Model(inputs, values, name="hidden"))


class Subclass(keras.Model):
    """What comes behind the logits is in `call`, and no layer."""

    def __init__(self, units: int, behind: Callable[[Any], Any]):
        super().__init__(name="hidden")
        self.features = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.head = layers.Dense(units, name="logits")
        self.behind = behind

    def call(self, images: Any) -> Any:
        return self.behind(self.head(self.pool(self.features(images))))


def subclass(units: int, behind: Callable[[Any], Any]) -> Any:
    model = Subclass(units, behind)
    model(np.zeros((1, 8, 8, 3), dtype=np.float32))
    return filled(model)


def logits_by_hand(model: Any, images: np.ndarray) -> tuple[Any, Callable[[Any], Any]]:
    """The activations, and what makes logits of them."""
    conv, dense = (next(each for each in model._flatten_layers() if each.name == name) for name in ("conv", "logits"))

    def behind(values: Any) -> Any:
        return ops.matmul(ops.mean(values, axis=(1, 2)), dense.kernel.value) + dense.bias.value

    return conv(images), behind


BINARY_TAILS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: classifier(1, activation="sigmoid"),
    "reshape to scalars": lambda: classifier(1, layers.Activation("sigmoid"), layers.Reshape(())),
    "flatten": lambda: classifier(1, layers.Flatten(), activation="sigmoid"),
    "squeeze": lambda: classifier(1, ops.sigmoid, lambda values: ops.squeeze(values, -1)),
    "squeeze and expand": lambda: classifier(
        1, ops.sigmoid, lambda values: ops.expand_dims(ops.squeeze(values, -1), -1)
    ),
    "index": lambda: classifier(1, ops.sigmoid, lambda values: values[:, 0]),
    "dropout and identity": lambda: classifier(1, layers.Dropout(0.5), layers.Identity(), activation="sigmoid"),
    "guard": lambda: classifier(1, lambda values: ops.clip(values, 1e-7, 1 - 1e-7), activation="sigmoid"),
    "named function in a Lambda": lambda: classifier(1, layers.Lambda(keras.activations.sigmoid)),
    "function in a Lambda": lambda: classifier(1, layers.Lambda(lambda values: ops.sigmoid(values))),
    "function as activation": lambda: classifier(1, activation=lambda values: ops.sigmoid(values)),
    "nested": lambda: classifier(
        1, keras.Sequential([keras.Input((1,)), layers.Activation("sigmoid"), layers.Reshape(())])
    ),
    "in the call of a subclass": lambda: subclass(1, ops.sigmoid),
    "squeezed in the call of a subclass": lambda: subclass(1, lambda values: ops.squeeze(ops.sigmoid(values), -1)),
}


@pytest.mark.parametrize("tail", BINARY_TAILS)
def test_what_hides_a_sigmoid_is_seen_through(tail: str, images: np.ndarray) -> None:
    model = BINARY_TAILS[tail]()
    activations, behind = logits_by_hand(model, images)
    logits = to_numpy(behind(activations))[:, 0]
    assert np.abs(logits).min() > 0.05
    for target, sign in ((1, 1), (0, -1)):
        explanation = silent(lambda target=target: GradCAM(model, "conv", task="binary")(images, target).numpy())
        np.testing.assert_allclose(explanation.scores, sign * logits, atol=1e-5)
        np.testing.assert_allclose(explanation.probabilities, 1 / (1 + np.exp(-sign * logits)), atol=1e-6)
        expected = grad_cam(activations, gradient(lambda values, s=sign: s * behind(values), activations), (8, 8))
        np.testing.assert_allclose(explanation.maps, expected, atol=1e-5)


MULTICLASS_TAILS: dict[str, Callable[[], Any]] = {
    "reshape": lambda: classifier(3, layers.Reshape((3, 1)), layers.Flatten(), activation="softmax"),
    "named function in a Lambda": lambda: classifier(3, layers.Lambda(keras.activations.softmax)),
    "function in a Lambda": lambda: classifier(3, layers.Lambda(lambda values: ops.softmax(values))),
    "function as activation": lambda: classifier(3, activation=lambda values: ops.softmax(values, axis=-1)),
    "in the call of a subclass": lambda: subclass(3, ops.softmax),
    "reshaped in the call of a subclass": lambda: subclass(3, lambda values: ops.reshape(ops.softmax(values), (-1, 3))),
}


@pytest.mark.parametrize("tail", MULTICLASS_TAILS)
def test_what_hides_a_softmax_is_seen_through(tail: str, images: np.ndarray) -> None:
    model = MULTICLASS_TAILS[tail]()
    activations, behind = logits_by_hand(model, images)
    explanation = silent(lambda: FusionCAM(model, "conv")(images, [2, 0]).numpy())
    np.testing.assert_allclose(explanation.class_probabilities, to_numpy(model(images)), atol=1e-6)
    np.testing.assert_allclose(explanation.scores, to_numpy(behind(activations))[[0, 1], [2, 0]], atol=1e-5)
    chosen = np.eye(3, dtype=np.float32)[[2, 0]]
    slope = gradient(lambda values: ops.multiply(behind(values), chosen), activations)
    expected = grad_cam(activations, slope, (8, 8))
    np.testing.assert_allclose(explanation.parts["gradient"], expected, atol=1e-5)


def test_a_sigmoid_for_each_class_in_the_call_of_a_subclass(images: np.ndarray) -> None:
    model = subclass(3, ops.sigmoid)
    explanation = silent(lambda: ScoreCAM(model, "conv", task="multilabel")(images, [[0, 2], [0, 2]]).numpy())
    np.testing.assert_allclose(explanation.probabilities, to_numpy(model(images))[:, [0, 2]], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("units", [1, 3])
def test_a_cast_behind_a_probability_of_half_precision(policy: str, units: int, images: np.ndarray) -> None:
    cast = layers.Activation("linear", dtype="float32")
    model = with_policy(policy, lambda: classifier(units, cast, activation="softmax" if units > 1 else "sigmoid"))
    adapter = adapt_model(model)
    assert adapter.ending(prepare(adapter, images, None), None) == ("softmax" if units > 1 else "sigmoid")
    activations, behind = logits_by_hand(model, images)
    task = "binary" if units == 1 else "multiclass"
    explanation = silent(lambda: GradCAM(model, "conv", task=task)(images, 1).numpy())
    exact = to_numpy(behind(ops.cast(activations, "float32")))[:, -1 if units == 1 else 1]
    np.testing.assert_allclose(explanation.scores, exact, atol=0.05)


def test_a_first_image_of_which_the_model_is_certain(images: np.ndarray) -> None:
    """A probability that is rounded to 0 or 1 does not tell of what it was made: a darker image does."""
    model = subclass(1, lambda values: ops.squeeze(ops.sigmoid(values), -1))
    kernel, bias = model.head.get_weights()
    activations, behind = logits_by_hand(model, images)
    model.head.set_weights([kernel * 1e3, bias * 0 + 0.1])
    logits = to_numpy(behind(activations))[:, 0]
    assert np.abs(logits).min() > 120
    explanation = silent(lambda: GradCAM(model, "conv", task="binary")(images, 1).numpy())
    np.testing.assert_allclose(explanation.scores, logits, rtol=1e-5)


def test_a_model_that_is_always_certain(images: np.ndarray) -> None:
    model = classifier(1, layers.Reshape(()), activation="sigmoid")
    model.get_layer("logits").set_weights([np.zeros((4, 1)), np.array([-200.0])])
    adapter = adapt_model(model)
    inputs = prepare(adapter, images, None)
    assert adapter.ending(inputs, None) == "sigmoid"
    np.testing.assert_array_equal(to_numpy(adapter.forward(inputs)), [-200, -200])


@pytest.mark.skipif(BACKEND == "jax", reason="what runs does not depend on values there")
def test_a_head_that_runs_more_often_for_other_images(images: np.ndarray) -> None:
    class Unsteady(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="unsteady")
            self.inner = classifier(1)
            self.gate = layers.Activation("sigmoid", name="gate")
            self.unheard = SimpleNamespace(times=2)  # as what depends on the images is

        def call(self, images: Any) -> Any:
            for _ in range(self.unheard.times):
                values = self.gate(self.inner(images))
            return ops.squeeze(values, -1)

    model = Unsteady()
    model(images)
    adapter = adapt_model(model)
    inputs = prepare(adapter, images, None)
    expected = to_numpy(model.inner(images))[:, 0]
    np.testing.assert_allclose(to_numpy(adapter.forward(inputs)), expected, atol=1e-5)
    model.unheard.times = 1
    with pytest.raises(
        ValueError, match="outputs of unsteady are made by a sigmoid in its layer 'gate', which did not"
    ):
        adapter.forward(inputs)


def test_a_temperature_is_no_part_of_what_is_hidden(images: np.ndarray) -> None:
    """The logits are what goes into the softmax, not the layer's outputs before they are divided."""
    model = subclass(3, lambda values: ops.softmax(values / 2))
    with pytest.warns(FusionCamWarning, match="look like probabilities"):
        GradCAM(model, "conv")(images)


def squashed(values: Any) -> Any:
    """A probability, and no sigmoid."""
    return ops.softsign(values) / 2 + 0.5


@pytest.mark.parametrize(("units", "task"), [(1, "binary"), (3, "multilabel")])
def test_what_is_not_found_behind_is_a_suspicion(units: int, task: Any, images: np.ndarray) -> None:
    model = subclass(units, squashed)
    with pytest.warns(
        FusionCamWarning, match=r"hidden look like probabilities: they lie in \[0, 1\].*output_kind='prob"
    ):
        GradCAM(model, "conv", task=task)(images, 0)
    found = silent(lambda: GradCAM(model, "conv", task=task, output_kind="probabilities")(images, 0).numpy())
    expected = to_numpy(model(images))[:, 0]
    np.testing.assert_allclose(found.probabilities, 1 - expected if task == "binary" else expected, atol=1e-6)


@pytest.mark.parametrize("units", [1, 3])
def test_logits_that_lie_between_zero_and_one_by_chance(units: int, images: np.ndarray) -> None:
    model = classifier(units)
    dense = model.get_layer("logits")
    kernel, bias = dense.get_weights()
    scaled = to_numpy(model(images))
    shift, scale = scaled.min(axis=0), np.ptp(scaled, axis=0)
    dense.set_weights([kernel * 0.8 / scale, (bias - shift) * 0.8 / scale + 0.1])
    assert np.all((to_numpy(model(images)) >= 0) & (to_numpy(model(images)) <= 1))
    silent(lambda: GradCAM(model, "conv", task="binary" if units == 1 else "multilabel")(images, 0))


def test_an_ordinary_model_is_looked_at_once(images: np.ndarray) -> None:
    model, calls = classifier(3, activation="softmax"), []
    call = model.get_layer("conv").call
    model.get_layer("conv").call = lambda values: calls.append(values.shape) or call(values)
    cam = GradCAM(model, "conv")
    cam(images)
    ran = len(calls)
    cam(images)
    assert len(calls) - ran < ran, "the run that learns is not repeated"


# --- half precision


def with_policy(policy: str, make: Callable[[], Any]) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


def pooled_far(gain: float) -> Any:
    """A mean over 32 x 32 positions, whose gradients are a thousandth of `gain` times a weight."""
    inputs = keras.Input((32, 32, 3))
    values = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    values = layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(values)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(values)))
    filled(model, spread=0.3)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * gain, bias])
    return model


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
@pytest.mark.parametrize("gain", [1e-4, 1e-2, 1.0, 300.0], ids=["underflow", "subnormal", "ordinary", "overflow"])
@pytest.mark.parametrize("layer", ["first", "last"])
def test_gradients_of_half_precision(policy: str, gain: float, layer: str) -> None:
    if BACKEND == "torch":
        pytest.skip("the gradients are PyTorch's own there")
    half, full = with_policy(policy, lambda: pooled_far(gain)), pooled_far(gain)
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    found, expected = (to_numpy(LayerCAM(model, layer)(images, [[0, 2], [1, 1]]).maps) for model in (half, full))
    assert expected.max() > 0.9
    np.testing.assert_allclose(found, expected, atol=0.02)


@on_tensorflow
@pytest.mark.parametrize("gain", [1e-4, 300.0], ids=["underflow", "overflow"])
def test_gradients_of_half_precision_of_a_pair(gain: float) -> None:
    import tensorflow as tf

    generator = np.random.default_rng(0)
    activations = generator.normal(size=(2, 32, 32, 4)).astype(np.float16)
    weights = (gain * generator.normal(size=(4, 3))).astype(np.float16)
    pair = (lambda images: tf.cast(images, tf.float16), lambda values: tf.reduce_mean(values, (1, 2)) @ weights)
    adapter = adapt_model(pair, {"framework": "tensorflow"})
    inputs = adapter.as_array(activations.astype(np.float32))
    captured = adapter.capture(inputs, ["features"], lambda outputs, _: tf.cast(outputs, tf.float32), None)
    found = to_numpy(captured.layers["features"].gradients)
    for column in range(3):
        expected = np.broadcast_to(weights[:, column].astype(np.float32) / 1024, activations.shape)
        np.testing.assert_allclose(found[column], expected, rtol=2e-3)


# --- frames


def frames_model(inner: list[Any], length: int | None = 3) -> Any:
    """A small network for each frame of a clip, and a recurrent layer behind."""
    clips = keras.Input((length, 8, 8, 3))
    network = keras.Sequential([keras.Input((8, 8, 3)), *inner], name="network")
    values = layers.TimeDistributed(network, name="frames")(clips)
    if len(values.shape) > 3:
        values = layers.TimeDistributed(layers.GlobalAveragePooling2D(), name="pooled")(values)
    return filled(
        keras.Model(clips, layers.Dense(3, name="fc")(layers.LSTM(5, name="lstm")(values)), name="video"), seed=1
    )


def convolutions() -> list[Any]:
    return [layers.Conv2D(4, 3, activation="relu", name="first"), layers.Conv2D(6, 3, name="last")]


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 8, 8, 3), dtype=np.float32)


def frame_by_frame(model: Any, clips: np.ndarray) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """The activations (B, T, 4, 4, 6) of each frame's last convolution, and what makes logits of them."""
    network = model.get_layer("frames").layer
    first, last = network.get_layer("first"), network.get_layer("last")
    activations = np.stack([to_numpy(last(first(clips[:, time]))) for time in range(clips.shape[1])], axis=1)

    def behind(values: Any) -> Any:
        return model.get_layer("fc")(model.get_layer("lstm")(ops.mean(values, axis=(2, 3))))

    return activations, behind


@pytest.mark.parametrize("pool", ["outside", "inside"])
@pytest.mark.parametrize("length", [3, None])
def test_a_layer_for_each_frame(pool: str, length: int | None, clips: np.ndarray) -> None:
    inside = [layers.GlobalAveragePooling2D()] if pool == "inside" else []
    model = frames_model([*convolutions(), *inside], length)
    activations, behind = frame_by_frame(model, clips)
    expected = grad_cam(activations, gradient(lambda values: behind(values)[:, 1], activations), (3, 8, 8))
    assert np.all(expected.max(axis=(1, 2, 3)) == 1)
    names = ["last", model.get_layer("frames").layer.get_layer("last"), "last#0", None]
    for layer in names if pool == "inside" else [*names[:-1], "frames"]:
        explanation = GradCAM(model, layer)(clips, 1)
        np.testing.assert_allclose(to_numpy(explanation.maps), expected, atol=1e-5)
        assert explanation.layer == (
            "frames" if layer == "frames" else "frames/network/last" + "#0" * (layer == "last#0")
        )


def test_a_layer_for_each_frame_as_it_is_listed(clips: np.ndarray) -> None:
    listed = {each.name: each for each in GradCAM(frames_model(convolutions())).layers(clips)}
    assert listed["frames/network/last"].shape == listed["frames"].shape == (1, 3, 4, 4, 6)
    assert listed["frames/network/last"].calls == 1
    assert listed["frames/network/first"].shape == (1, 3, 6, 6, 4)
    with pytest.raises(ValueError, match="ran 1 time: expected a call from #0 to #0, got 'frames/network/last#2'"):
        GradCAM(frames_model(convolutions()), "last#2")(clips)


def test_each_frame_replaced(clips: np.ndarray) -> None:
    model = frames_model(convolutions())
    activations, behind = frame_by_frame(model, clips)
    adapter = adapt_model(model)
    inputs = prepare(adapter, clips, None)
    changed = activations * np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1, 1)
    found = adapter.forward_with(inputs, "frames/network/last", adapter.as_array(changed))
    np.testing.assert_allclose(to_numpy(found), to_numpy(behind(changed)), atol=1e-5)
    assert tuple(AblationCAM(model, "last")(clips, 1).maps.shape) == (2, 3, 8, 8)


def test_clips_of_another_length(clips: np.ndarray) -> None:
    model = frames_model(convolutions(), None)
    cam = GradCAM(model, "last")
    for part in (clips, clips[:, :2]):
        activations, behind = frame_by_frame(model, part)
        expected = grad_cam(
            activations, gradient(lambda values, f=behind: f(values)[:, 1], activations), part.shape[1:4]
        )
        np.testing.assert_allclose(to_numpy(cam(part, 1).maps), expected, atol=1e-5)


@pytest.mark.parametrize("taken", ["unpacked", "indexed"])
def test_one_clip_whose_model_takes_frames_apart(taken: str, clips: np.ndarray) -> None:
    """A model that was not built says nothing of its inputs, and its convolution expects an axis less than it does."""

    class Video(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = layers.Conv2D(4, 3, name="conv"), layers.Dense(3)

        def call(self, values: Any) -> Any:
            shape = tuple(values.shape)
            frames, size = (shape[1], shape[2:]) if taken == "unpacked" else (shape[-4], shape[-3:])
            assert len(size) == 3
            maps = self.conv(ops.reshape(values, (-1, *size)))
            return self.fc(ops.mean(ops.reshape(maps, (-1, frames, *maps.shape[1:])), axis=(1, 2, 3)))

    model = Video()
    model(clips)
    filled(model, seed=1)  # of random weights some leave a map empty
    explainer = GradCAM(model, "conv")
    alone = to_numpy(explainer(clips[0], 1).maps)
    assert alone.shape == (1, *clips.shape[1:4])
    np.testing.assert_allclose(alone, to_numpy(explainer(clips, 1).maps)[:1], atol=1e-6)


def test_a_frame_that_does_not_matter_has_no_gradient(clips: np.ndarray) -> None:
    inputs = keras.Input((3, 8, 8, 3))
    values = layers.TimeDistributed(layers.Conv2D(4, 3, name="conv"), name="frames")(inputs)
    model = filled(keras.Model(inputs, layers.Dense(3, name="fc")(ops.mean(values[:, 1], axis=(1, 2)))))
    adapter = adapt_model(model)
    captured = adapter.capture(prepare(adapter, clips, None), ["frames/conv"], lambda outputs, _: outputs[:, :1], None)
    found = to_numpy(captured.layers["frames/conv"].gradients)[0]
    assert np.all(found[:, [0, 2]] == 0)
    weights = to_numpy(model.get_layer("fc").kernel.value)[:, 0] / 36
    np.testing.assert_allclose(found[:, 1], np.broadcast_to(weights, (2, 6, 6, 4)), atol=1e-6)


def test_a_layer_that_runs_twice_for_each_frame(clips: np.ndarray) -> None:
    inputs, shared = keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="shared")
    network = keras.Model(inputs, shared(ops.relu(shared(inputs))), name="network")
    video = keras.Input((3, 8, 8, 3))
    values = layers.TimeDistributed(network, name="frames")(video)
    model = filled(keras.Model(video, layers.Dense(3, name="fc")(ops.mean(values, axis=(1, 2, 3)))))
    adapter = adapt_model(model)
    first = np.stack([to_numpy(shared(clips[:, time])) for time in range(3)], axis=1)
    second = np.stack([to_numpy(shared(np.maximum(first[:, time], 0))) for time in range(3)], axis=1)
    names = ["frames/network/shared#0", "frames/network/shared#1"]
    captured = adapter.capture(prepare(adapter, clips, None), names, None, None).layers
    for name, expected in zip(names, (first, second), strict=True):
        np.testing.assert_allclose(to_numpy(captured[name].activations), expected, atol=1e-5)


def test_frames_of_frames(images: np.ndarray) -> None:
    bags = np.random.default_rng(0).random((2, 2, 3, 8, 8, 3), dtype=np.float32)
    conv = layers.Conv2D(4, 3, name="conv")
    inputs = keras.Input((2, 3, 8, 8, 3))
    values = layers.TimeDistributed(layers.TimeDistributed(conv, name="inner"), name="outer")(inputs)
    model = filled(keras.Model(inputs, layers.Dense(3)(ops.mean(values, axis=(1, 2, 3, 4)))))
    adapter = adapt_model(model)
    captured = adapter.capture(prepare(adapter, bags, None), ["outer/inner/conv"], None, None).layers
    expected = to_numpy(conv(bags.reshape(12, 8, 8, 3))).reshape(2, 2, 3, 6, 6, 4)
    np.testing.assert_allclose(to_numpy(captured["outer/inner/conv"].activations), expected, atol=1e-5)


def test_a_softmax_for_each_frame(clips: np.ndarray) -> None:
    inputs = keras.Input((3, 8, 8, 3))
    values = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"), name="frames")(inputs)
    values = layers.TimeDistributed(layers.GlobalAveragePooling2D())(values)
    head = layers.Dense(3, "softmax", name="fc")
    model = filled(keras.Model(inputs, layers.TimeDistributed(head, name="steps")(values), name="labels"))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\).*SegmentationLogit\(index, mask, channel_axis=-1\)"):
        GradCAM(model, "frames")(clips)
    activations = model.get_layer("frames")(clips)

    def behind(values: Any) -> Any:
        logits = ops.matmul(ops.mean(values, axis=(2, 3)), head.kernel.value) + head.bias.value
        return (logits[:, 0, 2] + logits[:, 2, 2]) / 2

    target = SegmentationLogit(2, [True, False, True], channel_axis=-1)
    explanation = GradCAM(model, "frames")(clips, target).numpy()
    np.testing.assert_allclose(explanation.scores, to_numpy(behind(activations)), atol=1e-5)
    np.testing.assert_allclose(
        explanation.maps, grad_cam(activations, gradient(behind, activations), (3, 8, 8)), atol=1e-5
    )


# --- loops


def signals_model(recurrent: Any) -> Any:
    inputs = keras.Input((12, 4))
    values = layers.Conv1D(5, 3, padding="same", activation="relu", name="conv")(inputs)
    return filled(
        keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(recurrent(values))), name="signal")
    )


SIGNALS = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_a_cell_runs_once_for_each_step(kind: str) -> None:
    model = signals_model(getattr(layers, kind)(5, return_sequences=True, name="steps"))
    cell = model.get_layer("steps").cell
    with pytest.raises(ValueError, match=r"runs once for each step of 'steps', inside of a loop.* Take 'steps' itself"):
        GradCAM(model, cell)(SIGNALS)
    assert not any("/" in each.name for each in GradCAM(model).layers(SIGNALS))


def test_what_is_in_the_cell_of_another() -> None:
    model = signals_model(
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(5, name="gru")], return_sequences=True, name="steps")
    )
    with pytest.raises(ValueError, match="runs once for each step of 'steps'"):
        GradCAM(model, "gru")(SIGNALS)


def test_a_recurrent_layer_itself() -> None:
    recurrent = layers.LSTM(5, return_sequences=True, name="steps")
    model = signals_model(recurrent)
    activations = recurrent(model.get_layer("conv")(SIGNALS))
    expected = grad_cam(
        activations, gradient(lambda values: model.layers[-1](ops.mean(values, axis=1))[:, 1], activations), (12,)
    )
    np.testing.assert_allclose(to_numpy(GradCAM(model, "steps")(SIGNALS, 1).maps), expected, atol=1e-5)


def test_what_goes_backwards_is_refused() -> None:
    both = signals_model(layers.Bidirectional(layers.LSTM(5, return_sequences=True, name="lstm"), name="both"))
    with pytest.raises(
        ValueError, match=r"'both/backward_lstm' of signal goes backwards.* Take the Bidirectional 'both'"
    ):
        GradCAM(both, "backward_lstm")(SIGNALS)
    activations = both.get_layer("both")(both.get_layer("conv")(SIGNALS))
    expected = grad_cam(
        activations, gradient(lambda values: both.layers[-1](ops.mean(values, axis=1))[:, 1], activations), (12,)
    )
    cam = GradCAM(both)
    np.testing.assert_allclose(to_numpy(cam(SIGNALS, 1).maps), expected, atol=1e-5)
    assert cam.layer_names == ("both",)
    alone = signals_model(layers.GRU(5, return_sequences=True, go_backwards=True, name="gru"))
    with pytest.raises(ValueError, match=r"'gru' of signal goes backwards.* Take a layer before it"):
        GradCAM(alone, "gru")(SIGNALS)
    assert GradCAM(alone)(SIGNALS, 1).layer == "conv"


class Looping(keras.Model):
    """A convolution, and another that runs as often as a loop says."""

    def __init__(self, loop: Callable[[Callable[[Any], Any], Any], Any]):
        super().__init__(name="looping")
        self.before = layers.Conv2D(3, 3, padding="same", name="before")
        self.inside = layers.Conv2D(3, 3, padding="same", name="inside")
        self.head = layers.Dense(3, name="head")
        self.loop = loop

    def call(self, images: Any) -> Any:
        return self.head(ops.mean(self.loop(self.inside, self.before(images)), axis=(1, 2)))


def looping(loop: Callable[[Callable[[Any], Any], Any], Any]) -> Any:
    model = Looping(loop)
    model.inside.build((None, 8, 8, 3))
    model(np.zeros((1, 8, 8, 3), dtype=np.float32))
    return filled(model, spread=0.3)


def until(layer: Callable[[Any], Any], values: Any) -> Any:
    return ops.while_loop(lambda step, _: step < 2, lambda step, each: (step + 1, layer(each)), (0, values))[1]


def test_a_loop_until_something_holds(images: np.ndarray) -> None:
    model, unrolled = looping(until), looping(lambda layer, values: layer(layer(values)))
    if BACKEND == "jax":
        for layer in ("before", "inside"):
            with pytest.raises(TypeError, match=rf"layer '{layer}' of looping.* JAX cannot differentiate backwards"):
                GradCAM(model, layer)(images, 1)
        assert {each.name: each.finding for each in GradCAM(model).layers(images)}["before"].startswith("space along")
        return
    for layer in ("before", "inside#0", "inside#1"):
        maps = [to_numpy(GradCAM(each, layer)(images, 1).maps) for each in (model, unrolled)]
        np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)


@on_tensorflow
def test_a_layer_that_runs_on_a_record(images: np.ndarray) -> None:
    model = looping(lambda layer, values: ops.vectorized_map(lambda each: layer(each[None])[0], values))
    with pytest.raises(
        ValueError, match=r"'inside' of looping did not run.*inside a tf\.function or tf\.vectorized_map"
    ):
        GradCAM(model, "inside")(images)


# --- what is given as layer


def test_symbolic_output_of_a_layer(images: np.ndarray) -> None:
    model = classifier(3)
    adapter = adapt_model(model)
    assert adapter.find(model.get_layer("conv").output) == "conv"
    outer = keras.Sequential([keras.Input((8, 8, 3)), model], name="outer")
    assert adapt_model(outer).find(model.get_layer("conv").output) == "hidden/conv"
    assert adapt_model(outer).find(outer.layers[-1].output) == "hidden/logits"
    for tensor in (model.input, classifier(3).get_layer("conv").output):
        with pytest.raises(ValueError, match=r"The KerasTensor '.*' given as layer is made by no layer of hidden"):
            adapter.find(tensor)


def test_symbolic_output_of_a_call(images: np.ndarray) -> None:
    inputs, shared = keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="shared")
    first = shared(inputs)
    second = shared(ops.relu(first))
    model = keras.Model(inputs, layers.Dense(2)(ops.mean(second, axis=(1, 2))))
    assert [adapt_model(model).find(each) for each in (first, second)] == ["shared#0", "shared#1"]


@pytest.mark.parametrize(("index", "name"), [(1, "conv"), (np.int64(-1), "logits"), (0, None), (9, None)])
def test_a_number_is_no_layer(index: Any, name: str | None) -> None:
    model = classifier(3)
    named = name or (model.layers[0].name if index == 0 else None)
    hint = rf" layers\[{index}\] is '{named}'\." if named else ""
    with pytest.raises(TypeError, match=rf"as the layer itself: got the number {index}\.{hint}"):
        GradCAM(model, index)


# --- inputs


def test_a_model_that_rescales_wants_raw_values() -> None:
    plain = classifier(3)
    raw = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), plain], name="raw")
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    with pytest.raises(
        TypeError, match=r"hidden takes preprocessed floating-point images: got .*uint8.*scaling to \[0, 1\]"
    ):
        GradCAM(plain)(bytes_)
    with pytest.raises(
        TypeError,
        match=r"raw takes .*rescales them itself.*uint8.*leave their values as they are: images\.astype\('float32'\)",
    ):
        GradCAM(raw)(bytes_)
    found = GradCAM(raw, "conv")(bytes_.astype(np.float32), 1)
    expected = GradCAM(plain, "conv")(bytes_.astype(np.float32) / 255, 1)
    np.testing.assert_allclose(to_numpy(found.maps), to_numpy(expected.maps), atol=1e-4)


def test_what_rescales() -> None:
    def behind(*first: Any) -> Any:
        inputs = keras.Input((8, 8, 3))
        values = inputs
        for each in first:
            values = each(values)
        return adapt_model(keras.Model(inputs, classifier(3)(values)))

    assert behind(layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)).rescales_inputs
    assert behind(layers.Normalization(mean=0.0, variance=1.0)).rescales_inputs
    assert behind(keras.applications.mobilenet_v2.preprocess_input).rescales_inputs
    assert behind(layers.Lambda(keras.applications.mobilenet_v2.preprocess_input)).rescales_inputs
    assert not behind(layers.RandomFlip()).rescales_inputs
    assert not behind(layers.Conv2D(3, 1), lambda values: values / 2).rescales_inputs


# --- segmentation


def segmenter(classes: int, activation: str | None, *, squeezed: bool = False) -> Any:
    inputs = keras.Input((8, 12, 3))
    coarse = layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="coarse")(inputs)
    values = layers.Conv2D(classes, 1, activation=activation, name="head")(
        layers.UpSampling2D(2, name="up_sampling")(coarse)
    )
    values = layers.Reshape((8, 12))(values) if squeezed else values
    return filled(keras.Model(inputs, values, name="pixels"))


PIXELS = np.random.default_rng(0).random((2, 8, 12, 3), dtype=np.float32)


def test_segmentation_without_a_target() -> None:
    words = r"\(2, 8, 12, 3\), and \(batch, classes\) was expected.*SegmentationLogit\(index, mask, channel_axis=-1\)"
    for target in (None, 1):
        with pytest.raises(ValueError, match=words):
            GradCAM(segmenter(3, "softmax"), "coarse")(PIXELS, target)
    with pytest.raises(ValueError, match=r"task='binary' expects one value an image.*SegmentationLogit\(index"):
        GradCAM(segmenter(1, "sigmoid"), "coarse", task="binary")(PIXELS)


@pytest.mark.parametrize(
    ("classes", "activation", "index"), [(3, "softmax", 1), (1, "sigmoid", 0), (3, None, 1)], ids=str
)
def test_segmentation_explains_logits(classes: int, activation: str | None, index: int) -> None:
    model, mask = segmenter(classes, activation), np.zeros((8, 12), dtype=bool)
    mask[2:5, 3:9] = True
    head = model.get_layer("head")
    activations = model.get_layer("coarse")(PIXELS)

    def behind(values: Any) -> Any:
        logits = ops.matmul(ops.repeat(ops.repeat(values, 2, axis=1), 2, axis=2), head.kernel.value[0, 0])
        return ops.mean((logits + head.bias.value)[:, 2:5, 3:9, index], axis=(1, 2))

    explanation = GradCAM(model, "coarse")(PIXELS, SegmentationLogit(index, mask, channel_axis=-1)).numpy()
    np.testing.assert_allclose(explanation.scores, to_numpy(behind(activations)), atol=1e-4)
    expected = grad_cam(activations, gradient(behind, activations), (8, 12))
    np.testing.assert_allclose(explanation.maps, expected, atol=1e-5)


def test_segmentation_by_probabilities_of_which_no_layer_tells() -> None:
    pixels = segmenter(3, "softmax")
    coarse = keras.Sequential([keras.Input((8, 12, 3)), pixels, layers.AveragePooling2D(2)], name="coarser")
    target = SegmentationLogit(1, channel_axis=-1)
    with pytest.warns(FusionCamWarning, match=r"coarser look like probabilities: .* take the activation off the end"):
        GradCAM(coarse, "coarse")(PIXELS, target)
    silent(lambda: GradCAM(pixels, "coarse")(PIXELS, target))
    silent(lambda: GradCAM(segmenter(3, None), "coarse")(PIXELS, target))


def test_segmentation_with_the_classes_somewhere_else() -> None:
    target = SegmentationLogit(1, np.ones((8, 12)))
    with pytest.raises(
        ValueError, match=r"outputs' shape \(12, 3\).* got one of \(8, 12\) with 96\. Say channel_axis=-1"
    ):
        GradCAM(segmenter(3, None), "coarse")(PIXELS, target)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_layer_that_makes_probabilities_is_behind_the_logits(activation: str) -> None:
    model, target = segmenter(3, activation), SegmentationLogit(1, channel_axis=-1)
    cam = GradCAM(model)
    assert np.all(to_numpy(cam(PIXELS, target).maps).max(axis=(1, 2)) == 1)
    assert cam.layer_names != ("head",)
    if BACKEND == "jax":  # a traced gradient of zeros does not tell why it is zero
        with pytest.warns(FusionCamWarning, match="zero everywhere"):
            GradCAM(model, "head")(PIXELS, target)
    else:
        words = (
            f"'head' of pixels makes an output by a {activation}, and the scores are the logits.* Take a layer before"
        )
        with pytest.raises(ValueError, match=words):
            GradCAM(model, "head")(PIXELS, target)


def test_layers_of_a_model_with_several_outputs(images: np.ndarray) -> None:
    inputs = keras.Input((8, 8, 3))
    values = layers.Conv2D(4, 3, name="conv")(inputs)
    pooled = layers.GlobalAveragePooling2D()(values)
    outputs = {"kind": layers.Dense(3, "softmax")(pooled), "size": layers.Dense(1, "sigmoid")(pooled), "map": values}
    listed = GradCAM(keras.Model(inputs, outputs)).layers(images)
    assert [each.name for each in listed if each.default] == ["conv"]


# --- what layers return


@keras.saving.register_keras_serializable("fusioncam_tests")
class Several(layers.Layer):
    """Returns its input in a dict, or in a tuple with something else."""

    def __init__(self, kind: str, **keywords: Any):
        super().__init__(**keywords)
        self.kind = kind

    def call(self, values: Any) -> Any:
        return {"values": values * 2, "more": values} if self.kind == "dict" else (values * 2, values)


def test_a_layer_that_returns_a_dict(images: np.ndarray) -> None:
    inputs = keras.Input((8, 8, 3))
    several = Several("dict", name="several")(layers.Conv2D(4, 3, name="conv")(inputs))
    model = filled(keras.Model(inputs, layers.Dense(3)(ops.mean(several["values"], axis=(1, 2))), name="dicts"))
    with pytest.raises(ValueError, match=r"The layer 'several' of dicts returned a dict, and no floating-point"):
        GradCAM(model, "several")(images)
    assert GradCAM(model)(images, 1).layer == "conv"


def test_a_layer_that_returns_several_arrays(images: np.ndarray) -> None:
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3, name="conv")
    first, _ = Several("tuple", name="several")(conv(inputs))
    dense = layers.Dense(3)
    model = filled(keras.Model(inputs, dense(ops.mean(ops.relu(first), axis=(1, 2)))))
    activations = ops.convert_to_tensor(to_numpy(conv(images)) * 2)
    expected = gradient(lambda values: dense(ops.mean(ops.relu(values), axis=(1, 2)))[:, 1], activations)
    np.testing.assert_allclose(
        to_numpy(GradCAM(model, "several")(images, 1).maps), grad_cam(activations, expected, (8, 8)), atol=1e-5
    )


def test_masked_steps() -> None:
    inputs = keras.Input((12, 4))
    values = layers.Masking(name="masking")(inputs)
    recurrent, dense = layers.LSTM(5, return_sequences=True, name="steps"), layers.Dense(3)
    model = filled(keras.Model(inputs, dense(layers.GlobalAveragePooling1D()(recurrent(values)))))
    signals = SIGNALS.copy()
    signals[:, 8:] = 0
    activations = recurrent(signals, mask=np.any(signals != 0, axis=-1))
    expected = gradient(lambda values: dense(ops.mean(values[:, :8], axis=1))[:, 1], activations)
    found = to_numpy(GradCAM(model, "steps")(signals, 1).maps)
    np.testing.assert_allclose(found, grad_cam(activations, expected, (12,)), atol=1e-5)


# --- what is no model of Keras 3


class Layer:
    """Stands for the base class of Keras 2."""

    __module__ = "tf_keras.src.engine.base_layer"


class OfKeras2(Layer):
    __module__ = "tf_keras.src.engine.sequential"

    def __call__(self, images: Any) -> Any:
        return images


def test_a_model_of_keras_2() -> None:
    with pytest.raises(TypeError, match=r"OfKeras2 is of Keras 2 \(tf_keras\).*load that with Keras 3.*BlackBox"):
        GradCAM(OfKeras2(), "last")


def test_a_function_around_a_model(images: np.ndarray) -> None:
    model = classifier(3)
    for function in (lambda images: model(images), model.call, model.predict, functools.partial(model, training=False)):
        with pytest.raises(TypeError, match=r"a function around the Keras model 'hidden'.*Give the model itself"):
            GradCAM(function, "conv")


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles modules, not functions")
def test_a_compiled_function_of_a_model(images: np.ndarray) -> None:
    model = classifier(3)
    if BACKEND == "jax":
        import jax

        compiled = jax.jit(model)
    else:
        import tensorflow as tf

        compiled = tf.function(model)
    with pytest.raises(TypeError, match=r"a function around the Keras model 'hidden'.*Give the model itself"):
        GradCAM(compiled, "conv")


@on_tensorflow
def test_a_saved_model(images: np.ndarray, tmp_path: Any) -> None:
    import tensorflow as tf

    model = classifier(3, activation="softmax")
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    for each in (loaded, loaded.signatures["serving_default"]):
        with pytest.raises(
            TypeError, match=r"SavedModel: compiled functions.*the Keras model from which it was exported"
        ):
            GradCAM(each, "conv")
    alone = layers.TFSMLayer(tmp_path, call_endpoint="serve", name="loaded")
    inside = keras.Sequential([keras.Input((8, 8, 3)), alone], name="around")
    for each in (alone, inside):
        for layer in (None, "conv"):
            with pytest.raises(TypeError, match=r"'loaded' of .* is a TFSMLayer: a SavedModel's compiled function"):
                GradCAM(each, layer)(images)
    options = {"masks": 20, "batch_size": 20, "output_kind": "probabilities"}
    box = BlackBox(lambda images: loaded.serve(images).numpy(), channels="last")
    maps = [to_numpy(RISE(each, **options)(images, 1).maps) for each in (model, inside, box)]
    for each in maps[1:]:
        np.testing.assert_allclose(each, maps[0], atol=1e-5)


def test_a_spectrogram_without_channels() -> None:
    """(B, time, bins): what Keras takes for channels is an axis of space, as the same network with channels shows."""
    sounds = np.random.default_rng(0).random((2, 20, 12), dtype=np.float32)
    stack = [layers.Conv2D(6, 3, padding="same", activation="relu", name="last"), layers.GlobalAveragePooling2D()]
    given = keras.Input((20, 12))
    bare = filled(keras.Model(given, layers.Dense(3)(keras.Sequential([layers.Reshape((20, 12, 1)), *stack])(given))))
    plain = keras.Sequential([keras.Input((20, 12, 1)), *stack, bare.layers[-1]])
    found = to_numpy(GradCAM(bare, "last")(sounds, 1).maps)
    assert found.shape == (2, 20, 12)
    np.testing.assert_allclose(found, to_numpy(GradCAM(plain, "last")(sounds[..., None], 1).maps), atol=1e-5)
    assert GradCAM(bare)(sounds, 1).layer.endswith("last")
