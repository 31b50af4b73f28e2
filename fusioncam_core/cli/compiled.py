"""What the compiled parts of TensorFlow write to standard error, past Python and past every setting."""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_FILTER = r"""
import re, sys
notes = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] "
    rb"|E\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] (oneDNN supports|Unable to register \w+ factory)"
)
for line in sys.stdin.buffer:
    if not notes.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
"""Leaves out the notes of Google's logging library; its errors, and all else, pass."""


@contextmanager
def without_notes() -> Iterator[None]:
    """From the import of TensorFlow on, what is written to standard error outside Python goes through a filter.

    It is a process of its own: what is written before a crash, which is when it is wanted, still arrives.
    """
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
        watch.stop()


class _Watch(importlib.abc.MetaPathFinder):
    """Starts the filter when TensorFlow is about to be imported."""

    def __init__(self) -> None:
        self._python: TextIO | None = None
        self._filter: Any = None

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Finds nothing."""
        if fullname == "tensorflow" and self._python is None and sys.stderr is not None:
            with suppress(OSError, ValueError):  # a standard error without a file cannot be written to from outside
                self._start(sys.stderr)

    def _start(self, python: TextIO) -> None:
        """Python itself keeps the terminal: its progress bars must not wait for the ends of their lines."""
        import subprocess  # not for commands without TensorFlow

        terminal = os.dup(python.fileno())
        theirs, ours = os.pipe()
        self._filter = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _FILTER], stdin=theirs, start_new_session=True
        )
        os.close(theirs)
        sys.stderr = open(terminal, "w", encoding=python.encoding, errors=python.errors, buffering=1)  # noqa: SIM115
        os.dup2(ours, python.fileno())
        os.close(ours)
        self._python = python

    def stop(self) -> None:
        """Put standard error back, and let the filter end; processes that we started may keep it for themselves."""
        if self._python is None:
            return
        os.dup2(sys.stderr.fileno(), self._python.fileno())
        sys.stderr.close()
        sys.stderr = self._python
        import subprocess

        with suppress(subprocess.TimeoutExpired):
            self._filter.wait(1)
