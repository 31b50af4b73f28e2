"""One evaluation, or job, at a time fills a folder; another one is told who does, and waits."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusioncam_core.errors import FolderInUseError, InvalidValueError
from fusioncam_core.extras import require

FILE = "values.jsonl.lock"

_MARK = '{"fusioncam": "lock"'
"""How the file begins while somebody holds it; it is empty otherwise."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(folder: Path, wait: float, file: str = FILE, who: str = "evaluation") -> Iterator[None]:
    """A context in which no other process has the folder; a process that is killed gives it back.

    Args:
        folder: is made if it is not there.
        wait: how many seconds to wait for another one, of which a line is logged at once.
        file: what the lock is called there.
        who: fills it: "evaluation", "job".

    Raises:
        FolderInUseError: if it has the folder still; it says who.
        InvalidValueError: if the lock's file is somebody else's, or the seconds are less than 0.
        MissingExtra: if filelock is not installed.
    """
    if not wait >= 0:
        raise InvalidValueError(f"Expected wait in seconds, 0 or more, got {wait!r}.")
    filelock = require("filelock", "Keeping results in a folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    _require_ours(
        path, who
    )  # first, as the holder is read first: older releases of filelock empty the file that they open
    lock = filelock.FileLock(path)
    with contextlib.ExitStack() as held:
        held.enter_context(_taken(lock, path, wait, filelock.Timeout, who))
        _write(path, f'{_MARK}, "pid": {os.getpid()}, "host": {json.dumps(socket.gethostname())}}}\n')
        held.callback(_write, path, "")
        yield


@contextlib.contextmanager
def _taken(lock: Any, path: Path, wait: float, timeout: type[Exception], who: str) -> Iterator[None]:
    holder = _holder(path, who)
    try:
        lock.acquire(timeout=0)
    except timeout:
        _log.warning("%s has %s: waiting for it, for at most %g s.", holder, path.parent, wait)
        try:
            lock.acquire(timeout=wait)
        except timeout:
            raise FolderInUseError(
                f"{holder} has {path.parent}, and kept it for the {wait:g} s that it was waited for. Let it "
                "finish, wait longer with wait=, or give another folder."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path, who: str) -> str:
    """Who has the folder, as its lock says; while it is written, and where locked files cannot be read, somebody."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"The {who} of process {found['pid']} on {found['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return f"Another {who}"


def _require_ours(path: Path, who: str) -> None:
    """Refuse a file that was there before us and says something else."""
    if not path.exists():
        return
    with _as_far_as_allowed(), path.open("rb") as file:
        found = file.read(len(_MARK))
        if found and not _MARK.encode().startswith(found):
            raise InvalidValueError(f"{path} is no lock of fusioncam: give another folder, or remove it.")


def _write(path: Path, text: str) -> None:
    with _as_far_as_allowed():
        path.write_text(text, encoding="utf-8")


def _as_far_as_allowed() -> contextlib.AbstractContextManager[None]:
    """Windows keeps everybody from a locked file, its holder as well: others are then not told who has it."""
    return contextlib.suppress(PermissionError)
