"""The command line for folders of photographs: what is given, what is listed, what the loader did not say."""

from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import time

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core import Preprocessing, evaluate
from fusioncam_core.cli import explain, main, work
from fusioncam_core.cli.engine import ModelOf
from fusioncam_core.cli.photographs import photographs_given
from fusioncam_core.cli.preprocess import PRESETS, preprocess_parts, preprocessing_of
from fusioncam_core.data.class_names import read_class_names
from fusioncam_core.data.processors import ProcessorPreprocessing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.adapter import LayerInfo
from fusioncam_core.results.index import Index
from fusioncam_core.results.terminal import grouped_table
from fusioncam_core.results.writing import INDEX, is_ours

pytest.importorskip("torch")

MODELS = """
import torch
from torch import nn

from fusioncam_core import LoadedModel, Preprocessing

preprocessing = Preprocessing(size=(12, 16), mean=0.0, std=255.0)


def net():
    torch.manual_seed(3)
    head = nn.Linear(4, 3)
    nn.init.uniform_(head.weight, 0.1, 1.0)  # so that no map is zero
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def named():
    return LoadedModel(net(), preprocessing, ("a", "=cmd", "c"))


def bare():
    return net()


def by_function():
    return net(), lambda photograph: torch.full((3, 12, 16), 0.5)


def dead():
    model = net()
    nn.init.zeros_(model[-1].weight)
    return model, preprocessing


def never():
    raise AssertionError("the model was loaded")
"""

