"""The values of the study as the repository keeps them: whole ten-thousandths, by image, method and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.study.store import Lines, Row

FOLDER = Path(__file__).parent / "values"

UNIT = 1e-4
"""Of what is kept; between two machines values differ by more."""

UNDEFINED = np.iinfo(np.int16).min
"""For a value that is not there."""


@dataclass(frozen=True)
class Recorded:
    """A part's values.

    Attributes:
        names: of the images.
        methods, metrics: by which they are measured.
        values: (images, methods, metrics), NaN where there is none.
    """

    names: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    values: np.ndarray

    def of(self, method: str, metric: str) -> np.ndarray:
        """(images,)."""
        return self.values[:, self.methods.index(method), self.metrics.index(metric)]

    def only(self, methods: Sequence[str]) -> Recorded:
        """The same of fewer methods."""
        places = [self.methods.index(each) for each in methods]
        return Recorded(self.names, tuple(methods), self.metrics, self.values[:, places])


def of_rows(rows: Sequence[Row]) -> Recorded:
    """Rows of one part in one array; methods and metrics in the order in which they come first."""
    rows = sorted(rows, key=lambda row: row["name"])
    methods = list(dict.fromkeys(method for row in rows for method in row["values"]))
    metrics = list(dict.fromkeys(metric for row in rows for found in row["values"].values() for metric in found))
    values = np.full((len(rows), len(methods), len(metrics)), np.nan)
    for place, row in enumerate(rows):
        for method, found in row["values"].items():
            for metric, value in found.items():
                values[place, methods.index(method), metrics.index(metric)] = np.nan if value is None else value
    return Recorded(tuple(row["name"] for row in rows), tuple(methods), tuple(metrics), values)


def write(path: Path, found: Recorded) -> None:
    """Keep values in a file.

    Raises:
        ValueError: if one is too large for the file's whole numbers.
    """
    scaled = np.round(found.values / UNIT)
    if np.nanmax(np.abs(scaled)) > np.iinfo(np.int16).max:
        raise ValueError(f"Expected values below {np.iinfo(np.int16).max * UNIT:.2f}, got {np.nanmax(found.values)}.")
    whole = np.where(np.isnan(scaled), UNDEFINED, scaled).astype(np.int16)
    path.parent.mkdir(exist_ok=True)
    # Metric by metric the numbers resemble each other, and take less room.
    np.savez_compressed(
        path,
        names=np.asarray(found.names),
        methods=np.asarray(found.methods),
        metrics=np.asarray(found.metrics),
        values=whole.transpose(2, 1, 0).copy(),
    )


def read(part: str, folder: Path = FOLDER) -> Recorded:
    """A part's values as they are kept."""
    with np.load(folder / f"{part}.npz") as file:
        whole = file["values"].transpose(2, 1, 0)
        names, methods, metrics = (tuple(file[key].tolist()) for key in ("names", "methods", "metrics"))
    return Recorded(names, methods, metrics, np.where(whole == UNDEFINED, np.nan, whole * UNIT))


def restore(lines: Lines, part: str, folder: Path = FOLDER) -> None:
    """Begin a part of which nothing is measured yet with the rows that the repository keeps, if there are any."""
    if lines.path.exists() or not (folder / f"{part}.npz").exists():
        return
    found = read(part, folder)
    for name, of_methods in zip(found.names, found.values, strict=True):
        values = {}
        for method, own in zip(found.methods, of_methods, strict=True):
            known = zip(found.metrics, own.tolist(), strict=True)
            values[method] = {metric: value for metric, value in known if np.isfinite(value)}
        lines.add({"name": name, "values": values})


def record(out: Path, folder: Path = FOLDER) -> None:
    """Keep the values of every part that was measured."""
    for path in sorted(out.glob("*.jsonl")):
        write(folder / f"{path.stem}.npz", of_rows(list(Lines(path).rows())))
