"""The photographs that a command is given: files, folders, patterns, and a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusioncam_core.cli.common import complain
from fusioncam_core.data.sources import PHOTOGRAPHS, photographs
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.writing import is_ours
from fusioncam_core.visible import visible

LIST = "-"
"""Stands for a list of paths on standard input."""

GIVEN_HELP = "image files, folders of them, patterns such as 'a/**/*.jpg', or - for paths on standard input"

_SHOWN = 10  # paths that are not there, each in its line


def photographs_given(given: Sequence[str]) -> list[str]:
    """The paths of photographs that the arguments stand for, each file once, in their order.

    A folder stands for all files in it, and in folders in it, that are called like photographs; a pattern, which the
    shell has not replaced, for what matches, where `**` is any number of folders; and "-" for the paths on standard
    input. What is there under exactly that name is no pattern. Pictures that fusioncam has drawn are taken where they
    are named, and left out, which is said, where a folder or a pattern holds them.

    Args:
        given: of the command line.

    Raises:
        InvalidValueError: a path is not there, a pattern matches nothing, or a folder holds no photograph. Of several
            the others are said on standard error.
    """
    problems: list[str] = []
    drawn: list[str] = []
    found: dict[str, str] = {}  # by what is the same for two ways to write one path
    for each, may_match in _listed(given):
        try:
            for path in _found(each, may_match, drawn):
                found.setdefault(os.path.abspath(path), path)
        except InvalidValueError as error:
            problems.append(str(error))
    _raise(problems)
    if not found:
        where = "on standard input" if LIST in given else f"in {', '.join(map(visible, given))}"
        raise InvalidValueError(
            f"There is no photograph {where}" + (": what is there fusioncam has drawn." if drawn else ".")
        )
    if drawn:
        pictures = f"{len(drawn)} picture{'s' * (len(drawn) != 1)}"
        complain(f"{pictures} that fusioncam has drawn, such as {visible(drawn[0])}, left out")
    return list(found.values())


def _raise(problems: list[str]) -> None:
    """Say all but the last, which is the error; of very many as many as fit on a screen."""
    if not problems:
        return
    more = len(problems) - _SHOWN
    *others, last = problems if more <= 0 else [*problems[:_SHOWN], f"and {more} more paths that do not work."]
    for each in others:
        complain(f"error: {each}")
    raise InvalidValueError(last)


def _listed(given: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The arguments, with the paths on standard input in the place of "-", and whether each may be a pattern."""
    for each in dict.fromkeys(given):
        if each == LIST:
            yield from ((path, False) for path in _on_standard_input())
        else:
            yield each, True


def _on_standard_input() -> list[str]:
    """One path a line, or one before each NUL, as `find -print0` and `git ls-files -z` write them."""
    if sys.stdin is None:
        raise InvalidValueError("- stands for a list of paths on standard input, which is closed.")
    if sys.stdin.isatty():
        complain("reading paths from the terminal, one a line; Ctrl-D ends them")
    text = sys.stdin.buffer.read()
    lines = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _found(given: str, may_match: bool, drawn: list[str]) -> Iterator[str]:
    """The photographs of one argument; `drawn` gets those of fusioncam."""
    if os.path.isdir(given):
        yield from _without(map(str, photographs(given)), drawn)
    elif os.path.lexists(given):
        yield given
    elif not may_match or glob.escape(given) == given:
        raise InvalidValueError(f"{visible(given)}: there is no such file.")
    else:
        yield from _matching(given, drawn)


def _matching(pattern: str, drawn: list[str]) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise InvalidValueError(f"{visible(pattern)}: no file matches this pattern.")
    ending = Path(pattern).suffix
    wanted = (ending.lower(),) if len(ending) > 1 and glob.escape(ending) == ending else PHOTOGRAPHS
    files = [path for path in matches if not os.path.isdir(path) and path.lower().endswith(wanted)]
    yield from _without(files, drawn)
    if "**" not in pattern:  # which has looked into the folders itself
        for folder in filter(os.path.isdir, matches):
            yield from _without(map(str, photographs(folder)), drawn)


def _without(paths: Iterator[str] | list[str], drawn: list[str]) -> Iterator[str]:
    for path in paths:
        if is_ours(Path(path), "explanation") or is_ours(Path(path), "evaluation"):
            drawn.append(path)
        else:
            yield path