GRADIENT = ("--method", "grad-cam")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A current directory with models and a folder of three photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "folder_models", raising=False)
    (tmp_path / "folder_models.py").write_text(MODELS, encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("b.png", "a.png", "sub/c.jpg"):
        Image.fromarray(noise).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("nothing")
    yield tmp_path
    sys.modules.pop("folder_models", None)


def model(function="named"):
    return ["--model", f"python:folder_models:{function}"]


def rows(path="fusioncam-out/index.csv"):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def errors(capsys):
    return capsys.readouterr().err.splitlines()


def list_on_standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


class TestWhatIsGiven:
    ALL = ("photos/a.png", "photos/b.png", "photos/sub/c.jpg")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (["photos"], ALL),
            (["photos/"], ALL),
            (["photos/b.png", "photos"], (ALL[1], ALL[0], ALL[2])),
            (["photos/../photos/a.png", "photos/a.png"], ("photos/../photos/a.png",)),
            (["photos/*.png"], ALL[:2]),
            (["photos/**/*.jpg"], ALL[2:]),
            (["photos/**"], ALL),
            (["photos/*"], ALL),
            (["photos/*.txt"], ("photos/notes.txt",)),
            (["photos/[ab].png"], ALL[:2]),
        ],
    )
    def test_folders_files_and_patterns(self, given, expected):
        assert photographs_given(given) == list(expected)

    def test_what_is_there_is_no_pattern(self, workplace):
        (workplace / "photos" / "[a].png").write_bytes((workplace / "photos" / "a.png").read_bytes())
        assert photographs_given(["photos/[a].png"]) == ["photos/[a].png"]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"photos/b.png\nphotos/a.png\n", ["photos/b.png", "photos/a.png"]),
            (b"photos/b.png\r\n\n  \nphotos/sub", ["photos/b.png", "photos/sub/c.jpg"]),
            (b"photos/b.png\0photos/two\nlines.png\0", ["photos/b.png", "photos/two\nlines.png"]),
        ],
    )
    def test_a_list_on_standard_input(self, workplace, monkeypatch, content, expected):
        (workplace / "photos" / "two\nlines.png").write_bytes((workplace / "photos" / "a.png").read_bytes())
        list_on_standard_input(monkeypatch, content)
        assert photographs_given(["-"]) == expected

    def test_nothing_in_a_list_is_a_pattern(self, monkeypatch):
        list_on_standard_input(monkeypatch, b"photos/*.png\n")
        with pytest.raises(InvalidValueError, match=r"^photos/\*\.png: there is no such file\.$"):
            photographs_given(["-"])

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["photos/gone.png"], "photos/gone.png: there is no such file."),
            (["photos/*.gif"], "photos/*.gif: no file matches this pattern."),
            (["empty"], "There is no photograph in empty: files ending in "),
            (["-"], "There is no photograph on standard input."),
        ],
    )
    def test_errors_come_before_the_model(self, workplace, monkeypatch, capsys, given, message):
        (workplace / "empty").mkdir()
        list_on_standard_input(monkeypatch, b"\n")
        assert main(["explain", *given, *model("never")]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}")
        assert not (workplace / "fusioncam-out").exists()

    def test_standard_input_that_is_closed(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(InvalidValueError, match="on standard input, which is closed"):
            photographs_given(["-"])

    def test_all_that_are_missing_are_said(self, capsys):
        assert main(["explain", "x.png", "photos/a.png", "y.png", *model("never")]) == 2
        assert errors(capsys) == [f"fusioncam: error: {name}.png: there is no such file." for name in "xy"]

    def test_of_very_many_the_first(self, capsys):
        assert main(["explain", *(f"{number}.png" for number in range(500)), *model("never")]) == 2
        lines = errors(capsys)
        assert len(lines) == 11
        assert lines[-1] == "fusioncam: error: and 490 more paths that do not work."

    def test_our_own_pictures_are_left_out(self, workplace, capsys):
        assert main(["explain", "photos", *model(), *GRADIENT, "--out", "photos/maps"]) == 0
        capsys.readouterr()
        assert photographs_given(["photos"]) == list(self.ALL)
        (line,) = errors(capsys)
        assert line == "fusioncam: 3 pictures that fusioncam has drawn, such as photos/maps/a.png, left out"
        assert photographs_given(["photos/maps/a.png"]) == ["photos/maps/a.png"], "who names one means it"
        with pytest.raises(InvalidValueError, match="There is no photograph in photos/maps: what is there fusioncam"):
            photographs_given(["photos/maps"])

    def test_several_thousand_take_no_time(self, workplace):
        (workplace / "many").mkdir()
        for number in range(3000):
            (workplace / "many" / f"{number:04}.png").write_bytes(b"")
        begun = time.process_time()
        assert len(photographs_given(["many"])) == 3000
        assert time.process_time() - begun < 3.0

    def test_evaluate_takes_patterns_as_well(self, capsys):
        command = ["evaluate", "photos/*.png", *model(), "--methods", "grad-cam", "--metrics", "complexity"]
        assert main(command) == 0
        assert "Sequential: 2 images" in capsys.readouterr().out
        assert main(["evaluate", "gone.png", *model("never")]) == 2
        assert errors(capsys) == ["fusioncam: error: gone.png: there is no such file."]

    @pytest.mark.parametrize("option", [("--workers", "3"), ("--address", "auto"), ("--gpus-per-worker", "0.5")])
    def test_evaluate_takes_workers_on_ray_alone(self, option, capsys):
        assert main(["evaluate", "photos/*.png", *model("never"), *option]) == 2
        assert errors(capsys) == [f"fusioncam: error: {option[0]} belongs to --engine ray."]

    def test_evaluate_on_ray_without_ray(self, capsys, monkeypatch):
        hide("ray", monkeypatch)
        assert main(["evaluate", "photos/*.png", *model("never"), "--engine", "ray"]) == 2
        assert errors(capsys) == ['fusioncam: error: Working on Ray needs ray: pip install "fusioncam[ray]"']

    def test_evaluate_wants_a_number_of_workers(self, capsys, monkeypatch):
        monkeypatch.setattr("fusioncam_core.scale.workers.require", lambda *_: None)
        command = ["evaluate", "photos/*.png", *model("never"), "--engine", "ray"]
        assert main([*command, "--workers", "0"]) == 2
        assert main([*command, "--gpus-per-worker", "1.5"]) == 2
        said = errors(capsys)
        assert "workers" in said[0]
        assert "gpus_per_worker" in said[1]
        assert len(said) == 2

    def test_evaluate_asks_workers(self, capsys, monkeypatch):
        """What they are told; with Ray itself in test_ray_evaluate.py."""
        told = {}

        def on_ray(factory, source, *arguments, workers=2, gpus_per_worker=0, **keywords):
            told.update(workers=workers, gpus=gpus_per_worker, factory=factory, out=keywords["out"])
            return evaluate(factory(), source, *arguments, **keywords)

        monkeypatch.setattr("fusioncam_core.cli.evaluate.evaluate_on_ray", on_ray)
        monkeypatch.setattr("fusioncam_core.scale.workers.require", lambda *_: None)
        command = ["evaluate", "photos/*.png", *model(), "--methods", "grad-cam", "--metrics", "complexity"]
        assert main([*command, "--engine", "ray", "--workers", "3", "--gpus-per-worker", "0.5", "--out", "found"]) == 0
        assert "Sequential: 2 images" in capsys.readouterr().out
        assert (told["workers"], told["gpus"], told["out"]) == (3, 0.5, "found")
        assert pickle.loads(pickle.dumps(told["factory"])) == ModelOf(model()[1], None)
        assert main([*command, "--engine", "ray", "--device", "nowhere"]) == 2, "the worker has no such device"
        assert "nowhere" in errors(capsys)[0]

    def test_evaluate_leaves_devices_to_workers(self, monkeypatch):
        def on_ray(factory, *_, **keywords):
            assert factory == ModelOf(model()[1], "cuda:7")
            raise KeyboardInterrupt

        monkeypatch.setattr("fusioncam_core.cli.evaluate.evaluate_on_ray", on_ray)
        monkeypatch.setattr("fusioncam_core.scale.workers.require", lambda *_: None)
        command = ["evaluate", "photos/*.png", *model(), "--engine", "ray", "--device", "cuda:7"]
        assert main(command) == 130


class TestBeforeTheModel:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--index", "xlsx"], "argument --index: invalid choice: 'xlsx'"),
            (["--task", "regression"], "argument --task: invalid choice: 'regression'"),
            (["--outputs", "softmax"], "argument --outputs: invalid choice: 'softmax'"),
            (["--class-names", "gone.txt"], "argument --class-names: gone.txt: there is no such file"),
            (["--maps-only", "--picture", "pdf"], "--maps-only draws no pictures: expected it without --picture."),
            (
                ["--maps-only", "--colour-map", "jet"],
                "--maps-only draws no pictures: expected it without --colour-map.",
            ),
            (["--alpha", "2"], "alpha lies in [0, 1]: got 2.0"),
            (["--out", "photos/a.png"], "photos/a.png: File exists"),
            (["--method", "grad-cam", "--percentile", "5"], "--percentile belongs to --method fusion-cam"),
        ],
    )
    def test_options(self, capsys, arguments, message):
        assert main(["explain", "photos", *model("never"), *arguments]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}")

    def test_a_method_of_the_models_own_module(self, workplace, capsys):
        with (workplace / "folder_models.py").open("a") as file:
            file.write(
                "\n\nfrom fusioncam_core import GradCAM\n\n\nclass FolderCAM(GradCAM):\n    name = 'folder-cam'\n"
            )
        assert main(["explain", "photos/a.png", *model(), "--method", "folder-cam"]) == 0
        assert rows()[0]["method"] == "folder-cam"

    @pytest.mark.parametrize(
        ("option", "hint"), [("--clas-name=x", "; did you mean --class-names?"), ("--zzz", ""), ("-q", "")]
    )
    def test_options_that_there_are_not(self, capsys, option, hint):
        assert main(["explain", "photos", *model("never"), option]) == 2
        expected = f"fusioncam: error: unrecognized arguments: {option}{hint} (see fusioncam --help)"
        assert errors(capsys) == [expected]

    def test_did_you_mean(self, capsys):
        assert main(["explain", "photos", "--model", "timm:never", "--method", "gradcam"]) == 2
        assert errors(capsys)[0].endswith("got 'gradcam'. Did you mean 'grad-cam'?")


