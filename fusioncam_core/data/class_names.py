"""The names of a model's classes, from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusioncam_core.errors import InvalidValueError

_FORMS = (
    'a list of names, {"0": name, ...}, {"0": [identifier, name], ...} as in imagenet_class_index.json, or '
    "{name: number, ...} as in the class_indices of Keras"
)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """A name for every class, in the order of the model's outputs.

    Args:
        path: of a text in UTF-8 with one name a line, or of a JSON file (`.json`) with a list of names, or a mapping
            from numbers to names, to pairs of an identifier and a name, or from names to numbers.

    Raises:
        ValueError: there is no such file, it is not one of those, a line is empty, or a number is missing.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidValueError(f"{path}: there is no such file.") from error
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{path}: expected names of classes in UTF-8, got other bytes: {error}.") from error
    except OSError as error:
        raise InvalidValueError(f"{path} cannot be read: {error.strerror}.") from error
    names = _of_json(text, path) if file.suffix.lower() == ".json" else _of_lines(text, path)
    if not names:
        raise InvalidValueError(f"{path}: expected the names of a model's classes, got none.")
    return names


def _of_lines(text: str, path: str | Path) -> tuple[str, ...]:
    lines = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    if "" in lines:
        raise InvalidValueError(
            f"{path}: expected a name in each line, in the order of the model's outputs; line {lines.index('') + 1} "
            "is empty."
        )
    return tuple(lines)


def _of_json(text: str, path: str | Path) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidValueError(f"{path}: expected JSON, got {error}.") from error
    if isinstance(found, list):
        names = dict(enumerate(map(_name, found)))
    elif isinstance(found, dict) and all(type(value) is int for value in found.values()):
        names = {number: name for name, number in found.items()}
        if len(names) < len(found):
            raise InvalidValueError(f"{path}: two names have the same number.")
    elif isinstance(found, dict) and all(key.isdecimal() for key in found):
        names = {int(key): _name(value) for key, value in found.items()}
    else:
        names = {0: None}
    ordered = [names.get(number) for number in range(len(names))]
    if missing := [number for number in range(len(names)) if number not in names]:
        raise InvalidValueError(
            f"{path}: expected {len(names)} classes numbered from 0, one each; {missing[0]} is missing."
        )
    if not all(isinstance(name, str) and name for name in ordered):
        raise InvalidValueError(f"{path}: expected {_FORMS}.")
    return tuple(name for name in ordered if name is not None)


def _name(value: Any) -> str | None:
    """The name itself, or of a pair the second: the first is its identifier."""
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    return value if isinstance(value, str) else None
