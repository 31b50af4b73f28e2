from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pluggy
import pytest

from fusioncam_core import (
    EXPLAINERS,
    Capture,
    Explainer,
    FusionCAM,
    GradCAM,
    LayerInfo,
    LoadedModel,
    ModelAdapter,
    evaluate,
    plugin_manager,
)
from fusioncam_core.arrays.namespaces import array_namespace, to_numpy
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.explainers.result import Result
from fusioncam_core.metrics import METRICS, Measured, Metric
from fusioncam_core.models.adapter import LayerCapture, unknown_layer
from fusioncam_core.plugins import hookspecs
from fusioncam_core.plugins.devices import chosen_device
from fusioncam_core.plugins.loading import place_model
from fusioncam_core.plugins.manager import DISABLE_VARIABLE

hookimpl = pluggy.HookimplMarker("fusioncam")

FRAMEWORKS = ("torch", "tensorflow", "jax", "jaxlib", "keras", "flax", "equinox", "PIL", "matplotlib")


class Brightness:
    """A model of no framework: two classes, how bright the left and the right half of the image are."""


class PlacedBrightness(Brightness):
    """One that knows where it is."""

    def __init__(self, device: str) -> None:
        self.device = device


class BrightnessAdapter(ModelAdapter):
    """The layer is the image itself, and its gradient is known."""

    namespace = array_namespace(np.empty(0))
    model_name = "Brightness"

    def as_array(self, values: Any) -> Any:
        return np.asarray(values)

    def input_ndim(self, which: Any) -> int:
        return 4

    def find(self, layer: Any) -> str:
        if layer != "image":
            raise unknown_layer(layer, ["image"], self.model_name)
        return "image"

    def layers(self, inputs: Any) -> list[LayerInfo]:
        return [LayerInfo("image", "Input", inputs.shape, spatial=True, default=True)]

    def forward(self, inputs: Any) -> Any:
        half = inputs.shape[-1] // 2
        return np.stack([inputs[..., :half].mean(axis=(1, 2, 3)), inputs[..., half:].mean(axis=(1, 2, 3))], axis=1)

    def forward_with(self, inputs: Any, layer: str, activations: Any) -> Any:
        return self.forward(activations)

    def capture(self, inputs: Any, layers: Any, score: Any, targets: Any) -> Capture:
        outputs = self.forward(inputs)
        if targets is None:
            everywhere = None if score is None else np.ones((1, *inputs.shape), np.float32)
            return Capture(outputs, {layer: LayerCapture(inputs, everywhere, 1) for layer in layers})
        gradients = np.zeros((targets.shape[1], *inputs.shape), np.float32)
        half = inputs.shape[-1] // 2
        for (image, k), target in np.ndenumerate(targets):
            gradients[k, image, ..., half * target : half * (target + 1)] = 2 / inputs[0].size
        return Capture(outputs, {layer: LayerCapture(inputs, gradients, 1) for layer in layers})


@functools.cache
def positive_gradients() -> type[Explainer]:
    """A method, defined when the plugin is asked for it as if its module were imported then."""

    class Positive(Explainer):
        """Where the activations speak for the class, added up."""

        name = "positive-gradients"
        title = "Positive gradients"
        family = "gradient"
        needs_gradients = True

        def explain(self, batch: Batch) -> Result:
            weighed = batch.activations[:, None] * batch.required_gradients
            return Result(weighed.clip(0).sum(axis=2) / weighed.max())

    return Positive


@functools.cache
def total() -> type[Metric]:
    """A metric, likewise."""

    class Total(Metric):
        """The sum of a map."""

        name = "total"
        title = "Total"
        better = "lower"

        def measure(self, explained: Any, ground_truth: Any = None) -> Measured:
            return Measured(explained.maps.sum(axis=(-2, -1)))

    return Total


class BrightnessPlugin:
    @hookimpl
    def fusioncam_adapt_model(self, model: Any) -> Any:
        return BrightnessAdapter() if isinstance(model, Brightness) else None

    @hookimpl
    def fusioncam_place_model(self, model: Any, device: str) -> Any:
        return PlacedBrightness(device) if isinstance(model, Brightness) else None

    @hookimpl
    def fusioncam_methods(self) -> list[type[Explainer]]:
        return [positive_gradients()]

    @hookimpl
    def fusioncam_metrics(self) -> list[type[Metric]]:
        return [total()]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for registry in (EXPLAINERS, METRICS):  # what the plugin brings is gone afterwards
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    plugin = BrightnessPlugin()
    plugin_manager().register(plugin, name="brightness")
    yield
    plugin_manager().unregister(plugin)


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_core_and_every_plugin_loads_no_framework() -> None:
    loaded = python(
        "import sys, fusioncam_core, fusioncam_core.cli\n"
        "manager = fusioncam_core.plugin_manager()\n"
        "fusioncam_core.normalise(__import__('numpy').zeros((2, 2)))\n"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules], len(manager.get_plugins()) > 1)"
    )
    assert loaded.strip() == "[] True"


def test_every_hook_is_documented_and_answered(registered: None) -> None:
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("fusioncam_")}
    assert set(hooks) == {
        "fusioncam_adapt_model",
        "fusioncam_array_namespace",
        "fusioncam_complete_model",
        "fusioncam_engine",
        "fusioncam_load_model",
        "fusioncam_place_model",
        "fusioncam_describe_models",
        "fusioncam_methods",
        "fusioncam_metrics",
    }
    for name, hook in hooks.items():
        assert inspect.getdoc(hook), name
        for argument in inspect.signature(hook).parameters:
            assert argument in str(hook.__doc__), f"{name} does not say what {argument} is"
        answers = {each.plugin_name for each in getattr(plugin_manager().hook, name).get_hookimpls()}
        if name not in ("fusioncam_methods", "fusioncam_metrics"):  # which are for others: fusioncam's own are built in
            answers -= {"brightness"}
        assert answers, f"no plugin answers {name}"


