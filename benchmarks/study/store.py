"""What is measured, kept as it comes: one line for each image, so that an interrupted part goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""The name of an image, and its values by method and metric."""


class Lines:
    """A file of rows, a JSON line each, in which a line that was not written to its end is no row.

    Args:
        path: of the file; made when the first row comes.
    """

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> Iterator[Row]:
        """All that are there."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def known(self) -> set[str]:
        """The names of the images that are done."""
        return {row["name"] for row in self.rows()}

    def add(self, row: Row) -> None:
        """Write a row, whole, after those that are whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(self._whole())
            file.write((json.dumps(row) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> int:
        """How many bytes of the file are whole lines."""
        return self.path.read_bytes().rfind(b"\n") + 1
