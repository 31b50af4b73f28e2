"""The classes of photographs: from a table, from the folders they lie in, or from their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from fusioncam_core.errors import InvalidValueError

FROM_NAMES, FROM_FOLDERS = "names", "folders"


def read_labels(how: str, files: Sequence[Path], class_names: Sequence[str] | None = None) -> list[int]:
    """The class of each file.

    Args:
        how: "names": the last number in each file's name, as in `imagenet_00_243.jpg`; "folders": the folder a file
            lies in, which is called like the class, by number or name, or, if none is, counts in alphabetical order;
            or the path of a table (CSV) with a file's name and its class, by number or name, in each row.
        files: photographs.
        class_names: of the model, in the order of its outputs, if it has any.

    Raises:
        ValueError: if a file has no class there, or one that is not known.
    """
    if how == FROM_NAMES:
        return [_number_in(path) for path in files]
    if how == FROM_FOLDERS:
        return _from_folders([path.resolve().parent.name for path in files], class_names)
    return _from_table(Path(how), files, class_names)


def _number_in(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise InvalidValueError(f"There is no number in the name {path.name!r} to take for its class.")
    return int(numbers[-1])


def _from_folders(folders: Sequence[str], class_names: Sequence[str] | None) -> list[int]:
    known = None if class_names is None else {name: number for number, name in enumerate(class_names)}
    if known is not None and all(folder in known for folder in folders):
        return [known[folder] for folder in folders]
    if all(folder.isdecimal() for folder in folders):
        return [int(folder) for folder in folders]
    order = sorted(set(folders))
    return [order.index(folder) for folder in folders]


def _from_table(table: Path, files: Sequence[Path], class_names: Sequence[str] | None) -> list[int]:
    if not table.is_file():
        raise InvalidValueError(f"Labels are 'names', 'folders' or a table, and there is no file {str(table)!r}.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if len(row) >= 2]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidValueError(f"Expected a table (CSV) in UTF-8, got {str(table)!r}: {error}.") from error
    labels = {Path(row[0].strip()).as_posix(): row[1].strip() for row in rows}
    return [_class(_row_of(path, labels, table), path, table, class_names) for path in files]


def _row_of(path: Path, labels: dict[str, str], table: Path) -> str:
    """A row may have a file's whole path, its name, or its name without the ending."""
    for name in (path.as_posix(), path.name, path.stem):
        if name in labels:
            return labels[name]
    ends = [label for name, label in labels.items() if path.as_posix().endswith(f"/{name}")]
    if len(ends) != 1:
        raise InvalidValueError(f"{table} has {len(ends) or 'no'} rows for {path.name!r}: one was expected.")
    return ends[0]


def _class(label: str, path: Path, table: Path, class_names: Sequence[str] | None) -> int:
    if label.isdecimal():
        return int(label)
    if class_names is None or label not in class_names:
        raise InvalidValueError(
            f"{table} says {label!r} of {path.name!r}: a class's number, or its name, was expected."
        )
    return list(class_names).index(label)
