"""A job: piece after piece, each a file, and those that are there already are not made again."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.data.progress import Progress, Steps, clock, progress_bar
from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.jobs.manifest import FILE, Manifest, found, require_same
from fusioncam_core.jobs.pieces import Piece, Pieces
from fusioncam_core.jobs.table import PURPOSE, rows_of, schema, skipped_row, written
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.writing import clear
from fusioncam_core.stores.lock import claimed
from fusioncam_core.visible import counted

LOCK = "_job.lock"

_PART = re.compile(r"part-(\d{6,})\.parquet")


class Skipped(NamedTuple):
    """An image that could not be explained.

    Attributes:
        place: in the source.
        reason: a sentence.
    """

    place: int
    reason: str


class Explained(NamedTuple):
    """An image that was.

    Attributes:
        explanation: of NumPy arrays, of the image alone, with its place.
        maps: (K, *spatial) to be kept, or None.
        warnings: about it.
    """

    explanation: Explanation
    maps: np.ndarray[Any, Any] | None
    warnings: Sequence[str] = ()


class Worker(NamedTuple):
    """What explains.

    Attributes:
        made_of: what tells the job from others, by the names in `manifest.ABOUT`.
        settle: given the first piece, finds out how the images are run best, and makes the manifest.
        explain: the images of a piece, each once, in their order, in the way of the manifest.
    """

    made_of: dict[str, str]
    settle: Callable[[Pieces, dict[str, str]], Manifest]
    explain: Callable[[Piece, Manifest], Iterable[Explained | Skipped]]


@dataclass(frozen=True)
class JobResult:
    """What a run of a job did.

    Attributes:
        folder: with the rows.
        files: of Parquet, in the order of the images.
        images: in the whole job.
        skipped: how many of them were left out, with the reason in their row's `error`.
        explained: how many this run explained or left out; the others were there.
        seconds: that took.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strips = np.float32([[[[4, 2, 0, 0]], [[0, 0, 0, 8]]]] * 5)  # five equal ones
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = GradCAM(model, "0").explain_to(folder, strips, piece=2, model_name="mean")
        >>> done.images, done.skipped, [file.name for file in done.files]
        (5, 0, ['part-000000.parquet', 'part-000001.parquet', 'part-000002.parquet'])
    """

    folder: Path
    files: tuple[Path, ...]
    images: int
    skipped: int
    explained: int
    seconds: float

    @property
    def images_a_second(self) -> float:
        """Of this run; NaN if everything was there already."""
        return self.explained / self.seconds if self.explained else float("nan")

    def __str__(self) -> str:
        done = f"{counted(self.images, 'image')} in {counted(len(self.files), 'file')}"
        left = f", {self.skipped} of them left out" if self.skipped else ""
        if not self.explained:
            return f"{done}{left}: all of it was there already"
        return f"{done}{left}: {self.explained} explained now, {self.images_a_second:.3g} a second"


@dataclass(frozen=True)
class Estimate:
    """How long images take, by what a few of them took.

    Attributes:
        images: how many there are to be.
        images_a_second: that were explained.

    Examples:
        >>> from fusioncam_core import Estimate
        >>> print(Estimate(images=1_000_000, images_a_second=250.0))
        1000000 images at 250 a second: 1:06:40
    """

    images: int
    images_a_second: float

    @property
    def seconds(self) -> float:
        """For all of them."""
        return self.images / self.images_a_second

    def __str__(self) -> str:
        return f"{self.images} images at {self.images_a_second:.3g} a second: {clock(self.seconds)}"


def run(
    folder: Path,
    pieces: Pieces,
    worker: Worker,
    *,
    class_names: Sequence[str] | None,
    resume: bool,
    wait: float,
    progress: bool | None,
    title: str,
) -> JobResult:
    """Do what is left of a job. Arguments as for `Explainer.explain_to`."""
    require("pyarrow", PURPOSE, "jobs")
    if folder.exists() and not folder.is_dir():
        raise CannotWriteError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    found(folder)  # which refuses what is not ours before anything is made there
    with claimed(folder, wait, LOCK, "job"):
        clear(folder)
        before = found(folder)  # once more: another process may have begun it meanwhile
        if before is not None and not resume:
            raise InvalidValueError(
                f"There is a job in {folder}: expected resume=True to go on with it, or another folder."
            )
        if before is not None:
            require_same(folder, before, worker.made_of)
        manifest = worker.settle(pieces, worker.made_of) if before is None else before
        if before is None:
            manifest.write(folder)
        return _Run(folder, pieces, worker, manifest, class_names).go(progress, title)


class _Run:
    """One run of a job that has its manifest."""

    def __init__(
        self, folder: Path, pieces: Pieces, worker: Worker, manifest: Manifest, class_names: Sequence[str] | None
    ):
        self._folder, self._pieces, self._worker, self._manifest = folder, pieces, worker, manifest
        self._class_names = class_names
        self._columns = schema(manifest.weights)

    def go(self, progress: bool | None, title: str) -> JobResult:
        done = _parts(self._folder)
        images = skipped = explained = 0
        begun = time.monotonic()
        files = []
        shown: Progress = "lines" if progress is None else progress
        with progress_bar(self._pieces.total, f"{title}, images", shown, rate=True) as advance:
            for piece in self._pieces:
                path = self._folder / f"part-{piece.number:06d}.parquet"
                files.append(path)
                if piece.number in done:
                    found_there, left_out = _contents(path)
                    advance.skip(found_there)
                else:
                    found_there, left_out = self._piece(piece, path, advance)
                    explained += found_there
                images, skipped = images + found_there, skipped + left_out
        return JobResult(self._folder, tuple(files), images, skipped, explained, time.monotonic() - begun)

    def _piece(self, piece: Piece, path: Path, advance: Steps) -> tuple[int, int]:
        """Write the file of a piece: how many images it has, and how many of them were left out."""
        images = skipped = 0
        with written(path, self._columns) as writer:
            for each in self._worker.explain(piece, self._manifest):
                for row in self._rows(each, piece):
                    writer.add(row)
                images += 1
                skipped += isinstance(each, Skipped)
                advance(1)
        return images, skipped

    def _rows(self, each: Explained | Skipped, piece: Piece) -> Iterator[dict[str, Any]]:
        if isinstance(each, Skipped):
            yield skipped_row(each.place, piece.paths.get(each.place), each.reason)
            return
        path = piece.paths.get(each.explanation.indices[0])
        yield from rows_of(each.explanation, each.maps, path, self._class_names, each.warnings)


def _parts(folder: Path) -> set[int]:
    """The numbers of the pieces that are there."""
    matched = (_PART.fullmatch(each.name) for each in folder.iterdir())
    return {int(each[1]) for each in matched if each}


def _contents(path: Path) -> tuple[int, int]:
    """How many images a file has, and how many of them were left out.

    Raises:
        InvalidValueError: if it cannot be read: not ours, or damaged on the disk.
    """
    pyarrow, parquet = require("pyarrow", PURPOSE, "jobs"), require("pyarrow.parquet", PURPOSE, "jobs")
    try:
        table = parquet.read_table(path, columns=["row", "error"])
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise InvalidValueError(
            f"{path} cannot be read: {error}. Remove it, and it is made anew; the job's other files stay as they are "
            f"({FILE} says what it is of)."
        ) from error
    first = [row == 0 for row in table["row"].to_pylist()]
    return sum(first), table.num_rows - table["error"].null_count
