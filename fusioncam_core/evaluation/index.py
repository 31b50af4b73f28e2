"""Where each value of an evaluation is kept: found by its key, in a temporary database instead of in memory."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusioncam_core.errors import CannotWriteError

_TABLE = """
CREATE TABLE entries (
    key BLOB PRIMARY KEY,
    value REAL,
    reason TEXT,
    place INTEGER NOT NULL,
    curved INTEGER NOT NULL,
    counts INTEGER NOT NULL
) WITHOUT ROWID
"""

_LOOK = "SELECT key, value, reason, place, curved FROM entries WHERE key IN ({marks})"

_TOGETHER = 500
"""Keys that are looked for at once: SQLite before 3.32 takes 999 values."""

_FAST = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA locking_mode = EXCLUSIVE")
"""Nothing here is to outlive the process: it is made anew from the file of lines."""

_PART = 2**16
"""Keys that are fetched together where all of them are."""

_DIGEST = 16
"""Bytes that a key is known by: two of a million million keys are alike with a probability of 1.5e-15."""


class Place(NamedTuple):
    """What is known of an entry without reading its line.

    Attributes:
        value: None where it is undefined.
        reason: what is to be said of it.
        place: of its line in the file, in bytes.
        curved: whether the line has a curve.
    """

    value: float | None
    reason: str | None
    place: int
    curved: bool


class Index:
    """Entries by their keys. A database without a name: SQLite keeps 2 MB of it in memory, the rest in a file that goes
    with it."""

    def __init__(self) -> None:
        # Closed by whatever thread collects it; used by the one of the evaluation alone.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        for words in (
            *_FAST,
            _TABLE,
            "BEGIN",
        ):  # one transaction without an end: nothing is ever looked for from outside
            self._database.execute(words)

    def add(self, places: Iterable[tuple[bytes, Place, bool]]) -> None:
        """Keep places by the digests of their keys, in the stead of earlier ones; the last says whether it counts."""
        rows = ((key, *place, counts) for key, place, counts in places)
        with _told():
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Place]:
        """By the digests of keys, those that there are."""
        found: dict[bytes, Place] = {}
        for start in range(0, len(keys), _TOGETHER):
            some = keys[start : start + _TOGETHER]
            with _told():
                rows = self._database.execute(_LOOK.format(marks=", ".join("?" * len(some))), some).fetchall()
            found |= {key: Place(value, reason, place, bool(curved)) for key, value, reason, place, curved in rows}
        return found

    @property
    def count(self) -> int:
        """How many there are of those that count."""
        with _told():
            return int(self._database.execute("SELECT count(*) FROM entries WHERE counts").fetchone()[0])

    def known(self) -> Known:
        """The keys alone, for those who cannot look here."""
        with _told():
            keys = self._database.execute("SELECT key FROM entries ORDER BY key")
            parts = [_halves(b"")]
            while some := keys.fetchmany(_PART):
                parts.append(_halves(b"".join(key for (key,) in some)))
        high, low = np.concatenate(parts).T.copy()
        return Known(high, low)


class Known(NamedTuple):
    """Digests of keys, in their order: 16 bytes each.

    Attributes:
        high, low: (n,) their halves.
    """

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]

    def has(self, digest: bytes) -> bool:
        """Whether a digest is among them."""
        high, low = _halves(digest)[0]
        start, stop = np.searchsorted(self.high, high), np.searchsorted(self.high, high, side="right")
        return bool((self.low[start:stop] == low).any())


def _halves(digests: bytes) -> npt.NDArray[np.uint64]:
    """(n, 2)."""
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def digest_of(words: Iterable[str | int]) -> bytes:
    """What a key is known by."""
    return hashlib.blake2b("\0".join(map(str, words)).encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A context in which an error of the database says what it is of: its temporary file, mostly of a full disk."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CannotWriteError(
            None, f"{error} (the folder for temporary files, TMPDIR, has to have room)", "an evaluation's index"
        ) from error