def test_a_third_partys_plugin(registered: None) -> None:
    images = np.ones((1, 1, 2, 4), dtype=np.float32)
    images[..., :2] = 3
    explanation = FusionCAM(Brightness())(images, [[0, 1]])
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(explanation.maps[0, 0], expected, atol=1e-6)
    assert explanation.model == "Brightness"
    np.testing.assert_allclose(to_numpy(explanation.scores), [[3, 1]])


def test_plugins_are_asked_once_of_each_class_of_arrays() -> None:
    asked = []

    class Pixels:
        pass

    class Plugin:
        @hookimpl
        def fusioncam_array_namespace(self, array: Any) -> Any:
            asked.append(type(array))
            return array_namespace(np.empty(0)) if isinstance(array, Pixels) else None

    manager, plugin = plugin_manager(), Plugin()
    manager.register(plugin, name="pixels")
    assert all(array_namespace(each) is array_namespace(np.empty(0)) for each in (Pixels(), Pixels()))
    assert asked.count(Pixels) == 1
    manager.unregister(plugin)
    with pytest.raises(TypeError, match=r"Expected an array, got a .*Pixels"):
        array_namespace(Pixels())


def test_a_third_partys_device(registered: None) -> None:
    loaded = LoadedModel(Brightness(), class_names=("left", "right"))
    placed = place_model(loaded, "chip:3")
    assert (placed.model.device, placed.class_names) == ("chip:3", ("left", "right"))
    with pytest.raises(TypeError, match=r"No plugin places a model of type builtins\.str on a device, got 'cpu'"):
        place_model(LoadedModel("weights"), "cpu")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("cpu", "cpu"),
        ("CPU:0", "cpu"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("gpu", "cuda:0"),
        ("gpu:1", "cuda:1"),
        (" Cuda:1 ", "cuda:1"),
    ],
)
def test_devices_by_name(wanted: str, expected: str) -> None:
    assert chosen_device(wanted, ["cpu", "cuda:0", "cuda:1"], "Frame") == expected
    assert chosen_device("cuda:1", ["gpu:0", "gpu:1", "cpu:0"], "Frame") == "gpu:1"


@pytest.mark.parametrize("wanted", ["cuda:2", "cpu:1", "tpu", "meta", "", "cuda:x"])
def test_devices_that_are_not_there(wanted: str) -> None:
    with pytest.raises(ValueError, match=r"^Frame has no device '.*' here: expected one of cpu, cuda:0\."):
        chosen_device(wanted, ["cpu", "cuda:0"], "Frame")


def test_a_third_partys_method(registered: None) -> None:
    images = np.ones((1, 1, 2, 4), dtype=np.float32)
    images[..., :2] = 3
    method = find_method("positive-gradients", "gradient")
    # Of class 1 the gradient is the same on all of the right half, and so are the activations there.
    expected = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(method(Brightness())(images, 1).maps[0], expected)
    explanation = FusionCAM(Brightness(), gradient="positive-gradients")(images, 1)
    np.testing.assert_allclose(explanation.parts["gradient"][0], expected)
    with pytest.raises(ValueError, match=r"A method is one of .*\. Did you mean 'positive-gra"):
        find_method("positive-gradient")


def test_a_third_partys_metric(registered: None) -> None:
    images = np.ones((1, 1, 2, 4), dtype=np.float32)
    images[..., :2] = 3
    found = evaluate(Brightness(), images, methods=["grad-cam"], metrics=["total"], targets=[1], progress=False)
    # The map is 1 on the brighter half of the eight pixels, and 0 on the other.
    assert found.mean("grad-cam", "total").mean == pytest.approx(4)


def test_nobody_adapts() -> None:
    with pytest.raises(TypeError) as caught:
        GradCAM(Brightness())
    message = str(caught.value)
    assert f"No plugin adapts a model of type {Brightness.__module__}.Brightness. Plugins asked: " in message
    assert "torch" in message.partition("Plugins asked: ")[2].partition(".")[0]
    assert 'torch.nn.Module: pip install "fusioncam[torch]"' in message


def test_plugins_are_disabled_by_name() -> None:
    shown = python(
        "import fusioncam_core\ntry: fusioncam_core.GradCAM(object())\nexcept TypeError as error: print(error)",
        **{DISABLE_VARIABLE: "torch, other"},
    )
    assert "disabled by FUSIONCAM_DISABLE_PLUGINS: torch, other" in shown
    assert "fusioncam[torch]" not in shown


def test_an_adapter_is_taken_as_it_is() -> None:
    adapter = BrightnessAdapter()
    assert GradCAM(adapter).adapter is adapter
    # Of no layer: explainers of several layers share it.
    cam = GradCAM(adapter, "image")
    assert (cam.adapter, cam.layer_names) == (adapter, ("image",))
    with pytest.raises(ValueError, match=r"Brightness has no layer 'imag'\. Nearest names: 'image'"):
        GradCAM(adapter, "imag")
    with pytest.raises(TypeError, match="An adapter already has its options: leave channels, framework out"):
        GradCAM(adapter, "image", backend_options={"channels": "last", "framework": "none"})
