"""Values that were measured already: one line of JSON each in a file, so that an interrupted run goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.index import Index, Known, Place, digest_of
from fusioncam_core.stores.lock import claimed

FILE = "values.jsonl"

FORMAT = 2
"""Of the file, in its first line. Files without one are of releases that kept values by less than what they are of."""

HEADER = json.dumps({"fusioncam": "evaluation", "format": FORMAT}).encode() + b"\n"

_LONGEST_HEADER = 200
"""As much of a file is looked at to know whether it is ours."""

PROBABILITY_TOLERANCE = 1e-3
"""A model whose probabilities differ by more than this from those on record is another one."""

PLAIN = "probability"
"""What the plain images' probabilities are called on record."""

MAP = "map"
"""What is to be said of a map, whatever the metric, is called so."""

_IN_MEMORY = 2**23
"""Bytes of lines that are kept in memory where there is no folder; more of them go into a temporary file."""

_PART = 2**20
"""Bytes of a file that are looked at together."""


class Key(NamedTuple):
    """What a value belongs to: an image and its target, the method with its model, and the metric, by their digests."""

    image: str
    target: int
    method: str
    metric: str


class Entry(NamedTuple):
    """A value, None where it is undefined, with the curve it is the area of, and what is to be said of it."""

    value: float | None
    curve: list[float] | None = None
    fractions: list[float] | None = None
    reason: str | None = None


@contextlib.contextmanager
def opened(folder: Path | None, wait: float) -> Iterator[Store]:
    """The store of a folder, which no other process has meanwhile.

    Args:
        folder: is made if it is not there; None keeps nothing beyond the context.
        wait: how many seconds to wait for a process that has the folder.

    Raises:
        InvalidValueError: if the folder's file is not one of ours; nothing in the folder has changed then.
        FolderInUseError: if another process has the folder still.
        MissingExtra: if filelock is not installed.
    """
    if folder is None:
        yield Store(None)
        return
    require_ours(folder / FILE)
    with claimed(folder, wait):
        yield Store(folder)


class Store:
    """The entries by their keys: lines in a file, in a folder if there is one, and where each of them is.

    Neither lines nor keys are held in memory, however many there are.

    Args:
        folder: of the file, whose last line is left off if it was not finished; None keeps nothing beyond the store.

    Raises:
        InvalidValueError: if the folder's file is not one of ours, or a line of it is no entry.
    """

    def __init__(self, folder: Path | None):
        self._index = Index()
        self.lines = Lines(None if folder is None else folder / FILE)
        if folder is not None:
            require_ours(folder / FILE)
            _repair(folder / FILE)
            self._index.add(_places(folder / FILE))

    def __contains__(self, key: Key) -> bool:
        return bool(self.places([key]))

    def __getitem__(self, key: Key) -> Entry:
        return self.lines.entry(self.places([key])[key].place)

    @property
    def count(self) -> int:
        """How many values of metrics there are."""
        return self._index.count

    def places(self, keys: Iterable[Key]) -> dict[Key, Place]:
        """Of those keys that there are, their values and where their lines are."""
        by_digest = {digest_of(key): key for key in keys}
        return {by_digest[each]: place for each, place in self._index.get(list(by_digest)).items()}

    def known(self) -> Known:
        """All keys, for those who cannot look here."""
        return self._index.known()

    def add(self, entries: Mapping[Key, Entry]) -> dict[Key, Place]:
        """Keep those that are not there yet, on disk at once: a process that is killed afterwards has kept them.

        Returns:
            The places of all of them.
        """
        there = self.places(entries)
        new = [(key, entry) for key, entry in entries.items() if key not in there]
        if not new:
            return there
        lines = [json.dumps(each).encode() + b"\n" for each in new]
        begin = self.lines.append(b"".join(lines))
        starts = itertools.accumulate(map(len, lines[:-1]), initial=begin)
        found = [_found(*each, start) for each, start in zip(new, starts, strict=True)]
        self._index.add(found)
        return there | {key: place for (key, _), (_, place, _) in zip(new, found, strict=True)}


