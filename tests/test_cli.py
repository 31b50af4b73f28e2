"""The command line, run in this process on a small PyTorch model."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core.cli import main
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.plugins.loading import load_model

pytest.importorskip("torch")

MODELS = """
import torch
from torch import nn

from fusioncam_core import LoadedModel, Preprocessing

preprocessing = Preprocessing(size=(12, 16), mean=0.0, std=255.0)


def net():
    torch.manual_seed(3)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3))
    return nn.Sequential(features, nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7))


def named():
    return LoadedModel(net(), preprocessing, tuple("abcdefg"), name="Tiny")


def other_layer():
    return LoadedModel(net(), preprocessing, layer="0.1")


def other_layer_itself():
    model = net()
    return LoadedModel(model, preprocessing, layer=model[0][1])


def bare():
    return net()


def pair():
    return net(), lambda photograph: torch.full((3, 12, 16), 0.5)


def too_few_names():
    return LoadedModel(net(), preprocessing, ("a", "b"))


def dead():
    model = net()
    nn.init.zeros_(model[-1].weight)
    return model, preprocessing


def not_a_model():
    return "weights.pt", preprocessing
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A current directory with models and two photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_models", raising=False)
    (tmp_path / "tiny_models.py").write_text(MODELS, encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.fromarray(noise[::-1]).save(tmp_path / "turned.png")
    yield tmp_path
    sys.modules.pop("tiny_models", None)


def model(function="named"):
    return ["--model", f"python:tiny_models:{function}"]


def errors(capsys):
    return capsys.readouterr().err.splitlines()


class TestBudget:
    def test_masks_that_were_not_run_are_told(self, workplace, capsys):
        assert main(["explain", "noise.png", *model(), "--budget", "3", "--out", "maps"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "  Fusion-CAM, layer 1, 8 model evaluations" in lines
        (told,) = [line for line in lines if "masks run" in line]
        assert told.startswith("  3 masks run; the region map may still move by ")

    def test_a_tolerance(self, workplace, capsys):
        assert main(["explain", "noise.png", *model(), "--method", "score-cam", "--tolerance", "0.5"]) == 0
        assert "masks run" not in capsys.readouterr().out, "six masks are fewer than a first round has"

    def test_of_a_method_without_masks(self, workplace, capsys):
        assert main(["explain", "noise.png", *model(), "--method", "grad-cam", "--budget", "3"]) == 2
        assert errors(capsys) == ["fusioncam: error: --budget is for Score-CAM and what builds on it, not grad-cam"]


class TestEvaluate:
    METHODS = ("--methods", "grad-cam,fusion-cam", "--metrics", "average-drop,deletion")

    def test_compares_and_writes(self, workplace, capsys):
        assert main(["evaluate", "noise.png", "turned.png", *model(), *self.METHODS, "--out", "found"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        lines = out.splitlines()
        assert max(map(len, lines[:-1])) <= 80
        assert lines[0] == "Sequential: 2 images, 2 methods"
        assert "Average drop (lower is better)" in lines
        assert sorted(path.name for path in (workplace / "found").iterdir()) == [
            "curves.png",
            "ranking.png",
            "summary.json",
            "summary.txt",
            "values.csv",
            "values.jsonl",
        ]
        numbers = json.loads((workplace / "found" / "summary.json").read_text())
        assert set(numbers["metrics"]) == {"average-drop", "deletion"}
        assert numbers["reference"] == "fusion-cam"

    def test_goes_on_where_it_was(self, workplace, capsys):
        command = ["evaluate", "noise.png", *model(), *self.METHODS, "--out", "found"]
        assert main(command) == 0
        before = (workplace / "found" / "values.jsonl").read_text()
        first = capsys.readouterr().out
        assert main(command) == 0
        assert (workplace / "found" / "values.jsonl").read_text() == before
        assert capsys.readouterr().out == first

    def test_labels(self, workplace, capsys):
        (workplace / "labels.csv").write_text("noise.png,c\nturned.png,5\n")
        command = ["evaluate", "noise.png", "turned.png", *model(), *self.METHODS, "--labels", "labels.csv"]
        assert main(command) == 0
        rows = (workplace / "fusioncam-evaluation" / "values.csv").read_text().splitlines()[1:]
        assert {tuple(row.split(",")[:2]) for row in rows} == {("noise", "2"), ("turned", "5")}

    def test_a_folder_with_a_broken_photograph(self, workplace, capsys):
        (workplace / "folder").mkdir()
        (workplace / "noise.png").rename(workplace / "folder" / "noise.png")
        (workplace / "folder" / "broken.png").write_bytes(b"nothing")
        assert main(["evaluate", "folder", *model(), *self.METHODS]) == 1
        out = capsys.readouterr().out
        assert "Sequential: 1 images" in out
        assert "broken: " in out

    def test_unknown_metric(self, workplace, capsys):
        assert main(["evaluate", "noise.png", *model(), "--metrics", "beauty"]) == 2
        assert "A metric is one of 'average-drop'" in errors(capsys)[0]


class TestExplain:
    def test_writes_and_reports(self, workplace, capsys):
        assert main(["explain", "noise.png", "turned.png", *model(), "--out", "maps"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        names = ["noise.json", "noise.npz", "noise.png", "turned.json", "turned.npz", "turned.png"]
        assert sorted(path.name for path in (workplace / "maps").iterdir()) == names
        lines = out.splitlines()
        assert [lines[0], lines[16]] == ["noise.png", "turned.png"]
        assert lines[7] == "  Fusion-CAM, layer 1, 11 model evaluations"  # 1 + 6 channels + black + 3 masks
        assert lines[14:16] == ["  wrote maps/noise.png, .npz, .json", ""]
        assert max(map(len, lines)) <= 80

    def test_is_what_the_explainer_gives(self, workplace):
        assert main(["explain", "noise.png", *model(), "--targets", "5,0,5", "--contributions", "signed"]) == 0
        loaded = load_model(model()[1])
        photograph = Image.open("noise.png")
        expected = EXPLAINERS["fusion-cam"](loaded.model, contributions="signed")(
            loaded.preprocessing(photograph)[None], [[5, 0, 5]]
        ).numpy()
        with np.load(workplace / "fusioncam-out" / "noise.npz") as arrays:
            assert arrays["maps"].shape == (3, 12, 16)
            np.testing.assert_allclose(arrays["maps"], expected.maps[0], atol=1e-6)
            np.testing.assert_allclose(arrays["weights/weight_region"], expected.weights["weight_region"][0], rtol=1e-3)
        numbers = json.loads((workplace / "fusioncam-out" / "noise.json").read_text())
        assert [(target["class"], target["name"]) for target in numbers["targets"]] == [
            (5, "f"),
            (0, "a"),
            (5, "f"),
        ]

    def test_one_target_has_no_target_axis(self, workplace):
        assert main(["explain", "noise.png", *model(), "--targets", "5", "--method", "grad-cam"]) == 0
        with np.load(workplace / "fusioncam-out" / "noise.npz") as arrays:
            assert arrays["maps"].shape == (12, 16)
            assert arrays["targets"] == 5
            assert [name for name in arrays if "/" in name] == []

    def test_layer(self, workplace):
        assert main(["explain", "noise.png", *model(), "--layer", "0.1", "--method", "grad-cam"]) == 0
        assert json.loads((workplace / "fusioncam-out" / "noise.json").read_text())["layer"] == "0.1"

    def test_layer_of_the_loader(self, workplace):
        assert main(["explain", "noise.png", *model("other_layer"), "--method", "grad-cam"]) == 0
        assert json.loads((workplace / "fusioncam-out" / "noise.json").read_text())["layer"] == "0.1"

    def test_percentile_is_passed_on(self, workplace):
        assert main(["explain", "noise.png", *model(), "--percentile", "100"]) == 0
        with np.load(workplace / "fusioncam-out" / "noise.npz") as arrays:
            assert np.unique(arrays["parts/denoised"]).tolist() == [0.0, 1.0]  # the greatest value alone remains

    def test_preprocessing_by_a_function(self, workplace):
        assert main(["explain", "noise.png", *model("pair"), "--method", "grad-cam"]) == 0
        numbers = json.loads((workplace / "fusioncam-out" / "noise.json").read_text())
        assert numbers["input_shape"] == [3, 12, 16]
        assert numbers["targets"][0]["name"] is None

    def test_equal_names_do_not_overwrite_each_other(self, workplace, capsys):
        (workplace / "sub").mkdir()
        Image.open("turned.png").save("sub/noise.jpg")
        Image.open("turned.png").save("noise.jpg")
        assert main(["explain", "noise.png", "sub/noise.jpg", "noise.jpg", *model(), "--method", "grad-cam"]) == 0
        out = workplace / "fusioncam-out"
        names = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
        assert names == {"noise.png", "sub/noise.png", "noise-2.png"}

    @pytest.mark.filterwarnings("default")
    def test_warnings_name_the_photograph(self, capsys):
        assert main(["explain", "noise.png", "turned.png", *model("dead"), "--method", "grad-cam"]) == 0
        lines = errors(capsys)
        assert [line.partition(": warning: ")[0] for line in lines].count("fusioncam: noise.png") >= 1
        assert [line.partition(": warning: ")[0] for line in lines].count("fusioncam: turned.png") >= 1
        assert "is zero everywhere" in lines[0]


class TestBrokenPhotographs:
    def test_the_others_are_still_explained(self, workplace, capsys):
        (workplace / "text.png").write_text("not a picture")
        arguments = ["explain", "text.png", "noise.png", "gone.png", *model(), "--method", "grad-cam"]
        assert main(arguments) == 1
        assert errors(capsys) == [
            "fusioncam: text.png is not an image Pillow can read.",
            "fusioncam: gone.png: there is no such file.",
        ]
        assert {path.name for path in (workplace / "fusioncam-out").glob("*.png")} == {"noise.png"}

    def test_none_readable(self, capsys):
        assert main(["explain", "gone.png", *model()]) == 1
        assert errors(capsys) == ["fusioncam: gone.png: there is no such file."]


class TestErrors:
    """Everything that is not a photograph's fault: one line, exit status 2."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "error: the following arguments are required: COMMAND (see fusioncam --help)"),
            (["explode"], "error: argument COMMAND: invalid choice: 'explode'"),
            (["explain", "noise.png"], "error: the following arguments are required: --model"),
            (["explain", *model()], "error: the following arguments are required: PHOTO"),
            (
                ["explain", "noise.png", *model(), "--targets", "cat"],
                "error: argument --targets: 'cat' is not a list of class numbers such as 281 or 281,285",
            ),
            (["explain", "noise.png", *model(), "--method", "cam"], "error: --method is one of '"),
            (
                ["explain", "noise.png", *model(), "--method", "grad-cam", "--percentile", "5"],
                "error: --percentile belongs to --method fusion-cam, not grad-cam",
            ),
            (["explain", "noise.png", *model(), "--percentile", "101"], "error: "),
            (["explain", "noise.png", *model(), "--batch-size", "0"], "error: batch_size is a positive"),
            (["explain", "noise.png", *model(), "--targets", "7"], "error: Sequential has 7 classes"),
            (["explain", "noise.png", *model(), "--targets", "-1"], "error: Classes count from 0"),
            (["explain", "noise.png", *model(), "--layer", "0.9"], "error: "),
            (["explain", "noise.png", "--model", "resnet50"], "error: No plugin can load 'resnet50'."),
            (["explain", "noise.png", *model("nmaed")], "error: 'python:tiny_models:nmaed': the module"),
            (["explain", "noise.png", *model("not_a_model")], "error: No plugin adapts a model of type builtins.str"),
            (["layers", *model("bare")], "error: 'python:tiny_models:bare' gives a model without its preprocessing"),
            (["explain", "noise.png", *model("too_few_names")], "error: The model has 7 classes, but there are 2"),
            (["explain", "noise.png", *model(), "--out", "noise.png"], "error: noise.png: File exists"),
        ],
    )
    def test_one_line_and_two(self, capsys, arguments, message):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith(f"fusioncam: {message}")

    def test_traceback_on_demand(self, capsys):
        assert main(["layers", "--model", "resnet50", "--traceback"]) == 2
        lines = errors(capsys)
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1].startswith("fusioncam: error: No plugin can load 'resnet50'.")

    def test_interrupted(self, workplace, capsys):
        (workplace / "tiny_models.py").write_text("def load():\n    raise KeyboardInterrupt\n")
        assert main(["layers", *model("load")]) == 130
        assert errors(capsys) == []

    def test_missing_matplotlib_is_said_before_the_work(self, workplace, capsys, monkeypatch):
        hide("matplotlib", monkeypatch)
        assert main(["explain", "noise.png", *model()]) == 2
        assert errors(capsys) == ['fusioncam: error: Drawing pictures needs matplotlib: pip install "fusioncam[cli]"']
        assert not (workplace / "fusioncam-out").exists()


class TestLayers:
    def test_lists_spatial_layers_and_marks_the_default(self, capsys):
        assert main(["layers", *model()]) == 0
        out = capsys.readouterr().out
        assert [line.partition("  space along axes 2, 3 (moved 0.")[0] for line in out.splitlines()] == [
            "  layer  kind        output       measured",
            "  0.0    Conv2d      4 x 12 x 16",
            "  0.1    ReLU        4 x 12 x 16",
            "  0.2    MaxPool2d   4 x 6 x 8  ",
            "  0.3    Conv2d      6 x 4 x 6  ",
            "  0      Sequential  6 x 4 x 6  ",
            "* 1      Sigmoid     6 x 4 x 6  ",
            "",
            "* the layer that is explained by default",
        ]

    @pytest.mark.parametrize("function", ["other_layer", "other_layer_itself"])
    def test_default_of_the_loader(self, capsys, function):
        assert main(["layers", *model(function)]) == 0
        marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]
        assert marked[0].startswith("* 0.1    ReLU        4 x 12 x 16  space along axes 2, 3 (moved 0.")
        assert len(marked) == 2

    def test_all(self, capsys):
        assert main(["layers", *model(), "--all"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[7:10] == [
            "  2      AdaptiveAvgPool2d  6 x 1 x 1",
            "  3      Flatten            6",
            "  4      Linear             7",
        ]


class TestTheCommandItself:
    @pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["layers", "--help"], ["--version"]])
    def test_help_and_version_exit_with_zero(self, capsys, arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    def test_version(self, capsys):
        with pytest.raises(SystemExit):
            main(["--version"])
        word, number = capsys.readouterr().out.split()
        assert word == "fusioncam"
        assert number[0].isdigit()

    def test_module_runs_and_loads_no_framework_and_no_matplotlib(self):
        code = (
            "import runpy, sys\n"
            "sys.argv = ['fusioncam', 'layers', '--model', 'nothing']\n"
            "try:\n"
            "    runpy.run_module('fusioncam_core', run_name='__main__')\n"
            "except SystemExit as error:\n"
            "    heavy = {'torch', 'tensorflow', 'jax', 'keras', 'matplotlib', 'PIL'} & set(sys.modules)\n"
            "    sys.exit(f'{error.code} {sorted(heavy)}')\n"
        )
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert finished.stderr.splitlines()[-1] == "2 []"

    def test_names_outside_the_terminals_alphabet(self, workplace, capsys, monkeypatch):
        class Ascii:
            encoding = "ascii"
            text = ""

            def write(self, text):
                self.text += text.encode("ascii").decode()

            def flush(self):
                pass

        monkeypatch.setattr(sys, "stderr", Ascii())
        assert main(["explain", "größe.png", *model()]) == 1
        assert sys.stderr.text == "fusioncam: gr\\xf6\\xdfe.png: there is no such file.\n"
