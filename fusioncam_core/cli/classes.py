"""Classes as a command is given them: by number, or by name."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fusioncam_core.errors import InvalidValueError

_LISTED = 10
"""Classes of one name that an error lists."""

_PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*|([^,]*))(,|$)')
"""A name in quotes, in which two stand for one, or what comes before the next comma; and what ends it."""

_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class NamedClass:
    """A class that is given by name: which one it is, the model's names tell."""

    name: str


def targets_given(text: str) -> list[int | NamedClass] | str:
    """What `--targets` stands for: numbers and names between commas, or a word such as top5.

    A name with a comma in it, or one that is a number, stands in quotes: `--targets '"tiger, cat",281,"404"'`.

    Raises:
        ArgumentTypeError: a quote has no end, or there is nothing between two commas.
    """
    if text.startswith("top") and text[3:].isdecimal():
        return text
    found: list[int | NamedClass] = []
    place, ended = 0, False
    while not ended:
        part = _PART.match(text, place)
        if part is None:
            raise argparse.ArgumentTypeError(
                f"{text!r} has a quote in the wrong place: a name with a comma is one in quotes, as in "
                "'\"tiger, cat\",281'"
            )
        quoted, plain, end = part.groups()
        found.append(_given(quoted, plain, text))
        place, ended = part.end(), end != ","
    return found


def _given(quoted: str | None, plain: str | None, text: str) -> int | NamedClass:
    if quoted is not None:
        return NamedClass(quoted.replace('""', '"'))
    word = (plain or "").strip()
    if not word or word.startswith('"'):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of classes such as 281 or 281,cup, nor a word such as top5"
        )
    return int(word) if _NUMBER.fullmatch(word) else NamedClass(word)


def numbered(targets: list[int | NamedClass] | str | None, class_names: Sequence[str] | None) -> list[int] | str | None:
    """The targets with every name replaced by its class's number.

    Args:
        targets: as `targets_given` gives them, or None.
        class_names: one per class, or None.

    Raises:
        InvalidValueError: there is no class of a name, or there are several.
    """
    if not isinstance(targets, list):
        return targets
    return [each if isinstance(each, int) else class_of(each.name, class_names, "--targets") for each in targets]


def class_of(name: str, class_names: Sequence[str] | None, option: str) -> int:
    """The class of a name. Capitals do not count, and of names such as "white shark, man-eater" each part is one.

    Args:
        name: as the user says it.
        class_names: one per class, or None.
        option: that was given, for messages.

    Raises:
        InvalidValueError: there is no class of the name, there are several, or there are no names.
    """
    if class_names is None:
        raise InvalidValueError(
            f"{option}: expected numbers of classes, got {name!r}: the model's loader brings no names of classes. "
            "--class-names FILE does."
        )
    names = [class_names[number] for number in range(len(class_names))]
    found = _called(name, names)
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidValueError(
            f"{option}: {name!r} is the name of the classes {_listed(found, names)}: say the number."
        )
    near = difflib.get_close_matches(name, names, n=3)
    raise InvalidValueError(
        f"{option}: the model has no class {name!r}"
        + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "; say its number, from 0.")
    )


def _called(name: str, names: Sequence[str]) -> list[int]:
    """The classes of exactly that name, or else those that have it as one of several."""
    wanted = name.casefold().strip()
    exact = [number for number, each in enumerate(names) if each.casefold() == wanted]
    return exact or [
        number for number, each in enumerate(names) if wanted in (part.strip() for part in each.casefold().split(","))
    ]


def _listed(found: Sequence[int], names: Sequence[str]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(f"{number} ({names[number]})" for number in found[:_LISTED]) + more
