"""The command line, run in this process on a small PyTorch model."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core import Contrast, Explanation, ScoreCAM, evaluate
from fusioncam_core.cli import main
from fusioncam_core.cli.classes import numbered, targets_given
from fusioncam_core.cli.drawing import add_drawing, style_of
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.metrics import Deletion
from fusioncam_core.models.digest import weights_digest
from fusioncam_core.plugins.loading import load_model
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.style import Style
from fusioncam_core.results.writing import is_ours

torch = pytest.importorskip("torch")

MODELS = """
import numpy as np
import torch
from torch import nn

from fusioncam_core import LoadedModel, Preprocessing
from fusioncam_core.models.black_box import BlackBox

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


def nan_for_turned():
    def prepared(photograph):
        image = preprocessing(photograph)
        return image * float("nan") if image[0, 0, 0] < image[0, -1, 0] else image

    return net(), prepared


def brightness(images):
    return np.stack([images.mean(axis=(1, 2, 3)), 1 - images.mean(axis=(1, 2, 3))], axis=1)


def black_box():
    return BlackBox(brightness), preprocessing


def too_few_names():
    return LoadedModel(net(), preprocessing, ("a", "b"))


def binary():
    model = net()
    model[-1] = nn.Linear(6, 1)
    return LoadedModel(model, preprocessing, task="binary")


def twins():
    return LoadedModel(net(), preprocessing, ("one", "twin", "Twin", "d", "e", "f", "g"))


def dead():
    model = net()
    nn.init.zeros_(model[-1].weight)
    return model, preprocessing


def of_the_size():
    # Fails of dark photographs, gives nothing of narrow ones and NaN of small ones.
    def prepare(photograph):
        width, height = photograph.size
        if photograph.getextrema() == ((0, 0), (0, 0), (0, 0)):
            raise KeyError("dark")
        if width < 5:
            return None
        array = torch.rand(3, height, width)
        return array * float("nan") if height < 5 else array

    return net(), prepare


def of_one_size():
    # Preprocessing scales nothing, and the model takes 40 pixels across (and those of a made-up photograph) only.
    class Only(nn.Module):
        def forward(self, images):
            if images.shape[-1] not in (40, 256):
                raise RuntimeError("40 pixels across, please")
            return images

    model = nn.Sequential(Only(), *net())
    return model, lambda photograph: torch.rand(3, *photograph.size[::-1])


def without_input():
    return net(), lambda photograph: None


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


