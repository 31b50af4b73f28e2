"""What reaches a terminal: text, and no commands; our lines, and nobody's chatter; and terminals that are not there."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core import FusionCamWarning, GradCAM, LayerInfo
from fusioncam_core.cli import main
from fusioncam_core.cli.common import ClosedOutputError, complain, in_words, say
from fusioncam_core.cli.quiet import quiet
from fusioncam_core.results.terminal import layer_table, photograph_report
from fusioncam_core.visible import visible

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no /dev/full")

LOADER = """
import logging, warnings
import torch
from torch import nn
from fusioncam_core import LoadedModel, Preprocessing

def load():
    warnings.warn("the weights are old")
    warnings.warn("the weights are old")
    warnings.warn("for developers", DeprecationWarning)
    warnings.warn("\\x1b[31mtwo\\nlines", RuntimeWarning)
    logging.getLogger("loader").warning("found %d files", 3)
    logging.getLogger("tensorflow").warning("5 out of the last 5 calls triggered retracing")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return LoadedModel(model, Preprocessing((12, 16)), ("dog", "\\u732b\\x1b[31m$x$\\n"))
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("two\r\nlines\tand\x00\x7f", "two\\r\\nlines\\tand\\x00\\x7f"),
        ("two\u2028lines\u2029\x85", "two\\u2028lines\\u2029\\x85"),
        (
            "\u202egnp.exe\u202c\u2066\u2069\u200e\u200f\u061c",
            "\\u202egnp.exe\\u202c\\u2066\\u2069\\u200e\\u200f\\u061c",
        ),
        ("c\u200bat\u200c\u200d\u2060\ufeff\u00ad", "c\\u200bat\\u200c\\u200d\\u2060\\ufeff\\xad"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0041\u3164", "\\U000e0041\\u3164"),
    ],
)
def test_what_steers_or_hides_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain text, $x$ & \\ ~",
        "größe, œuvre, e\u0301",
        "猫と犬 고양이",
        "قطة חתול",
        "می\u200cخواهم",  # noqa: RUF001 - with a joiner, as Persian is spelt
        "क्\u200dष",
        "👩\u200d🔬 👍🏽 ❤\ufe0f 🇩🇪",
        "a\u00a0b\u3000c",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_no_character_steers() -> None:
    """Of all characters there are, on their own."""
    shown = "".join(visible(chr(code)) for code in range(sys.maxunicode + 1))
    assert {unicodedata.category(letter) for letter in set(shown)} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()


class TestTables:
    def test_layers(self) -> None:
        layers = [LayerInfo("conv\x1b[2J", "Con\nv", (1, 2, 3, 3), spatial=True, default=True)]
        lines = list(layer_table(layers))
        assert lines[1].startswith("* conv\\x1b[2J  Con\\nv  2 x 3 x 3")
        assert len(lines) == 4

    @pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning")
    @pytest.mark.parametrize(("count", "shown", "more"), [(1, 1, None), (10, 10, None), (11, 10, 1), (200, 10, 190)])
    def test_many_targets_are_counted(self, count: int, shown: int, more: int | None) -> None:
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 200)
        )
        explanation = GradCAM(model)(np.ones((1, 3, 8, 8), np.float32), [list(range(count))]).numpy()
        lines = list(photograph_report("a\nb.png", explanation, None, [Path("out.png"), Path("out.json")]))
        assert lines[0] == "a\\nb.png"
        assert sum(": p = " in line for line in lines) == shown
        told = [line for line in lines if "more target" in line]
        s = "" if more == 1 else "s"
        assert told == ([] if more is None else [f"  and {more} more target{s}: the file of numbers has all of them"])


class TestStreams:
    def test_lines_of_ours_stay_lines(self) -> None:
        stream = io.StringIO()
        say("first\nsecond\x1b[31m", stream)
        assert stream.getvalue() == "first\nsecond\\x1b[31m\n"

    def test_one_that_was_closed_before_we_began(self) -> None:
        say("text", None)

    def test_a_pipe_that_nobody_reads(self) -> None:
        theirs, ours = os.pipe()
        os.close(theirs)
        with os.fdopen(ours, "w") as stream, pytest.raises(ClosedOutputError):
            say("text", stream)  # and closing it raises nothing more

    def test_a_full_disk(self) -> None:
        with open("/dev/full", "w") as stream, pytest.raises(OSError, match="No space left") as caught:
            say("text", stream)
        assert caught.value.errno == errno.ENOSPC

    def test_complaints_never_raise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with open("/dev/full", "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            complain("text")
            monkeypatch.undo()

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (KeyError("weights"), "KeyError: 'weights'"),
            (RuntimeError(), "RuntimeError"),
            (FileNotFoundError(2, "No such file", "a\nb"), "a\\nb: No such file"),
            (FileNotFoundError(2, "No such file", b"\xff"), "\\udcff: No such file"),
            (OSError(28, "No space left"), "No space left"),
            (OSError("odd"), "OSError: odd"),
            (ValueError("x" * 1000), f"ValueError: {'x' * 300}…"),
        ],
    )
    def test_errors_in_words(self, error: Exception, words: str) -> None:
        assert in_words(error) == words


