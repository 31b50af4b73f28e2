"""Converted graphs on disk: found again in any process, whole or not at all, and never what is trusted unseen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_models import IMAGES, Convolutions, convolutions, counted_exports, seeded
from engine_names import ENGINES, NEAR, registered_engines
from fusioncam_core import EngineWarning, ScoreCAM
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins import engine_cache
from fusioncam_core.plugins.engine_cache import VARIABLE, Entry, asked_folder
from fusioncam_core.plugins.engines import find_engine
from libraries import framework

torch = framework("torch")

pytestmark = pytest.mark.usefixtures(registered_engines.__name__)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where graphs are kept."""
    place = tmp_path / "engines"
    monkeypatch.setenv(VARIABLE, str(place))
    return place


def maps(model: Any, name: str, **options: Any) -> Any:
    return ScoreCAM(model, engine=name, **options)(IMAGES, 1).maps


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.engine"))


def again(count: Callable[[], int], model: Any, name: str, **options: Any) -> tuple[list[str], Any]:
    """The warnings and the maps of a model that was not converted in this process, and that it was not now either."""
    before = count()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", EngineWarning)
        found = maps(model, name, **options)
    told = [str(each.message) for each in seen if each.category is EngineWarning]
    assert (count() > before) == bool(told)
    return told, found