class TestBaseline:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [("zero", "zero"), ("blur", "blur"), ("0.5", 0.5), ("0.1,0.6,0.9", (0.1, 0.6, 0.9)), ("-1,-1,-1", (-1.0,) * 3)],
    )
    def test_it_is_the_explainers(self, workplace, given, meant):
        method = ["--method", "score-cam", "--no-progress", "--out", "maps"]
        assert main(["explain", "noise.png", *model(), *method, f"--baseline={given}"]) == 0
        maps = np.load("maps/noise.npz")["maps"]
        tiny = sys.modules["tiny_models"]
        image = tiny.preprocessing(Image.open("noise.png"))[None]
        expected = {each: ScoreCAM(tiny.net(), baseline=each)(image).numpy().maps[0] for each in {meant, "zero"}}
        np.testing.assert_allclose(np.squeeze(maps), expected[meant], atol=1e-6)
        if meant != "zero":
            assert np.abs(expected[meant] - expected["zero"]).max() > 1e-4

    @pytest.mark.parametrize("method", ["grad-cam", "ablation-cam", "smooth-grad-cam++"])
    def test_of_a_method_that_erases_nothing(self, workplace, capsys, method):
        assert main(["explain", "noise.png", *model(), "--method", method, "--baseline", "blur"]) == 2
        told = "--baseline is for methods that erase parts of the image, such as fusion-cam, not"
        assert errors(capsys) == [f"fusioncam: error: {told} {method}"]

    @pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning")  # of Group-CAM on noise
    @pytest.mark.parametrize("method", ["fusion-cam", "union-cam", "group-cam", "rise"])
    def test_of_methods_that_erase(self, workplace, method):
        assert main(["explain", "noise.png", *model(), "--method", method, "--baseline", "blur", "--maps-only"]) == 0

    @pytest.mark.parametrize("given", ["black", "0.5,", "nan", "1e999", ""])
    def test_what_is_none(self, workplace, capsys, given):
        assert main(["explain", "noise.png", *model(), f"--baseline={given}"]) == 2
        assert f"{given!r} is none of zero, blur, a number such as 0.5, and one a channel" in capsys.readouterr().err

    def test_numbers_for_other_channels(self, workplace, capsys):
        assert main(["explain", "noise.png", *model(), "--baseline", "1,2", "--no-progress"]) == 2
        assert "A baseline of shape (2, 1, 1) does not fit images of shape (3, 12, 16)" in "".join(errors(capsys))

    def test_of_an_evaluation(self, workplace):
        """What average gain finds depends on what is erased to, whatever the method."""
        options = ["--methods", "grad-cam", "--metrics", "average-gain", "--out", "found", "--no-progress"]
        assert main(["evaluate", "noise.png", "turned.png", *model(), *options, "--baseline", "0.5"]) == 0
        with open("found/values.csv", encoding="utf-8", newline="") as lines:
            found = [float(row["value"]) for row in csv.DictReader(lines)]
        tiny = sys.modules["tiny_models"]
        images = np.stack([tiny.preprocessing(Image.open(name)) for name in ("noise.png", "turned.png")])
        of_half, of_zero = (
            evaluate(tiny.net(), images, ["grad-cam"], ["average-gain"], baseline=each).values.ravel()
            for each in (0.5, "zero")
        )
        np.testing.assert_allclose(found, of_half, atol=1e-5)
        assert np.abs(of_half - of_zero).max() > 1e-4


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
            "differences.png",
            "ranking.png",
            "summary.json",
            "summary.txt",
            "values.csv",
            "values.jsonl",
            "values.jsonl.lock",
        ]
        numbers = json.loads((workplace / "found" / "summary.json").read_text())
        assert set(numbers["metrics"]) == {"average-drop", "deletion"}
        assert numbers["reference"] == "fusion-cam"

    def test_options_of_fusion_cam(self, workplace, capsys):
        command = ["evaluate", "noise.png", *model(), *self.METHODS]
        options = ["--percentile", "60", "--contributions", "signed", "--variant", "calibrated", "--tolerance", "0.5"]
        assert main([*command, *options, "--out", "found"]) == 0
        assert main([*command, "--out", "usual"]) == 0
        capsys.readouterr()
        tables = [(workplace / name / "values.csv").read_text().splitlines() for name in ("found", "usual")]
        of_grad, of_fusion = ([[row for row in table if name in row] for table in tables] for name in ("grad", "fus"))
        assert of_grad[0] == of_grad[1]
        assert of_fusion[0] != of_fusion[1]
        assert main([*command[:-4], "--methods", "grad-cam", "--percentile", "60"]) == 2
        assert "percentile= goes to methods that are given by name" in errors(capsys)[0]

    @pytest.mark.parametrize(("table", "first"), [("markdown", "| method | Average drop"), ("latex", "\\begin{table}")])
    def test_tables_for_documents(self, workplace, capsys, table, first):
        assert main(["evaluate", "noise.png", *model(), *self.METHODS, "--table", table]) == 0
        out = capsys.readouterr().out
        assert out.startswith(first)
        assert "wrote" not in out
        assert "Fusion-CAM" in out

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

    def test_a_nan_photograph_is_named_and_left_out(self, workplace, capsys):
        command = ["evaluate", "noise.png", "turned.png", *model("nan_for_turned"), *self.METHODS]
        assert main(command) == 1
        out = capsys.readouterr().out
        assert "turned: " in out
        assert "NaN" in out
        assert main(["evaluate", "noise.png", *model("nan_for_turned"), *self.METHODS]) == 0

    def test_a_name_that_is_no_text(self, workplace, capsys):
        name = os.fsdecode(b"caf\xe9.png")
        (workplace / "folder").mkdir()
        try:
            (workplace / "noise.png").rename(workplace / "folder" / name)
        except OSError:
            pytest.skip("this file system takes names in UTF-8 only")
        (workplace / "folder" / os.fsdecode(b"\xff.png")).write_bytes(b"nothing")
        assert main(["evaluate", "folder", *model(), *self.METHODS]) == 1
        assert "\\udcff: " in capsys.readouterr().out
        assert "caf\\udce9," in (workplace / "fusioncam-evaluation" / "values.csv").read_text()

    def test_interrupted(self, workplace, capsys, monkeypatch):
        command = ["evaluate", "noise.png", "turned.png", *model(), *self.METHODS, "--batch-size", "1"]
        original, calls = Deletion.measure, itertools.count()

        def measure(*arguments):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(Deletion, "measure", measure)
        assert main(command) == 130
        (line,) = errors(capsys)
        assert line == "fusioncam: interrupted: 5 values are kept in fusioncam-evaluation; the same command goes on"
        assert main(command) == 0
        assert next(calls) == 5, "of the four, two were kept"

    def test_somebody_elses_values(self, workplace, capsys):
        (workplace / "found").mkdir()
        (workplace / "found" / "values.jsonl").write_text('{"mine": 1}')
        assert main(["evaluate", "noise.png", *model(), *self.METHODS, "--out", "found"]) == 2
        assert "was not written by an evaluation" in errors(capsys)[0]
        assert [path.name for path in (workplace / "found").iterdir()] == ["values.jsonl"]
        assert (workplace / "found" / "values.jsonl").read_text() == '{"mine": 1}'

    def test_our_own_pictures_are_no_photographs(self, workplace, capsys):
        for _ in range(2):
            assert main(["evaluate", ".", *model(), *self.METHODS]) == 0
            assert "Sequential: 2 images" in capsys.readouterr().out
        assert main(["evaluate", ".", *model(), *self.METHODS, "--out", "."]) == 2
        assert "--out . is the folder of the photographs" in errors(capsys)[0]

    def test_a_model_without_weights_needs_a_name(self, workplace, capsys):
        command = ["evaluate", "noise.png", *model("black_box"), "--methods", "rise", "--metrics", "complexity"]
        assert main(command) == 2
        assert "shows no weights" in errors(capsys)[0]
        assert main([*command, "--model-name", "brightness"]) == 0

    def test_over_a_photograph_of_a_results_name(self, workplace, capsys):
        (workplace / "photos").mkdir()
        shutil.copy("noise.png", "photos/ranking.png")
        before = (workplace / "photos" / "ranking.png").read_bytes()
        assert main(["evaluate", "photos/ranking.png", *model(), *self.METHODS, "--out", "photos"]) == 2
        assert "photos/ranking.png is " in errors(capsys)[0]
        assert (workplace / "photos" / "ranking.png").read_bytes() == before
        assert not (workplace / "photos" / "summary.json").exists()

    def test_unknown_metric(self, workplace, capsys):
        assert main(["evaluate", "noise.png", *model(), "--metrics", "beauty"]) == 2
        assert "A metric is one of 'average-drop'" in errors(capsys)[0]


