"""Models put on a device: by PyTorch and JAX where they are asked, refused where a framework does not move them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core import EigenCAM, LoadedModel
from fusioncam_core.cli import main
from fusioncam_core.plugins.loading import place_model

JAX_MODELS = """
import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core import LoadedModel, Preprocessing

last, first = (Preprocessing((12, 16), channels=channels) for channels in ("last", "first"))


def nnx():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dense = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, images):
            return self.dense(nnx.relu(self.norm(self.conv(images))).mean((1, 2)))

    return LoadedModel(Net(nnx.Rngs(0)), last)


def linen():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3))(images)).mean((1, 2)))

    module = Net()
    return LoadedModel((module, module.init(jax.random.key(0), np.zeros((1, 12, 16, 3), np.float32))), last)


def equinox():
    import equinox as eqx

    layers = [
        eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Lambda(lambda activations: activations.mean((1, 2))),
        eqx.nn.Linear(4, 3, key=jax.random.key(1)),
    ]
    return LoadedModel(eqx.nn.Sequential(layers), first)


def closures():
    weights = jnp.linspace(-1, 1, 12).reshape(3, 4)
    return LoadedModel((jax.jit(lambda x: x @ weights), jax.jit(lambda a: a.mean((1, 2)) @ weights.T)), last)


def keras():
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    parts = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
    return LoadedModel(keras.Sequential([keras.Input((12, 16, 3)), *parts, layers.Dense(3)]), last)
"""

ON_TWO_DEVICES = """
import sys
import warnings

import jax
import numpy as np

import jax_models
from fusioncam_core import FusionCamError, GradCAM
from fusioncam_core.plugins.loading import place_model

warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    make = getattr(jax_models, name)
    shape = (2, 3, 12, 16) if name == "equinox" else (2, 12, 16, 3)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    usual = GradCAM(make().model)(images, 1)
    try:
        placed = GradCAM(place_model(make(), "cpu:1").model)(images, 1)
    except FusionCamError as error:
        print(name, error)
        continue
    devices = {each.id for each in placed.maps.devices()}
    moved = float(np.abs(np.asarray(usual.maps) - np.asarray(placed.maps)).max())
    print(name, devices, placed.provenance.device, {each.id for each in usual.maps.devices()}, moved < 1e-6)
"""


def on_two_devices(folder: Path, *arguments: str, code: str = ON_TWO_DEVICES) -> str:
    """What a fresh interpreter, whose JAX sees two CPUs, prints."""
    (folder / "jax_models.py").write_text(JAX_MODELS, encoding="utf-8")
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestJax:
    """In as few processes as can be: each imports JAX anew."""

    def test_the_map_is_made_there(self, tmp_path: Path) -> None:
        for library in ("jax", "flax", "equinox"):
            pytest.importorskip(library)
        names = ("nnx", "linen", "equinox")
        *moved, refused = on_two_devices(tmp_path, *names, "closures").splitlines()
        assert moved == [f"{name} {{1}} cpu:1 {{0}} True" for name in names]
        assert refused.startswith("closures (<lambda>, <lambda>) holds its arrays where they cannot be seen")

    @pytest.mark.slow
    def test_of_keras(self, tmp_path: Path) -> None:
        for library in ("jax", "keras"):
            pytest.importorskip(library)
        assert on_two_devices(tmp_path, "keras").strip() == "keras {1} cpu:1 {0} True"

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        pytest.importorskip("jax")
        pytest.importorskip("flax")
        Image.new("RGB", (20, 20), (200, 30, 90)).save(tmp_path / "red.png")
        code = (
            "import json, sys\n"
            "from fusioncam_core.cli import main\n"
            "command = ['explain', 'red.png', '--model', 'python:jax_models:nnx', '--method', 'eigen-cam']\n"
            "for device in sys.argv[1:]:\n"
            "    print('status', main([*command, '--maps-only', '--overwrite', '--device', device]))\n"
            "    with open('fusioncam-out/red.json') as file:\n"
            "        print('ran on', json.load(file)['provenance']['device'])\n"
        )
        said = on_two_devices(tmp_path, "cpu:1", "cpu", code=code)
        told = [line for line in said.splitlines() if line.startswith(("status", "ran on"))]
        assert told == ["status 0", "ran on cpu:1", "status 0", "ran on cpu:0"]


class TestTorch:
    @pytest.fixture
    def network(self) -> Any:
        torch = pytest.importorskip("torch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = (
                torch.nn.Conv2d(3, 4, 3),
                torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
                torch.nn.Linear(4, 3),
            )
            return torch.nn.Sequential(*layers)

    def test_cpu(self, network: Any) -> None:
        loaded = place_model(LoadedModel(network, layer="0"), "cpu")
        assert loaded.model is network
        assert loaded.layer == "0"
        images = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
        assert EigenCAM(loaded.model)(images).maps.device.type == "cpu"

    @pytest.mark.parametrize("device", ["meta", "cuda:7", "cpu:1", "nonsense", "tpu"])
    def test_devices_that_are_not_there(self, network: Any, device: str) -> None:
        with pytest.raises(ValueError, match=rf"^PyTorch has no device '{device}' here: expected one of cpu"):
            place_model(LoadedModel(network), device)
        assert next(network.parameters()).device.type == "cpu"

    def test_accelerators_that_there_are(self, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first of any kind by "gpu"; the module is moved by its own `to`."""
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
        asked: list[str] = []
        monkeypatch.setattr(network, "to", lambda device: asked.append(device) or network)
        for device in ("gpu", "cuda", "cuda:1", "cpu"):
            place_model(LoadedModel(network), device)
        assert asked == ["cuda:0", "cuda:0", "cuda:1", "cpu"]
        with pytest.raises(ValueError, match=r"expected one of cpu, cuda:0, cuda:1\."):
            place_model(LoadedModel(network), "cuda:2")

    def test_a_module_that_does_not_move(self, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def to(device: str) -> Any:
            raise RuntimeError("You can't move a model that has some modules offloaded")

        monkeypatch.setattr(network, "to", to)
        with pytest.raises(ValueError, match="Sequential does not go to cpu: RuntimeError: You can't move a model"):
            place_model(LoadedModel(network), "cpu")


class TestTensorFlow:
    @pytest.fixture
    def pair(self) -> Any:
        tf = pytest.importorskip("tensorflow")

        class Features(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weights = tf.Variable(tf.ones((3, 4)))

            def __call__(self, images: Any) -> Any:
                return tf.einsum("bhwc,cd->bhwd", images, self.weights)

        return Features(), tf.function(lambda activations: tf.reduce_mean(activations, (1, 2)))

    def test_where_it_is(self, pair: Any) -> None:
        assert place_model(LoadedModel(pair), "CPU:0").model is pair

    def test_devices_that_are_not_there(self, pair: Any) -> None:
        with pytest.raises(ValueError, match=r"^TensorFlow has no device 'gpu' here: expected one of cpu:0\."):
            place_model(LoadedModel(pair), "gpu")

    def test_variables_stay_where_they_are(self, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        tf = pytest.importorskip("tensorflow")
        devices = [tf.config.LogicalDevice(f"/device:{each}", each[:3]) for each in ("CPU:0", "GPU:0", "GPU:1")]
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: devices)
        with pytest.raises(
            ValueError,
            match=r"is on cpu:0, and TensorFlow does not move variables: load it inside `with tf\.device\('GPU:1'\):` "
            r".* CUDA_VISIBLE_DEVICES=1\.",
        ):
            place_model(LoadedModel(pair), "cuda:1")


class TestKeras:
    """On whatever framework Keras runs here."""

    @pytest.fixture
    def model(self) -> Any:
        keras = pytest.importorskip("keras")
        layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((8, 8, 3)), *layers])

    def test_where_it_is(self, model: Any) -> None:
        assert place_model(LoadedModel(model), "cpu").model is model

    def test_devices_that_are_not_there(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"has no device 'tpu' here: expected one of cpu"):
            place_model(LoadedModel(model), "tpu")


