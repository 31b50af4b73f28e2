"""What every backend must do, in one place: a backend's tests subclass `AdapterContract`.

The model is the shapes network of the golden vectors, in the backend's framework and with the same weights: conv1
(3 -> 16, 3 x 3, padding 1), relu, max pool 2, conv2 (16 -> 32), relu, max pool 2, conv3 (32 -> 48), relu, conv4
(48 -> 48), relu, mean over space, fc (48 -> 5), on inputs (3, 48, 48) in [0, 1]. `shapes_cnn.npz` has the weights in
PyTorch's layout ("conv1.weight" out, in, h, w; "fc.weight" out, in), `shapes_golden.npz` what the authors' published
code makes of 8 images, stage by stage.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import (
    AblationCAM,
    Explainer,
    Explanation,
    FusionCAM,
    GradCAM,
    ModelAdapter,
    ScoreCAM,
    adapt_model,
    normalise,
    resize,
)
from fusioncam_core.arrays.namespaces import constant_like, indices_like, to_numpy
from fusioncam_core.models.adapter import HasState, HasWeights, LayerCapture
from fusioncam_core.models.digest import weights_digest
from fusioncam_core.models.fixed_batch import AsItIs
from fusioncam_core.models.inputs import prepare
from fusioncam_core.models.masked_steps import masked_step
from fusioncam_core.models.outputs import ClassScores

SCORES = ClassScores()

DATA = Path(__file__).parent


@functools.cache
def _read(name: str) -> dict[str, Any]:
    return dict(np.load(DATA / name))


class BrokenModelError(Exception):
    """Raised by a model in the middle of its forward pass, behind the explained layer."""


class AdapterContract:
    """Subclass, and say how the model is made; the tests are inherited.

    Attributes:
        layer: the path of the last ReLU (48 maps of 12 x 12).
        channels: "first" or "last", of the model's inputs.
        tolerance: of activations, logits and maps against the golden vectors.
        signed_tolerance: of what the signed weights multiply, similarity and fusion: those divide by a small sum.
        traces_once: whether `compile` records a function once a shape, or runs it as it is.
        options: of the backend, as `backend_options`.
        earlier_layer: the path of an earlier layer, if the backend can tap several.
        batch_sizes: with which Fusion-CAM is held against the golden vectors; 7 leaves a rest of the 384 masks.
    """

    layer: Any
    channels = "first"
    tolerance = 1e-5
    signed_tolerance = 1e-5
    traces_once = False
    options: dict[str, Any] = {}  # noqa: RUF012 - read only
    earlier_layer: Any = None
    batch_sizes: tuple[int, ...] = (7,)

    def build(self, weights: dict[str, np.ndarray], *, broken: bool = False) -> Any:
        """The shapes network; if `broken`, it raises `BrokenModelError` behind the layer."""
        raise NotImplementedError

    def freeze(self, model: Any) -> Any:
        """The model with nothing to train in it."""
        return model

    def state(self, model: Any) -> dict[str, Any]:
        """All that must be as before, by name: NumPy arrays, flags, counts."""
        raise NotImplementedError

    # --- helpers

    def images(self, shapes: dict[str, Any]) -> np.ndarray:
        images = shapes["images"]
        return images if self.channels == "first" else np.ascontiguousarray(np.moveaxis(images, 1, -1))

    def adapter(self, model: Any) -> ModelAdapter:
        return adapt_model(model, self.options)

    def named(self, adapter: ModelAdapter) -> str:
        """The layer as the adapter calls it."""
        return adapter.find(self.layer)

    def captured(self, adapter: ModelAdapter, shapes: dict[str, Any], targets: np.ndarray | None) -> LayerCapture:
        """The layer of all images, with the gradients of the targets' scores."""
        inputs, layer = prepare(adapter, self.images(shapes), None), self.named(adapter)
        asked = None if targets is None else indices_like(targets, inputs, adapter.namespace)
        return adapter.capture(inputs, [layer], SCORES, asked).layers[layer]

    def channels_first(self, capture: LayerCapture, values: Any, axis_offset: int = 0) -> np.ndarray:
        values = to_numpy(values)
        return values if capture.channel_axis == 1 else np.moveaxis(values, -1, 1 + axis_offset)

    def activations(self, capture: LayerCapture) -> np.ndarray:
        return self.channels_first(capture, capture.activations)

    def gradients(self, capture: LayerCapture) -> np.ndarray:
        return self.channels_first(capture, capture.gradients, axis_offset=1)

    @pytest.fixture
    def shapes(self) -> dict[str, Any]:
        """The golden vectors of the shapes network."""
        return _read("shapes_golden.npz")

    @pytest.fixture
    def shapes_weights(self) -> dict[str, Any]:
        """Its weights, in PyTorch's layout."""
        return _read("shapes_cnn.npz")

    @pytest.fixture
    def model(self, shapes_weights: dict[str, np.ndarray]) -> Any:
        return self.build(shapes_weights)

    @pytest.fixture
    def broken_model(self, shapes_weights: dict[str, np.ndarray]) -> Any:
        return self.build(shapes_weights, broken=True)

    # --- what is captured

    def test_activations_and_outputs(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs, layer = prepare(adapter, self.images(shapes), None), self.named(adapter)
        capture = adapter.capture(inputs, [layer], None, None)
        assert capture.layers[layer].gradients is None
        activations = self.activations(capture.layers[layer])
        np.testing.assert_allclose(activations, shapes["activations"], rtol=self.tolerance, atol=self.tolerance)
        np.testing.assert_allclose(to_numpy(SCORES.logits(capture.outputs)), shapes["logits"], atol=self.tolerance)

    def test_gradients_of_one_target(self, model: Any, shapes: dict[str, Any]) -> None:
        capture = self.captured(self.adapter(model), shapes, shapes["target"][:, None])
        gradients = self.gradients(capture)
        assert gradients.shape[0] == 1
        np.testing.assert_allclose(gradients[0], shapes["gradients"], atol=1e-7)
        np.testing.assert_allclose(
            self.activations(capture), shapes["activations"], rtol=self.tolerance, atol=self.tolerance
        )

    def test_gradients_of_several_targets(
        self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        targets = np.tile([[4, 0, 2]], (8, 1))
        gradients = self.gradients(self.captured(self.adapter(model), shapes, targets))
        # The head is a mean over 12 x 12 and one dense layer: the gradient is its weight over 144, everywhere.
        expected = shapes_weights["fc.weight"][[4, 0, 2]] / 144
        expected = np.broadcast_to(expected[:, None, :, None, None], (3, 8, 48, 12, 12))
        np.testing.assert_allclose(gradients, expected, atol=1e-7)

    def test_top_class_is_explained_without_targets(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        top = np.argmax(shapes["logits"], axis=1)[:, None]
        found, expected = (self.captured(adapter, shapes, targets).gradients for targets in (None, top))
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-7)

    def test_frozen_model(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(self.freeze(model))
        gradients = self.gradients(self.captured(adapter, shapes, shapes["target"][:, None]))
        np.testing.assert_allclose(gradients[0], shapes["gradients"], atol=1e-7)

    def test_several_layers_share_one_pass(self, model: Any, shapes: dict[str, Any]) -> None:
        if self.earlier_layer is None:
            pytest.skip("the backend taps one layer")
        adapter = self.adapter(model)
        inputs = prepare(adapter, self.images(shapes), None)
        names = [adapter.find(self.earlier_layer), self.named(adapter)]
        together = adapter.capture(inputs, names, SCORES, None).layers
        for name in names:
            alone = adapter.capture(inputs, [name], SCORES, None).layers[name]
            assert alone.channel_axis == together[name].channel_axis
            for one, other in zip(_on_host(together[name]), _on_host(alone), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=name)

    def test_a_call_by_its_number(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs, layer = prepare(adapter, self.images(shapes)[:1], None), self.named(adapter)
        first = adapter.capture(inputs, [adapter.find(f"{layer}#0")], None, None).layers[f"{layer}#0"]
        last = adapter.capture(inputs, [layer], None, None).layers[layer]
        np.testing.assert_array_equal(to_numpy(first.activations), to_numpy(last.activations))
        with pytest.raises(ValueError, match="ran 1 time: expected a call from #0 to #0, got"):
            adapter.capture(inputs, [adapter.find(f"{layer}#1")], None, None)

    def test_observed_calls(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs, layer = prepare(adapter, self.images(shapes), None), self.named(adapter)
        outputs, seen = adapter.observe(inputs, [layer], AsItIs())
        assert list(seen) == [f"{layer}#0"]
        capture = adapter.capture(inputs, [layer], None, None)
        np.testing.assert_allclose(to_numpy(seen[f"{layer}#0"]), to_numpy(capture.layers[layer].activations), atol=1e-5)
        np.testing.assert_allclose(to_numpy(SCORES.logits(outputs)), shapes["logits"], atol=self.tolerance)

    def test_the_default_layer_is_measured(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        explainer = GradCAM(adapter)
        (default,) = (layer for layer in explainer.layers(self.images(shapes)) if layer.default)
        assert explainer(self.images(shapes)[:1], 0).layer == default.name
        axes = "2, 3" if default.channel_axis == 1 else "1, 2"
        assert default.finding.startswith(f"space along axes {axes} (moved 0.")
        assert tuple(default.shape[1:]) in ((48, 12, 12), (12, 12, 48))

    # --- other weights

    def weighted(self, model: Any) -> Any:
        """The adapter, of a backend that gives weights."""
        adapter = self.adapter(model)
        assert isinstance(adapter, HasWeights)
        return adapter

    def zeros(self, adapter: Any) -> dict[str, Any]:
        return {name: 0 * values for name, values in adapter.weights().items()}

    def test_all_weights_are_listed(self, model: Any, shapes_weights: dict[str, Any]) -> None:
        listed = Counter(np.size(to_numpy(each)) for each in self.weighted(model).weights().values())
        assert Counter(each.size for each in shapes_weights.values()) <= listed

    def test_what_else_the_model_computes_with_stays_the_same(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.weighted(model)
        assert isinstance(self.adapter(model), HasState)
        before = {name: self.plain(value) for name, value in adapter.state().items()}
        adapter.forward(prepare(adapter, self.images(shapes), None))
        assert {name: self.plain(value) for name, value in adapter.state().items()} == before

    def plain(self, value: Any) -> Any:
        return to_numpy(value).tolist() if hasattr(value, "shape") else value

    def test_other_weights_for_a_while(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter, beside = self.weighted(model), self.adapter(model)
        inputs = prepare(adapter, self.images(shapes), None)
        before, step = self.state(model), masked_step(adapter, SCORES)
        maps = constant_like(shapes["region_map"], SCORES.logits(adapter.forward(inputs)), adapter.namespace)
        plain = to_numpy(step(inputs, maps, None))
        with adapter.with_weights(self.zeros(adapter)):
            for each in (adapter, beside):  # another adapter of the model knows of it, too
                np.testing.assert_array_equal(to_numpy(SCORES.logits(each.forward(inputs))), 0)
                np.testing.assert_array_equal(to_numpy(self.captured(each, shapes, None).activations), 0)
            np.testing.assert_array_equal(to_numpy(step(inputs, maps, None)), 0, err_msg="compiled")
        np.testing.assert_array_equal(to_numpy(step(inputs, maps, None)), plain)
        np.testing.assert_allclose(
            to_numpy(SCORES.logits(beside.forward(inputs))), shapes["logits"], atol=self.tolerance
        )
        _assert_same_state(before, self.state(model))

    def test_the_own_weights_come_back_after_an_error(self, model: Any) -> None:
        adapter, before = self.weighted(model), self.state(model)
        with pytest.raises(KeyboardInterrupt), adapter.with_weights(self.zeros(adapter)):
            raise KeyboardInterrupt
        _assert_same_state(before, self.state(model))

    # --- running it again

    def test_forward_gives_the_same_outputs(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        outputs = adapter.forward(prepare(adapter, self.images(shapes), None))
        np.testing.assert_allclose(to_numpy(SCORES.logits(outputs)), shapes["logits"], atol=self.tolerance)

    def test_masked_scores(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs = prepare(adapter, self.images(shapes), None)
        like = SCORES.logits(adapter.forward(inputs))
        step = masked_step(adapter, SCORES)
        names = ("denoised_map", "region_map", "union_map")
        for column, name in enumerate(names):
            maps = constant_like(shapes[name], like, adapter.namespace)
            probabilities = to_numpy(SCORES.probabilities(step(inputs, maps, None)))
            chosen = probabilities[np.arange(8), shapes["target"]]
            np.testing.assert_allclose(chosen, shapes["masked_probabilities"][:, column], atol=self.tolerance)

    def test_replaced_activations(self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs, layer = prepare(adapter, self.images(shapes), None), self.named(adapter)
        activations = adapter.capture(inputs, [layer], None, None).layers[layer].activations
        same = SCORES.logits(adapter.forward_with(inputs, layer, activations))
        np.testing.assert_allclose(to_numpy(same), shapes["logits"], atol=self.tolerance)
        gone = SCORES.logits(adapter.forward_with(inputs, layer, activations * 0))
        np.testing.assert_allclose(to_numpy(gone), np.tile(shapes_weights["fc.bias"], (8, 1)), atol=1e-6)

    def test_compile_records_once_a_shape(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        recorded = []

        def function(inputs: Any) -> Any:
            recorded.append(1)
            return SCORES.logits(adapter.forward(inputs))

        step = adapter.compile(function)
        for rows in (slice(0, 4), slice(4, 8), slice(2, 6)):
            inputs = prepare(adapter, self.images(shapes)[rows], None)
            np.testing.assert_allclose(to_numpy(step(inputs)), shapes["logits"][rows], atol=self.tolerance)
        assert len(recorded) == (1 if self.traces_once else 3)

    # --- the layer

    def test_layers_are_listed_and_the_default_is_behind_the_last_activation(
        self, model: Any, shapes: dict[str, Any]
    ) -> None:
        adapter = self.adapter(model)
        inputs = prepare(adapter, self.images(shapes), None)
        (default,) = (layer for layer in adapter.layers(inputs) if layer.default)
        assert default.spatial
        assert default.calls == 1
        capture = adapter.capture(inputs, [default.name], None, None).layers[default.name]
        assert capture.channel_axis == default.channel_axis
        activations = self.activations(capture)
        np.testing.assert_allclose(activations, shapes["activations"], rtol=self.tolerance, atol=self.tolerance)

    def test_unknown_layer_offers_the_nearest_names(self, model: Any, shapes: dict[str, Any]) -> None:
        wrong = f"{self.layer}x"

        def use_it() -> None:
            adapter = self.adapter(model)
            adapter.capture(prepare(adapter, self.images(shapes), None), [adapter.find(wrong)], None, None)

        with pytest.raises(ValueError, match="has no layer") as caught:
            use_it()
        assert repr(wrong) in str(caught.value)
        assert repr(str(self.layer)) in str(caught.value)

    # --- one model, several threads

    def test_another_thread_waits_for_the_session(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter, beside = self.adapter(model), self.adapter(model)
        inputs = prepare(adapter, self.images(shapes)[:2], None)
        beside.forward(inputs)  # whatever is compiled is
        with ThreadPoolExecutor(max_workers=1) as pool:
            with adapter.session(), adapter.session():
                waiting = pool.submit(beside.forward, inputs)
                with pytest.raises(TimeoutError):
                    waiting.result(timeout=0.2)
            outputs = waiting.result(timeout=60)
        np.testing.assert_allclose(to_numpy(SCORES.logits(outputs)), shapes["logits"][:2], atol=self.tolerance)

    # --- nothing is changed

    @pytest.mark.parametrize("use", ["capture", "forward", "forward_with", "layers", "explain"])
    def test_everything_is_as_before(self, model: Any, shapes: dict[str, Any], use: str) -> None:
        before = self.state(model)
        self._uses(model, shapes)[use]()
        _assert_same_state(before, self.state(model))

    @pytest.mark.parametrize("use", ["capture", "forward", "forward_with", "explain"])
    def test_everything_is_as_before_after_an_exception(
        self, broken_model: Any, shapes: dict[str, Any], use: str
    ) -> None:
        before = self.state(broken_model)
        with pytest.raises(BrokenModelError):
            self._uses(broken_model, shapes)[use]()
        _assert_same_state(before, self.state(broken_model))

    def _uses(self, model: Any, shapes: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        adapter = self.adapter(model)
        inputs, layer = prepare(adapter, self.images(shapes)[:2], None), self.named(adapter)

        def replaced() -> Any:
            shape = (48, 12, 12) if self.channels == "first" else (12, 12, 48)
            return adapter.forward_with(inputs, layer, adapter.as_array(np.zeros((2, *shape), dtype=np.float32)))

        return {
            "capture": lambda: adapter.capture(inputs, [layer], SCORES, None),
            "forward": lambda: adapter.forward(inputs),
            "forward_with": replaced,
            "layers": lambda: adapter.layers(inputs),
            "explain": lambda: FusionCAM(adapter, layer)(self.images(shapes)[:2]),
        }

    # --- nothing is kept

    def test_no_model_is_kept_alive(self, shapes_weights: dict[str, np.ndarray], shapes: dict[str, Any]) -> None:
        model = self.build(shapes_weights)
        anchor = weakref.ref(self.adapter(model).anchor)
        for method in (GradCAM, FusionCAM, AblationCAM):
            method(model, self.layer, backend_options=self.options)(self.images(shapes)[:1], 0)
        del model
        gc.collect()
        assert anchor() is None

    def test_of_the_functions_that_were_explained_the_last_is_kept(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, self.layer, backend_options=self.options)
        functions = []
        for index in range(3):
            function = _Logit(index)
            cam(self.images(shapes)[:1], function)
            functions.append(weakref.ref(function))
            del function
        gc.collect()
        assert [function() is None for function in functions] == [True, True, False]

    # --- the golden vectors, end to end

    def test_every_stage_of_fusion_cam(self, model: Any, shapes: dict[str, Any]) -> None:
        for batch_size in self.batch_sizes:
            options: Any = {"batch_size": batch_size, "backend_options": self.options}
            cam = FusionCAM(model, self.layer, contributions="signed", **options)
            explanation = cam(self.images(shapes), shapes["target"]).numpy()
            self.assert_stages(explanation, shapes)
            self.assert_weights(explanation.weights, shapes)

    def assert_stages(self, explanation: Explanation, shapes: dict[str, Any]) -> None:
        stages = {
            "gradient": "grad_cam",
            "denoised": "denoised_map",
            "region": "region_map",
            "union": "union_map",
        }
        for part, name in stages.items():
            np.testing.assert_allclose(explanation.parts[part], shapes[name], atol=self.tolerance, err_msg=part)
        # The weights multiply the two maps that are fused, and the rounding in them: 22 times in case 5.
        enlarged = np.maximum(1, np.abs(shapes["fusion_weights"]).max(axis=1))[:, None, None]
        for actual, name in ((explanation.parts["similarity"], "similarity"), (explanation.maps, "fusion_cam")):
            difference = (actual - shapes[name]) / enlarged
            np.testing.assert_allclose(difference, 0, atol=self.signed_tolerance, err_msg=name)

    def assert_weights(self, weights: dict[str, Any], shapes: dict[str, Any]) -> None:
        names = ("weight_denoised", "weight_region"), ("fusion_weight_union", "fusion_weight_region")
        pairs = (shapes["contribution_weights"], self.tolerance), (shapes["fusion_weights"], self.signed_tolerance)
        for (first, second), (expected, tolerance) in zip(names, pairs, strict=True):
            # Of w = b / (b + c) and 1 - w the rounding of b and c makes w squared times as much: 500 times in case 5.
            enlarged = np.maximum(1, np.abs(expected).max(axis=1, keepdims=True)) ** 2
            actual = np.stack([weights[first], weights[second]], axis=1)
            np.testing.assert_allclose((actual - expected) / enlarged, 0, atol=tolerance, err_msg=first)

    # --- an explanation as a thing

    def test_a_digest_tells_weights_apart(self, model: Any) -> None:
        adapter = self.adapter(model)
        assert isinstance(adapter, HasWeights)
        name, values = next(iter(adapter.weights().items()))
        before = weights_digest(adapter)
        with adapter.session(), adapter.with_weights({name: values + 1}):
            other = weights_digest(adapter)
        assert before == weights_digest(adapter) != other

    def test_an_explanation_is_of_the_framework_and_comes_back_from_its_files(
        self, model: Any, shapes: dict[str, Any], tmp_path: Path
    ) -> None:
        explanation = GradCAM(model, self.layer, backend_options=self.options)(self.images(shapes), shapes["target"])
        adapter = self.adapter(model)
        assert type(explanation.maps) is type(adapter.as_array(np.zeros(1, dtype=np.float32)))
        assert explanation.maps.dtype == adapter.namespace.float32
        np.testing.assert_allclose(to_numpy(explanation.maps), shapes["grad_cam"], atol=self.tolerance)
        provenance = explanation.provenance
        assert provenance is not None
        assert provenance.frameworks
        assert all(version[0].isdigit() for version in provenance.frameworks.values())
        assert "cpu" in provenance.device.lower() or "cuda" in provenance.device.lower()
        for part, rows in ((slice(2, None, -1), [2, 1, 0]), (slice(1, 7, 3), [1, 4]), (slice(5, 2), []), (-1, [7])):
            np.testing.assert_array_equal(to_numpy(explanation[part].maps), to_numpy(explanation.maps)[rows])
        some = explanation[:3]
        some.save(tmp_path, ["cat/0", "cat/1", "dog"], pictures=False)
        loaded = Explanation.load([tmp_path / "cat" / "0.npz", tmp_path / "cat" / "1", tmp_path / "dog"])
        assert loaded == some
        for name in some._arrays:
            before, after = getattr(some.numpy(), name), getattr(loaded, name)
            assert (before.dtype, before.tobytes()) == (after.dtype, after.tobytes()), name

    def test_signed_raw_and_layer_size_maps(self, model: Any, shapes: dict[str, Any]) -> None:
        images, targets = self.images(shapes)[:2], shapes["target"][:2]
        summed = np.einsum("nk,nkij->nij", shapes["gradients"].mean(axis=(2, 3)), shapes["activations"])[:2]
        assert summed.min() < 0 < summed.max()
        largest = np.abs(summed).max(axis=(1, 2), keepdims=True)

        def explained(method: type[Explainer], **options: Any) -> Explanation:
            return method(model, self.layer, backend_options=self.options, **options)(images, targets).numpy()

        raw = explained(GradCAM, relu=False, normalised=False, size="layer")
        np.testing.assert_allclose(raw.maps / largest, summed / largest, atol=self.tolerance)
        assert (raw.form, raw.raw_range) == ("raw", None)
        signed = explained(GradCAM, relu=False, size=(20, 30))
        expected = resize(summed, (20, 30))
        ends = np.stack([expected.min(axis=(1, 2)), expected.max(axis=(1, 2))], axis=-1)
        expected = expected / np.abs(ends).max(axis=1)[:, None, None]
        np.testing.assert_allclose(signed.maps, expected, atol=self.tolerance)
        np.testing.assert_allclose(signed.raw_range / largest[:, 0], ends / largest[:, 0], atol=self.tolerance)
        region = explained(ScoreCAM, normalised=False, size="layer")
        maps = normalise(resize(region.maps, shapes["images"].shape[2:]))
        np.testing.assert_allclose(maps, shapes["score_cam"][:2], atol=self.tolerance)


class _Logit:
    """A target function that tells whether somebody holds it."""

    def __init__(self, index: int):
        self.index = index

    def __call__(self, outputs: Any) -> Any:
        return outputs[:, self.index]


def _on_host(capture: LayerCapture) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradients."""
    return to_numpy(capture.activations), to_numpy(capture.gradients)


def _assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        else:
            assert after[name] == value, name
