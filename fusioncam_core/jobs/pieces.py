"""A source in pieces of equally many images, each of which can be read without the others where that is possible."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fusioncam_core.data.sources import Group, photographs
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.inputs import leaves
from fusioncam_core.stores.fingerprints import Fingerprints

Reader = Callable[[Any, int], Iterator[Group]]
"""Gives the groups of a part of a source, whose first image has that place in the source."""


@dataclass(frozen=True)
class Piece:
    """Neighbours in a source.

    Attributes:
        number: the pieces before it.
        start: the place of its first image.
        paths: of its files, as the rows are to name them, by their places; none of arrays.
        part: of the source, which is read when the piece is explained; None if it had to be read to see where it ends.
        read: what came of that.
    """

    number: int
    start: int
    paths: dict[int, str]
    part: Any = None
    read: tuple[Group, ...] | None = None

    def groups(self, reader: Reader) -> Iterator[Group]:
        """Its images."""
        return reader(self.part, self.start) if self.read is None else iter(self.read)

    @property
    def images(self) -> int:
        """How many it has."""
        return len(self.part) if self.read is None else sum(len(each.places) for each in self.read)

    def head(self, count: int) -> Piece:
        """The piece with its first images alone; at least a group of those that were read."""
        if self.read is not None:
            return replace(self, read=tuple(each.rows(0, count) for each in self.read[:1]))
        return replace(self, part=self.part[:count])


class Pieces:
    """The pieces of a source, in their order.

    Args:
        source: as for `Explainer.explain_many`.
        size: images in each piece but the last.
        reader: of parts of the source.

    Attributes:
        total: how many images there are; None if the source does not say.
    """

    def __init__(self, source: Any, size: int, reader: Reader):
        self._size, self._reader = size, reader
        self._files = _files(source)
        self._source = source
        known = self._files is not None or hasattr(source, "shape")
        self.total = len(self._rows) if known else _length(source)

    @property
    def _rows(self) -> Any:
        return self._source if self._files is None else self._files

    def fingerprint(self, words: Fingerprints) -> str:
        """Equal for sources of the same images: files by paths, sizes and times, arrays by their values.

        Others, such as loaders, are told by how many images they say they have, and by the first that they give.
        """
        if self._files is not None:
            whole = hashlib.sha256()
            for path, name in zip(self._files, self._names(0, len(self._files)), strict=True):
                status = os.stat(path) if os.path.exists(path) else None
                told = None if status is None else (status.st_size, status.st_mtime_ns)
                whole.update(f"{name}\0{told}\0".encode(errors="surrogatepass"))
            return f"files:{whole.hexdigest()[:16]}"
        if hasattr(self._source, "shape") or isinstance(self._source, list | tuple):
            return words.of(self._source, "source")
        first = next(iter(self._reader(self._source, 0)), None)
        seen = None if first is None else words.of(leaves(first.inputs), "source")
        return f"images:{self.total} {seen}"

    def __iter__(self) -> Iterator[Piece]:
        if self._files is None and not hasattr(self._source, "shape"):
            yield from self._cut()
            return
        for number, start in enumerate(range(0, len(self._rows), self._size)):
            yield self._piece(number, start, self._rows[start : start + self._size])

    def _piece(self, number: int, start: int, part: Any) -> Piece:
        names = () if self._files is None else self._names(start, start + len(part))
        paths = {start + row: name for row, name in enumerate(names)}
        return Piece(number, start, paths, part)

    def _names(self, start: int, stop: int) -> Iterable[str]:
        """What the rows call files: their paths below the folder that was given, or as they were given."""
        assert self._files is not None
        files = self._files[start:stop]
        if isinstance(self._source, str | Path):
            return (os.path.relpath(each, self._source).replace(os.sep, "/") for each in files)
        return map(os.fspath, files)

    def _cut(self) -> Iterator[Piece]:
        """Of what only comes one after the other: a piece that is not asked for has been read all the same."""
        waiting: list[Group] = []
        count = number = 0
        for whole in self._reader(self._source, 0):
            rest = whole
            while count + len(rest.places) >= self._size:
                taken = self._size - count
                yield self._of_groups(number, [*waiting, rest.rows(0, taken)])
                rest = rest.rows(taken, len(rest.places))
                waiting, count, number = [], 0, number + 1
            if rest.places:
                waiting.append(rest)
                count += len(rest.places)
        if waiting:
            yield self._of_groups(number, waiting)

    def _of_groups(self, number: int, groups: Sequence[Group]) -> Piece:
        files = ((place, file) for group in groups for place, file in zip(group.places, group.files, strict=False))
        paths = {place: file for place, file in files if file}
        return Piece(number, number * self._size, paths, read=tuple(groups))


def moved(group: Group, start: int) -> Group:
    """A group of a part of a source, with the places of the whole source."""
    return replace(group, places=tuple(start + place for place in group.places))


def _files(source: Any) -> list[str] | None:
    """The paths of a folder's photographs, or of a list of files; None of anything else."""
    if isinstance(source, str | Path):
        return list(map(os.fspath, photographs(source)))
    if isinstance(source, list | tuple) and all(isinstance(each, str | Path) for each in source):
        return list(map(os.fspath, source))
    return None


def _length(source: Any) -> int | None:
    if not isinstance(source, Iterable):
        raise InvalidTypeError(
            f"Expected images: a folder, a list of files, an array or a loader, got a {type(source).__name__}."
        )
    if iter(source) is source:
        raise InvalidTypeError(
            f"Expected a source that can be read again when a job goes on, got a {type(source).__name__}, which is "
            "read once: give a folder, a list of files, an array or a loader."
        )
    data: Any = getattr(source, "dataset", None)  # of a PyTorch DataLoader
    return len(data) if hasattr(data, "__len__") else None