class TestIndex:
    def test_a_row_for_each_image_and_target(self, capsys):
        assert main(["explain", "photos", *model(), "--targets", "top2", "--contrast", "0", "2"]) == 0
        found = rows()
        assert capsys.readouterr().out.endswith("\nwrote fusioncam-out/index.csv, 9 rows\n")
        assert [row["path"] for row in found[::3]] == ["photos/a.png", "photos/b.png", "photos/sub/c.jpg"]
        assert [row["arrays"] for row in found[::3]] == ["a.npz", "b.npz", "sub/c.npz"]
        with open("fusioncam-out/a.json", encoding="utf-8") as file:
            numbers = json.load(file)
        for row, target in zip(found[:3], numbers["targets"], strict=True):
            assert row["class"] == ("" if target["class"] is None else str(target["class"]))
            assert float(row["score"]) == target["score"]
            assert float(row["contribution_region"]) == target["weights"]["contribution_region"]
            assert float(row["fusion_weight_union"]) == target["weights"]["fusion_weight_union"]
            assert (row["layer"], row["method"]) == (numbers["layer"], "fusion-cam")
        assert float(found[0]["probability"]) == numbers["targets"][0]["probability"]
        assert (found[2]["probability"], found[2]["name"]) == ("", "why a and not c")

    def test_is_rfc_4180(self, workplace):
        assert main(["explain", "photos/a.png", *model(), *GRADIENT]) == 0
        content = (workplace / "fusioncam-out" / "index.csv").read_bytes()
        assert content.count(b"\r\n") == content.count(b"\n") == 2
        assert content.split(b"\r\n")[0].decode() == ",".join(INDEX)

    def test_what_looks_like_a_formula(self, workplace, monkeypatch, capsys):
        (workplace / "photos" / "b.png").rename("=HYPERLINK(1).png")
        assert main(["explain", "=HYPERLINK(1).png", *model(), *GRADIENT, "--targets", "1"]) == 0
        (row,) = rows()
        assert row["path"] == "./=HYPERLINK(1).png", "which is still the photograph"
        assert row["arrays"] == "./=HYPERLINK(1).npz"
        assert row["name"] == "'=cmd"

    @pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\uff1d"])
    def test_beginnings_of_formulas(self, workplace, begin):
        index = Index("out")
        index.failed(f"{begin}x.png", f"{begin}y")
        index.close()
        (row,) = rows("out/index.csv")
        assert (row["path"], row["error"]) == (f"./{begin}x.png", f"'{begin}y")

    def test_json_lines(self, workplace):
        assert main(["explain", "photos", *model(), "--index", "jsonl", "--out", "maps"]) == 0
        found = [json.loads(line) for line in (workplace / "maps" / "index.jsonl").read_text().splitlines()]
        assert [each["path"] for each in found] == ["photos/a.png", "photos/b.png", "photos/sub/c.jpg"]
        assert set(found[0]["weights"]) >= {"contribution_union", "probability_baseline"}
        assert (found[0]["error"], found[0]["warnings"]) == (None, [])
        assert type(found[0]["class"]) is int
        assert is_ours(workplace / "maps" / "index.jsonl", "explanation")
        assert not is_ours(workplace / "maps" / "index.jsonl", "evaluation")

    def test_none(self, workplace, capsys):
        assert main(["explain", "photos", *model(), *GRADIENT, "--index", "none"]) == 0
        assert not list((workplace / "fusioncam-out").glob("index*"))
        assert "index" not in capsys.readouterr().out

    def test_a_photograph_that_cannot_be_read(self, workplace, capsys):
        (workplace / "photos" / "aa.png").write_text("no picture")
        assert main(["explain", "photos", *model(), *GRADIENT]) == 1
        assert [row["path"] for row in rows()] == [
            "photos/a.png", "photos/aa.png", "photos/b.png", "photos/sub/c.jpg",
        ]  # fmt: skip
        assert [row["error"] for row in rows()] == ["", "photos/aa.png is not an image Pillow can read.", "", ""]

    @pytest.mark.filterwarnings("default")
    def test_warnings(self):
        assert main(["explain", "photos/a.png", *model("dead"), *GRADIENT]) == 0
        assert "zero everywhere" in rows()[0]["warnings"]

    def test_an_earlier_one_and_a_strangers(self, workplace, capsys):
        command = ["explain", "photos/a.png", *model(), *GRADIENT]
        assert main(command) == 0
        first = (workplace / "fusioncam-out" / "index.csv").read_bytes()
        (workplace / "fusioncam-out" / "index-2.csv").write_text("path,theirs\n")
        assert main(command) == 0
        assert (workplace / "fusioncam-out" / "index.csv").read_bytes() == first
        assert (workplace / "fusioncam-out" / "index-2.csv").read_text() == "path,theirs\n"
        assert [row["arrays"] for row in rows("fusioncam-out/index-3.csv")] == ["a-2.npz"]
        assert main([*command, "--targets", "2", "--overwrite"]) == 0
        assert [row["class"] for row in rows()] == ["2"]
        (workplace / "fusioncam-out" / "index.csv").write_text("theirs")
        assert main([*command, "--overwrite"]) == 0
        assert (workplace / "fusioncam-out" / "index.csv").read_text() == "theirs"

    def test_an_interrupt_keeps_what_is_done(self, workplace, monkeypatch, capsys):
        read, count = work.read_photograph, iter(range(9))

        def reading(path):
            if next(count) == 2:
                assert len(rows()) == 2, "they stand there before the next photograph begins"
                raise KeyboardInterrupt
            return read(path)

        monkeypatch.setattr(work, "read_photograph", reading)
        assert main(["explain", "photos", *model(), *GRADIENT]) == 130
        assert errors(capsys) == [
            "fusioncam: interrupted: 2 of 3 photographs are done, listed in fusioncam-out/index.csv"
        ]
        assert [row["arrays"] for row in rows()] == ["a.npz", "b.npz"]

    def test_another_command_that_is_faster(self, workplace, monkeypatch):
        from fusioncam_core.results import index as module

        write, others = module.write_files, workplace / "out" / "index.csv"

        def slower(contents, *arguments, **options):
            if not others.exists():
                others.parent.mkdir()
                others.write_text("theirs")
            return write(contents, *arguments, **options)

        monkeypatch.setattr(module, "write_files", slower)
        index = Index("out")
        index.failed("a.png", "broken")
        index.close()
        assert index.path == workplace.joinpath("out/index-2.csv").relative_to(workplace)
        assert others.read_text() == "theirs"


