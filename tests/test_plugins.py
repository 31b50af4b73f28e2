from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pluggy
import pytest

from fusioncam_core import Capture, FusionCAM, GradCAM, LayerInfo, ModelAdapter, hookspecs, plugin_manager
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.plugins.manager import DISABLE_VARIABLE

hookimpl = pluggy.HookimplMarker("fusioncam")

FRAMEWORKS = ("torch", "tensorflow", "jax", "jaxlib", "keras", "flax", "equinox", "PIL", "matplotlib")


class Brightness:
    """A model of no framework: two classes, how bright the left and the right half of the image are."""


class BrightnessAdapter(ModelAdapter):
    """The layer is the image itself, and its gradient is known."""

    namespace = np
    model_name = "Brightness"
    layer_name = "image"
    activation_channel_axis = 1

    def as_array(self, values: Any) -> Any:
        return np.asarray(values)

    def input_ndim(self, which: Any) -> int:
        return 4

    def layers(self, inputs: Any) -> list[LayerInfo]:
        return [LayerInfo("image", "Input", inputs.shape, spatial=True, default=True)]

    def forward(self, inputs: Any) -> Any:
        half = inputs.shape[-1] // 2
        return np.stack([inputs[..., :half].mean(axis=(1, 2, 3)), inputs[..., half:].mean(axis=(1, 2, 3))], axis=1)

    def forward_with(self, inputs: Any, activations: Any) -> Any:
        return self.forward(activations)

    def capture(self, inputs: Any, score: Any, targets: Any) -> Capture:
        outputs = self.forward(inputs)
        gradients = np.zeros((targets.shape[1], *inputs.shape), np.float32)
        half = inputs.shape[-1] // 2
        for (image, k), target in np.ndenumerate(targets):
            gradients[k, image, ..., half * target : half * (target + 1)] = 2 / inputs[0].size
        return Capture(outputs, inputs, gradients)


class BrightnessPlugin:
    @hookimpl
    def fusioncam_adapt_model(self, model: Any) -> Any:
        return BrightnessAdapter() if isinstance(model, Brightness) else None


@pytest.fixture
def registered() -> Iterator[None]:
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


def test_every_hook_is_documented_and_answered() -> None:
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("fusioncam_")}
    assert set(hooks) == {
        "fusioncam_adapt_model",
        "fusioncam_array_namespace",
        "fusioncam_load_model",
        "fusioncam_describe_models",
    }
    for name, hook in hooks.items():
        assert inspect.getdoc(hook), name
        for argument in inspect.signature(hook).parameters:
            assert argument in str(hook.__doc__), f"{name} does not say what {argument} is"
        assert getattr(plugin_manager().hook, name).get_hookimpls(), f"no plugin answers {name}"


def test_a_third_partys_plugin(registered: None) -> None:
    images = np.ones((1, 1, 2, 4), dtype=np.float32)
    images[..., :2] = 3
    explanation = FusionCAM(Brightness())(images, [[0, 1]])
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(explanation.maps[0, 0], expected, atol=1e-6)
    assert explanation.model == "Brightness"
    np.testing.assert_allclose(to_numpy(explanation.scores), [[3, 1]])


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
    with pytest.raises(TypeError, match="leave layer, channels out"):
        GradCAM(adapter, "image", channels="last")
