"""Files that are written whole or not at all, and never over a file that is not ours.

A file is written beside its place under a name of its own and moved there when it is complete. What is there already
stays, unless it is to be replaced, is recognised as a result of the same kind, and is none of the run's inputs.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Literal

from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.names import fitting

Kind = Literal["explanation", "evaluation"]

Identity = tuple[int, int]
"""Of a file, whatever its name: its device and its number there."""

MARK = "fusioncam"
"""The key or entry by which a result is recognised; its value is the kind."""

SOFTWARE = "Software"
"""The entry of a PNG that says what drew it."""

TABLE = ("image", "target", "probability", "method", "metric", "value")
"""The columns of an evaluation's table, by which it is recognised."""

INDEX = (
    "path", "class", "name", "probability", "score", "contribution_denoised", "contribution_region",
    "contribution_union", "weight_denoised", "weight_region", "fusion_weight_union", "fusion_weight_region", "method",
    "layer", "picture", "arrays", "numbers", "warnings", "error",
)  # fmt: skip
"""The columns of an index of explanations, by which it is recognised."""

_PNG = b"\x89PNG\r\n\x1a\n"

_UNFINISHED = re.compile(rf"\.{MARK}-[0-9a-f]{{16}}")

_HEAD = 4096  # bytes at a file's beginning that tell what it is

_TAIL = 2**16  # bytes at a PDF's end, where its properties and the table of its objects are

_ENTRIES = 32  # of a PNG, among the first of which ours is


def software(kind: Kind) -> str:
    """What a picture of ours says that it was drawn by."""
    return f"{MARK} {kind}"


def identities(files: Iterable[str | Path]) -> frozenset[Identity]:
    """Of those files that are there. Two names of one file, such as links, have one identity."""
    return frozenset(found for file in files if (found := _identity(file)) is not None)


def _identity(file: str | Path) -> Identity | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    return status.st_dev, status.st_ino


def below(folder: str | Path, name: str) -> Path:
    """The path of a name, which may have folders in it, below a folder; parts that are too long are shortened.

    Args:
        folder: need not be there.
        name: without ending, such as `cat/001`.

    Raises:
        ValueError: if the name is empty, absolute or leads out of the folder, through links as well, or if it is no
            name that a file can have.
    """
    plain = Path(name)
    steps_up = os.pardir in plain.parts
    if not plain.name or plain.is_absolute() or plain.drive or plain.root or steps_up or "\0" in name:
        raise InvalidValueError(f"{name!r} is not the name of a file below a folder; say where to with the directory.")
    try:
        path = Path(folder) / fitting(plain.as_posix())
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{name!r} is no name that a file can have: {error}.") from error
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise InvalidValueError(f"{name!r} leads out of {folder} through a link; give another directory or name.")
    return path


def refusal(path: Path, kind: Kind, *, overwrite: bool, inputs: AbstractSet[Identity] = frozenset()) -> str | None:
    """Why a file cannot be written there, as a sentence; None if it can.

    Args:
        path: of the file.
        kind: of result that it is part of.
        overwrite: whether it may replace a result of that kind.
        inputs: what it may never replace.
    """
    if not os.path.lexists(path):
        return None
    if _identity(path) in inputs:
        return f"{path} is one of the files that are read: results are never written over those."
    if not is_ours(path, kind):
        return f"{path} is there already, and is no {kind} that fusioncam has written: it is left as it is."
    return None if overwrite else f"{path} is there already: it is replaced only with overwrite=True (--overwrite)."


def require_free(
    paths: Iterable[Path], kind: Kind, *, overwrite: bool, inputs: AbstractSet[Identity] = frozenset()
) -> None:
    """Look whether all of the files can be written. Arguments as for `refusal`.

    Raises:
        ValueError: with the reason of the first that cannot.
    """
    for path in paths:
        reason = refusal(path, kind, overwrite=overwrite, inputs=inputs)
        if reason is not None:
            raise InvalidValueError(reason)


def write_files(
    contents: Mapping[Path, bytes | Iterable[bytes]],
    kind: Kind,
    *,
    overwrite: bool = False,
    inputs: AbstractSet[Identity] = frozenset(),
) -> list[Path]:
    """Write files that belong together: all of them, or after an error none.

    Files that were replaced before the error are the only exception: they are new, and whole.

    Args:
        contents: of each file, whole or in parts that need not be in memory together, by its path; folders are made.
        kind: of result that they are.
        overwrite: whether results of that kind may be replaced. Other files never are.
        inputs: `identities` of the files that are read, which are never replaced.

    Returns:
        The files, in their order.

    Raises:
        ValueError: if a file is in the way; nothing is written then.
        OSError: `CannotWriteError`, if the disk is full or there is no permission; it names the file.
    """
    require_free(contents, kind, overwrite=overwrite, inputs=inputs)
    complete: dict[Path, Path] = {}
    added: list[Path] = []
    try:
        for target, content in contents.items():
            with naming(target):
                complete[target] = _temporary(target, content)
        for target, temporary in complete.items():
            with naming(target):
                if _placed(temporary, target, kind, overwrite):
                    added.append(target)
    except BaseException:  # an interrupt as well leaves nothing behind
        for target in added:
            target.unlink(missing_ok=True)
        raise
    finally:
        for temporary in complete.values():
            temporary.unlink(missing_ok=True)
    return list(contents)


