"""What every backend must do, in one place: a backend's tests subclass `AdapterContract`.

The model is the shapes network of the golden vectors, in the backend's framework and with the same weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, ModelAdapter, adapt_model
from fusioncam_core.arrays.namespaces import constant_like, indices_like, to_numpy
from fusioncam_core.models.adapter import Capture
from fusioncam_core.models.inputs import prepare
from fusioncam_core.models.masking import masked_step
from fusioncam_core.models.outputs import ClassScores

SCORES = ClassScores()


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
        options: keywords for the adapter.
    """

    layer: Any
    channels = "first"
    tolerance = 1e-5
    signed_tolerance = 1e-5
    traces_once = False
    options: dict[str, Any] = {}  # noqa: RUF012 - read only

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

    def adapter(self, model: Any, layer: Any = "given") -> ModelAdapter:
        return adapt_model(model, self.layer if layer == "given" else layer, **self.options)

    def captured(self, adapter: ModelAdapter, shapes: dict[str, Any], targets: np.ndarray) -> Capture:
        inputs = prepare(adapter, self.images(shapes), None)
        return adapter.capture(inputs, SCORES, indices_like(targets, inputs, adapter.namespace))

    def channels_first(self, adapter: ModelAdapter, values: Any, axis_offset: int = 0) -> np.ndarray:
        values = to_numpy(values)
        return values if adapter.activation_channel_axis == 1 else np.moveaxis(values, -1, 1 + axis_offset)

    @pytest.fixture
    def model(self, shapes_weights: dict[str, np.ndarray]) -> Any:
        return self.build(shapes_weights)

    @pytest.fixture
    def broken_model(self, shapes_weights: dict[str, np.ndarray]) -> Any:
        return self.build(shapes_weights, broken=True)

    # --- what is captured

    def test_activations_and_outputs(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        capture = self.captured(adapter, shapes, shapes["target"][:, None])
        activations = self.channels_first(adapter, capture.activations)
        np.testing.assert_allclose(activations, shapes["activations"], rtol=self.tolerance, atol=self.tolerance)
        np.testing.assert_allclose(to_numpy(SCORES.logits(capture.outputs)), shapes["logits"], atol=self.tolerance)

    def test_gradients_of_one_target(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        gradients = self.captured(adapter, shapes, shapes["target"][:, None]).gradients
        assert gradients.shape[0] == 1
        gradients = self.channels_first(adapter, gradients, axis_offset=1)[0]
        np.testing.assert_allclose(gradients, shapes["gradients"], atol=1e-7)

    def test_gradients_of_several_targets(
        self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]
    ) -> None:
        adapter = self.adapter(model)
        targets = np.tile([[4, 0, 2]], (8, 1))
        gradients = self.channels_first(adapter, self.captured(adapter, shapes, targets).gradients, axis_offset=1)
        # The head is a mean over 12 x 12 and one dense layer: the gradient is its weight over 144, everywhere.
        expected = shapes_weights["fc.weight"][[4, 0, 2]] / 144
        expected = np.broadcast_to(expected[:, None, :, None, None], (3, 8, 48, 12, 12))
        np.testing.assert_allclose(gradients, expected, atol=1e-7)

    def test_gradient_is_left_out_when_no_score_is_asked(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        capture = adapter.capture(prepare(adapter, self.images(shapes), None), None, None)
        assert capture.gradients is None

    def test_top_class_is_explained_without_targets(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        capture = adapter.capture(prepare(adapter, self.images(shapes), None), SCORES, None)
        top = np.argmax(shapes["logits"], axis=1)[:, None]
        np.testing.assert_allclose(
            to_numpy(capture.gradients), to_numpy(self.captured(adapter, shapes, top).gradients), atol=1e-7
        )

    def test_frozen_model(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(self.freeze(model))
        gradients = self.captured(adapter, shapes, shapes["target"][:, None]).gradients
        gradients = self.channels_first(adapter, gradients, axis_offset=1)[0]
        np.testing.assert_allclose(gradients, shapes["gradients"], atol=1e-7)

    # --- other weights

    def zeros(self, adapter: ModelAdapter) -> dict[str, Any]:
        return {name: 0 * values for name, values in adapter.weights().items()}

    def test_all_weights_are_listed(self, model: Any, shapes_weights: dict[str, Any]) -> None:
        listed = Counter(np.size(to_numpy(each)) for each in self.adapter(model).weights().values())
        assert Counter(each.size for each in shapes_weights.values()) <= listed

    def test_other_weights_for_a_while(self, model: Any, shapes: dict[str, Any]) -> None:
        adapter = self.adapter(model)
        inputs = prepare(adapter, self.images(shapes), None)
        before, step = self.state(model), masked_step(adapter, SCORES)
        maps = constant_like(shapes["region_map"], SCORES.logits(adapter.forward(inputs)), adapter.namespace)
        plain = to_numpy(step(inputs, maps, None))
        with adapter.with_weights(self.zeros(adapter)):
            np.testing.assert_array_equal(to_numpy(SCORES.logits(adapter.forward(inputs))), 0)
            np.testing.assert_array_equal(to_numpy(step(inputs, maps, None)), 0, err_msg="compiled")
            activations = adapter.capture(inputs, SCORES, None).activations
            np.testing.assert_array_equal(to_numpy(activations), 0)
        np.testing.assert_array_equal(to_numpy(step(inputs, maps, None)), plain)
        _assert_same_state(before, self.state(model))

    def test_the_own_weights_come_back_after_an_error(self, model: Any) -> None:
        adapter, before = self.adapter(model), self.state(model)
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
        inputs = prepare(adapter, self.images(shapes), None)
        activations = adapter.capture(inputs, None, None).activations
        same = SCORES.logits(adapter.forward_with(inputs, activations))
        np.testing.assert_allclose(to_numpy(same), shapes["logits"], atol=self.tolerance)
        gone = SCORES.logits(adapter.forward_with(inputs, activations * 0))
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
        adapter = self.adapter(model, layer=None)
        listed = adapter.layers(prepare(adapter, self.images(shapes), None))
        default = [layer for layer in listed if layer.default]
        assert len(default) == 1
        assert default[0].spatial
        capture = self.captured(adapter, shapes, shapes["target"][:, None])
        assert adapter.layer_name == default[0].name
        activations = self.channels_first(adapter, capture.activations)
        np.testing.assert_allclose(activations, shapes["activations"], rtol=self.tolerance, atol=self.tolerance)

    def test_unknown_layer_offers_the_nearest_names(self, model: Any, shapes: dict[str, Any]) -> None:
        wrong = f"{self.layer}x"

        def use_it() -> None:
            adapter = self.adapter(model, layer=wrong)
            adapter.capture(prepare(adapter, self.images(shapes), None), None, None)

        with pytest.raises(ValueError, match="has no layer") as caught:
            use_it()
        assert repr(wrong) in str(caught.value)
        assert repr(str(self.layer)) in str(caught.value)

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
        inputs = prepare(adapter, self.images(shapes)[:2], None)

        def replaced() -> Any:
            like = adapter.as_array(np.zeros((2, *self._activation_shape(adapter)), dtype=np.float32))
            return adapter.forward_with(inputs, like)

        return {
            "capture": lambda: adapter.capture(inputs, SCORES, None),
            "forward": lambda: adapter.forward(inputs),
            "forward_with": replaced,
            "layers": lambda: adapter.layers(inputs),
            "explain": lambda: FusionCAM(adapter)(self.images(shapes)[:2]),
        }

    def _activation_shape(self, adapter: ModelAdapter) -> tuple[int, ...]:
        return (48, 12, 12) if adapter.activation_channel_axis == 1 else (12, 12, 48)

    # --- the golden vectors, end to end

    @pytest.mark.parametrize("batch_size", [7, 64])
    def test_every_stage_of_fusion_cam(self, model: Any, shapes: dict[str, Any], batch_size: int) -> None:
        cam = FusionCAM(model, self.layer, contributions="signed", batch_size=batch_size, **self.options)
        explanation = cam(self.images(shapes), shapes["target"]).numpy()
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

    def test_weights_of_fusion_cam(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, self.layer, contributions="signed", **self.options)
        weights = cam(self.images(shapes), shapes["target"]).numpy().weights
        names = ("weight_denoised", "weight_region"), ("fusion_weight_union", "fusion_weight_region")
        pairs = (shapes["contribution_weights"], self.tolerance), (shapes["fusion_weights"], self.signed_tolerance)
        for (first, second), (expected, tolerance) in zip(names, pairs, strict=True):
            # Of w = b / (b + c) and 1 - w the rounding of b and c makes w squared times as much: 500 times in case 5.
            enlarged = np.maximum(1, np.abs(expected).max(axis=1, keepdims=True)) ** 2
            actual = np.stack([weights[first], weights[second]], axis=1)
            np.testing.assert_allclose((actual - expected) / enlarged, 0, atol=tolerance, err_msg=first)

    def test_maps_are_float32_of_the_framework(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAM(model, self.layer, **self.options)(self.images(shapes), shapes["target"])
        adapter = self.adapter(model)
        assert type(explanation.maps) is type(adapter.as_array(np.zeros(1, dtype=np.float32)))
        assert explanation.maps.dtype == adapter.namespace.float32
        np.testing.assert_allclose(to_numpy(explanation.maps), shapes["grad_cam"], atol=self.tolerance)


def _assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        else:
            assert after[name] == value, name
