"""Names that do not collide, and files that are written whole or not at all and replace nobody else's."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import CannotWriteError
from fusioncam_core.names import Distinct, fitting, folded, name_as_given, names_of_files
from fusioncam_core.results import writing
from fusioncam_core.results.figures import FigureRow, figure, png
from fusioncam_core.results.writing import below, identities, is_ours, refusal, write_files

OURS = b'{\n  "fusioncam": "explanation"}'
"""The shortest file that is recognised."""

PNG = b"\x89PNG\r\n\x1a\n"


class TestNames:
    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["cat/001.png", "dog/001.png"], ["cat/001", "dog/001"]),
            (["/x/a/cat/1.png", "/x/a/dog/2.png"], ["cat/1", "dog/2"]),
            (["photos/p.png"], ["p"]),
            (["a.png", "../b.png"], [f"{Path.cwd().name}/a", "b"]),
            (["a.png", "a.jpg", "a.tif"], ["a", "a-2", "a-3"]),
            (["a.png", "a.jpg", "a-2.png"], ["a", "a-3", "a-2"]),
            (["a.png", "A.png", "sub/a.png", "SUB/A.png"], ["a", "A-2", "sub/a", "SUB/A-2"]),
            (["\u00e4.png", "a\u0308.png"], ["\u00e4", "a\u0308-2"]),
            (["stra\u00dfe.png", "STRASSE.png"], ["stra\u00dfe", "STRASSE-2"]),
            (["..jpg", "...jpg", ".jpg", "y.tar.gz"], ["..jpg", "...jpg", ".jpg", "y.tar"]),
            (["same.png", "same.png"], ["same", "same-2"]),
            (["/"], ["image"]),
            ([], []),
        ],
    )
    def test_of_files(self, paths: list[str], names: list[str]) -> None:
        assert names_of_files(paths) == names

    def test_below_a_root(self) -> None:
        assert names_of_files(["/x/a/b/1.png", "/x/a/b/2.png"], "/x/a") == ["b/1", "b/2"]

    def test_of_a_path_that_comes_alone(self) -> None:
        assert name_as_given("/data/cat/1.png") == "data/cat/1"
        assert name_as_given("../cat/1.png") == "cat/1"
        take = Distinct()
        assert [take(name) for name in ("a", "A", "a", "a-2", "b")] == ["a", "A-2", "a-3", "a-2-2", "b"]

    def test_ten_thousand_of_one_name_are_numbered_in_one_pass(self) -> None:
        names = names_of_files([f"a.{number}" for number in range(10_000)])
        assert names[-1] == "a-10000"
        assert len(set(names)) == 10_000

    def test_long_names_are_cut_between_letters_and_stay_apart(self) -> None:
        assert fitting("x" * 250) == "x" * 250
        first, second = fitting("\u00e4" * 126 + "1"), fitting("\u00e4" * 126 + "2")
        assert first != second
        assert first.startswith("\u00e4" * 116 + "-")
        assert len(os.fsencode(first)) <= 250
        assert fitting("\u00e4" * 126 + "1") == first
        whole, digest = fitting(f"cat/{'y' * 300}").split("-")
        assert whole == f"cat/{'y' * 233}"
        assert len(digest) == 16

    def test_bytes_that_are_no_utf8(self) -> None:
        name = os.fsdecode(b"\xff\xfe" * 200)
        assert os.fsencode(fitting(name)).startswith(b"\xff\xfe" * 110)
        assert len(os.fsencode(fitting(name))) <= 250
        assert folded(name) == name


class TestBelow:
    def test_a_folder_in_the_name(self, tmp_path: Path) -> None:
        assert below(tmp_path, "cat/001") == tmp_path / "cat" / "001"

    @pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../../b", "/a", "a/..", "a\0"])
    def test_names_that_lead_out(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="is not the name of a file below a folder"):
            below(tmp_path, name)

    def test_a_link_that_leads_out(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "cat").symlink_to(tmp_path / "photos")
        with pytest.raises(ValueError, match=r"'cat/1' leads out of .*out through a link"):
            below(tmp_path / "out", "cat/1")
        (tmp_path / "link").symlink_to(tmp_path / "out")
        assert below(tmp_path / "link", "1") == tmp_path / "link" / "1", "the folder itself may be one"


class TestRecognising:
    def test_pictures(self, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        pytest.importorskip("matplotlib")
        drawn = figure([FigureRow(np.zeros((4, 4, 3), np.uint8), [np.zeros((2, 2))])], ["P", "A"])
        (tmp_path / "ours.png").write_bytes(png(drawn))
        (tmp_path / "theirs.png").write_bytes(png(drawn, "evaluation"))
        image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
        drawn.savefig(tmp_path / "figure.png")
        assert [is_ours(tmp_path / f"{name}.png", "explanation") for name in ("ours", "theirs", "photo", "figure")] == [
            True,
            False,
            False,
            False,
        ]
        assert is_ours(tmp_path / "theirs.png", "evaluation")

    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [
            ("a.json", OURS, "explanation"),
            ("a.json", b'{"fusioncam":"evaluation"', "evaluation"),
            ("a.csv", b"image,target,probability,method,metric,value\r\n", "evaluation"),
            ("a.txt", b"fusioncam evaluation\n\nNet", "evaluation"),
        ],
    )
    def test_text(self, tmp_path: Path, name: str, content: bytes, kind: Any) -> None:
        (tmp_path / name).write_bytes(content)
        other: Any = "explanation" if kind == "evaluation" else "evaluation"
        assert is_ours(tmp_path / name, kind)
        assert not is_ours(tmp_path / name, other)

    @pytest.mark.parametrize("ending", [".png", ".npz", ".json", ".csv", ".txt", ".jpg", ""])
    @pytest.mark.parametrize(
        "content",
        [b"", b"hello", b'{"a": "fusioncam"}', PNG, PNG + b"\0\0\xff\xfftEXtx", PNG + b"\xff" * 8, b"PK"],
    )
    def test_others(self, tmp_path: Path, ending: str, content: bytes) -> None:
        (tmp_path / f"a{ending}").write_bytes(content)
        assert not is_ours(tmp_path / f"a{ending}", "explanation")
        assert not is_ours(tmp_path / f"a{ending}", "evaluation")

    def test_a_picture_of_empty_entries_is_given_up(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG + b"\0\0\0\0aaAa\0\0\0\0" * 200_000)
        assert not is_ours(tmp_path / "a.png", "explanation")

    def test_pipes_and_folders_are_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.json")
        (tmp_path / "b.json").mkdir()
        for name in ("a.json", "b.json"):
            assert not is_ours(tmp_path / name, "explanation")
            with pytest.raises(ValueError, match="no explanation that fusioncam has written"):
                write_files({tmp_path / name: OURS}, "explanation", overwrite=True)

    def test_nothing_is_in_the_way_of_a_new_file(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "a.json", "explanation", overwrite=False) is None


class TestWriting:
    def test_new_files(self, tmp_path: Path) -> None:
        files = {tmp_path / "new" / "a.json": b"1", tmp_path / "new" / "b.json": b"2"}
        assert write_files(files, "explanation") == list(files)
        assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == files

    def test_they_may_be_read_by_whom_other_new_files_may(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"")
        write_files({tmp_path / "a.json": b"1"}, "explanation")
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_strangers_file_stays(self, tmp_path: Path, overwrite: bool) -> None:
        (tmp_path / "b.json").write_bytes(b"theirs")
        with pytest.raises(ValueError, match=r"b\.json is there already, and is no explanation that fusioncam"):
            write_files({tmp_path / "a.json": b"1", tmp_path / "b.json": b"2"}, "explanation", overwrite=overwrite)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b.json": b"theirs"}

    def test_one_of_ours_is_replaced_only_if_that_is_asked(self, tmp_path: Path) -> None:
        write_files({tmp_path / "a.json": OURS}, "explanation")
        with pytest.raises(ValueError, match=r"a\.json is there already: it is replaced only with overwrite=True"):
            write_files({tmp_path / "a.json": b"2"}, "explanation")
        assert (tmp_path / "a.json").read_bytes() == OURS
        write_files({tmp_path / "a.json": b"2"}, "explanation", overwrite=True)
        assert (tmp_path / "a.json").read_bytes() == b"2"
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

    @pytest.mark.parametrize("link", [os.link, os.symlink])
    def test_inputs_stay_even_if_they_are_ours(self, tmp_path: Path, link: Any) -> None:
        (tmp_path / "a.json").write_bytes(OURS)
        link(tmp_path / "a.json", tmp_path / "b.json")
        inputs = identities([tmp_path / "a.json", tmp_path / "gone.json"])
        for name in ("a.json", "b.json"):
            with pytest.raises(ValueError, match="is one of the files that are read"):
                write_files({tmp_path / name: b"new"}, "explanation", overwrite=True, inputs=inputs)
        assert (tmp_path / "a.json").read_bytes() == OURS

    def test_a_link_is_replaced_and_what_it_leads_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(OURS)
        (tmp_path / "b.json").symlink_to("a.json")
        (tmp_path / "c.json").symlink_to("gone.json")
        write_files({tmp_path / "b.json": b"new"}, "explanation", overwrite=True)
        assert (tmp_path / "a.json").read_bytes() == OURS
        assert not (tmp_path / "b.json").is_symlink()
        with pytest.raises(ValueError, match=r"c\.json is there already"):
            write_files({tmp_path / "c.json": b"new"}, "explanation", overwrite=True)
        assert not (tmp_path / "gone.json").exists()

    @pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
    def test_a_file_that_comes_meanwhile_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
    ) -> None:
        """Between the look and the move somebody else writes one of the names."""
        temporary = writing._temporary

        def slow(target: Path, content: bytes) -> Path:
            if target.name == "b.json":
                target.write_bytes(b"theirs")
            return temporary(target, content)

        monkeypatch.setattr(writing, "_temporary", slow)
        if not links:
            monkeypatch.setattr(os, "link", _no_links)
        with pytest.raises(ValueError, match=r"b\.json was not there before, and now is"):
            write_files({tmp_path / "a.json": b"1", tmp_path / "b.json": OURS}, "explanation", overwrite=True)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b.json": b"theirs"}

    def test_a_file_system_without_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", _no_links)
        write_files({tmp_path / "a.json": b"1"}, "explanation")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"1"}

    def test_of_many_writers_one_succeeds(self, tmp_path: Path) -> None:
        outcomes: list[str] = []
        start = threading.Barrier(16)

        def write(number: int) -> None:
            start.wait()
            try:
                write_files({tmp_path / f"{name}.json": OURS + b"%d" % number for name in "abc"}, "explanation")
                outcomes.append(f"{number}")
            except ValueError:
                pass

        threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        (winner,) = outcomes
        assert files == {f"{name}.json": OURS + winner.encode() for name in "abc"}

    def test_a_write_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        """The limit of the size of files is an error in the middle of writing, as a full disk is."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(CannotWriteError, match=r"b\.json") as caught:
                write_files({tmp_path / "a.json": b"1", tmp_path / "b.json": bytes(100_000)}, "explanation")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(tmp_path / "b.json")
        assert caught.value.errno == errno.EFBIG
        assert str(caught.value) == f"{tmp_path / 'b.json'}: File too large"
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = writing._moved

        def interrupted(temporary: Path, target: Path) -> None:
            if target.name == "b.json":
                raise KeyboardInterrupt
            moved(temporary, target)

        monkeypatch.setattr(writing, "_moved", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_files({tmp_path / "a.json": b"1", tmp_path / "b.json": b"2"}, "explanation")
        assert list(tmp_path.iterdir()) == []

    def test_no_permission(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(CannotWriteError) as caught:
            write_files({tmp_path / "file" / "a.json": b"1"}, "explanation")
        assert caught.value.filename == str(tmp_path / "file" / "a.json")


def _no_links(source: Any, target: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")
