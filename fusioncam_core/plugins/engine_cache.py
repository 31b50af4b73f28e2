"""Converted graphs on disk, where the environment asks for them: found by what they compute, bounded, without code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.engines import Parts

VARIABLE = "FUSIONCAM_ENGINE_CACHE"
"""The variable of the environment: 1 for the user's own cache, or a folder's absolute path."""

LIMIT = 2_000_000_000
"""Bytes of all graphs in a folder; those that were used longest ago go."""

_MARK = b"fusioncam engine 1\n"
"""How a file begins. Then come a digest of the rest, a line with the names and lengths of the parts, and the parts."""

_NAME = re.compile(r"[0-9a-f]{64}\.engine")

_UNFINISHED = re.compile(r"\.fusioncam-[0-9a-f]{16}")

_ABANDONED = 86_400.0
"""Seconds after which nobody is writing a file any more."""

_WRITERS = ("jax", "jax2onnx", "keras", "onnx", "onnxscript", "tensorflow", "tensorflow-cpu", "tf2onnx", "torch")
"""Packages that write graphs down: another version may write them in another way."""


def asked_folder() -> Path | None:
    """The folder that the environment asks for; None where it asks for none.

    Raises:
        InvalidValueError: if it says neither yes, nor no, nor an absolute path.
    """
    said = os.environ.get(VARIABLE, "")
    if said in ("", "0"):
        return None
    if said == "1":
        return _own_folder()
    path = Path(os.path.expanduser(said))
    if not path.is_absolute():
        raise InvalidValueError(f"{VARIABLE} is 1, 0 or the absolute path of a folder: got {said!r}.")
    return path


def _own_folder() -> Path:
    """Where programs of this user keep what they can make anew."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = caches if caches.is_absolute() else Path(os.path.expanduser("~")) / ".cache"
    return home / "fusioncam" / "engines"


@dataclass(frozen=True)
class Entry:
    """The place of one graph.

    Attributes:
        folder: of all of them.
        words: tell it from all others; to them the versions come of what writes graphs.
    """

    folder: Path
    words: tuple[str, ...]

    @cached_property
    def path(self) -> Path:
        """The file."""
        own = str(getattr(sys.modules.get("fusioncam_core"), "__version__", ""))
        words = json.dumps([*self.words, own, *map(_version, _WRITERS)])
        return self.folder / f"{hashlib.sha256(words.encode()).hexdigest()}.engine"

    def read(self) -> Parts | None:
        """The parts; None if there is no such file. It counts as used now.

        Raises:
            InvalidValueError: if it is not whole.
            OSError: if it cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        parts = _parts(content)
        if parts is None:
            raise InvalidValueError(f"{self.path} is broken.")
        with contextlib.suppress(OSError):  # on a disk that is only read
            os.utime(self.path)
        return parts

    def write(self, parts: Parts) -> None:
        """Keep the parts, whole or not at all, and let others go that are too many.

        Raises:
            InvalidValueError: if they are too many, or the file is somebody else's.
            OSError: if they cannot be written.
        """
        content = _content(parts)
        if len(content) > LIMIT:
            raise InvalidValueError(f"It has {len(content)} bytes, of {LIMIT} for all in {self.folder}.")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and not _is_ours(self.path):
            raise InvalidValueError(f"{self.path} is no file of ours: it is left as it is.")
        temporary = self.folder / f".fusioncam-{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        _trim(self.folder, self.path)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and wanted for a cache alone

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _content(parts: Parts) -> bytes:
    lengths = json.dumps({name: len(part) for name, part in parts.items()}).encode() + b"\n"
    rest = b"".join([lengths, *parts.values()])
    return b"".join([_MARK, hashlib.sha256(rest).hexdigest().encode(), b"\n", rest])


def _parts(content: bytes) -> Parts | None:
    """The parts of a file's content; None if it is not as it was written."""
    mark, digest, rest = content[: len(_MARK)], content[len(_MARK) :][:64], content[len(_MARK) + 65 :]
    if mark != _MARK or hashlib.sha256(rest).hexdigest().encode() != digest:
        return None
    line, _, values = rest.partition(b"\n")
    parts, start = {}, 0
    for name, length in json.loads(line).items():
        parts[name] = values[start : start + length]
        start += length
    return parts


def _is_ours(path: Path) -> bool:
    """Whether a file begins as ours do, as far as it goes."""
    try:
        with path.open("rb") as file:
            return _MARK.startswith(file.read(len(_MARK)))
    except OSError:  # what cannot be read is not known to be ours; or another process has removed it
        return False


def _trim(folder: Path, newest: Path) -> None:
    """Let graphs go until the others are not too many, and what was never finished."""
    found, now = [], time.time()
    for path, status in _with_status(folder.iterdir()):
        if _UNFINISHED.fullmatch(path.name) and now - status.st_mtime > _ABANDONED:
            _remove(path)
        elif _NAME.fullmatch(path.name) and _is_ours(path):
            found.append((path == newest, status.st_mtime, status.st_size, path))
    total = sum(size for _, _, size, _ in found)
    for _, _, size, path in sorted(found)[:-1]:
        if total <= LIMIT:
            return
        _remove(path)
        total -= size


def _with_status(paths: Iterable[Path]) -> Iterable[tuple[Path, os.stat_result]]:
    """Of those that another process has not removed meanwhile."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # another process was faster, or has it open where that matters
        path.unlink()