class TestClassNames:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("names.txt", "x\ny y\nz\n"),
            ("names.txt", "\ufeffx\r\ny y\r\nz"),
            ("names.json", '["x", "y y", "z"]'),
            ("names.json", '{"2": "z", "0": "x", "1": "y y"}'),
            ("imagenet_class_index.json", '{"0": ["n1", "x"], "1": ["n2", "y y"], "2": ["n3", "z"]}'),
            ("class_indices.json", '{"z": 2, "x": 0, "y y": 1}'),
            ("class_indices.json", '{"x": 0, "y y": 1, "z": 2}'),
        ],
    )
    def test_forms(self, workplace, name, content):
        (workplace / name).write_text(content, encoding="utf-8", newline="")
        assert read_class_names(name) == ("x", "y y", "z")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("n.txt", b"", "expected the names of a model's classes, got none"),
            ("n.txt", b"a\n\nb\n", "line 2 is empty"),
            ("n.txt", b"caf\xe9\n", "in UTF-8, got other bytes"),
            ("n.json", b"{", "expected JSON, got Expecting"),
            ("n.json", b"3", 'expected a list of names, {"0": name'),
            ("n.json", b'["a", 3]', "expected a list of names"),
            ("n.json", b'{"a": "b"}', "expected a list of names"),
            ("n.json", b'{"0": "a", "2": "b"}', "2 classes numbered from 0, one each; 1 is missing"),
            ("n.json", b'{"a": 0, "b": 0}', "two names have the same number"),
            ("n.json", b'{"a": 1, "b": 2}', "2 classes numbered from 0, one each; 0 is missing"),
            ("n.json", b"[]", "got none"),
        ],
    )
    def test_errors(self, workplace, name, content, message):
        (workplace / name).write_bytes(content)
        with pytest.raises(InvalidValueError) as caught:
            read_class_names(name)
        assert message in str(caught.value)
        assert str(caught.value).startswith(name)

    def test_a_folder(self):
        with pytest.raises(InvalidValueError, match=r"photos cannot be read: Is a directory\."):
            read_class_names("photos")

    @pytest.mark.filterwarnings("ignore:The grad-cam map is zero")
    def test_take_the_place_of_the_loaders(self, workplace, capsys):
        (workplace / "names.txt").write_text("x\ny\nz\n")
        command = ["explain", "photos/a.png", *model(), *GRADIENT, "--class-names", "names.txt"]
        assert main([*command, "--targets", "1", "--contrast", "Z", "x"]) == 0
        assert [row["name"] for row in rows()] == ["y", "why z and not x"]

    def test_too_few(self, workplace, capsys):
        (workplace / "names.txt").write_text("x\ny\n")
        command = ["explain", "photos/a.png", *model(), *GRADIENT, "--class-names", "names.txt"]
        assert main(command) == 2
        assert errors(capsys) == [
            "fusioncam: error: --class-names: expected 3 names, one for each class of the model, got 2."
        ]
        assert not list((workplace / "fusioncam-out").iterdir())