class TestExplain:
    def test_writes_and_reports(self, workplace, capsys):
        assert main(["explain", "noise.png", "turned.png", *model(), "--out", "maps"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        names = ["index.csv", "noise.json", "noise.npz", "noise.png", "turned.json", "turned.npz", "turned.png"]
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

    def test_into_the_folder_of_the_photographs(self, workplace, capsys):
        before = (workplace / "noise.png").read_bytes()
        assert main(["explain", "noise.png", *model(), "--method", "grad-cam", "--out", "."]) == 0
        assert (workplace / "noise.png").read_bytes() == before
        assert {path.name for path in workplace.glob("noise*")} == {f"noise-2.{e}" for e in ("png", "npz", "json")} | {
            "noise.png"
        }
        line = capsys.readouterr().out.splitlines()[-3]
        assert line == (
            "  wrote noise-2.png, .npz, .json; numbered, since noise.png is one of the files that are read: results "
            "are never written over those"
        )

    def test_photographs_that_are_named_like_numbered_ones(self, workplace):
        before = {}
        for name in ("noise.png", "noise-2.png", "noise-3.png"):
            Image.open("turned.png").save(name)
            before[name] = (workplace / name).read_bytes()
        photographs = [*before, "--out", ".", "--overwrite", "--method", "grad-cam"]
        for _ in range(2):
            assert main(["explain", *photographs, *model()]) == 0
            assert {name: (workplace / name).read_bytes() for name in before} == before
            assert {path.name for path in workplace.glob("*.npz")} == {
                "noise-4.npz",
                "noise-2-2.npz",
                "noise-3-2.npz",
            }

    def test_no_number_makes_another_photographs_name(self, workplace):
        (workplace / "maps").mkdir()
        (workplace / "maps" / "noise.png").write_bytes(b"theirs")
        shutil.copy("turned.png", "noise-2.png")
        command = ["explain", "noise.png", "noise-2.png", *model(), "--method", "grad-cam", "--out", "maps"]
        assert main(command) == 0
        written = {path.name: Explanation.load(path) for path in (workplace / "maps").glob("*.npz")}
        assert set(written) == {"noise-3.npz", "noise-2.npz"}

    def test_a_command_that_is_faster(self, workplace, monkeypatch):
        """It writes its files between our look and our move."""
        others = {f"noise.{ending}": b"theirs" for ending in ("png", "npz", "json")}
        link = os.link

        def slow(temporary, target):
            for name, content in others.items():
                (workplace / "maps" / name).write_bytes(content)
            link(temporary, target)

        monkeypatch.setattr(os, "link", slow)
        assert main(["explain", "noise.png", *model(), "--method", "grad-cam", "--out", "maps"]) == 0
        found = {path.name: path.read_bytes() for path in (workplace / "maps").iterdir()}
        assert {name: found.pop(name) for name in others} == others
        assert set(found) == {"noise-2.png", "noise-2.npz", "noise-2.json", "index.csv"}

    @pytest.mark.filterwarnings("default")
    def test_once_more(self, workplace, capsys):
        command = ["explain", "noise.png", *model(), "--method", "grad-cam", "--out", "maps"]
        assert main([*command, "--targets", "1"]) == 0
        before = {path.name: path.read_bytes() for path in (workplace / "maps").iterdir()}
        capsys.readouterr()
        assert main([*command, "--targets", "2"]) == 0
        assert "  wrote maps/noise-2.png, .npz, .json; numbered, since maps/noise.png is there already" in (
            capsys.readouterr().out
        )
        assert {name: (workplace / "maps" / name).read_bytes() for name in before} == before
        assert main([*command, "--targets", "3", "--overwrite"]) == 0
        assert len(list((workplace / "maps").iterdir())) == 8, "of two runs three files and an index"
        assert [Explanation.load(f"maps/{name}").targets[0] for name in ("noise", "noise-2")] == [3, 2]

    @pytest.mark.parametrize("function", ["named", "pair"])
    def test_the_file_says_how_it_came_to_be(self, workplace, function):
        assert main(["explain", "noise.png", *model(function), "--percentile", "20", "--out", "maps"]) == 0
        found = Explanation.load("maps/noise")
        weights = weights_digest(adapt_model(sys.modules["tiny_models"].net()))
        assert (found.provenance.weights_digest, found.provenance.options["percentile"]) == (weights, 20)
        told = found.provenance.preprocessing
        assert told["size"] == [12, 16] if function == "named" else told == "tiny_models.pair.<locals>.<lambda>"
        assert json.loads((workplace / "maps" / "noise.json").read_text())["provenance"] == found.provenance.to_json()

    @pytest.mark.parametrize("ending", ["png", "npz", "json"])
    def test_a_strangers_file_in_the_folder(self, workplace, ending):
        (workplace / "maps").mkdir()
        (workplace / "maps" / f"noise.{ending}").write_bytes(b"theirs")
        command = ["explain", "noise.png", *model(), "--method", "grad-cam", "--out", "maps", "--overwrite"]
        assert main(command) == 0
        assert main(command) == 0
        names = {path.name for path in (workplace / "maps").iterdir()}
        assert names == {f"noise.{ending}", "noise-2.png", "noise-2.npz", "noise-2.json", "index.csv"}
        assert (workplace / "maps" / f"noise.{ending}").read_bytes() == b"theirs"

    def test_an_earlier_result_as_a_photograph(self, workplace):
        command = [*model(), "--method", "grad-cam", "--out", "maps", "--overwrite"]
        assert main(["explain", "noise.png", *command]) == 0
        before = (workplace / "maps" / "noise.png").read_bytes()
        assert main(["explain", "maps/noise.png", *command]) == 0
        assert (workplace / "maps" / "noise.png").read_bytes() == before

    @pytest.mark.filterwarnings("default")
    def test_warnings_name_the_photograph(self, capsys):
        assert main(["explain", "noise.png", "turned.png", *model("dead"), "--method", "grad-cam"]) == 0
        lines = errors(capsys)
        assert [line.partition(": warning: ")[0] for line in lines].count("fusioncam: noise.png") >= 1
        assert [line.partition(": warning: ")[0] for line in lines].count("fusioncam: turned.png") >= 1
        assert "is zero everywhere" in lines[0]


class TestPictures:
    GRADIENT = ("--method", "grad-cam", "--out", "maps")

    def arrays(self, path):
        with np.load(path) as entries:
            return {name: entries[name] for name in ("maps", "targets", "scores")}

    def size(self, path):
        with Image.open(path) as image:
            return image.size

    def test_all_options_make_a_style(self):
        parser = argparse.ArgumentParser()
        add_drawing(parser)
        assert style_of(parser.parse_args([])) == Style()
        options = (
            "--scale image --colour-map viridis --alpha 0.5 --contours 0.3,0.6 --threshold 0.1 --panels maps,union"
        )
        style = style_of(parser.parse_args([*options.split(), "--dpi", "photograph"]))
        assert style == Style("image", "viridis", 0.5, (0.3, 0.6), 0.1, ("maps", "union"), "photograph")

    @pytest.mark.parametrize("picture", ["pdf", "svg"])
    def test_formats(self, workplace, capsys, picture):
        for number in ("", "-2"):
            assert main(["explain", "noise.png", *model(), *self.GRADIENT, "--picture", picture]) == 0
            assert f"  wrote maps/noise{number}.{picture}, .npz, .json" in capsys.readouterr().out
            assert is_ours(workplace / "maps" / f"noise{number}.{picture}", "explanation")
        assert not list((workplace / "maps").glob("*.png"))

    def test_the_whole_photograph_or_the_window(self, workplace):
        """The window of 32 x 24 in 40 x 24: other proportions."""
        sizes = []
        for frame in ([], ["--frame", "photograph"], ["--frame", "window"]):
            command = ["explain", "noise.png", *model(), *self.GRADIENT, "--overwrite", "--dpi", "100", *frame]
            assert main(command) == 0
            sizes.append(self.size("maps/noise.png"))
        assert sizes[0] == sizes[1]
        assert sizes[2][1] - sizes[0][1] == pytest.approx(100 * 2.1 * (24 / 32 - 24 / 40), abs=20)

    def test_a_row_of_contrast(self, workplace, capsys):
        command = ["explain", "noise.png", *model(), *self.GRADIENT, "--targets", "5", "--contrast", "D", "1"]
        assert main(command) == 0
        assert "  why d and not b: value " in capsys.readouterr().out
        loaded = load_model(model()[1])
        image = loaded.preprocessing(Image.open("noise.png"))[None]
        found = self.arrays("maps/noise.npz")
        assert found["targets"].tolist() == [5, -1]
        for number, target in enumerate((5, Contrast(3, 1))):
            expected = EXPLAINERS["grad-cam"](loaded.model)(image, target).numpy()
            np.testing.assert_allclose(found["maps"][number], expected.maps[0], atol=1e-6)
        numbers = json.loads((workplace / "maps" / "noise.json").read_text())["targets"]
        assert [(each["class"], each["name"]) for each in numbers] == [(5, "f"), (None, "why d and not b")]

    def test_the_table_of_a_contrast_has_values_and_no_probabilities(self, workplace, capsys):
        command = ["explain", "noise.png", *model(), "--contrast", "a", "b", "--explain-table"]
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        of_class, of_contrast = (line for line in lines if line.endswith("union weight  fusion weight"))
        assert of_class.split()[0] == "probability"
        assert of_contrast.split()[0] == "value"
        assert len(of_class) == len(of_contrast)
        baseline = lines[lines.index(of_contrast) + 1].split()
        # The logits of a black picture, which the bias of the last layer has alone where the others see zeros.
        loaded = load_model(model()[1])
        black = loaded.model(torch.zeros(1, 3, 12, 16)).detach()[0]
        assert float(baseline[1]) == pytest.approx(float(black[0] - black[1]), abs=6e-5)
        assert "  value          of a contrast or another function of the outputs, which has" in lines
        assert max(map(len, lines)) <= 80

    def test_two_contrasts_of_a_model_without_names(self, workplace, capsys):
        assert main(["explain", "noise.png", *model("pair"), "--contrast", "0", "1", "--contrast", "1", "0"]) == 0
        assert self.arrays("fusioncam-out/noise.npz")["targets"][1:].tolist() == [-1, -1]
        assert "  why 1 and not 0: " in capsys.readouterr().out

    @pytest.mark.filterwarnings("ignore:The grad-cam map is zero")
    @pytest.mark.parametrize("pair", [("1", "0"), ("0", "1")])
    def test_a_contrast_of_a_binary_model_with_one_logit(self, workplace, pair):
        assert main(["explain", "noise.png", *model("binary"), *self.GRADIENT, "--contrast", *pair]) == 0
        loaded = load_model(model("binary")[1])
        image = loaded.preprocessing(Image.open("noise.png"))[None]
        expected = EXPLAINERS["grad-cam"](loaded.model, task="binary")(image, int(pair[0])).numpy()
        found = self.arrays("maps/noise.npz")
        assert found["scores"][1] == pytest.approx(expected.scores[0])
        np.testing.assert_allclose(found["maps"][1], expected.maps[0], atol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--picture", "gif"], "argument --picture: invalid choice: 'gif'"),
            (["--scale", "all"], "argument --scale: invalid choice: 'all'"),
            (["--colour-map", "infermo"], "colour_map is a name that matplotlib knows"),
            (["--alpha", "2"], "alpha lies in [0, 1]: got 2.0"),
            (["--contours", "a"], "argument --contours: 'a' is not a list of numbers such as 0.3,0.6"),
            (["--contours", "0.5,7"], "contours lie in (0, 1)"),
            (["--threshold", "1"], "threshold lies in [0, 1)"),
            (["--panels", "fused"], "panels are some of "),
            (["--dpi", "high"], "argument --dpi: 'high' is neither a number of dots per inch nor photograph"),
            (["--dpi", "1e9"], "dpi lies in [10, 2000]"),
            (["--frame", "none"], "argument --frame: invalid choice: 'none'"),
            (["--contrast", "a", "z"], "--contrast: the model has no class 'z'; say its number"),
            (["--contrast", "a", "7"], "--contrast: the model has classes 0 to 6, got 7"),
            (["--contrast", "a", "0"], "--contrast takes two classes that differ: got 0 twice"),
            (["--contrast", "a"], "argument --contrast: expected 2 arguments"),
        ],
    )
    def test_errors(self, workplace, capsys, arguments, message):
        assert main(["explain", "noise.png", *model(), "--method", "grad-cam", *arguments]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}")
        assert not list(workplace.glob("fusioncam-out/*"))

    @pytest.mark.parametrize(
        ("function", "arguments", "message"),
        [
            ("pair", ["--frame", "photograph"], "--frame photograph needs a model with a fusioncam_core.Prep"),
            ("pair", ["--contrast", "a", "b"], "--contrast: expected numbers of classes, got 'a'"),
            (
                "twins",
                ["--contrast", "twin", "0"],
                "--contrast: 'twin' is the name of the classes 1 (twin), 2 (Twin): say the number",
            ),
        ],
    )
    def test_errors_of_some_models(self, workplace, capsys, function, arguments, message):
        assert main(["explain", "noise.png", *model(function), "--method", "grad-cam", *arguments]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}")


class TestTargetsByName:
    def targets(self, text, function="named"):
        """The classes that were explained, in their order."""
        command = ["explain", "noise.png", *model(function), "--method", "eigen-cam", "--maps-only", "--overwrite"]
        assert main([*command, "--targets", text]) == 0
        with np.load("fusioncam-out/noise.npz") as found:
            return found["targets"].reshape(-1).tolist()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("c", [2]),
            ("E, b,3", [4, 1, 3]),
            ('"c",0', [2, 0]),
        ],
    )
    def test_names_beside_numbers(self, text, expected):
        assert self.targets(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("white shark", [0]),
            ("Great White Shark", [0]),
            ('"great white shark, white shark"', [0]),
            ('"404",404', [1, 404]),
            ("404", [404]),
            ('"say ""a""",top5', [2, 3]),
            ("top", [4]),
            ("cat", [5]),
        ],
    )
    def test_names_that_are_numbers_or_have_commas_or_quotes(self, text, expected):
        names = ("great white shark, white shark", "404", 'say "a"', "top5", "top", "cat", "cat, kitten")
        assert numbered(targets_given(text), names) == expected

    def test_what_is_explained_is_that_class(self):
        """And no other row: the map is the explainer's of the number."""
        assert main(["explain", "noise.png", *model(), "--method", "grad-cam", "--targets", "f"]) == 0
        loaded = load_model(model()[1])
        image = loaded.preprocessing(Image.open("noise.png"))[None]
        expected = EXPLAINERS["grad-cam"](loaded.model)(image, 5).numpy()
        with np.load("fusioncam-out/noise.npz") as found:
            np.testing.assert_allclose(found["maps"], expected.maps[0], atol=1e-6)

    def test_by_the_names_of_a_file(self, workplace):
        (workplace / "names.txt").write_text("\n".join(["ant", "bee", "cow", "dog", "elk", "fox", "gnu"]))
        command = ["explain", "noise.png", *model("bare"), "--preprocess", "zero-to-one,size=12x16", "--maps-only"]
        named = ["--class-names", "names.txt", "--method", "grad-cam", "--targets", "fox"]
        assert main([*command, *named]) == 0
        with np.load("fusioncam-out/noise.npz") as found:
            assert found["targets"].item() == 5

    @pytest.mark.parametrize(
        ("text", "names", "message"),
        [
            ("expresso", ("espresso", "cup"), "the model has no class 'expresso'; did you mean 'espresso'?"),
            ("x", ("espresso", "cup"), "the model has no class 'x'; say its number, from 0."),
            ("crane", ("crane", "cup", "crane"), "'crane' is the name of the classes 0 (crane), 2 (crane): say the"),
            ("bass", ("sea, bass", "bass, sound"), "'bass' is the name of the classes 0 (sea, bass), 1 (bass, sound)"),
            ("cup", ("cup",) * 12, "9 (cup) and 2 more: say the number."),
            ("cup", None, "expected numbers of classes, got 'cup': the model's loader brings no names of classes. "),
        ],
    )
    def test_names_that_there_are_not_or_several_times(self, text, names, message):
        with pytest.raises(ValueError, match=r"^--targets: ") as caught:
            numbered(targets_given(text), names)
        assert message in str(caught.value)

    @pytest.mark.parametrize("text", ['"cup', 'cu"p" ,"mug', '"cup"s', ",", ""])
    def test_what_is_no_list(self, text):
        with pytest.raises(argparse.ArgumentTypeError, match=r"quote|is not a list of classes"):
            targets_given(text)

    def test_no_files_for_a_name_that_there_is_not(self, workplace, capsys):
        assert main(["explain", "noise.png", *model(), "--targets", "aa"]) == 2
        assert errors(capsys) == ["fusioncam: error: --targets: the model has no class 'aa'; did you mean 'a'?"]
        assert not (workplace / "fusioncam-out").exists()


