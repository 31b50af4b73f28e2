"""The method and the metric on numbers worked out by hand, and found by name wherever names are taken."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fusioncam_plugin_method import plugin
from fusioncam_plugin_method.method import NormGrad, norms
from fusioncam_plugin_method.metric import Sparseness, gini_index
from PIL import Image
from torch import nn

from fusioncam_core import FusionCAM, array_namespace, evaluate, plugin_manager
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.cli import main
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.metrics import METRICS

FOLDER = Path(plugin.__file__).parent.parent
ENTRY_POINTS = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]["fusioncam"]


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """By its entry point where it is installed, and by hand in a source tree."""
    installed = plugin_manager().has_plugin("plugin_method")
    if not installed:
        plugin_manager().register(plugin, name="plugin_method")
    yield
    if not installed:
        plugin_manager().unregister(plugin)


@pytest.fixture(params=[np, torch], ids=["numpy", "torch"])
def array(request: pytest.FixtureRequest) -> Any:
    """From numbers to a float32 array."""
    return lambda numbers: request.param.asarray(np.asarray(numbers, dtype=np.float32))


# At each of four positions two channels, of lengths 5, 0, 2 and 1.
ACTIVATIONS = np.array([[[3, 0], [0, 1]], [[4, 0], [2, 0]]], dtype=np.float32)
# Of lengths 2, 9, 5 and 4; at the first and the third they speak against the class. And of length 1 everywhere.
GRADIENTS = np.array([[[[0, 9], [3, 4]], [[-2, 0], [-4, 0]]], [[[1, 1], [0, 0]], [[0, 0], [-1, -1]]]], dtype=np.float32)
# Products of lengths, 10, 0, 10 and 4, and 5, 0, 2 and 1, over the largest of them.
AT_THE_LAYER = np.array([[[1, 0], [1, 0.4]], [[1, 0], [0.4, 0.2]]])
# Between two positions the outer pixels have their values, the inner ones a quarter of the other's.
OF_THE_IMAGE = np.array(
    [[1, 0.75, 0.25, 0], [1, 0.775, 0.325, 0.1], [1, 0.825, 0.475, 0.3], [1, 0.85, 0.55, 0.4]],
)


def network() -> nn.Module:
    """Two classes whose logits are linear in a layer, so that the gradients are what they are made to be."""
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2, bias=False))
    model[2].load_state_dict({"weight": torch.from_numpy(GRADIENTS.reshape(2, 8))})
    return model


def image() -> torch.Tensor:
    """(1, 2, 4, 4), whose activations are those above."""
    return torch.from_numpy(ACTIVATIONS[None].repeat(2, axis=2).repeat(2, axis=3))


class TestNormGrad:
    def test_by_hand(self) -> None:
        maps = NormGrad(network(), "0")(image(), [[0, 1]]).numpy().maps
        np.testing.assert_allclose(maps[0, 0], OF_THE_IMAGE, atol=1e-6)
        np.testing.assert_allclose(maps[0, :, ::3, ::3], AT_THE_LAYER, atol=1e-6)

    def test_is_the_frobenius_norm_of_the_outer_products(self) -> None:
        torch.manual_seed(0)
        activations, gradients = torch.randn(2, 6, 2, 2), torch.randn(3, 6, 2, 2)
        model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(24, 3))
        model[2].load_state_dict({"weight": gradients.reshape(3, 24), "bias": torch.zeros(3)})
        maps = NormGrad(model, "0")(activations, [[0, 1, 2]] * 2).numpy().maps
        products = np.einsum("bcij,kdij->bkijcd", activations.numpy(), gradients.numpy())
        lengths = np.sqrt((products**2).sum(axis=(-2, -1)))
        low, high = (getattr(lengths, word)(axis=(-2, -1), keepdims=True) for word in ("min", "max"))
        np.testing.assert_allclose(maps, (lengths - low) / (high - low), atol=1e-6)

    def test_norms(self, array: Any) -> None:
        vectors = array([[[3, 0, 5], [4, 0, -12]]])
        found = norms(vectors, 1, array_namespace(vectors))
        np.testing.assert_allclose(to_numpy(found), [[5, 0, 13]], rtol=1e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_squares_neither_underflow_nor_overflow(self, array: Any, scale: float) -> None:
        vectors = array([[3 * scale], [4 * scale]])
        found = to_numpy(norms(vectors, 0, array_namespace(vectors)))
        np.testing.assert_allclose(found, [5 * scale], rtol=1e-6)


class TestSparseness:
    def test_by_hand(self, array: Any) -> None:
        # (2 * 4 - 4 - 1) / 4; all alike; (-3 * 1 - 1 * 2 + 1 * 3 + 3 * 4) / (4 * 10), in whatever order and sign.
        values = array([[0, 0, 1, 0], [2, 2, 2, 2], [4, -1, 3, 2]])
        found = gini_index(values, array_namespace(values))
        np.testing.assert_allclose(to_numpy(found), [0.75, 0, 0.25], atol=1e-6)

    def test_is_half_the_mean_difference_over_the_mean(self, array: Any) -> None:
        values = np.random.default_rng(0).random((5, 48), dtype=np.float32)
        differences = np.abs(values[:, :, None] - values[:, None, :]).mean(axis=(1, 2))
        given = array(values)
        found = gini_index(given, array_namespace(given))
        np.testing.assert_allclose(to_numpy(found), differences / (2 * values.mean(axis=1)), atol=1e-5)

    def test_undefined(self, array: Any) -> None:
        values = array([[0, 0, 0], [1, np.nan, 0], [1, 0, 0]])
        found = gini_index(values, array_namespace(values))
        np.testing.assert_allclose(to_numpy(found), [np.nan, np.nan, 2 / 3], rtol=1e-6)

    def test_is_a_value(self) -> None:
        assert Sparseness() == Sparseness()
        assert (Sparseness.better, Sparseness.needs_ground_truth) == ("higher", False)


@pytest.mark.parametrize(("framework", "make"), [("jax.numpy", "asarray"), ("tensorflow", "convert_to_tensor")])
def test_formulas_on_other_frameworks(framework: str, make: str) -> None:
    values = getattr(pytest.importorskip(framework), make)(np.array([[3, -4, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    xp = array_namespace(values)
    np.testing.assert_allclose(to_numpy(norms(values, 1, xp)), [5, 0], rtol=1e-6)
    # Of 0, 0, 3 and 4, in rising order: (1 * 3 + 3 * 4) / (4 * 7).
    np.testing.assert_allclose(to_numpy(gini_index(values, xp)), [15 / 28, np.nan], rtol=1e-6)


class TestByName:
    def test_hooks(self) -> None:
        """They say so themselves, and do not only import classes that register."""
        assert (plugin.fusioncam_methods(), plugin.fusioncam_metrics()) == ([NormGrad], [Sparseness])

    def test_lookup(self) -> None:
        assert find_method("norm-grad", "gradient") is NormGrad
        assert METRICS["sparseness"] is Sparseness
        with pytest.raises(ValueError, match=r"got 'normgrad'\. Did you mean 'norm-grad'\?"):
            find_method("normgrad")

    def test_as_the_gradient_of_fusion_cam(self) -> None:
        for gradient in ("norm-grad", NormGrad(network(), "0")):
            explanation = FusionCAM(network(), "0", gradient=gradient)(image(), 0).numpy()
            np.testing.assert_allclose(explanation.parts["gradient"][0], OF_THE_IMAGE, atol=1e-6)
            assert explanation.titles["denoised"] == "Denoised NormGrad"

    @pytest.mark.parametrize("given", ["name", "class", "object"])
    def test_evaluation(self, given: str) -> None:
        methods = {"name": "norm-grad", "class": NormGrad, "object": NormGrad(network(), "0")}
        metrics = {"name": "sparseness", "class": Sparseness, "object": Sparseness()}
        found = evaluate(network(), image(), [methods[given]], [metrics[given]], targets=[0], layer="0", progress=False)
        pixels = OF_THE_IMAGE.ravel()
        expected = np.abs(pixels[:, None] - pixels).mean() / (2 * pixels.mean())
        assert found.methods == ("norm-grad",)
        np.testing.assert_allclose(found.of("norm-grad", "sparseness"), [expected], atol=1e-6)

    def test_a_map_of_zeros_has_no_sparseness(self) -> None:
        found = evaluate(network(), 0 * image(), ["norm-grad"], ["sparseness"], [0], layer="0", progress=False)
        assert np.isnan(found.of("norm-grad", "sparseness")).all()
        assert "the map is zero everywhere, or holds NaN" in [problem.reason for problem in found.problems]


MODELS = """
import torch
from torch import nn

