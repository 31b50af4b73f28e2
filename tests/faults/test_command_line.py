"""Hostile command lines: each gives a sentence and a status, no trace, no hang, and leaves the user's files alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core.cli import main

pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no named pipes and no alarms")

MODELS = """
import os, sys
import torch
from torch import nn

from fusioncam_core import InvalidValueError, LoadedModel, Preprocessing

preprocessing = Preprocessing(size=(12, 16), mean=0.0, std=255.0)
HOSTILE = "\\x1b[2Jcat\\r\\n\\u202egod"


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))


def good():
    return LoadedModel(net(), preprocessing, tuple("abcdefg"))


def hostile_names():
    return LoadedModel(net(), preprocessing, (HOSTILE,) * 7)


def key_error():
    return {}["weights"]


def exits_well():
    sys.exit(0)


def exits_with_words():
    sys.exit("I give up")


def stops():
    raise StopIteration


def runs_out():
    raise MemoryError


def recursion():
    return recursion()


def hostile_error():
    raise RuntimeError(HOSTILE)


class Unprintable(Exception):
    def __str__(self):
        raise ValueError


def unprintable():
    raise Unprintable


def error_of_ours():
    raise InvalidValueError("the weights are elsewhere")


def nothing():
    return None


def three():
    return 1, 2, 3


def text():
    return "weights.pt", preprocessing


def bare():
    return net()


def odd_preprocessing():
    return net(), "resize"


def preprocessed_to(value):
    return lambda: (net(), lambda photograph: value)


to_none, to_text, to_objects, to_nothing, to_number, to_flat = (
    preprocessed_to(value)
    for value in (None, "image", torch.zeros(3).numpy().astype(object), torch.zeros(3, 0, 4), 3.0, torch.zeros(5))
)


def raising(photograph):
    raise KeyError("mean")


def preprocessing_raises():
    return net(), raising


def preprocessing_exits():
    return net(), lambda photograph: sys.exit(0)


class Broken(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3), how

    def forward(self, images):
        self.how()
        return self.conv(images).mean((2, 3))


def forward_raises():
    return LoadedModel(Broken(lambda: {}["weights"]), preprocessing)


def forward_exits():
    return LoadedModel(Broken(lambda: sys.exit(0)), preprocessing)


def forward_of_another_size():
    return LoadedModel(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), preprocessing)


def names_that_are_numbers():
    return LoadedModel(net(), preprocessing, (1, 2, 3, 4, 5, 6, 7))


def names_in_one_text():
    return LoadedModel(net(), preprocessing, "abcdefg")


def names_that_are_none():
    return LoadedModel(net(), preprocessing, 7)


def odd_task():
    return LoadedModel(net(), preprocessing, task="everything")


def odd_layer():
    return LoadedModel(net(), preprocessing, layer="nowhere")


def layer_that_is_a_number():
    return LoadedModel(net(), preprocessing, layer=3.5)


def needs_arguments(weights):
    return weights


not_a_function = 3


def __getattr__(name):
    if name == "explodes":
        raise KeyError(name)
    raise AttributeError(name)
"""

FUNCTIONS = [
    line.removeprefix("def ").partition("(")[0]
    for line in MODELS.splitlines()
    if line.startswith("def ") and line.endswith("():")
]
WORKING = {"net", "good", "hostile_names"}
BROKEN = [name for name in FUNCTIONS if name not in WORKING]
BROKEN += ["to_none", "to_text", "to_objects", "to_nothing", "to_number", "to_flat", "needs_arguments"]
BROKEN += ["not_a_function", "explodes", "no_such_function"]


def spec(function: str = "good") -> str:
    return f"python:hostile_models:{function}"


GOOD = ("--model", spec(), "--method", "grad-cam")

ROWS: list[list[str]] = [
    # What is no command line
    [],
    [""],
    ["explode"],
    ["--nonsense"],
    ["methods", "more"],
    ["layers"],
    ["explain"],
    ["explain", "p.png"],
    ["explain", "--model"],
    ["evaluate", "p.png"],
    ["\x1b[2J"],
    ["explain", "p.png", "--model", spec(), "--method", "grad-cam", "--nonsense", "3"],
    # Models that are not there
    *(["layers", "--model", each] for each in (
        "", " ", ":", "python:", "python::", "python:a:b", "python:os", "python:os:", "python:os:nothing:more",
        "python:os:getpid", "python:os.path:sep", "python:no-identifier:load", "python:hostile_models:", "resnet50",
        "http://example.org/model", "/etc/passwd", "..", "torch:resnet18", "timm:", "timm:no_such_model",
        "timm:../../etc", "torchvision:", "torchvision:no_such_model", "\u202edom\x1b[31m", "python:\udcff:load",
        "keras:", "keras:nothing.keras", "keras:p.png", "keras:folder.keras", "keras:empty.keras", "keras:pipe.keras",
        "keras:text.keras", "keras:model.weights.h5", "keras:\x1b.keras",
    )),
    # Modules that break while they are imported
    *(["layers", "--model", f"python:{each}:load"] for each in ("dies", "exits", "half", "needs", "steers")),
    # Loaders, preprocessing and models that break
    *(["layers", "--model", spec(each)] for each in BROKEN),
    # Options
    *(["explain", "p.png", *GOOD, *each] for each in (
        ["--targets", ""], ["--targets", "cat"], ["--targets", "7"], ["--targets", "-1"], ["--targets", "1,,2"],
        ["--targets", "1.5"], ["--targets", "nan"], ["--targets", "99999999999999999999"], ["--targets", "top0"],
        ["--layer", ""], ["--layer", "nowhere"], ["--layer", "\x1b[31m"], ["--layer", "0#7"],
        ["--batch-size", "0"], ["--batch-size", "-3"], ["--batch-size", "two"], ["--batch-size", "1e3"],
        ["--percentile", "5"], ["--budget", "3"], ["--tolerance", "0.1"], ["--variant", "best"],
        ["--method", ""], ["--method", "grad_cam"], ["--method", "\x1b[31m"],
    )),
    *(["explain", "p.png", "--model", spec(), *each] for each in (
        ["--percentile", "nan"], ["--percentile", "inf"], ["--percentile", "101"], ["--percentile", "-1"],
        ["--percentile", "ten"], ["--budget", "0"], ["--budget", "-1"], ["--budget", "nan"],
        ["--tolerance", "nan"], ["--tolerance", "-1"], ["--contributions", "both"],
    )),
    *(["evaluate", "p.png", "--model", spec(), "--no-progress", *each] for each in (
        ["--methods", "nothing"], ["--methods", "grad-cam,\x1b"], ["--metrics", "beauty"],
        ["--labels", "nothing.csv"], ["--labels", "p.png"], ["--labels", "folder"], ["--masks", "nowhere"],
        ["--reference", "nothing", "--methods", "grad-cam", "--metrics", "complexity"], ["--batch-size", "0"],
        ["--layer", "nowhere", "--methods", "grad-cam", "--metrics", "complexity"],
    )),
    # Photographs and folders
    *(["explain", each, *GOOD] for each in (
        "nothing.png", "", "folder", "text.png", "empty.png", "half.png", "/dev/null", "\x1b[2J.png", "\udcff.png",
        "nothing\nat all.png", "n" * 300, "nothing\x00.png",
    )),
    *(["evaluate", each, "--model", spec(), "--methods", "grad-cam", "--metrics", "complexity"] for each in (
        "nothing.png", "folder", "text.png",
    )),
    ["explain", "p.png", *GOOD, "--out", "p.png"],
    ["explain", "p.png", *GOOD, "--out", "p.png/below"],
    ["explain", "p.png", *GOOD, "--out", "/proc/nothing"],
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current directory with a photograph, models, and what is neither."""
    folder, before = tmp_path_factory.mktemp("hostile"), Path.cwd()
    _fill(folder)
    os.chdir(folder)
    sys.modules.pop("hostile_models", None)
    yield folder
    os.chdir(before)
    sys.modules.pop("hostile_models", None)


