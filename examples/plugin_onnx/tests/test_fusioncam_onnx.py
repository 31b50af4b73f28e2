"""The plugin on the shapes network of fusioncam's golden vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import FusionCAM, GradCAM, GradientsUnavailableError, ScoreCAM, adapt_model, plugin_manager

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
fusioncam_onnx = pytest.importorskip("fusioncam_onnx")

helper = onnx.helper
DATA = Path(fusioncam_core.__file__).parent / "testing"


@pytest.fixture(autouse=True, scope="module")
def plugin() -> Iterator[None]:
    """Registered by its entry point where it is installed, and by hand in a source tree."""
    from fusioncam_onnx import plugin

    installed = plugin_manager().has_plugin("onnx")
    if not installed:
        plugin_manager().register(plugin, name="onnx")
    yield
    if not installed:
        plugin_manager().unregister(plugin)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(np.load(DATA / "shapes_golden.npz"))


def shapes_network(batch: int | str = "batch") -> Any:
    weights = dict(np.load(DATA / "shapes_cnn.npz"))
    nodes, current = [], "images"
    for index, pooled in enumerate((True, True, False, False), start=1):
        parameters = [f"conv{index}.weight", f"conv{index}.bias"]
        convolved, activated = f"conv{index}", f"relu{index}"
        nodes.append(helper.make_node("Conv", [current, *parameters], [convolved], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [convolved], [activated]))
        current = activated
        if pooled:
            nodes.append(helper.make_node("MaxPool", [current], [f"pool{index}"], kernel_shape=[2, 2], strides=[2, 2]))
            current = f"pool{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["features"]))
    nodes.append(helper.make_node("Gemm", ["features", "fc.weight", "fc.bias"], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [batch, 3, 48, 48])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, 5])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    # The oldest operators and format that have all of this, for every ONNX Runtime that is still in use.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def test_the_published_region_map(golden: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "shapes.onnx"
    onnx.save(shapes_network(), path)
    for model in (path, str(path), shapes_network()):
        explanation = ScoreCAM(model)(golden["images"], golden["target"])
        assert explanation.layer == "relu4"
        assert explanation.model == "shapes"
        np.testing.assert_allclose(explanation.maps, golden["region_map"], atol=1e-5)


def test_a_graph_of_fixed_batch_size(golden: dict[str, Any]) -> None:
    for batch in (1, 3):
        explanation = ScoreCAM(shapes_network(batch), "relu4")(golden["images"][:2], golden["target"][:2])
        np.testing.assert_allclose(explanation.maps, golden["region_map"][:2], atol=1e-5)


def test_activations_outputs_and_replaced_activations(golden: dict[str, Any]) -> None:
    model = shapes_network()
    before = model.SerializeToString()
    adapter = adapt_model(model)
    capture = adapter.capture(golden["images"], ["relu4", "relu3"], None, None)
    layer = capture.layers["relu4"]
    assert layer.gradients is None
    np.testing.assert_allclose(layer.activations, golden["activations"], atol=1e-5, rtol=1e-5)
    alone = adapter.capture(golden["images"], ["relu3#0"], None, None).layers["relu3#0"]
    np.testing.assert_array_equal(alone.activations, capture.layers["relu3"].activations)
    np.testing.assert_allclose(capture.outputs, golden["logits"], atol=1e-5)
    np.testing.assert_allclose(adapter.forward(golden["images"]), golden["logits"], atol=1e-5)
    replaced = adapter.forward_with(golden["images"], "relu4", layer.activations * 0)
    bias = np.load(DATA / "shapes_cnn.npz")["fc.bias"]
    np.testing.assert_allclose(replaced, np.tile(bias, (8, 1)), atol=1e-6)
    assert model.SerializeToString() == before


def test_layers(golden: dict[str, Any]) -> None:
    listed = ScoreCAM(shapes_network()).layers(golden["images"][:1])
    assert [layer.name for layer in listed][-4:] == ["relu4", "mean", "features", "logits"]
    assert [(layer.kind, layer.shape) for layer in listed if layer.default] == [("Relu", (1, 48, 12, 12))]
    with pytest.raises(ValueError, match=r"shapes has no layer 'relu5'\. Nearest names: 'relu"):
        ScoreCAM(shapes_network(), "relu5")
    with pytest.raises(ValueError, match="'relu4' of shapes ran 1 time: expected a call from #0 to #0, got 'relu4#1'"):
        ScoreCAM(shapes_network(), "relu4#1")


@pytest.mark.parametrize("method", [GradCAM, FusionCAM])
def test_gradients_are_refused(method: Any, golden: dict[str, Any]) -> None:
    with pytest.raises(
        GradientsUnavailableError, match=r"shapes runs on ONNX Runtime, forward only.* such as ScoreCAM"
    ):
        method(shapes_network())(golden["images"])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"shapes cannot run on inputs of shape images \(1, 3, 32, 48\)"):
        ScoreCAM(shapes_network(), "relu4")(np.zeros((1, 3, 32, 48), np.float32))
    with pytest.raises(TypeError, match="The ONNX backend has no option 'provider'; did you mean 'providers'"):
        ScoreCAM(shapes_network(), backend_options={"provider": "CPU"})
    with pytest.raises(ValueError, match=r"masked_input=0 is a list, and one array is explained"):
        ScoreCAM(shapes_network(), "relu4", masked_input=0)([[[1.0]]])
    with pytest.raises(TypeError, match=r"No plugin adapts a model of type builtins\.str"):
        ScoreCAM("shapes.pth")
    session = onnxruntime.InferenceSession(shapes_network().SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(TypeError, match="An InferenceSession does not give its graph back"):
        ScoreCAM(session)
