"""Values that were measured already: one line of JSON each in a file, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.inputs import Inputs, leaves
from fusioncam_core.models.structure import Shared, found

FILE = "values.jsonl"

PROBABILITY_TOLERANCE = 1e-3
"""A model whose probabilities differ by more than this from those on record is another one."""


class Key(NamedTuple):
    """What a value belongs to: the digest of an image and its target, the method and the metric with their options."""

    image: str
    target: int
    method: str
    metric: str


class Entry(NamedTuple):
    """A value, None where it is undefined, with the curve it is the area of, and why there is none."""

    value: float | None
    curve: list[float] | None = None
    fractions: list[float] | None = None
    reason: str | None = None


class Store:
    """The entries by their keys, in memory, and in a folder if there is one.

    Args:
        folder: is made if it is not there; None keeps nothing.

    Raises:
        ValueError: if the folder's file is not one of entries.
    """

    def __init__(self, folder: Path | None):
        self._entries: dict[Key, Entry] = {}
        self._path = None if folder is None else folder / FILE
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().split(b"\n")
        # What follows the last line break was being written when the run was interrupted.
        if lines.pop():
            path.write_bytes(b"".join(line + b"\n" for line in lines))
        for number, line in enumerate(lines, 1):
            try:
                key, entry = json.loads(line)
                self._entries[Key(*key)] = Entry(*entry)
            except (ValueError, TypeError) as error:
                raise InvalidValueError(
                    f"Line {number} of {path} is no entry of an evaluation: {error}. Give another folder, or remove it."
                ) from error

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __getitem__(self, key: Key) -> Entry:
        return self._entries[key]

    def get(self, key: Key) -> Entry | None:
        """The entry, or None."""
        return self._entries.get(key)

    def add(self, entries: dict[Key, Entry]) -> None:
        """Keep entries, on disk at once."""
        self._entries |= entries
        if self._path is not None and entries:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps([key, entry]) + "\n" for key, entry in entries.items())


def digest(inputs: Inputs) -> list[str]:
    """A digest of each image's inputs (B, ...), those that it shares among them: equal for equal numbers, on every
    framework."""
    arrays = [np.ascontiguousarray(to_numpy(each)) for each in leaves(inputs)]
    shared = [each.array if isinstance(each, Shared) else each for _, each in found(inputs)]
    common = b"".join(to_numpy(each).tobytes() for each in shared if not any(each is own for own in leaves(inputs)))
    return [
        hashlib.sha256(b"".join(array[row].tobytes() for array in arrays) + common).hexdigest()[:16]
        for row in range(len(arrays[0]))
    ]


def fingerprint(thing: Any) -> str:
    """An explainer or a metric with its options, in words: what differs in them has another fingerprint."""
    from fusioncam_core.explainers.base import Explainer

    if isinstance(thing, Explainer):
        options = {**thing.get_params(), "layer": None if thing.get_params()["layer"] is None else thing.layer_names}
        ignored = ("model", "progress", "batch_size")
        words = {name: fingerprint(value) for name, value in options.items() if name not in ignored}
        return f"{thing.name}({', '.join(f'{name}={value}' for name, value in sorted(words.items()))})"
    if hasattr(thing, "shape"):
        return "array:" + hashlib.sha256(np.ascontiguousarray(to_numpy(thing)).tobytes()).hexdigest()[:16]
    if callable(thing):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    return repr(thing)