def _fill(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "p.png")
    (folder / "half.png").write_bytes((folder / "p.png").read_bytes()[:500])
    (folder / "hostile_models.py").write_text(MODELS, encoding="utf-8")
    modules = {
        "dies": "raise KeyError('at the top')",
        "exits": "import sys; sys.exit(0)",
        "half": "def load(:",
        "needs": "import no_such_package",
        "steers": "raise RuntimeError('\\x1b[2J\\nsecond line')",
    }
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    for name in ("text.png", "text.keras", "model.weights.h5", "empty.png", "empty.keras"):
        (folder / name).write_text("" if name.startswith("empty") else "no such thing")
    for name in ("folder", "folder.keras"):
        (folder / name).mkdir()
    os.mkfifo(folder / "pipe.keras")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Fails what would wait forever."""

    def give_up(*_: Any) -> None:
        raise KeyboardInterrupt("this takes longer than ten seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, by name."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(" ".join(row))[:80])
def test_one_sentence_and_a_status(row: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(workplace)
    status = main(row)
    out, err = capsys.readouterr()
    assert status in (1, 2)
    assert err
    assert all(line.startswith("fusioncam: ") for line in err.splitlines())
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    after = files(workplace)
    assert {name: after.get(name) for name in before} == before


def test_there_are_many() -> None:
    assert len(ROWS) >= 60
    assert len({tuple(row) for row in ROWS}) == len(ROWS)


def test_a_loader_that_exits_well_is_no_success(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "--model", spec("exits_well")]) == 2
    assert capsys.readouterr() == ("", f"fusioncam: error: '{spec('exits_well')}': sys.exit(0) was called.\n")


def test_the_trace_on_demand(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes down to the line of the loader."""
    assert main(["layers", "--model", spec("key_error"), "--traceback"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert '    return {}["weights"]' in lines
    assert lines[-1] == f"fusioncam: error: '{spec('key_error')}': KeyError: 'weights'."


def test_an_error_of_the_model_says_how_to_find_it(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "--model", spec("forward_raises")]) == 2
    expected = "fusioncam: error: KeyError: 'weights' (--traceback shows where it came from)\n"
    assert capsys.readouterr().err == expected


@pytest.mark.filterwarnings("default")
def test_hostile_class_names_are_shown(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "p.png", "--model", spec("hostile_names"), "--method", "grad-cam", "--out", "hostile"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("\\x1b[2Jcat\\r\\n\\u202egod") == 6  # five classes, and the one that is explained
    assert all(letter.isprintable() or letter == "\n" for letter in out)


@pytest.mark.parametrize("error", ["csv.Error", "UnicodeDecodeError"])
def test_a_table_that_is_none(error: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"csv.Error": b'p.png,"' + b"x" * 200_000, "UnicodeDecodeError": b"\xff\xfe"}[error]
    (workplace / "table.csv").write_bytes(content)
    assert main(["evaluate", "p.png", "--model", spec(), "--labels", "table.csv"]) == 2
    assert capsys.readouterr().err.startswith("fusioncam: error: Expected a table (CSV) in UTF-8, got 'table.csv': ")
