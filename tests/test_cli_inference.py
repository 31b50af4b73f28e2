"""Engines on the command line: which methods take one, what is said before the model is loaded, and that it runs."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

from absence import hide
from engine_names import ENGINES, NEAR, registered_engines
from fusioncam_core import Explanation
from fusioncam_core.cli import main
from fusioncam_core.models import engine_choice
from libraries import framework

torch = framework("torch")

MODELS = """
import torch
from torch import nn

from fusioncam_core import LoadedModel, Preprocessing

held = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
nn.init.uniform_(held[-1].weight, 0.1, 1.0)  # so that no map is zero


def net():
    return LoadedModel(held.eval(), Preprocessing(size=(12, 16), mean=0.0, std=255.0))


def never():
    raise AssertionError("the model was loaded")
"""

MODEL = ("--model", "python:inference_models:net")

NEVER = ("--model", "python:inference_models:never")

SCORE = ("--method", "score-cam")

pytestmark = pytest.mark.usefixtures(registered_engines.__name__)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A current directory with a model and a folder of four photographs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inference_models.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "photos").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    yield tmp_path
    sys.modules.pop("inference_models", None)


def runs(monkeypatch):
    """How often an engine ran from now on: its `_run` is what every batch under masks goes through."""
    from fusioncam_core.models.engine_steps import BatchEngine

    own, calls = BatchEngine._run, []

    def counting(self, *arguments):
        calls.append(self.engine.conversion.name)
        return own(self, *arguments)

    monkeypatch.setattr(BatchEngine, "_run", counting)
    return calls


def maps(out):
    return np.stack([Explanation.load(f"{out}/{number}.npz").maps[0] for number in range(4)])


def values(folder):
    with open(folder / "values.csv", newline="", encoding="utf-8") as file:
        return {(row["image"], row["method"]): float(row["value"]) for row in csv.DictReader(file)}


@ENGINES
class TestRuns:
    def test_photographs_a_folder_and_a_report(self, name, monkeypatch):
        calls = runs(monkeypatch)
        command = ["explain", "photos", *MODEL, "--method", "fusion-cam", "--maps-only"]
        assert main([*command, "--out", "own"]) == 0
        assert calls == []
        assert main([*command, "--out", "engine", "--inference-engine", name]) == 0
        assert set(calls) == {name}
        np.testing.assert_allclose(maps("engine"), maps("own"), rtol=0, atol=NEAR)

    def test_auto_takes_over_among_many(self, name, monkeypatch):
        calls = runs(monkeypatch)
        command = ["explain", "photos", *MODEL, *SCORE, "--maps-only", "--inference-engine", "auto"]
        assert main([*command, "--out", "few"]) == 0
        assert calls == [], "four photographs are not worth a conversion"
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        assert main([*command, "--out", "many"]) == 0
        assert calls
        np.testing.assert_allclose(maps("many"), maps("few"), rtol=0, atol=NEAR)

    def test_a_job_says_which(self, name, workplace):
        command = ["explain", "photos", *MODEL, *SCORE, "--job", "--out", "job", "--inference-engine", name]
        assert main(command) == 0
        assert json.loads((workplace / "job" / "_job.json").read_text())["engine"] == name

    def test_an_evaluation_of_methods_of_both_kinds(self, name, monkeypatch, workplace):
        calls = runs(monkeypatch)
        command = ["evaluate", "photos", *MODEL, "--methods", "grad-cam,score-cam", "--metrics", "complexity"]
        assert main([*command, "--out", "own"]) == 0
        assert main([*command, "--out", "engine", "--inference-engine", name]) == 0
        assert set(calls) == {name}
        own, engine = (values(workplace / out) for out in ("own", "engine"))
        assert own.keys() == engine.keys()
        assert len(own) == 8
        np.testing.assert_allclose(list(engine.values()), list(own.values()), rtol=1e-4)

    def test_auto_in_an_evaluation(self, name, monkeypatch):
        calls = runs(monkeypatch)
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        command = ["evaluate", "photos", *MODEL, "--methods", "score-cam", "--metrics", "complexity"]
        assert main([*command, "--batch-size", "1", "--inference-engine", "auto"]) == 0
        assert calls


class TestRefusals:
    @pytest.mark.parametrize("command", [("explain", "photos"), ("evaluate", "photos")])
    def test_a_precision_alone(self, command, capsys):
        assert main([*command, *NEVER, "--inference-precision", "bfloat16"]) == 2
        said = "--inference-precision belongs to --inference-engine: expected openvino, onnxruntime or auto there."
        assert capsys.readouterr().err.splitlines() == [f"fusioncam: error: {said}"]

    @pytest.mark.parametrize(
        ("command", "named"),
        [
            (("explain", "photos", "--method", "grad-cam"), "grad-cam"),
            (("evaluate", "photos", "--methods", "grad-cam,eigen-cam"), "grad-cam, eigen-cam"),
        ],
    )
    def test_methods_without_masked_images(self, command, named, capsys):
        pytest.importorskip("onnxruntime")
        assert main([*command, *NEVER, "--inference-engine", "onnxruntime"]) == 2
        said = capsys.readouterr().err
        assert "--inference-engine is for methods that run the model on masked images" in said
        assert f"not {named}" in said

    def test_an_engine_that_is_not_installed(self, capsys, monkeypatch):
        hide("openvino", monkeypatch)
        assert main(["explain", "photos", *NEVER, "--inference-engine", "openvino"]) == 2
        assert 'pip install "fusioncam[openvino]"' in capsys.readouterr().err

    def test_a_precision_that_the_engine_has_not(self, capsys):
        pytest.importorskip("onnxruntime")
        options = ("--inference-engine", "onnxruntime", "--inference-precision", "bfloat16")
        assert main(["explain", "photos", *NEVER, *options]) == 2
        assert "--inference-precision bfloat16: onnxruntime cannot compute so here, ONNX" in capsys.readouterr().err

    def test_an_engine_of_another_name(self, capsys):
        assert main(["explain", "photos", *NEVER, "--inference-engine", "ray"]) == 2
        assert "invalid choice: 'ray'" in capsys.readouterr().err