class TestTheModelsOutputs:
    def test_multilabel(self, workplace):
        assert main(["explain", "photos/a.png", *model(), *GRADIENT, "--task", "multilabel", "--targets", "0"]) == 0
        row = rows()[0]
        assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(row["score"]))))

    def test_probabilities(self, workplace):
        """A softmax within the model: taken for logits, its outputs would be made probabilities once more."""
        with (workplace / "folder_models.py").open("a") as file:
            file.write("\n\ndef softmax():\n    return nn.Sequential(net(), nn.Softmax(-1)), preprocessing\n")
        command = ["explain", "photos/a.png", *GRADIENT, "--targets", "0", "--overwrite"]
        assert main([*command, *model()]) == 0
        expected = float(rows()[0]["probability"])
        assert main([*command, *model("softmax"), "--outputs", "probabilities"]) == 0
        assert float(rows()[0]["probability"]) == pytest.approx(expected, abs=1e-6)

    def test_maps_only(self, workplace, capsys):
        assert main(["explain", "photos/a.png", *model(), *GRADIENT, "--maps-only"]) == 0
        assert "  wrote fusioncam-out/a.npz, .json" in capsys.readouterr().out.splitlines()
        assert {path.name for path in (workplace / "fusioncam-out").iterdir()} == {"a.npz", "a.json", "index.csv"}
        assert rows()[0]["picture"] == ""