@ENGINES
class TestKept:
    def test_off_by_default(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        maps(seeded(Convolutions), name)
        assert not list(tmp_path.glob("fusioncam*"))

    def test_another_model_of_these_weights_converts_nothing(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = counted_exports(monkeypatch)
        first = maps(seeded(Convolutions), name)
        assert len(files(folder)) == count() == 1
        told, found = again(count, seeded(Convolutions), name)
        assert told == []
        np.testing.assert_allclose(found, first, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found, ScoreCAM(convolutions())(IMAGES, 1).maps, rtol=0, atol=NEAR)

    def test_by_weights_operations_constants_and_shapes(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = counted_exports(monkeypatch)

        class Cut(Convolutions):
            def forward(self, images: Any) -> Any:
                return self.fc(self.features(images).clamp(max=0.4).mean(dim=(2, 3)))

        class CutLater(Convolutions):
            def forward(self, images: Any) -> Any:
                return self.fc(self.features(images).clamp(max=99).mean(dim=(2, 3)))

        other = seeded(Convolutions)
        with torch.no_grad():
            other.fc.weight[0, 0] += 0.1
        for number, model in enumerate((seeded(Convolutions), seeded(Cut), seeded(CutLater), other), start=1):
            maps(model, name)
            assert count() == len(files(folder)) == number
        ScoreCAM(seeded(Convolutions), engine=name)(IMAGES[..., :12], 1)
        assert count() == len(files(folder)) == 5

    def test_half_precision_is_a_graph_of_its_own(self, name: str, folder: Path) -> None:
        if find_engine(name).unable("bfloat16") is not None:
            pytest.skip("no bfloat16 here")
        maps(seeded(Convolutions), name)
        first = maps(seeded(Convolutions), name, engine_precision="bfloat16")
        assert len(files(folder)) == 2
        found = maps(seeded(Convolutions), name, engine_precision="bfloat16")
        np.testing.assert_allclose(found, first, rtol=0, atol=1e-3)

    def test_it_holds_no_code_and_is_the_users_alone(self, name: str, folder: Path) -> None:
        maps(seeded(Convolutions), name)
        parts = Entry(folder, ()).read() or engine_cache._parts(files(folder)[0].read_bytes())
        assert parts is not None
        assert set(parts) == {"openvino": {"model.xml", "model.bin"}, "onnxruntime": {"model.onnx"}}[name]
        if os.name == "posix":
            assert folder.stat().st_mode & 0o777 == 0o700

    def test_two_at_once(self, name: str, folder: Path) -> None:
        models = [seeded(Convolutions) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda model: maps(model, name), models))
        for each in found[1:]:
            np.testing.assert_allclose(each, found[0], rtol=0, atol=1e-6)
        assert [path.suffix for path in folder.iterdir()] == [".engine"]


@ENGINES
class TestNotTrusted:
    """What does not hold is told in a warning, and made anew."""

    def kept(self, name: str, folder: Path) -> tuple[Path, Any]:
        first = maps(seeded(Convolutions), name)
        (path,) = files(folder)
        return path, first

    @pytest.mark.parametrize(
        "spoil", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("emptied", "changed"))]
    )
    def test_a_broken_file(self, name: str, spoil: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, first = self.kept(name, folder)
        content = path.read_bytes()
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:middle], "emptied": b"", "changed": changed}[spoil])
        count = counted_exports(monkeypatch)
        told, found = again(count, seeded(Convolutions), name)
        assert len(told) == 1
        assert f"is converted anew: {path} is broken" in told[0]
        np.testing.assert_array_equal(found, first)
        assert again(count, seeded(Convolutions), name)[0] == []

    def test_parts_that_the_engine_cannot_read(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, first = self.kept(name, folder)
        parts = dict.fromkeys(engine_cache._parts(path.read_bytes()) or (), b"spoiled")
        path.write_bytes(engine_cache._content(parts))
        told, found = again(counted_exports(monkeypatch), seeded(Convolutions), name)
        assert "cannot be read" in told[0]
        np.testing.assert_array_equal(found, first)

    def test_another_models_graph(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, first = self.kept(name, folder)
        other = seeded(Convolutions)
        with torch.no_grad():
            other.fc.weight.mul_(-1)
        maps(other, name)
        (wrong,) = set(files(folder)) - {path}
        path.write_bytes(wrong.read_bytes())
        told, found = again(counted_exports(monkeypatch), seeded(Convolutions), name)
        assert "does not hold" in told[0]
        assert "differs from the framework" in told[0]
        np.testing.assert_array_equal(found, first)

    def test_a_file_of_the_users_stays(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, first = self.kept(name, folder)
        path.write_bytes(b"my own notes")
        told, found = again(counted_exports(monkeypatch), seeded(Convolutions), name)
        assert [f"{path} is broken" in told[0], "no file of ours: it is left as it is" in told[1]] == [True, True]
        np.testing.assert_array_equal(found, first)
        assert path.read_bytes() == b"my own notes"

    def test_a_disk_that_takes_nothing(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        expected = ScoreCAM(convolutions())(IMAGES, 1).maps
        monkeypatch.setattr(engine_cache.os, "fsync", full)
        with pytest.warns(EngineWarning, match="not kept on disk: .*No space left"):
            np.testing.assert_allclose(maps(seeded(Convolutions), name), expected, rtol=0, atol=NEAR)
        assert list(folder.iterdir()) == []

    def test_a_folder_that_cannot_be(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "engines"))
        with pytest.warns(EngineWarning, match=r"not kept on disk|converted anew"):
            maps(seeded(Convolutions), name)


class TestBounds:
    def entry(self, folder: Path, word: str) -> Entry:
        return Entry(folder, (word,))

    def test_what_was_used_longest_ago_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entries = [self.entry(tmp_path, word) for word in "abcd"]
        monkeypatch.setattr(engine_cache, "LIMIT", 3500)  # three of a thousand bytes and some
        (tmp_path / "mine.txt").write_text("stays")
        for age, entry in enumerate(entries[:3]):
            entry.write({"model": bytes(1000)})
            os.utime(entry.path, (1000.0 + age,) * 2)
        assert entries[0].read() == {"model": bytes(1000)}  # which makes it the latest
        entries[3].write({"model": bytes(1000)})
        assert [entry.path.exists() for entry in entries] == [True, False, True, True]
        assert (tmp_path / "mine.txt").exists()

    def test_one_that_is_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_cache, "LIMIT", 500)
        with pytest.raises(InvalidValueError, match="of 500 for all"):
            self.entry(tmp_path, "a").write({"model": bytes(1000)})
        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_process_left(self, tmp_path: Path) -> None:
        left = tmp_path / f".fusioncam-{'0' * 16}"
        left.write_bytes(b"half")
        self.entry(tmp_path, "a").write({"model": b"one"})
        assert left.exists(), "somebody may be writing it"
        os.utime(left, (0.0, 0.0))
        self.entry(tmp_path, "b").write({"model": b"two"})
        assert not left.exists()


class TestFolder:
    @pytest.mark.parametrize("said", ["", "0"])
    def test_none(self, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, said)
        assert asked_folder() is None

    def test_the_users_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert asked_folder() == tmp_path / "fusioncam" / "engines"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to leave out
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
        assert asked_folder() == tmp_path / "home" / ".cache" / "fusioncam" / "engines"

    def test_a_word_that_is_no_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "yes")
        with pytest.raises(InvalidValueError, match="the absolute path of a folder: got 'yes'"):
            asked_folder()


ELSEWHERE = """
import sys
import numpy as np
from fusioncam_core import ScoreCAM

images = np.random.default_rng(0).random((1, 16, 16, 3), dtype=np.float32)
if sys.argv[1] == "keras":
    import keras

    keras.utils.set_random_seed(1)
    for _ in range(int(sys.argv[2])):
        keras.layers.Dense(3).build((1, 2))  # which takes names
    parts = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([*parts, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    for number, each in enumerate(model.weights):
        each.assign(np.random.default_rng(number).random(each.shape, dtype=np.float32))
elif sys.argv[1] == "torch":
    import torch

    torch.manual_seed(3)
    parts = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    model, images = torch.nn.Sequential(*parts, torch.nn.Linear(4, 3)), torch.from_numpy(images.transpose(0, 3, 1, 2))
else:
    import jax
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv, self.fc = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, images):
            return self.fc(jax.nn.relu(self.conv(images)).mean((1, 2)))

    model = Net()
print(ScoreCAM(model, engine=sys.argv[3])(images, 1).numpy().maps.sum().round(3))
"""

PACKAGES = {
    ("torch", "openvino"): ("torch",),
    ("torch", "onnxruntime"): ("onnxscript",),
    ("keras", "openvino"): ("keras", "tensorflow"),
    ("keras", "onnxruntime"): ("keras", "tf2onnx"),
    ("jax", "openvino"): ("flax", "jax2onnx"),
    ("jax", "onnxruntime"): ("flax", "jax2onnx"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PACKAGES)
def test_found_again_in_another_process(kind: str, name: str, folder: Path) -> None:
    for package in (name, *PACKAGES[kind, name]):
        pytest.importorskip(package)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    sums = []
    for names in ("0", "2"):
        command = [sys.executable, "-c", ELSEWHERE, kind, names, name]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        sums.append(run.stdout)
        assert len(files(folder)) == 1
    assert sums[0] == sums[1]
