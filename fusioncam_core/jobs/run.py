"""A job: piece after piece, each a file, and those that are there already are not made again."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fusioncam_core.data.prefetching import prefetched
from fusioncam_core.data.progress import Progress, Steps, clock, progress_bar
from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.jobs.manifest import FILE, Manifest, found, require_same
from fusioncam_core.jobs.pieces import Piece, Pieces
from fusioncam_core.jobs.table import PURPOSE, Writer, rows_of, skipped_row
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


class Count(NamedTuple):
    """What a file has.

    Attributes:
        images: of a piece.
        skipped: how many of them were left out.
    """

    images: int
    skipped: int


class Engine(Protocol):
    """What does the work of a job: this process, or others for it.

    Attributes:
        ahead: how many pieces are got ready before they are asked for.
    """

    ahead: int

    @property
    def title(self) -> str:
        """Of the method, for the progress."""

    def made_of(self) -> dict[str, str]:
        """What tells the job from others, by the names in `manifest.ABOUT`."""

    def settle(self, made_of: dict[str, str]) -> Manifest:
        """Find out how the images are run best, and make the manifest."""

    def files(
        self, missing: Iterator[Piece], manifest: Manifest, place: Callable[[Piece], Path], advance: Steps
    ) -> Generator[Count, None, None]:
        """Make the files of pieces, in the way of the manifest, and tell `advance` of the images.

        Args:
            missing: those that are not there yet.
            manifest: of the job.
            place: says where the file of a piece goes, in which it is to be there whole or not at all.
            advance: counts images.
        """


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


def run(folder: Path, pieces: Pieces, engine: Engine, *, resume: bool, wait: float, progress: bool | None) -> JobResult:
    """Do what is left of a job. Arguments as for `Explainer.explain_to`."""
    require_folder(folder)
    made_of = engine.made_of()
    with claimed(folder, wait, LOCK, "job"):
        clear(folder)
        before = found(folder)  # once more: another process may have begun it meanwhile
        if before is not None and not resume:
            raise InvalidValueError(
                f"There is a job in {folder}: expected resume=True to go on with it, or another folder."
            )
        if before is not None:
            require_same(folder, before, made_of)
        manifest = engine.settle(made_of) if before is None else before
        if before is None:
            manifest.write(folder)
        return _Run(folder, pieces).go(engine, manifest, progress)


def require_folder(folder: Path) -> None:
    """Refuse a place that is none for a job, before anything is made there.

    Raises:
        CannotWriteError: it is no folder.
        InvalidValueError: it holds something else.
        MissingExtra: pyarrow is not installed.
    """
    require("pyarrow", PURPOSE, "jobs")
    if folder.exists() and not folder.is_dir():
        raise CannotWriteError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    found(folder)


class _Run:
    """One run of a job."""

    def __init__(self, folder: Path, pieces: Pieces):
        self._folder, self._pieces = folder, pieces
        self._files: list[Path] = []
        self._there: list[Count] = []

    def go(self, engine: Engine, manifest: Manifest, progress: bool | None) -> JobResult:
        begun, made = time.monotonic(), []
        pieces = prefetched(self._pieces, engine.ahead)
        shown: Progress = "lines" if progress is None else progress
        bar = progress_bar(self._pieces.total, f"{engine.title}, images", shown, rate=True)
        with contextlib.closing(pieces), bar as advance:
            missing = self._missing(pieces, advance)
            with contextlib.closing(engine.files(missing, manifest, self._place, advance)) as files:
                made = list(files)
        explained = sum(each.images for each in made)
        images, skipped = (sum(each) for each in zip(*made, *self._there, (0, 0), strict=True))
        return JobResult(self._folder, tuple(self._files), images, skipped, explained, time.monotonic() - begun)

    def _place(self, piece: Piece) -> Path:
        return self._folder / f"part-{piece.number:06d}.parquet"

    def _missing(self, pieces: Iterable[Piece], advance: Steps) -> Iterator[Piece]:
        """Those whose files are not there; the others are counted."""
        done = _parts(self._folder)
        for piece in pieces:
            self._files.append(self._place(piece))
            if piece.number not in done:
                yield piece
                continue
            self._there.append(_contents(self._place(piece)))
            advance.skip(self._there[-1].images)


def fill(
    writer: Writer,
    explained: Iterable[Explained | Skipped],
    paths: Mapping[int, str],
    class_names: Sequence[str] | None,
    advance: Callable[[int], None] | None = None,
) -> Count:
    """Write the rows of images.

    Args:
        writer: of their file.
        explained: the images.
        paths: of their files, by their places.
        class_names: by number.
        advance: told of each image.
    """
    images = skipped = 0
    for each in explained:
        for row in rows_for(each, paths, class_names):
            writer.add(row)
        images += 1
        skipped += isinstance(each, Skipped)
        if advance is not None:
            advance(1)
    return Count(images, skipped)


def rows_for(
    each: Explained | Skipped, paths: Mapping[int, str], class_names: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    """The rows of one image. Arguments as for `fill`."""
    if isinstance(each, Skipped):
        yield skipped_row(each.place, paths.get(each.place), each.reason)
        return
    path = paths.get(each.explanation.indices[0])
    yield from rows_of(each.explanation, each.maps, path, class_names, each.warnings)


def _parts(folder: Path) -> set[int]:
    """The numbers of the pieces that are there."""
    matched = (_PART.fullmatch(each.name) for each in folder.iterdir())
    return {int(each[1]) for each in matched if each}


def _contents(path: Path) -> Count:
    """What a file has.

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
    return Count(sum(first), table.num_rows - table["error"].null_count)