from fusioncam_core import Preprocessing


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return model, Preprocessing(size=(12, 16), mean=0.0, std=255.0)
"""


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def workplace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A current directory with a model and a photograph."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tiny_network.py").write_text(MODELS)
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")
        yield tmp_path
        sys.modules.pop("tiny_network", None)

    MODEL = ("noise.png", "--model", "python:tiny_network:net", "--no-progress")

    def test_explain(self, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", *self.MODEL, "--method", "norm-grad", "--targets", "1"]) == 0
        assert "  NormGrad, layer 1, 1 model evaluation" in capsys.readouterr().out
        model, preprocessing = importlib.import_module("tiny_network").net()
        expected = NormGrad(model)(preprocessing(Image.open("noise.png")), 1).numpy().maps[0]
        with np.load("fusioncam-out/noise.npz") as arrays:
            np.testing.assert_allclose(arrays["maps"], expected, atol=1e-6)

    def test_evaluate(self, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["evaluate", *self.MODEL, "--methods", "norm-grad,grad-cam", "--metrics", "sparseness"]
        assert main([*command, "--out", "found"]) == 0
        assert "Sparseness (higher is better)" in capsys.readouterr().out.splitlines()
        (metric,) = json.loads(Path("found/summary.json").read_text())["metrics"].values()
        assert set(metric["methods"]) == {"norm-grad", "grad-cam"}
        assert 0 < metric["methods"]["norm-grad"]["mean"] < 1


def fresh(folder: Path, *command: str, **environment: str) -> str:
    """What a new interpreter prints, in which the package is installed as far as its entry points go."""
    metadata = folder / "fusioncam_plugin_method-0.1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fusioncam-plugin-method\nVersion: 0.1.0\n")
    lines = [f"{name} = {module}" for name, module in ENTRY_POINTS.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[fusioncam]", *lines, ""]))
    path = os.pathsep.join([str(folder), str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestInstalled:
    def test_the_command_lists_it(self, tmp_path: Path) -> None:
        command = ("-m", "fusioncam_core", "methods")
        (line,) = [line for line in fresh(tmp_path, *command).splitlines() if "norm-grad" in line]
        assert line.split() == ["norm-grad", "gradient", "yes", "yes", "-", "-", "arXiv", "2004.02866"]
        assert "norm-grad" not in fresh(tmp_path, *command, FUSIONCAM_DISABLE_PLUGINS="plugin_method")

    def test_the_method_is_imported_when_it_is_looked_up(self, tmp_path: Path) -> None:
        code = (
            "import sys, fusioncam_core\n"
            "manager = fusioncam_core.plugin_manager()\n"
            "print(manager.has_plugin('plugin_method'), 'fusioncam_plugin_method.method' in sys.modules)\n"
            "print(fusioncam_core.EXPLAINERS['norm-grad'].title)"
        )
        assert fresh(tmp_path, "-c", code).splitlines() == ["True False", "NormGrad"]
