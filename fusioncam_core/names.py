"""What the results of images are called on disk: names that do not collide and do not lead out of their folder."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

LONGEST = 250
"""Bytes of a name without its ending: file systems end at 255, and the longest ending is `.json`."""

_DIGEST = 16  # characters of the digest that stands for what was cut off


def names_of_files(paths: Sequence[str | Path], root: str | Path | None = None) -> list[str]:
    """One name a file: its path below a folder, without the ending, as in `cat/001`; no two are alike.

    Names that are alike but for their capitals or the normalisation of their letters count as equal, since some file
    systems do not tell them apart. So do files that differ in nothing but their ending. Of equal ones the first keeps
    the name, the others get numbers in their order: `cat`, `cat-2`; never a number that makes another file's name.

    Args:
        paths: of any files, there or not.
        root: the folder; None takes the deepest one that holds them all.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    base = _common_folder(whole) if root is None else Path(os.path.abspath(root))
    found = [path.relative_to(base) if path.is_relative_to(base) else _rootless(path) for path in whole]
    names = [fitting(_without_ending(path)) for path in found]
    take = Distinct(names)
    return [take(name) for name in names]


def name_as_given(path: str | Path) -> str:
    """The name of a file of which no folder is known: its path as it was given, without root, steps up and ending."""
    return fitting(_without_ending(_rootless(Path(path))))


class Distinct:
    """Gives each name once: the same one again gets a number, as in `cat`, `cat-2`.

    Args:
        reserved: names that no number may make.
    """

    def __init__(self, reserved: Iterable[str] = ()):
        self._reserved = {folded(name) for name in reserved}
        self._given: set[str] = set()
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """The name, or with the first number that is free."""
        key = folded(name)
        number = self._numbers.get(key, 1)
        own = name
        while folded(own) in self._given or (number > 1 and folded(own) in self._reserved):
            number += 1
            own = numbered(name, number)
        self._numbers[key] = number
        self._given.add(folded(own))
        return own


def numbered(name: str, number: int) -> str:
    """The name with a number behind it, from 2 on."""
    return f"{name}-{number}"


def folded(name: str) -> str:
    """Equal for names that some file system takes for one: whatever their capitals and their normalisation."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def fitting(name: str) -> str:
    """The name, each of its parts of at most `LONGEST` bytes: of a longer one the end gives way to its digest."""
    return "/".join(map(_fitting, name.split("/")))


def _fitting(part: str) -> str:
    encoded = os.fsencode(part)
    if len(encoded) <= LONGEST:
        return part
    start = os.fsdecode(_whole_letters(encoded[: LONGEST - _DIGEST - 1]))
    return f"{start}-{hashlib.sha256(encoded).hexdigest()[:_DIGEST]}"


def _whole_letters(encoded: bytes) -> bytes:
    """The bytes without the beginning of a letter at their end."""
    for back in range(1, min(4, len(encoded)) + 1):
        lead = encoded[-back]
        if lead >= 0xC0:
            length = 2 + (lead >= 0xE0) + (lead >= 0xF0)
            return encoded if length <= back else encoded[:-back]
        if lead < 0x80:
            break
    return encoded


def _common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all of them; of files on several drives there is none, and it is the first's."""
    drives = {path.drive for path in paths}
    if not paths or len(drives) > 1:
        return paths[0].parent if paths else Path()
    return Path(os.path.commonpath([path.parent for path in paths]))


def _rootless(path: PurePath) -> PurePath:
    return PurePath(*(part for part in path.parts if part not in (path.anchor, os.pardir)))


def _without_ending(path: PurePath) -> str:
    """The path with "/", without the ending; a file called `..jpg` keeps it, since "." is no name."""
    if not path.name:  # the root of a file system, which is no photograph either
        return "image"
    stem = path.stem if path.stem.strip(".") else path.name
    return path.with_name(stem).as_posix()
