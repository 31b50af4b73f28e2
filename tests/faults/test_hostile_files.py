"""A campaign against files: names of any bytes, folders full of other people's files, full disks, kills."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import CannotWriteError, Explanation, InvalidValueError
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.names import LONGEST, fitting, folded, names_of_files
from fusioncam_core.results.files import free_name, save_explanation
from fusioncam_core.results.writing import below, identities, is_ours
from libraries import EVERYTHING

hypothesis = pytest.importorskip("hypothesis")
strategies = pytest.importorskip("hypothesis.strategies")
image = pytest.importorskip("PIL.Image")

ROUNDS, EXAMPLES = (300, 2000) if EVERYTHING else (20, 100)

LETTERS = [b"a", b"A", b"\xc3\xa4", b"a\xcc\x88", b"\xff", b"\xe2\x80"]
"""With and without capitals, composed and not, and parts of letters."""

PIECES = [*LETTERS, b"-2", b".", b"..", b"\n", b"\x1b[2J", b" ", b"x" * 90]
"""Of file names: beside letters numbers as ours, dots, and what terminals obey."""

ENDINGS = [b".png", b".jpg", b".PNG", b"", b".npz", b".json", b".png.png"]


def explanation(value: float = 0.5, **fields: Any) -> Explanation:
    """Of one image, all of whose map has the value."""
    one = np.full(1, value, dtype=np.float32)
    return Explanation(
        method="grad-cam",
        layer="maps",
        model="Net",
        maps=np.full((1, 2, 3), value, dtype=np.float32),
        targets=np.zeros(1, dtype=int),
        scores=one,
        probabilities=one,
        class_probabilities=np.full((1, 2), 0.5, dtype=np.float32),
        images=np.zeros((1, 3, 2, 3), dtype=np.float32),
        image_channel_axis=1,
        evaluations=1,
        **fields,
    )


def file_names() -> Any:
    """Of any of the pieces, as the operating system gives them."""
    pieces = strategies.lists(strategies.sampled_from(PIECES), min_size=1, max_size=4)
    joined = strategies.tuples(pieces, strategies.sampled_from(ENDINGS)).map(
        lambda drawn: b"".join(drawn[0]) + drawn[1]
    )
    return joined.filter(lambda name: name.strip(b".") and len(name) <= 255).map(os.fsdecode)


def paths() -> Any:
    """Of files in folders of such names."""
    return strategies.lists(file_names(), min_size=1, max_size=3).map("/".join)


@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(strategies.lists(paths(), min_size=1, max_size=8))
def test_names_stay_apart_and_below_their_folder(files: list[str]) -> None:
    names = names_of_files(files, ".")
    assert len({folded(fitting(name)) for name in names}) == len(files)
    assert names == names_of_files(files, "."), "the same files have the same names"
    for name in names:
        path = below("out", name)
        assert ".." not in path.parts
        assert path.is_relative_to("out")
        assert all(len(os.fsencode(part)) <= LONGEST for part in path.parts)


@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(strategies.text(max_size=300))
def test_no_name_of_a_user_leads_out_of_the_folder(name: str) -> None:
    with contextlib.suppress(InvalidValueError):
        assert os.path.normpath(below("/out", name)).startswith("/out/")


@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(strategies.binary(max_size=300), strategies.sampled_from([".png", ".npz", ".json", ".csv", ".txt"]))
def test_no_bytes_break_the_recognition(tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b'{"fusioncam":'):
        path.write_bytes(start + content)
        assert not is_ours(path, "explanation")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, of what it could still read
@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(strategies.data())
def test_damaged_photographs_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    kind = data.draw(strategies.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp"]))
    whole = io.BytesIO()
    image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(whole, kind)
    damaged = bytearray(whole.getvalue())
    for _ in range(data.draw(strategies.integers(1, 8))):
        damaged[data.draw(strategies.integers(0, len(damaged) - 1))] = data.draw(strategies.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(damaged[: data.draw(strategies.integers(0, len(damaged)))])
    with contextlib.suppress(InvalidValueError):
        assert read_photograph(path).mode == "RGB"


@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(strategies.data())
def test_damaged_explanations_are_equal_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """In the archive, where its checksums tell; and in the entries, with checksums that are right."""
    folder = tmp_path_factory.mktemp("damaged")
    given = explanation(parts={"noise": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}, names=("a",))
    path = given.save(folder, pictures=False)[0]
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    name = data.draw(strategies.sampled_from([None, *entries]))
    damaged = bytearray(path.read_bytes() if name is None else entries[name])
    for _ in range(data.draw(strategies.integers(1, 4))):
        damaged[data.draw(strategies.integers(0, len(damaged) - 1))] = data.draw(strategies.integers(0, 255))
    cut = damaged[: data.draw(strategies.integers(0, len(damaged)) | strategies.just(len(damaged)))]
    if name is None:
        path.write_bytes(cut)
    else:
        with zipfile.ZipFile(path, "w") as file:
            for each, content in {**entries, name: bytes(cut)}.items():
                file.writestr(each, content)
    with contextlib.suppress(InvalidValueError):
        found = Explanation.load(path)
        assert name is not None or found == given, "what the checksums let through is what was written"
        assert len(found) == 1
        assert found.maps.ndim >= 2


def test_numbers_that_are_no_characters_are_refused(tmp_path: Path) -> None:
    path = explanation(names=("a",)).save(tmp_path, pictures=False)[0]
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    text = bytearray(entries["explanation.npy"])
    text[-1] = 0x7F  # the highest byte of the last character, which is written with its lowest first
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**entries, "explanation.npy": bytes(text)}.items():
            file.writestr(name, content)
    with pytest.raises(InvalidValueError, match="holds what are no characters"):
        Explanation.load(path)


def content_of(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return {path: path.read_bytes() for path in found}


def test_no_file_of_the_user_is_changed_and_no_result_replaced_unasked(tmp_path: Path) -> None:
    """Folders of photographs and other files of any names, saved into themselves, with and without being asked."""
    generator = random.Random(0)
    saved = 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        photographs = _fill(folder, generator)
        before = content_of(folder)
        results: dict[Path, bytes] = {}
        for overwrite in (False, True, False):
            kept = set(identities(photographs))
            names = names_of_files(photographs)
            for file, name in zip(photographs, names, strict=True):
                reserved = frozenset(map(folded, names))
                own, _ = free_name(folder, name, pictures=False, overwrite=overwrite, inputs=kept, reserved=reserved)
                value = generator.random()
                written = save_explanation(
                    explanation(value, files=(str(file),)),
                    folder,
                    [own],
                    pictures=False,
                    overwrite=overwrite,
                    inputs=kept,
                )
                assert kept.isdisjoint(identities(written)), "this run has not written them before"
                kept |= identities(written)
                assert Explanation.load(written[0]).maps[0, 0, 0] == np.float32(value)
                saved += 1
            after = content_of(folder)
            assert {path: after[path] for path in before} == before
            assert overwrite or {path: after[path] for path in results} == results
            results = {path: content for path, content in after.items() if path not in before}
        shutil.rmtree(folder)
    assert saved > 5 * ROUNDS


def _fill(folder: Path, generator: random.Random) -> list[Path]:
    """Photographs, and files of others that are called as results might be."""
    photographs: dict[bytes, Path] = {}
    for _ in range(generator.randint(1, 6)):
        pieces = b"".join(generator.choices(PIECES[:-1], k=generator.randint(1, 3)))
        name = pieces + generator.choice(ENDINGS)
        inner = generator.choice([b"", b"a/", b"A/"])
        path = os.fsencode(folder) + b"/" + inner + name
        if name.strip(b".") and not os.path.exists(path) and not os.path.isfile(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            photographs[path] = Path(os.fsdecode(path))
            photographs[path].write_bytes(name)
    for name in generator.sample(["a.npz", "a.json", "A.json", "a-2.npz", "a-2-2.json", "a/a.json"], k=3):
        path = folder / name
        if path.parent.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(generator.choice([b"", b"theirs", b'{"fusioncam": "evaluation"}']))
    return list(photographs.values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_results_alone(small_disk: Path) -> None:
    generator = np.random.default_rng(0)
    written: list[Path] = []

    def fill() -> None:
        for number in range(1000):
            part = generator.random((1, 40, 40), dtype=np.float32)
            written.extend(explanation(parts={"noise": part}).save(small_disk, [f"{number}"], pictures=False))

    with pytest.raises(CannotWriteError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert Path(caught.value.filename).stem == str(len(written) // 2)
    assert len(written) > 2
    assert sorted(small_disk.iterdir()) == sorted(written), "no half set and nothing temporary"
    for path in written[::2]:
        assert Explanation.load(path).parts["noise"].shape == (1, 40, 40)
    for path in written[1::2]:
        assert json.loads(path.read_text())["method"] == "grad-cam"


WRITER = """
import itertools, sys
sys.path[:0] = sys.argv[2:]
from test_hostile_files import explanation
from fusioncam_core.results.files import save_explanation
for number in itertools.count():
    save_explanation(explanation(number / 10000), sys.argv[1], [f"{number}"], pictures=False)
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_time_leaves_whole_files(tmp_path: Path, seed: int) -> None:
    where = [str(Path(__file__).parent), *sys.path]
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "out"), *where], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(random.Random(seed).random() / 4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".fusioncam-")]
    assert len(found) > 2
    for path in found:
        if path.suffix == ".npz":
            assert Explanation.load(path).maps[0, 0, 0] == np.float32(int(path.stem) / 10000)
        else:
            assert json.loads(path.read_text())["name"] == path.stem