@contextlib.contextmanager
def naming(target: Path) -> Iterator[None]:
    """Let the errors of the operating system name the file that was to be written."""
    try:
        yield
    except OSError as error:
        raise CannotWriteError(error.errno, error.strerror or str(error), str(target)) from error


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write into that has its name when the context ends, whole and on the disk; not at all if it raises.

    Args:
        target: in a folder that is there. It must not be there itself.

    Raises:
        OSError: `CannotWriteError`, if the disk is full, there is no permission, or the file is there; it names it.
    """
    path = _beside(target)
    try:
        with naming(target):
            file = path.open("xb")
        try:
            yield file
            with naming(target):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):  # of what could not be written, once more
                file.close()
        with naming(target):
            _moved(path, target)
            _settle(target.parent)
    finally:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove what a process that was killed had not finished writing there. Nobody else may be writing."""
    for path in [each for each in folder.iterdir() if _UNFINISHED.fullmatch(each.name)]:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """See to it that a file's new name is on the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(target: Path) -> Path:
    """Where a file is written before it is moved to its place; a short name, however long the target's is."""
    return target.parent / f".{MARK}-{secrets.token_hex(8)}"


def _temporary(target: Path, content: bytes | Iterable[bytes]) -> Path:
    """A new file with the content, in the folder of the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = _beside(target)
    try:
        with path.open("xb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _placed(temporary: Path, target: Path, kind: Kind, overwrite: bool) -> bool:
    """Whether the file is new in its place; False if it replaces one of ours."""
    if overwrite and is_ours(target, kind):
        os.replace(temporary, target)
        return False
    try:
        _moved(temporary, target)
    except FileExistsError as error:
        raise InvalidValueError(f"{target} was not there before, and now is: it is left as it is.") from error
    return True


def _moved(temporary: Path, target: Path) -> None:
    """Give the file its name, if no other has it. Renaming would replace the other; a second name cannot."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: take the name first, then replace what is ours
        target.open("xb").close()
        try:
            os.replace(temporary, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def is_ours(path: Path, kind: Kind) -> bool:
    """Whether a file is a result of that kind, as far as its beginning or its list of entries tells.

    Only regular files are opened.
    """
    recognised = _RECOGNISED.get(path.suffix)
    try:
        if recognised is None or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with path.open("rb") as file:
            return recognised(file, kind)
    except OSError:  # what cannot be read is not known to be ours
        return False


def _is_our_picture(file: IO[bytes], kind: Kind) -> bool:
    """Whether the entries before the pixels say so."""
    if file.read(len(_PNG)) != _PNG:
        return False
    for _ in range(_ENTRIES):
        length, name = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if name in (b"IDAT", bytes(4)):
            return False
        if name == b"tEXt" and length < _HEAD:
            if file.read(length) == f"{SOFTWARE}\0{software(kind)}".encode():
                return True
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return False


def _is_our_page(file: IO[bytes], kind: Kind) -> bool:
    """Whether a PDF says so among its properties, which stand behind its pages."""
    if file.read(5) != b"%PDF-":
        return False
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _TAIL))
    return f"/Creator ({software(kind)})".encode() in file.read(_TAIL)


def _is_our_drawing(file: IO[bytes], kind: Kind) -> bool:
    """Whether an SVG says so among its properties, which stand before its shapes."""
    creator = rb"<dc:creator>\s*<cc:Agent>\s*<dc:title>%b</dc:title>" % software(kind).encode()
    return re.search(creator, file.read(_HEAD)) is not None


def _is_our_report(file: IO[bytes], kind: Kind) -> bool:
    """Whether a report says so where each of ours begins: elsewhere in it, others might quote it."""
    own = (
        rb'<!doctype html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8">\s*'
        rb'<meta name="generator" content="%b">'
    )
    return re.match(own % software(kind).encode(), file.read(_HEAD)) is not None


def _are_our_arrays(file: IO[bytes], kind: Kind) -> bool:
    try:
        with zipfile.ZipFile(file) as entries:
            return kind == "explanation" and f"{MARK}.npy" in entries.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _are_our_numbers(file: IO[bytes], kind: Kind) -> bool:
    return re.match(rb'\s*\{\s*"%b"\s*:\s*"%b"' % (MARK.encode(), kind.encode()), file.read(_HEAD)) is not None


def _is_our_table(file: IO[bytes], kind: Kind) -> bool:
    columns = TABLE if kind == "evaluation" else INDEX
    return file.readline(_HEAD).rstrip(b"\r\n") == ",".join(columns).encode()


def _is_our_list(file: IO[bytes], kind: Kind) -> bool:
    """Of an index; the kept values of an evaluation are never replaced."""
    return kind == "explanation" and _are_our_numbers(file, kind)


def _is_our_text(file: IO[bytes], kind: Kind) -> bool:
    return file.readline(_HEAD).rstrip(b"\r\n") == software(kind).encode()


_RECOGNISED: dict[str, Callable[[IO[bytes], Kind], bool]] = {
    ".png": _is_our_picture,
    ".pdf": _is_our_page,
    ".svg": _is_our_drawing,
    ".html": _is_our_report,
    ".npz": _are_our_arrays,
    ".json": _are_our_numbers,
    ".csv": _is_our_table,
    ".jsonl": _is_our_list,
    ".txt": _is_our_text,
}
