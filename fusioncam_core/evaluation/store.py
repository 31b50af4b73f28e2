"""Values that were measured already: one line of JSON each in a file, so that an interrupted run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from fusioncam_core.errors import InvalidValueError
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
    """The entries by their keys, in memory, and in a folder if there is one.

    Args:
        folder: of the file, whose last line is left off if it was not finished; None keeps nothing.

    Raises:
        InvalidValueError: if the folder's file is not one of ours, or a line of it is no entry.
    """

    def __init__(self, folder: Path | None):
        self._entries: dict[Key, Entry] = {}
        self._path = None if folder is None else folder / FILE
        if self._path is not None:
            require_ours(self._path)
            self._read(self._path)

    def _read(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else HEADER[:-1]
        # What follows the last line break was being written when the run was interrupted.
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            _replace(path, whole + b"\n" if whole else HEADER)
        for number, line in enumerate(whole.split(b"\n")[1:], 2):
            try:
                key, entry = json.loads(line)
                self._entries[Key(*key)] = Entry(*entry)
            except (ValueError, TypeError) as error:
                raise InvalidValueError(
                    f"Line {number} of {path} is no entry of an evaluation: {error}. Give another folder, or remove it."
                ) from error

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __getitem__(self, key: Key) -> Entry:
        return self._entries[key]

    @property
    def count(self) -> int:
        """How many values of metrics there are."""
        return sum(key.metric not in (PLAIN, MAP) for key in self._entries)

    def get(self, key: Key) -> Entry | None:
        """The entry, or None."""
        return self._entries.get(key)

    def add(self, entries: Mapping[Key, Entry]) -> None:
        """Keep those that are not there yet, on disk at once: a process that is killed afterwards has kept them."""
        new = {key: entry for key, entry in entries.items() if key not in self._entries}
        if self._path is not None and new:
            _append(self._path, "".join(json.dumps([key, entry]) + "\n" for key, entry in new.items()).encode())
        self._entries |= new


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


def _replace(path: Path, content: bytes) -> None:
    """Write beside the file and rename: at any time there is the old content or the new one."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with beside.open("xb") as file:
        _write(file, content)
    beside.replace(path)


def _append(path: Path, content: bytes) -> None:
    """All of it at the end of the file; an error of the system says of which file."""
    try:
        with path.open("ab") as file:
            _write(file, content)
    except OSError as error:
        error.filename = str(path)
        raise


def _write(file: IO[bytes], content: bytes) -> None:
    """All of it, on disk when this returns."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