class TestFormOfTheMaps:
    GRADIENT = ("--method", "grad-cam", "--targets", "5")

    def explained(self, *options, method="grad-cam"):
        command = ["explain", "noise.png", *model(), "--method", method, "--targets", "5", "--overwrite"]
        assert main([*command, *options]) == 0
        return Explanation.load("fusioncam-out/noise.npz")

    def expected(self, **options):
        loaded = load_model(model()[1])
        image = loaded.preprocessing(Image.open("noise.png"))[None]
        return EXPLAINERS["grad-cam"](loaded.model, **options)(image, 5).numpy()

    @pytest.mark.parametrize(
        ("given", "options", "form"),
        [
            (("--signed",), {"relu": False}, "signed"),
            (("--no-relu",), {"relu": False}, "signed"),
            (("--raw",), {"normalised": False}, "raw"),
            (("--signed", "--raw"), {"relu": False, "normalised": False}, "raw"),
            (("--size", "layer"), {"size": "layer"}, "normalised"),
            (("--size", "5x7", "--signed"), {"size": (5, 7), "relu": False}, "signed"),
            (("--size", "6"), {"size": (6, 6)}, "normalised"),
            (("--size", "input"), {}, "normalised"),
        ],
    )
    def test_is_the_explainers(self, given, options, form):
        found, expected = self.explained(*given), self.expected(**options)
        assert found.form == expected.form == form
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-6)
        assert found.raw_range is None if form == "raw" else found.raw_range.shape == (1, 2)

    def test_values(self):
        """The layer's maps are 4 x 6; the raw map of the signed sum is Grad-CAM's by hand."""
        signed, raw = self.explained("--signed", "--size", "layer"), self.explained("--raw", "--signed", "--size=layer")
        assert signed.maps.shape == raw.maps.shape == (1, 4, 6)
        network = load_model(model()[1])
        image = torch.as_tensor(network.preprocessing(Image.open("noise.png"))[None])
        activations = network.model[:2](image).detach()
        # Behind the layer there are the mean over the positions and a linear layer: the gradient is its weight / 24.
        by_hand = torch.einsum("k,bkij->bij", network.model[4].weight[5] / 24, activations).detach().numpy()
        np.testing.assert_allclose(raw.maps, by_hand, atol=1e-6)
        np.testing.assert_allclose(signed.maps, by_hand / np.abs(by_hand).max(), atol=1e-5)

    def test_of_fusion_cam(self):
        assert self.explained("--size", "5x7", method="fusion-cam").maps.shape == (1, 5, 7)

    def test_a_picture_of_signed_maps(self):
        """Where the map is largest by its magnitude, it covers the photograph with the end of its colours."""
        ends = {"coolwarm": (180, 4, 38), "inferno": (252, 255, 164)}
        dull = np.random.default_rng(0).integers(96, 160, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(dull).save("noise.png")
        for options, there, absent in (((), "inferno", "coolwarm"), (("--signed",), "coolwarm", "inferno")):
            found = self.explained(*options, "--alpha", "1", "--frame", "window", "--colour-map", there)
            assert found.maps.max() == pytest.approx(1.0), "the end is the upper one"
            with Image.open("fusioncam-out/noise.png") as picture:
                pixels = np.asarray(picture.convert("RGB"), dtype=int)[:, : picture.width * 4 // 5]
            distances = {name: np.abs(pixels - ends[name]).max(axis=-1).min() for name in (there, absent)}
            assert distances[there] <= 12 < distances[absent]

    def test_the_index(self):
        self.explained("--raw", "--size", "layer")
        with open("fusioncam-out/index.csv", encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["class"], row["method"], row["picture"], row["warnings"]) == ("5", "grad-cam", "noise.png", "")
        assert float(row["score"]) == pytest.approx(float(self.expected().scores[0]), abs=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--raw"],
                "--raw: Fusion-CAM fuses maps in [0, 1], with which it masks the image. Choose a method of the",
            ),
            (["--signed"], "--signed: Fusion-CAM fuses maps in [0, 1]"),
            (["--method", "union-cam", "--signed"], "--signed: Union-CAM fuses maps in [0, 1]"),
            (["--size", "layer"], "--size layer: Fusion-CAM fuses maps at the input's size: expected --size input,"),
            (["--size", "layer", "--method", "rise"], "--size layer: RISE looks at no layer"),
            (["--size", "big"], "argument --size: 'big' is none of input, layer and sizes such as 56x56"),
            (["--size", "0x4"], "argument --size: '0x4' is none of input, layer and sizes"),
            (["--size", "1x2x3"], "argument --size: '1x2x3' is none of input, layer and sizes"),
        ],
    )
    def test_what_a_method_has_not(self, workplace, capsys, arguments, message):
        assert main(["explain", "noise.png", "--model", "python:nothing:never", *arguments]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}"), "before the model is looked for"