class TestPreprocess:
    def made(self, text, own=None, axis=1):
        return preprocessing_of(preprocess_parts(text), own, axis)

    def test_imagenet(self):
        """As torchvision: to [0, 1], less the mean, by the standard deviation."""
        prepared = self.made("imagenet,size=8x12,crop=none")
        pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(prepared(Image.fromarray(pixels)), np.moveaxis(expected, -1, 0), atol=1e-5)

    @pytest.mark.parametrize(
        ("text", "darkest", "brightest"),
        [
            ("zero-to-one", 0, 1),
            ("minus-one-to-one", -1, 1),
            ("zero-to-255", 0, 255),
            ("scale=1/255,mean=0.5,std=0.25", -2, 2),
            ("mean=127.5,std=127.5", -1, 1),
            ("zero-to-one,mean=0.5", -0.5, 0.5),
        ],
    )
    def test_values(self, text, darkest, brightest):
        prepared = self.made(f"{text},size=2")
        for colour, expected in ((0, darkest), (255, brightest)):
            values = prepared(Image.new("RGB", (2, 2), (colour,) * 3))
            np.testing.assert_allclose(values, expected, atol=1e-5)

    def test_every_preset_is_complete(self):
        assert all(set(preprocess_parts(name)) == {"scale", "mean", "std", "colours"} for name in PRESETS)

    def test_caffe(self):
        """Blue before red, less the mean that Caffe's networks were trained with, in the range 0..255."""
        pixels = np.array([[[255, 0, 51], [1, 2, 3]]], dtype=np.uint8)
        expected = np.array([[[51 - 103.939, 0 - 116.779, 255 - 123.68], [3 - 103.939, 2 - 116.779, 1 - 123.68]]])
        photograph = Image.fromarray(pixels)
        prepared = self.made("caffe,size=1x2,crop=none", axis=-1)
        np.testing.assert_allclose(prepared(photograph), expected, atol=1e-4)
        first = self.made("caffe,size=1x2,crop=none")
        np.testing.assert_allclose(first(photograph), np.moveaxis(expected, -1, 0), atol=1e-4)
        assert prepared == Preprocessing((1, 2), None, "bicubic", (123.68, 116.779, 103.939), 1.0, "last", "bgr")

    def test_a_preset_takes_the_place_of_the_loaders_colours(self):
        own = Preprocessing((4, 4), colours="bgr")
        assert self.made("imagenet", own).colours == "rgb"
        assert self.made("size=5", own).colours == "bgr"
        assert self.made("colours=rgb", own) == Preprocessing((4, 4))

    def test_a_processor_does_not_stay_behind_what_is_said(self):
        """It would go on with its own values and size."""
        own = ProcessorPreprocessing((4, 4), 1.0, "bicubic", 0.0, 1.0, "first", processor=lambda photograph: 0)
        made = self.made("zero-to-one,size=2", own)
        assert made == Preprocessing((2, 2), 1.0, "bicubic", 0.0, 255.0, "first")
        np.testing.assert_allclose(made(Image.new("RGB", (8, 8), "white")), np.ones((3, 2, 2)), atol=1e-6)

    def test_place(self):
        made = self.made("zero-to-one,size=224,resize=256,interpolation=bilinear,channels=last")
        assert made == Preprocessing((224, 224), 224 / 256, "bilinear", 0.0, 255.0, "last")
        assert self.made("zero-to-one,size=20,30").size == (20, 30)
        assert self.made("zero-to-one,size=9,crop=0.5").crop_fraction == 0.5
        assert self.made("zero-to-one,size=9", axis=-1).channels == "last"

    def test_what_is_left_open_is_the_loaders(self):
        own = Preprocessing((10, 12), 0.9, "box", 1.0, 2.0, "last")
        assert self.made("size=7", own) == Preprocessing((7, 7), 0.9, "box", 1.0, 2.0, "last")
        assert self.made("scale=1/2,std=3", own) == Preprocessing((10, 12), 0.9, "box", 0.0, 6.0, "last")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("imagenet_", "'imagenet_' is neither a preset (imagenet, "),
            ("sclae=1", "'sclae' is no part of a preprocessing: scale, mean, std, size, crop, resize, "),
            ("sclae=1", "; did you mean scale?"),
            ("imagenet_", "; did you mean imagenet?"),
            ("mean=0.5,imagenet", "'imagenet' comes first, with parts that change it behind it"),
            ("colours=bgr,imagenet", "'imagenet' comes first, with parts that change it behind it"),
            ("caffee", "; did you mean caffe?"),
            ("colours=gbr", "colours is 'gbr'; choose one of rgb, bgr"),
            ("mean=0.5,std=0.5", "mean and std up to 1 are usually of values in [0, 1]: add scale=1/255"),
            ("scale=x", "scale is a number such as 0.5 or 1/255: got 'x'"),
            ("scale=1/0", "scale is a number such as 0.5 or 1/255: got '1/0'"),
            ("scale=nan", "scale is a number such as"),
            ("scale=1,2", "scale is one number: got 2"),
            ("scale=0", "scale and std are greater than 0"),
            ("scale=1,std=0", "scale and std are greater than 0"),
            ("scale=1,mean=1,2", "mean is one number, or three (red, green, blue): got 2"),
            ("size=big", "size is a number of pixels, or a height and a width as in 224x320: got big"),
            ("size=0", "size is (0, 0); give (height, width) as two positive"),
            ("size=8,crop=1,resize=9", "crop and resize say the same: expected one of them"),
            ("size=8x9,resize=10", "resize is the shorter side before a square is cut out"),
            ("resize=10", "resize is the shorter side before a square is cut out"),
            ("size=8,resize=4", "resize is at least size: got 4 and 8"),
            ("crop=2", "crop_fraction is 2.0; give a number in (0, 1]"),
            ("interpolation=nice", "interpolation is 'nice'; choose one of nearest"),
            ("channels=middle", "channels is 'middle'; choose one of first, last"),
        ],
    )
    def test_errors_come_before_the_model(self, capsys, text, message):
        assert main(["explain", "photos", *model("never"), "--preprocess", text]) == 2
        (line,) = errors(capsys)
        assert line.startswith("fusioncam: error: argument --preprocess: ")
        assert message in line

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("imagenet", "--preprocess: expected size, such as size=224"),
            ("size=9", "--preprocess: expected what is done to the values: imagenet, zero-to-one, "),
        ],
    )
    def test_nothing_is_guessed(self, capsys, text, message):
        assert main(["explain", "photos", *model("bare"), "--preprocess", text]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"fusioncam: error: {message}")

    def test_channels_that_nobody_knows(self):
        with pytest.raises(InvalidValueError, match="expected channels=first or channels=last"):
            self.made("imagenet,size=9", axis=None)

    def test_of_a_model_that_brings_none(self, workplace):
        """The maps are those of the loader that says the same."""
        assert main(["explain", "photos/a.png", *model(), *GRADIENT, "--out", "named"]) == 0
        same = ["--preprocess", "zero-to-one,size=12x16"]
        assert main(["explain", "photos/a.png", *model("bare"), *GRADIENT, *same, "--out", "bare"]) == 0
        with np.load("named/a.npz") as one, np.load("bare/a.npz") as other:
            np.testing.assert_array_equal(one["maps"], other["maps"])
        with open("bare/a.json", encoding="utf-8") as file:
            assert json.load(file)["provenance"]["preprocessing"]["size"] == [12, 16]

    def test_in_the_place_of_a_function(self, capsys):
        command = ["explain", "photos/a.png", *model("by_function"), *GRADIENT]
        assert main([*command, "--preprocess", "zero-to-one,size=12x16"]) == 0
        assert errors(capsys) == [
            "fusioncam: warning: --preprocess takes the place of the preprocessing that "
            "'python:folder_models:by_function' brings"
        ]