class TestOthers:
    """What others say while a command runs."""

    @pytest.fixture(autouse=True)
    def loader(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "warning_loader.py").write_text(LOADER, encoding="utf-8")
        yield
        sys.modules.pop("warning_loader", None)

    @pytest.mark.filterwarnings("always")
    def test_one_line_each_and_no_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["layers", "--model", "python:warning_loader:load"]) == 0
        assert capsys.readouterr().err.splitlines() == [
            "fusioncam: warning: the weights are old",
            "fusioncam: warning: RuntimeWarning: \\x1b[31mtwo lines",
            "fusioncam: warning: found 3 files",
        ]

    @pytest.mark.filterwarnings("always")
    def test_glyphs_that_the_font_lacks_are_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        Image.new("RGB", (40, 30), (200, 10, 10)).save("red.png")
        command = ["explain", "red.png", "--model", "python:warning_loader:load", "--method", "grad-cam"]
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert sum("the font of the pictures lacks" in line for line in err.splitlines()) == 1
        assert all(line.startswith("fusioncam: ") for line in err.splitlines())
        assert "Glyph" not in err
        assert "\\x1b[31m$x$\\n" in out
        assert "猫" in out

    def test_everything_is_put_back(self) -> None:
        before, handlers = warnings.showwarning, list(logging.getLogger().handlers)
        with quiet(whole_process=False):
            assert warnings.showwarning is not before
        assert (warnings.showwarning, logging.getLogger().handlers) == (before, handlers)

    @pytest.mark.parametrize("level", [None, "0"])
    def test_the_environment_is_set_where_the_user_has_not(self, level: str | None, monkeypatch: Any) -> None:
        environment = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
        monkeypatch.setattr(os, "environ", environment)
        with quiet(whole_process=False):
            assert environment.keys() <= {"TF_CPP_MIN_LOG_LEVEL"}
        with quiet(whole_process=True):
            assert environment["TF_CPP_MIN_LOG_LEVEL"] == (level or "2")
            assert environment["GRPC_VERBOSITY"] == "ERROR"

    @pytest.mark.filterwarnings("always")
    def test_ours_are_sentences(self, capsys: pytest.CaptureFixture[str]) -> None:
        with quiet(whole_process=False):
            warnings.warn("a sentence", FusionCamWarning, stacklevel=1)
            (handler,) = [
                each for each in logging.getLogger().handlers if type(each).__module__.startswith("fusioncam")
            ]
            handler.emit(logging.LogRecord("odd", logging.ERROR, "", 1, "%d", ("no number",), None))
        assert capsys.readouterr().err.splitlines() == ["fusioncam: warning: a sentence", "fusioncam: warning: %d"]


def command(arguments: str, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as `"$@"` of a shell script."""
    line = [
        "bash",
        "-c",
        f"set -o pipefail; {script}",
        "bash",
        sys.executable,
        "-m",
        "fusioncam_core",
        *arguments.split(),
    ]
    return subprocess.run(
        line, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("script", "statuses"),
    [
        ('"$@" | head -1', {0, 141}),
        ('"$@" | true', {0, 141}),
        ('"$@" >&-', {0}),
        ('"$@" >&- 2>&- <&-', {0}),
        ('"$@" > /dev/full', {2}),
        ('LC_ALL=C PYTHONIOENCODING=ascii "$@"', {0}),
        ('COLUMNS=1 "$@"', {0}),
    ],
)
def test_terminals_that_are_not_there(script: str, statuses: set[int]) -> None:
    done = command("methods", script)
    assert done.returncode in statuses
    if 2 in statuses:
        assert done.stderr == "fusioncam: error: No space left on device\n"
    else:
        assert done.stderr == ""


def test_errors_that_cannot_be_written_have_a_status() -> None:
    assert command("layers --model nothing", '"$@" 2> /dev/full').returncode == 2
    assert command("layers --model nothing", '"$@" 2>&-').returncode == 2


def test_narrow_help() -> None:
    done = command("explain --help", '"$@"', COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    options = done.stdout.partition("options:")[2].splitlines()
    assert max(map(len, options)) <= 40


SET = "TF_CPP_MIN_LOG_LEVEL"
"""JAX sets it when it is imported, as tests before these may have done; who sets it gets what was asked for."""

NOTES = """
import os, sys

def load():
    import tensorflow
    os.write(2, b"I0000 00:00:1795898131.024722    2328 port.cc:153] oneDNN custom operations are on.\\n")
    os.write(2, b"E0000 00:00:1795898131.024722    2328 some.cc:153] something is wrong\\n")
    print("by Python", file=sys.stderr, flush=True)
    if CRASH:
        os.write(2, b"F0000 fatal\\n")
        os.abort()
    return 1
"""


@pytest.mark.parametrize("crash", [False, True])
def test_notes_of_compiled_code(crash: bool, tmp_path: Path) -> None:
    """The module is called like TensorFlow; what is written before a crash must arrive."""
    (tmp_path / "tensorflow.py").write_text("")
    (tmp_path / "notes.py").write_text(NOTES.replace("CRASH", str(crash)))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    script = f'cd {tmp_path} && PYTHONPATH={path} FUSIONCAM_DISABLE_PLUGINS=tensorflow,keras env -u {SET} "$@" | cat'
    lines = command("layers --model python:notes:load", script).stderr.splitlines()
    assert "by Python" in lines
    assert [line for line in lines if line.startswith(("I0000", "E0000", "F0000"))] == [
        "E0000 00:00:1795898131.024722    2328 some.cc:153] something is wrong",
        *(["F0000 fatal"] if crash else []),
    ]
    assert crash or sum(line.startswith("fusioncam: error: ") for line in lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_keras_model_is_read_in_silence(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    make = (
        "import sys, keras; from keras import layers as l; m = keras.Sequential([keras.Input((32, 32, 3)), "
        "l.Rescaling(1 / 255), l.Conv2D(4, 3), l.GlobalAveragePooling2D(), l.Dense(3, 'softmax')]); m.save(sys.argv[1])"
    )
    file = tmp_path / f"model.{ending}"
    subprocess.run([sys.executable, "-c", make, str(file)], check=True, capture_output=True)
    done = command(f"layers --model keras:{file}", f'env -u {SET} "$@"')
    assert (done.returncode, done.stderr) == (0, "")
    assert "* conv2d" in done.stdout
