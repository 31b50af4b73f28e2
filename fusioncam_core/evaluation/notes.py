"""What is found elsewhere about some images: written down there, told to the answer of the whole evaluation here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.answer import Answer, Image
from fusioncam_core.evaluation.index import Known, digest_of
from fusioncam_core.evaluation.store import Entry, Key

_Told = list[tuple[str, tuple[Any, ...]]]


class Notes:
    """A `Record` that writes everything down.

    Args:
        known: what is on record where the answer is.

    Attributes:
        told: what was said, in its order: the method's name and its arguments, which travel by pickle.
    """

    def __init__(self, known: Known):
        self._known = known
        self._found: set[Key] = set()
        self.told: _Told = []

    def begin(self, images: Sequence[Image]) -> None:
        """The model has seen these images."""
        self.told.append(("begin", (images,)))

    def __contains__(self, key: Key) -> bool:
        return key in self._found or self._known.has(digest_of(key))

    def add(self, entries: Mapping[Key, Entry]) -> None:
        """Values that were found."""
        self._found |= entries.keys()
        self.told.append(("add", (entries,)))

    def problem(self, image: str, method: str | None, metric: str | None, error: str) -> None:
        """Why there are no values."""
        self.told.append(("problem", (image, method, metric, error)))

    def failed(self, image: str, error: ValueError) -> None:
        """The model does not run on an image."""
        self.told.append(("failed", (image, InvalidValueError(str(error)))))

    def settle(self, images: Sequence[Image]) -> None:
        """There will be no more about these images."""
        self.told.append(("settle", (images,)))


class Collected:
    """Notes, told to an answer: values as soon as they come, and everything else in the order of the images.

    Args:
        answer: of the whole evaluation.
    """

    def __init__(self, answer: Answer):
        self._answer = answer
        self._waiting: dict[int, _Told] = {}
        self._next = 0

    def take(self, number: int, told: _Told) -> None:
        """The notes about so many images; numbers count from 0 in the order of the images."""
        for word, arguments in told:
            if word in ("begin", "add"):
                getattr(self._answer, word)(*arguments)
        for word, arguments in told:
            if word == "begin":  # until it is their turn
                self._answer.forget(*arguments)
        self._waiting[number] = [each for each in told if each[0] != "add"]
        while self._next in self._waiting:
            for word, arguments in self._waiting.pop(self._next):
                getattr(self._answer, word)(*arguments)
            self._next += 1