class TestWhatIsSaid:
    def test_legend(self, capsys):
        assert main(["explain", "photos", *model(), "--explain-table"]) == 0
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert lines.count("What the numbers mean") == 1, "once, under all tables"
        assert "  contribution   that probability less the baseline's: what the region of the" in lines
        assert max(map(len, lines)) <= 80

    def test_legend_of_a_method_without_weights(self, capsys):
        assert main(["explain", "photos", *model(), *GRADIENT, "--explain-table"]) == 0
        out = capsys.readouterr().out
        assert "What the numbers mean" in out
        assert "contribution" not in out

    def test_the_last_layers(self, capsys):
        assert main(["layers", *model(), "--last", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:3] for line in lines[1:2]] == [["*", "1", "Sigmoid"]]
        assert lines[2:] == ["", "1 more before them", "* the layer that is explained by default"]
        assert main(["layers", *model(), "--last", "9"]) == 0
        assert "more before them" not in capsys.readouterr().out

    def test_a_default_that_is_not_among_the_last(self, workplace, capsys):
        with (workplace / "folder_models.py").open("a") as file:
            file.write("\n\ndef first():\n    return LoadedModel(net(), preprocessing, layer='0')\n")
        assert main(["layers", *model("first"), "--last", "1"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "0 is the layer that is explained by default"

    def grouped(self, names, last=99, default=None, kinds=None):
        """The first and last columns of the rows, and the lines under them."""
        kinds = kinds or {}
        layers = [LayerInfo(each, kinds.get(each, "Conv"), (1, 8, 4, 4), spatial=True) for each in names]
        lines = list(grouped_table(layers, default, last))
        empty = lines.index("")
        rows = [(line[2:].split()[0], line[len(lines[0].rstrip()) - 6 :].strip()) for line in lines[1:empty]]
        return rows, lines[empty + 1 :]

    def test_a_block_in_one_row(self):
        """As a ViT runs: the parts of a block before the block, and the sequence of blocks behind them."""
        names = ["patch", "blocks.0.norm", "blocks.0.attn.qkv", "blocks.0.attn", "blocks.0"]
        names += ["blocks.1.norm", "blocks.1.attn.qkv", "blocks.1.attn", "blocks.1", "blocks", "norm"]
        rows, below = self.grouped(names, default="norm", kinds={"blocks": "Sequential"})
        assert rows == [("patch", ""), ("blocks.0", "3"), ("blocks.1", "3"), ("blocks", ""), ("norm", "")]
        assert below == [
            "inside: further layers of the block; without --last each has a row",
            "* the layer that is explained by default",
        ]
        rows, below = self.grouped(names, last=4, default="norm", kinds={"blocks": "Sequential"})
        assert rows == [("blocks.0", "3"), ("blocks.1", "3"), ("blocks", ""), ("norm", "")]
        assert below[0] == "1 more before them"

    def test_the_default_layer_has_a_row_of_its_own(self):
        names = ["blocks.0.a", "blocks.0.b", "blocks.0.c", "blocks.0"]
        rows, _ = self.grouped(names, default="blocks.0.b")
        assert rows == [("blocks.0.a", ""), ("blocks.0.b", ""), ("blocks.0", "1")]

    @pytest.mark.parametrize(
        ("names", "kinds", "expected"),
        [
            # A sequence in a sequence, as in torchvision's ResNet; and a model that is one sequence.
            (["layer1.0.conv", "layer1.0", "layer1.1.conv", "layer1.1", "layer1"], {"layer1": "Sequential"}, [1, 1, 0]),
            (["0.0", "0.1", "0", "1"], {"0": "Sequential"}, [0, 0, 0, 0]),
            # Paths as NNX and Linen write them, and the flat names of Keras' applications.
            (["blocks[3].conv", "blocks[3].norm", "blocks[3]"], {}, [2]),
            (["Block_3/Conv_0", "Block_3/Dense_0", "Block_3"], {}, [2]),
            (["conv5_block3_1_conv", "conv5_block3_add", "conv5_block3_out", "avg"], {}, [2, 0]),
            (["block1a_dwconv", "block1a_project_conv", "block2a_dwconv", "top_conv"], {}, [1, 0, 0]),
            (["conv1", "conv2", "relu"], {}, [0, 0, 0]),
        ],
    )
    def test_what_a_block_is(self, names, kinds, expected):
        rows, _ = self.grouped(names, kinds=kinds)
        assert [int(inside or 0) for _, inside in rows] == expected

    def test_eighty_columns(self):
        """Kinds are cut for it, names never."""
        name = "a_long.path_to_a_layer.in_some_block.conv"
        kinds = {name: "AKindOfALayerWithALongName"}
        lines = list(grouped_table([LayerInfo(name, kinds[name], (1, 8, 4, 4), spatial=True)], None, 5))
        assert max(map(len, lines)) <= 80
        assert lines[1].split() == [name, "AKindOfALayerWi…", "8", "x", "4", "x", "4"]

    @pytest.mark.parametrize("number", ["0", "-1"])
    def test_no_layers(self, capsys, number):
        assert main(["layers", *model("never"), "--last", number]) == 2
        assert errors(capsys) == [f"fusioncam: error: --last is a number of layers, 1 or more: got {number}."]

    def test_what_is_happening_while_a_model_loads(self, workplace, monkeypatch):
        (workplace / "folder_models.py").write_text(
            "import sys\n\n\ndef never():\n    raise AssertionError(sys.stderr.getvalue())\n"
        )
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["layers", *model("never")]) == 2
        before, after = terminal.getvalue().splitlines()
        assert before == "fusioncam: loading python:folder_models:never ..."
        assert f"AssertionError: {before.rstrip('.')}" in after

    @pytest.mark.parametrize(
        ("watched", "reports", "several", "expected"),
        [
            (False, False, True, (True, False)),
            (False, False, False, (False, True)),
            (True, True, True, (False, None)),
            (True, False, True, (None, False)),
            (True, True, False, (False, None)),
        ],
    )
    def test_whose_progress_is_shown(self, monkeypatch, watched, reports, several, expected):
        for name, is_terminal in (("stderr", watched), ("stdout", reports)):
            stream = io.StringIO()
            stream.isatty = lambda own=is_terminal: own
            monkeypatch.setattr(sys, name, stream)
        assert explain._progress(False, several) == expected
        assert explain._progress(True, several) == (False, False)

    def test_a_bar_makes_room_for_a_complaint(self, workplace, monkeypatch, capsys):
        pytest.importorskip("tqdm")
        (workplace / "photos" / "aa.png").write_text("no picture")
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["explain", "photos", *model(), *GRADIENT]) == 1
        before, _, after = terminal.getvalue().partition("fusioncam: photos/aa.png is not")
        assert "photographs:  25%" in before.replace("\r", "\n")
        assert before.rpartition("\n")[2].split("\r")[-1] == "", "the line was empty"
        assert "photographs:" in after

    def test_lines_in_a_log(self, monkeypatch, capsys):
        monkeypatch.setattr("fusioncam_core.data.progress.SECONDS", 0.0)
        assert main(["explain", "photos", *model(), *GRADIENT]) == 0
        lines = errors(capsys)
        assert len(lines) == 3
        assert lines[-1].startswith("photographs: 3 of 3 (100 %) in 0:0")
        assert main(["explain", "photos", *model(), *GRADIENT, "--no-progress"]) == 0
        assert errors(capsys) == []
