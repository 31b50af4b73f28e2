"""The file of an evaluation's values: whose it is, what a kill leaves of it, and who may write to it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from absence import hide
from fusioncam_core import Preprocessing, evaluate
from fusioncam_core.errors import FolderInUseError, FusionCamError, MissingExtra
from fusioncam_core.evaluation import store
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.run import ZERO
from fusioncam_core.evaluation.store import HEADER, Entry, Key, Store, opened
from fusioncam_core.metrics import AverageDrop, Complexity, IoU
from fusioncam_core.stores import lock
from fusioncam_core.stores.lock import claimed

pytest.importorskip("torch")

from given_maps import Given, Looks, perfect, white

KEY, OTHER = Key("image", 3, "method", "metric"), Key("image", 3, "method", "other")
ENTRY = Entry(0.5, [1.0, 0.0], [0.0, 1.0])

FOREIGN = {
    "a table": b"image,value\n",
    "lines of JSON": b'{"a": 1}\n{"a": 2}\n',
    "an older format": b'[["d", 1, "m", "k"], [0.5, null, null, null]]\n',
    "a newer format": HEADER.replace(b"2", b"3"),
    "no line break": b'{"fusioncam": "evaluation", "format": 2}',
    "one long line": b"x" * 100_000,
    "nothing": b"",
    "no text": bytes(range(128, 256)),
    "another encoding": '{"caf\xe9": 1}'.encode("latin-1"),
}


def square(maps: Any, **options: Any) -> Given:
    return Given(Looks(), maps, output_kind="probabilities", **options)


class TestWhoseFile:
    @pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
    def test_somebody_elses_is_refused_and_stays(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "values.jsonl"
        path.write_bytes(content)
        before = path.stat()
        cam = square(perfect)
        with pytest.raises(ValueError, match=r"values\.jsonl was not written by an evaluation of this format"):
            evaluate(Looks(), white(), {"cam": cam}, [Complexity()], 1, out=tmp_path, model_name="looks")
        assert cam.explained == 0
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert [each.name for each in tmp_path.iterdir()] == ["values.jsonl"]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    def test_what_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "folder" / "values.jsonl").mkdir(parents=True)
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "values.jsonl")
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "values.jsonl").symlink_to(tmp_path / "nowhere")
        for name in ("folder", "pipe", "link"):
            with pytest.raises(ValueError, match="is no file of an evaluation"), opened(tmp_path / name, 0):
                pass

    def test_ours_begins_with_a_line_that_says_so(self, tmp_path: Path) -> None:
        with opened(tmp_path, 0) as kept:
            kept.add({KEY: ENTRY})
        assert (tmp_path / "values.jsonl").read_bytes().startswith(HEADER)
        assert Store(tmp_path)[KEY] == ENTRY
        assert KEY not in Store(None)

    def test_a_line_that_is_no_entry(self, tmp_path: Path) -> None:
        (tmp_path / "values.jsonl").write_bytes(HEADER + b"[1, 2]\n")
        with pytest.raises(ValueError, match=r"Line 2 of .*values.jsonl is no entry of an evaluation"):
            Store(tmp_path)
        assert (tmp_path / "values.jsonl").read_bytes() == HEADER + b"[1, 2]\n"


class TestWhatAKillLeaves:
    def test_every_length_of_a_torn_line(self, tmp_path: Path) -> None:
        whole = HEADER + b"".join(json.dumps([key, ENTRY]).encode() + b"\n" for key in (KEY, OTHER))
        second = whole.index(b"\n", len(HEADER)) + 1
        for length in range(len(HEADER), len(whole)):
            (tmp_path / "values.jsonl").write_bytes(whole[:length])
            kept = Store(tmp_path)
            assert (KEY in kept, OTHER in kept) == (length >= second, False), length
            expected = whole[:second] if length >= second else HEADER
            assert (tmp_path / "values.jsonl").read_bytes() == expected
        assert [each.name for each in tmp_path.iterdir()] == ["values.jsonl"]

    def test_it_is_repaired_beside_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed before the renaming, there is the file as it was."""
        torn = HEADER + b'[["image"'
        (tmp_path / "values.jsonl").write_bytes(torn)

        def fail(self: Path, target: Path) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path)
        assert (tmp_path / "values.jsonl").read_bytes() == torn

    def test_a_batch_is_on_disk_when_it_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        original = os.fsync
        monkeypatch.setattr(store.os, "fsync", lambda number: synced.append(number) or original(number))
        kept = Store(tmp_path)
        synced.clear()
        kept.add({KEY: ENTRY, OTHER: ENTRY})
        assert len(synced) == 1
        kept.add({KEY: Entry(0.25)})
        assert len(synced) == 1, "what is there stays, and is not written again"
        assert Store(tmp_path)[KEY] == kept[KEY] == ENTRY
        assert kept.count == 2

    def test_what_was_not_written_is_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = Store(tmp_path)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store, "_write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            kept.add({KEY: ENTRY})
        assert caught.value.filename == str(tmp_path / "values.jsonl")
        assert KEY not in kept

    def test_notes_of_empty_maps_are_kept(self, tmp_path: Path) -> None:
        def run() -> Any:
            empty = square(empty_for_dark)
            images = white(3) * np.asarray([1, 0.2, 1], dtype=np.float32)[:, None, None, None]
            metrics = [Complexity(), AverageDrop()]
            return evaluate(Looks(), images, {"cam": empty}, metrics, 1, out=tmp_path, model_name="looks"), empty

        (first, _), (second, cam) = run(), run()
        assert cam.explained == 0
        assert first.problems == second.problems
        assert first.problems == (("1", "cam", None, ZERO),)


