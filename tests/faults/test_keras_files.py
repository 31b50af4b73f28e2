"""Files that look like models of Keras: one sentence each, no code of theirs run."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import InvalidValueError, load_model
from libraries import framework

keras = framework("keras")

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.skipif(os.name != "posix", reason="there are no named pipes"),
]

CONFIGURATIONS: dict[str, Any] = {
    "no json": b"not json",
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "null": None,
    "a list": [],
    "a number": 3,
    "an empty mapping": {},
    "no class": {"module": "keras", "class_name": "NoSuchClass", "config": {}, "registered_name": None},
    "a command": {"module": "os", "class_name": "system", "config": {"command": "touch ran"}, "registered_name": None},
    "a function": {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
    "deep": json.loads("[" * 500 + "]" * 500),
}


def archive(path: Path, configuration: Any) -> str:
    content = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", content)
        file.writestr("metadata.json", '{"keras_version": "3.11.3", "date_saved": "2025-01-01"}')
        file.writestr("model.weights.h5", b"no weights")
    return f"keras:{path}"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_archives_that_hold_no_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = archive(tmp_path / "model.keras", CONFIGURATIONS[name])
    with pytest.raises(InvalidValueError, match=r"^'keras:.*model\.keras': ") as caught:
        load_model(spec)
    assert len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == ["model.keras"]


def test_truncated_files(tmp_path: Path) -> None:
    """At every twentieth of its length."""
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    file = tmp_path / "whole.keras"
    model.save(file)
    whole = file.read_bytes()
    for part in range(20):
        cut = tmp_path / f"cut-{part}.keras"
        cut.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(InvalidValueError, match=r"is no file that Keras has saved"):
            load_model(f"keras:{cut}")


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files(count: int, tmp_path: Path) -> None:
    """Bytes overwritten at random, a quarter cut short: a sentence, or a model where nothing that counts was hit.

    Not of .h5 files: the HDF5 library itself may not come back from a damaged one. Archives have checksums.
    """
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    file, random = tmp_path / "model.keras", np.random.default_rng(0)
    model.save(file)
    whole, refused = np.frombuffer(file.read_bytes(), np.uint8), 0
    for number in range(count):
        damaged = whole.copy()
        hit = random.integers(len(whole), size=(1, 4, 40)[number % 3])
        damaged[hit] = random.integers(256, size=len(hit))
        file.write_bytes(damaged[: random.integers(len(whole)) if number % 4 == 0 else None].tobytes())
        refused += _is_refused(f"keras:{file}")
    assert refused > count / 4


def _is_refused(spec: str) -> bool:
    """Whether there is one sentence about the file; anything else that comes out of it fails the test."""
    try:
        load_model(spec)
    except InvalidValueError as error:
        assert str(error).startswith("'keras:")  # noqa: PT017 - some files are read nevertheless
        assert len(str(error)) < 600  # noqa: PT017
        return True
    return False


@pytest.mark.parametrize(("name", "problem"), [("folder.keras", "got a folder"), ("pipe.keras", "got no regular file")])
def test_what_is_no_file(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "folder.keras").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(InvalidValueError, match=problem):
        load_model(f"keras:{tmp_path / name}")


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="nothing is unreadable for the superuser")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret.keras"
    file.write_bytes(b"")
    file.chmod(0)
    with pytest.raises(InvalidValueError, match=r"secret\.keras' cannot be read: Permission denied"):
        load_model(f"keras:{file}")