class TestKerasOnTorch:
    """Keras takes everything to one device there: whatever Keras runs on here, the way for PyTorch is tried."""

    @pytest.fixture
    def model(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        torch = pytest.importorskip("torch")
        pytest.importorskip("keras")
        from fusioncam_torch import placing

        monkeypatch.setattr(placing, "there", lambda: ["cpu", "cuda:0", "cuda:1"])
        return SimpleNamespace(name="net", variables=[SimpleNamespace(value=torch.zeros(2))])

    def test_where_it_is(self, model: Any) -> None:
        from fusioncam_keras import placing

        for device in ("cpu", "CPU:0"):
            placing._on_torch(model, device)

    @pytest.mark.parametrize(("wanted", "target", "visible"), [("gpu", "cuda:0", "0"), ("cuda:1", "cuda:1", "1")])
    def test_another_device(self, model: Any, wanted: str, target: str, visible: str) -> None:
        from fusioncam_keras import placing

        expected = rf"^net is on cpu, .* `with keras\.device\('{target}'\):` .* CUDA_VISIBLE_DEVICES={visible}\.$"
        with pytest.raises(ValueError, match=expected):
            placing._on_torch(model, wanted)


MODEL = """
import torch
from fusioncam_core import LoadedModel, Preprocessing
from fusioncam_core.models.black_box import BlackBox


def load():
    torch.manual_seed(3)
    parts = torch.nn.Conv2d(3, 4, 3), torch.nn.Sigmoid(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return LoadedModel(torch.nn.Sequential(*parts, torch.nn.Linear(4, 3)), Preprocessing((12, 16)))


def black_box():
    return BlackBox(lambda images: images.mean(axis=(2, 3))), Preprocessing((12, 16))
"""


class TestCommands:
    @pytest.fixture(autouse=True)
    def workplace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "device_models", raising=False)
        (tmp_path / "device_models.py").write_text(MODEL, encoding="utf-8")
        noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")

    COMMANDS = (
        ("explain", "noise.png", "--method", "eigen-cam", "--maps-only"),
        ("evaluate", "noise.png", "--methods", "eigen-cam", "--metrics", "average-drop", "--no-progress"),
        ("layers",),
    )

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_about_a_model(self, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        model = ["--model", "python:device_models:load"]
        assert main([*command, *model, "--device", "cpu"]) == 0
        assert capsys.readouterr().err == ""
        assert main([*command, *model, "--device", "meta"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "fusioncam: error: --device meta: PyTorch has no device 'meta' here: expected one of cpu"
        )

    def test_a_model_that_nobody_places(self, capsys: pytest.CaptureFixture[str]) -> None:
        model = ["--model", "python:device_models:black_box"]
        assert main(["explain", "noise.png", *model, "--method", "rise", "--device", "cpu"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--device cpu: No plugin places a model of type fusioncam_core.models.black_box.BlackBox" in line