def empty_for_dark(images: np.ndarray) -> np.ndarray:
    return perfect(images) * (images.mean(axis=(1, 2, 3)) > 0.5)[:, None, None]


HOLDER = """
import sys, time
from pathlib import Path
from fusioncam_core.stores.lock import claimed
with claimed(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(60)
"""


class TestTwoAtOnce:
    @pytest.fixture
    def holder(self, tmp_path: Path) -> Any:
        """Another process that has the folder."""
        pytest.importorskip("filelock")
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.wait()
        process.stdout.close()

    def test_the_second_says_who_has_it(self, holder: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        options: dict[str, Any] = {"out": tmp_path, "model_name": "looks", "wait": 0.1}
        cam = square(perfect)
        with (
            caplog.at_level(logging.WARNING, "fusioncam_core"),
            pytest.raises(FolderInUseError, match=rf"process {holder.pid} on .* kept it for the 0\.1 s"),
        ):
            evaluate(Looks(), white(), {"cam": cam}, [Complexity()], 1, **options)
        assert cam.explained == 0
        (record,) = caplog.records
        assert f"process {holder.pid}" in record.getMessage()
        assert "waiting for it, for at most 0.1 s" in record.getMessage()
        assert issubclass(FolderInUseError, FusionCamError)
        assert issubclass(FolderInUseError, TimeoutError)

    def test_a_process_that_is_killed_gives_it_back(self, holder: Any, tmp_path: Path) -> None:
        holder.kill()
        holder.wait()
        with claimed(tmp_path, 0):
            assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()
        assert (tmp_path / lock.FILE).read_text() == ""

    def test_the_second_waits_and_computes_nothing(self, tmp_path: Path) -> None:
        pytest.importorskip("filelock")
        options: dict[str, Any] = {"out": tmp_path, "model_name": "looks", "progress": False}
        begun = threading.Event()
        cams = [square(slow(begun)), square(slow(begun))]
        threads = [
            threading.Thread(target=evaluate, args=(Looks(), white(3), {"cam": cam}, [Complexity()], 1), kwargs=options)
            for cam in cams
        ]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join(60)
        assert [cam.explained for cam in cams] == [3, 0]

    @pytest.mark.parametrize("wait", [-1, float("nan")])
    def test_seconds(self, tmp_path: Path, wait: float) -> None:
        with pytest.raises(ValueError, match="Expected wait in seconds, 0 or more"), claimed(tmp_path / "new", wait):
            pass
        assert not (tmp_path / "new").exists()

    def test_somebody_elses_lock(self, tmp_path: Path) -> None:
        pytest.importorskip("filelock")
        (tmp_path / lock.FILE).write_text("mine")
        with pytest.raises(ValueError, match="is no lock of fusioncam"), claimed(tmp_path, 0):
            pass
        assert (tmp_path / lock.FILE).read_text() == "mine"

    def test_without_filelock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hide("filelock", monkeypatch)
        with (
            pytest.raises(MissingExtra, match=r'needs filelock: pip install "fusioncam\[cli\]"'),
            opened(tmp_path / "new", 0),
        ):
            pass
        assert not (tmp_path / "new").exists()
        cam = square(perfect)
        assert evaluate(Looks(), white(), {"cam": cam}, [Complexity()], 1).problems == ()


def slow(begun: threading.Event) -> Any:
    def maps(images: np.ndarray) -> np.ndarray:
        begun.set()
        return perfect(images)

    from fusioncam_core.evaluation import named

    return named(maps, "slow")


class TestMasks:
    """Whose mask is it: by place, by path, by a name that nobody else has, or nobody's."""

    def pictures(self, folder: Path, *names: str) -> Path:
        image = pytest.importorskip("PIL.Image")
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.full((24, 24, 3), 100 + 20 * number, dtype=np.uint8)).save(folder / name)
        return folder

    def masks(self, folder: Path, **rows: int) -> Path:
        """Masks of so many white rows; two underscores are a folder."""
        image = pytest.importorskip("PIL.Image")
        for name, count in rows.items():
            path = folder / f"{name.replace('__', '/')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((24, 24), dtype=np.uint8)
            pixels[:count] = 255
            image.fromarray(pixels).save(path)
        return folder

    def found(self, masks: Any, source: Any, names: list[str]) -> list[int]:
        ground_truth = GroundTruth(masks, Preprocessing(size=(24, 24)), source)
        return [int(each.sum()) // 24 for each in ground_truth.of(names, (24, 24))]

    @pytest.mark.parametrize("names", [["cat/001", "dog/001"], ["001", "001"]])
    def test_two_folders_have_masks_of_their_own(self, tmp_path: Path, names: list[str]) -> None:
        """However the source calls its photographs."""
        photographs = self.pictures(tmp_path / "photos", "cat/001.png", "dog/001.png")
        masks = self.masks(tmp_path / "masks", cat__001=3, dog__001=5)
        assert self.found(masks, photographs, names) == [3, 5]
        files = [photographs / "dog" / "001.png", photographs / "cat" / "001.png"]
        assert self.found(masks, files, names[::-1]) == [5, 3]
        mapping = {"cat/001.png": np.eye(24) * 0, "dog/001": np.ones((24, 24))}
        assert self.found(mapping, photographs, names) == [0, 24]

    def test_a_name_that_nobody_else_has(self, tmp_path: Path) -> None:
        photographs = self.pictures(tmp_path / "photos", "cat/001.png", "dog/002.png")
        assert self.found(self.masks(tmp_path / "masks", **{"001": 3, "x__002": 5}), photographs, ["001", "002"]) == [
            3,
            5,
        ]

    @pytest.mark.parametrize(
        ("photographs", "masks", "message"),
        [
            (["cat/001.png"], {"a__001": 1, "b__001": 1}, "The mask of 'cat/001' may be 'a/001' or 'b/001'"),
            (["cat/001.png", "dog/001.png"], {"001": 1}, "'cat/001' and 'dog/001' would share the mask '001'"),
            (["a.png", "a.jpg"], {"a": 1}, "'a' and 'a' would share the mask 'a'"),
            (["a.png"], {"b": 1, "c": 1}, "No mask is called like a photograph: expected .*'a', got 'b', 'c'"),
        ],
    )
    def test_else_it_is_said_before_any_work(self, tmp_path: Path, photographs: Any, masks: Any, message: str) -> None:
        source = self.pictures(tmp_path / "photos", *photographs)
        cam = square(perfect)
        with pytest.raises(ValueError, match=message):
            evaluate(Looks(), source, {"cam": cam}, [IoU()], 1, masks=self.masks(tmp_path / "masks", **masks))
        assert cam.explained == 0

    def test_an_array_belongs_to_photographs_by_their_places(self, tmp_path: Path) -> None:
        source = self.pictures(tmp_path / "photos", "a.png", "b.png", "c.png")
        (source / "b.png").write_bytes(b"nothing")
        masks = perfect(white(3))
        masks[2] = 0
        masks[2, 8:16, 8:12] = 1
        found = evaluate(
            Looks(),
            source,
            {"cam": square(perfect)},
            [IoU()],
            1,
            masks=masks,
            preprocessing=Preprocessing(size=(24, 24), mean=0.0, std=255.0),
        )
        np.testing.assert_allclose(found.values, [[[1, 0.5]]])

    @pytest.mark.parametrize("masks", [np.ones((2, 24, 24)), [np.ones((24, 24))] * 2])
    def test_as_many_as_images(self, masks: Any) -> None:
        with pytest.raises(ValueError, match="in their order: expected 3, got 2"):
            evaluate(Looks(), white(3), {"cam": square(perfect)}, [IoU()], 1, masks=masks)

    def test_masks_of_several_sizes(self) -> None:
        assert self.found([np.ones((24, 24)), np.zeros((24, 24))], None, ["0", "1"]) == [24, 0]

    def test_no_masks(self) -> None:
        for masks in (3, [1, 2], np.ones(3)):
            with pytest.raises(TypeError, match=r"Expected masks \(N, \*size\), a mapping from names to masks"):
                GroundTruth(masks)

    def test_another_mask_is_another_value(self, tmp_path: Path) -> None:
        values = []
        for rows in (8, 16):
            masks = np.zeros((2, 24, 24))
            masks[:, rows : rows + 8, 8:16] = 1
            cam = square(perfect)
            options: dict[str, Any] = {"masks": masks, "out": tmp_path, "model_name": "looks"}
            values += evaluate(Looks(), white(2), {"cam": cam}, [IoU()], 1, **options).values[0, 0].tolist()
        assert values == [1, 1, 0, 0]
