"""The rows of a job: what they hold, and how they come into files of Parquet that are there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.methods.form import FormName
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.writing import naming, whole_file

Row = dict[str, Any]

PURPOSE = "Keeping explanations in Parquet files"

ROWS = 1024
"""So many at most wait to be written: what a job holds in memory."""


COLUMNS = frozenset(
    [
        "id",
        "path",
        "row",
        "class",
        "name",
        "probability",
        "score",
        "masks_run",
        "uncertainty",
        "raw_low",
        "raw_high",
        "layer",
        "map_shape",
        "map",
        "warnings",
        "error",
    ]
)
"""What every job has, whatever the method."""


def schema(weights: Sequence[str], identity: Any = None) -> Any:
    """The columns, with those of a method's weights and contributions.

    Args:
        weights: the names of these.
        identity: the type of the images' identities, where they are not places in a source; texts are then no numbers
            of a dictionary, which Spark does not know and every batch would have its own of.

    Maps are float32, those in [0, 1] or [-1, 1] rounded to float16: Spark and older readers know no column of halves,
    and compressed they take as much room.
    """
    pa = require("pyarrow", PURPOSE, "jobs")
    shared = pa.dictionary(pa.int32(), pa.string()) if identity is None else pa.string()
    fields = [
        ("id", identity or pa.int64()),
        ("path", pa.string()),
        ("row", pa.int32()),
        ("class", pa.int32()),
        ("name", shared),
        ("probability", pa.float32()),
        ("score", pa.float32()),
        *((column_of(name), pa.float32()) for name in weights),
        ("masks_run", pa.int32()),
        ("uncertainty", pa.float32()),
        ("raw_low", pa.float32()),
        ("raw_high", pa.float32()),
        ("layer", shared),
        ("map_shape", pa.list_(pa.int32())),
        ("map", pa.list_(pa.float32())),
        ("warnings", pa.list_(pa.string())),
        ("error", pa.string()),
    ]
    return pa.schema([pa.field(name, kind, nullable=name not in ("id", "row")) for name, kind in fields])


def column_of(weight: str) -> str:
    """What the column of a method's weight is called: by its name, unless another column is called so."""
    return f"weight_{weight}" if weight in COLUMNS else weight


def rows_of(
    explanation: Explanation,
    maps: np.ndarray[Any, Any] | None,
    path: str | None,
    class_names: Sequence[str] | None,
    warnings: Sequence[str],
) -> Iterator[Row]:
    """A row for each target of the explanation of one image.

    Args:
        explanation: of NumPy arrays, of one image, with its place in the source.
        maps: (K, *spatial) to be kept; None keeps none.
        path: of the image's file.
        class_names: by number.
        warnings: about the image.
    """
    several = explanation.targets.ndim == 2

    def own(values: Any) -> Any:
        """(K, ...) of the one image; K times None of what the method has none of."""
        if values is None:
            return [None] * count
        return values[0] if several else values

    count = explanation.targets.shape[1] if several else 1
    names = explanation.target_names[0] if explanation.target_names else ("",) * count
    ranges = [(None, None)] * count if explanation.raw_range is None else own(explanation.raw_range).tolist()
    for row, target in enumerate(own(explanation.targets).tolist()):
        known = class_names is not None and 0 <= target < len(class_names)
        yield {
            "id": explanation.indices[0],
            "path": path,
            "row": row,
            "class": target,
            "name": names[row] or (class_names[target] if class_names is not None and known else None),
            "probability": own(explanation.probabilities)[row],
            "score": own(explanation.scores)[row],
            **{column_of(name): own(values)[row] for name, values in explanation.weights.items()},
            "masks_run": None if explanation.masks_run is None else explanation.masks_run[0],
            "uncertainty": own(explanation.uncertainty)[row],
            "raw_low": ranges[row][0],
            "raw_high": ranges[row][1],
            "layer": explanation.layer,
            "map_shape": None if maps is None else list(maps.shape[1:]),
            "map": None if maps is None else _kept(maps[row], explanation.form),
            "warnings": list(warnings),
            "error": None,
        }


def _kept(values: np.ndarray[Any, Any], form: FormName) -> np.ndarray[Any, Any]:
    """A map's values, those in [-1, 1] rounded to float16; others, in a method's own units, are no halves."""
    kept = values.astype(np.float32)
    return (kept if form == "raw" else kept.astype(np.float16).astype(np.float32)).reshape(-1)


def _text(value: Any) -> Any:
    """Text as UTF-8 has it: of a file's name that is none, the bytes as in `\\udcff`."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def skipped_row(place: int, path: str | None, reason: str) -> Row:
    """The row of an image that could not be explained."""
    return {"id": place, "path": path, "row": 0, "error": reason}


def table_of(rows: Iterable[Row], columns: Any) -> Any:
    """Rows as a table of pyarrow; columns that they do not name are null."""
    pa = require("pyarrow", PURPOSE, "jobs")
    return pa.Table.from_pylist([{name: _text(each) for name, each in row.items()} for row in rows], schema=columns)


@contextlib.contextmanager
def written(path: Path, columns: Any) -> Iterator[Writer]:
    """A context in which rows are written to a file that is there when it ends, whole, and not at all if it raises.

    Raises:
        OSError: `CannotWriteError`, if the disk is full or there is no permission; it names the file.
    """
    with whole_file(path) as file, written_into(file, columns, path) as writer:
        yield writer


@contextlib.contextmanager
def written_into(file: IO[bytes], columns: Any, path: Path) -> Iterator[Writer]:
    """A context in which rows are written to a file that is open, and may be in memory.

    Args:
        file: is complete when the context ends.
        columns: the schema.
        path: of the file, for errors.
    """
    parquet = require("pyarrow.parquet", PURPOSE, "jobs")
    to = parquet.ParquetWriter(file, columns, compression="zstd", **_encoding(columns))
    try:
        writer = Writer(to, columns, path)
        yield writer
        writer.flush()
        with naming(path):
            to.close()
    except BaseException:
        with contextlib.suppress(OSError):  # which writes the end of a file that nobody will see
            to.close()
        raise


def _encoding(columns: Any) -> dict[str, Any]:
    """Bytes of equal weight side by side in the maps, which are noise otherwise; dictionaries where values repeat."""
    repeated = [field.name for field in columns if field.name in ("name", "layer")]
    return {"use_dictionary": repeated, "use_byte_stream_split": ["map.list.element"]}


class Writer:
    """Writes rows in groups.

    Args:
        to: a writer of Parquet.
        columns: the schema.
        path: of the file, for errors.
    """

    def __init__(self, to: Any, columns: Any, path: Path):
        self._to, self._columns, self._path = to, columns, path
        self._waiting: list[Row] = []

    def add(self, row: Row) -> None:
        """One row; columns that it does not name are null."""
        self._waiting.append(row)
        if len(self._waiting) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            with naming(self._path):
                self._to.write_table(table_of(self._waiting, self._columns))
            self._waiting = []