class Lines:
    """The file of the entries' lines.

    Args:
        path: of the file; None for a temporary one, in memory as long as it is small.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._file: IO[bytes] | None = None
        if path is None:
            self._use(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - closed when it is collected

    def _use(self, file: Any) -> None:
        weakref.finalize(self, file.close)
        self._file = file

    def append(self, content: bytes) -> int:
        """Put the content at the end: where it begins there."""
        if self._path is not None:
            return _append(self._path, content)
        file = self.hold()
        begin = file.seek(0, os.SEEK_END)
        file.write(content)
        return begin

    def entry(self, place: int) -> Entry:
        """The entry whose line begins there."""
        file = self.hold()
        file.seek(place)
        return Entry(*json.loads(file.readline())[1])

    def hold(self) -> IO[bytes]:
        """Have the file open as long as this is there: it can be read even if the folder is gone by then."""
        if self._file is None:
            assert self._path is not None
            self._use(self._path.open("rb"))
        assert self._file is not None
        return self._file


def _places(path: Path) -> Iterator[tuple[bytes, Place, bool]]:
    """Of all entries in the file; lines are read one after the other."""
    with path.open("rb") as file:
        place = len(file.readline())
        for number, line in enumerate(file, 2):
            yield _read(line, place, f"Line {number} of {path}")
            place += len(line)


def _read(line: bytes, place: int, where: str) -> tuple[bytes, Place, bool]:
    try:
        key, entry = json.loads(line)
        return _found(Key(*key), Entry(*entry), place)
    except (ValueError, TypeError) as error:
        raise InvalidValueError(
            f"{where} is no entry of an evaluation: {error}. Give another folder, or remove it."
        ) from error


def _found(key: Key, entry: Entry, place: int) -> tuple[bytes, Place, bool]:
    value = None if entry.value is None else float(entry.value)
    found = Place(value, entry.reason, place, bool(entry.curve and entry.fractions))
    return digest_of(key), found, key.metric not in (PLAIN, MAP)


def require_ours(path: Path) -> None:
    """Nothing, if there is no such file, or it is one of ours; no more than its first line is read.

    Raises:
        InvalidValueError: if it is not.
    """
    if not os.path.lexists(path):
        return
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        raise InvalidValueError(f"{path} is no file of an evaluation: give another folder.")
    with path.open("rb") as file:
        first = file.readline(_LONGEST_HEADER)
    if first != HEADER:
        raise InvalidValueError(
            f"{path} was not written by an evaluation of this format: expected the first line "
            f"{HEADER.decode().strip()}, got {first[:60].decode(errors='backslashreplace').strip()!r}. It is left as "
            "it is: give another folder, or remove it."
        )


def _repair(path: Path) -> None:
    """Begin the file, or leave off what follows its last line break: it was being written when a run was interrupted.

    It is written beside the file and renamed: at any time there is the old content or the new one.
    """
    with contextlib.ExitStack() as opened:
        before = opened.enter_context(path.open("rb")) if path.exists() else None
        length = 0 if before is None else _whole(before)
        if before is not None and length == before.seek(0, os.SEEK_END):
            return
        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with beside.open("xb") as file:
            if before is None:
                file.write(HEADER)
            else:
                _copy(before, file, length)
            _write(file, b"")
    beside.replace(path)


def _whole(file: IO[bytes]) -> int:
    """How many bytes of it are whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _PART)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _copy(before: IO[bytes], file: IO[bytes], length: int) -> None:
    before.seek(0)
    while length:
        part = before.read(min(_PART, length))
        file.write(part)
        length -= len(part)


def _append(path: Path, content: bytes) -> int:
    """All of it at the end of the file: where it begins there; an error of the system says of which file."""
    try:
        with path.open("ab") as file:
            begin = file.tell()
            _write(file, content)
            return begin
    except OSError as error:
        error.filename = str(path)
        raise


def _write(file: IO[bytes], content: bytes) -> None:
    """All of it, on disk when this returns."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
