"""A table of the explanations in a folder, a row for each image and target, which grows while a command runs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.names import numbered
from fusioncam_core.results.terminal import target_numbers
from fusioncam_core.results.writing import INDEX, MARK, Identity, refusal, write_files

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation

IndexFormat = Literal["csv", "jsonl"]

FORMULAS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a text begins with that spreadsheets take for a formula."""

_PATHS = ("path", "picture", "arrays", "numbers")

_FILES = {".npz": "arrays", ".json": "numbers"}

Row = dict[str, Any]


class Index:
    """An index in a folder: made with the first row, and complete up to the last one at any time.

    It is a CSV table as RFC 4180 has it, with the columns `fusioncam_core.results.writing.INDEX`, or JSON lines with
    the same names, where all weights are in `weights`. Files of results are named as seen from its folder. In a table
    a text that spreadsheets would take for a formula gets an apostrophe before it, and such a path a `./`.

    Args:
        directory: the folder.
        form: "csv" or "jsonl".
        overwrite: whether it takes the place of an earlier index. Otherwise it gets a number, as it does where a file
            of others has its name.
        inputs: `identities` of files that are never replaced.

    Attributes:
        path: of the file; None before the first row.
        rows: how many there are.
    """

    def __init__(
        self,
        directory: str | Path,
        form: IndexFormat = "csv",
        *,
        overwrite: bool = False,
        inputs: AbstractSet[Identity] = frozenset(),
    ):
        self.path: Path | None = None
        self.rows = 0
        self._directory = Path(directory)
        self._form = form
        self._overwrite, self._inputs = overwrite, inputs
        self._file: IO[bytes] | None = None

    def explained(
        self,
        path: str,
        explanation: Explanation,
        class_names: Sequence[str] | None,
        written: Sequence[Path],
        warnings: Sequence[str] = (),
    ) -> None:
        """Add the rows of one photograph.

        Args:
            path: of the photograph, as it was given.
            explanation: of NumPy arrays, of this photograph alone.
            class_names: one per class, in the order of the model's outputs, or None.
            written: the files of its results.
            warnings: what was warned about it.

        Raises:
            OSError: `CannotWriteError`, if the file cannot be written.
        """
        files = {_FILES.get(file.suffix, "picture"): self._seen_from_here(file) for file in written}
        common = {"path": path, "method": explanation.method, "layer": explanation.layer, **files}
        rows = [
            {
                **common,
                **{name: numbers[name] for name in ("class", "name", "score", "weights")},
                "probability": None if numbers["class"] is None else numbers["probability"],
                "warnings": list(warnings),
            }
            for numbers in target_numbers(explanation, 0, class_names)
        ]
        self._add(rows)

    def failed(self, path: str, error: str, warnings: Sequence[str] = ()) -> None:
        """Add the row of a photograph that has no explanation, with the reason. Raises as `explained` does."""
        self._add([{"path": path, "warnings": list(warnings), "error": error}])

    def close(self) -> None:
        """Write no more rows."""
        if self._file is not None:
            self._file.close()

    def _seen_from_here(self, file: Path) -> str:
        return Path(os.path.relpath(file, self._directory)).as_posix()

    def _add(self, rows: Sequence[Row]) -> None:
        text = "".join(map(_ENCODERS[self._form], rows))
        content = text.encode("utf-8", "backslashreplace")  # bytes of a name that are no UTF-8
        if self._file is None:
            self._begin(content)
        else:
            try:
                self._file.write(content)
                self._file.flush()
            except OSError as error:
                raise CannotWriteError(error.errno, error.strerror or str(error), str(self.path)) from error
        self.rows += len(rows)

    def _begin(self, content: bytes) -> None:
        """Make the file with its first rows, under the first name that is free."""
        head = _csv_line(INDEX).encode() if self._form == "csv" else b""
        for path in self._names():
            if refusal(path, "explanation", overwrite=self._overwrite, inputs=self._inputs) is not None:
                continue
            try:
                write_files({path: head + content}, "explanation", overwrite=self._overwrite, inputs=self._inputs)
            except InvalidValueError:  # another command was faster: the next name
                continue
            self.path, self._file = path, path.open("ab")
            return

    def _names(self) -> Iterator[Path]:
        yield self._directory / f"index.{self._form}"
        number = 2
        while True:
            yield self._directory / f"{numbered('index', number)}.{self._form}"
            number += 1


def _csv_row(row: Row) -> str:
    cells = {**row, **row.get("weights", {}), "warnings": " | ".join(row["warnings"])}
    return _csv_line([_cell(cells.get(name), name) for name in INDEX])


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _cell(value: Any, column: str) -> Any:
    """The value; a text that would pass for a formula so that it does not."""
    if not isinstance(value, str) or not value.startswith(FORMULAS):
        return value
    return f"./{value}" if column in _PATHS else f"'{value}"


def _json_row(row: Row) -> str:
    names = [name for name in INDEX if "weight" not in name and "contribution" not in name]
    entries = {MARK: "explanation", **{name: row.get(name) for name in names}, "weights": row.get("weights", {})}
    return f"{json.dumps(entries, ensure_ascii=False)}\n"


_ENCODERS: dict[IndexFormat, Callable[[Row], str]] = {"csv": _csv_row, "jsonl": _json_row}