class TestBrokenPhotographs:
    def test_the_others_are_still_explained(self, workplace, capsys):
        (workplace / "text.png").write_text("not a picture")
        arguments = ["explain", "text.png", "noise.png", *model(), "--method", "grad-cam"]
        assert main(arguments) == 1
        assert errors(capsys) == ["fusioncam: text.png is not an image Pillow can read."]
        assert {path.name for path in (workplace / "fusioncam-out").glob("*.png")} == {"noise.png"}

    def test_names_that_file_systems_hardly_take(self, workplace, capsys):
        for name in (b"..jpg", b"\xff\xfe.png", b"x" * 251 + b".png", b"two\nlines.png", b"p.PNG"):
            shutil.copy("noise.png", name)
        names = [os.fsdecode(name) for name in os.listdir(b".") if name.lower().endswith((b"png", b"jpg"))]
        assert main(["explain", *sorted(names), *model(), "--method", "grad-cam", "--out", "maps"]) == 0
        assert errors(capsys) == []
        written = [os.fsencode(path.stem) for path in (workplace / "maps").glob("*.npz")]
        (cut,) = [name for name in written if name.startswith(b"xxx")]
        assert cut[:233] == b"x" * 233
        assert sorted(written) == sorted([b"..jpg", b"\xff\xfe", cut, b"two\nlines", b"p", b"noise", b"turned"])

    def test_each_is_told_in_one_line_and_the_others_are_explained(self, workplace, capsys):
        Image.new("RGB", (20, 20)).save("dark.png")
        Image.new("RGB", (20, 2), (9, 9, 9)).save("small.png")
        Image.new("RGB", (2, 20), (9, 9, 9)).save("narrow.png")
        Image.new("F", (20, 20), float("nan")).save("nan.tif")
        os.mkfifo("pipe.png")
        broken = ["dark.png", "small.png", "narrow.png", "nan.tif", "pipe.png"]
        assert main(["explain", *broken, "noise.png", *model("of_the_size"), "--method", "grad-cam"]) == 1
        lines = errors(capsys)
        assert lines == [
            "fusioncam: dark.png: the preprocessing of 'python:tiny_models:of_the_size': KeyError: 'dark'.",
            "fusioncam: small.png: expected finite numbers from preprocessing, got NaN or infinity.",
            "fusioncam: narrow.png: the preprocessing of 'python:tiny_models:of_the_size': expected an array of one "
            "input, such as one of shape (channels, height, width), got NoneType.",
            "fusioncam: nan.tif cannot be read as a photograph: An image of mode 'F' has values of no known range; "
            "scale it to 0..255 first.",
            "fusioncam: pipe.png cannot be read as a photograph: expected a file, got a pipe.",
        ]
        assert {path.name for path in (workplace / "fusioncam-out").glob("*.npz")} == {"noise.npz"}

    @pytest.mark.parametrize("order", [["odd.png", "noise.png"], ["noise.png", "odd.png"]])
    def test_one_that_the_model_does_not_take(self, workplace, capsys, order):
        Image.new("RGB", (30, 20)).save("odd.png")
        command = ["explain", *order, *model("of_one_size"), "--method", "grad-cam", "--layer", "2"]
        assert main(command) == 1
        (line,) = errors(capsys)
        assert line.startswith("fusioncam: odd.png: ")
        assert {path.name for path in (workplace / "fusioncam-out").glob("*.npz")} == {"noise.npz"}

    def test_files_that_cannot_be_written(self, workplace, capsys):
        (workplace / "maps").mkdir()
        (workplace / "maps" / "b").write_bytes(b"theirs")
        for name in ("a", "b"):
            (workplace / name).mkdir()
            shutil.copy("noise.png", f"{name}/noise.png")
        command = ["explain", "b/noise.png", "a/noise.png", *model(), "--method", "grad-cam", "--out", "maps"]
        assert main(command) == 1
        assert errors(capsys) == ["fusioncam: b/noise.png: maps/b/noise.png: File exists"]
        names = sorted(path.name for path in (workplace / "maps").rglob("*.*"))
        assert names == ["index.csv", "noise.json", "noise.npz", "noise.png"]

    def test_a_disk_that_is_full(self, workplace, capsys):
        """Files may have 2 kB: an error in the middle of writing."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            assert main(["explain", "noise.png", "turned.png", *model(), "--method", "grad-cam"]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert errors(capsys) == [
            f"fusioncam: {name}.png: fusioncam-out/{name}.png: File too large" for name in ("noise", "turned")
        ]
        assert [path.name for path in (workplace / "fusioncam-out").iterdir()] == ["index.csv"]

    def test_more_pixels_than_pillows_limit(self, capsys, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
        assert main(["explain", "noise.png", *model()]) == 1
        (line,) = errors(capsys)
        assert line.startswith("fusioncam: noise.png cannot be read as a photograph: expected at most 959 pixels")

    def test_none_readable(self, workplace, capsys):
        (workplace / "text.png").write_text("not a picture")
        assert main(["explain", "text.png", *model()]) == 1
        assert errors(capsys) == ["fusioncam: text.png is not an image Pillow can read."]


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
                ["explain", "noise.png", *model(), "--targets", "281,,285"],
                "error: argument --targets: '281,,285' is not a list of classes such as 281 or 281,cup, nor a word",
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
            (
                ["explain", "noise.png", "turned.png", *model("without_input")],
                "error: noise.png: the preprocessing of 'python:tiny_models:without_input': expected an array of one",
            ),
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
        assert main(["explain", "größe.png", *model()]) == 2
        assert sys.stderr.text == "fusioncam: error: gr\\xf6\\xdfe.png: there is no such file.\n"
