"""What an evaluation has found so far: eight bytes a value, in the order of the images."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.compared import Compared
from fusioncam_core.evaluation.curves import NOWHERE, Followed, read_curves
from fusioncam_core.evaluation.index import Place
from fusioncam_core.evaluation.keys import Row
from fusioncam_core.evaluation.results import Evaluation, Problem, Values
from fusioncam_core.evaluation.store import PROBABILITY_TOLERANCE, Entry, Key, Store
from fusioncam_core.metrics.metric import Metric


class Image(NamedTuple):
    """One image with all keys of what is found about it.

    Attributes:
        row: the image.
        plain: of its probability.
        maps: (M) of what is to be said of the methods' maps.
        values: (M, L) of the methods' values by the metrics.
    """

    row: Row
    plain: Key
    maps: tuple[Key, ...]
    values: tuple[tuple[Key, ...], ...]

    def all_keys(self) -> Iterator[Key]:
        """All of them."""
        yield self.plain
        yield from self.maps
        for of_method in self.values:
            yield from of_method


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        model: the name of the model's class.
        methods: (M) what they are called here.
        titles: of those that are called by their own name.
    """

    model: str
    methods: tuple[str, ...]
    titles: dict[str, str]

    @classmethod
    def of(cls, compared: Compared) -> Subject:
        """Of these methods, with the model of the first."""
        explainers = compared.explainers
        titles = {label: each.title for label, each in explainers.items() if label == each.name}
        return cls(next(iter(explainers.values())).adapter.model_name, tuple(explainers), titles)


class Record(Protocol):
    """What is told of everything that is found, in this order: of each image that it is there, what is found, that this
    was all."""

    def begin(self, images: Sequence[Image]) -> None:
        """The model has seen these images."""

    def __contains__(self, key: Key) -> bool:
        """Whether a value is known already."""

    def add(self, entries: Mapping[Key, Entry]) -> None:
        """Values that were found."""

    def problem(self, image: str, method: str | None, metric: str | None, error: str) -> None:
        """Why there are no values."""

    def failed(self, image: str, error: ValueError) -> None:
        """The model does not run on an image."""

    def settle(self, images: Sequence[Image]) -> None:
        """There will be no more about these images."""


class _Column:
    """A method's values by a metric, one an image: numbers, places of curves if there are any, and what is missing."""

    def __init__(self) -> None:
        self.values = array("d")
        self.places = array("q")
        self.told = _Told()

    def add(self, value: float | None, place: int | None) -> None:
        if place is not None:
            self.places.extend([NOWHERE] * (len(self.values) - len(self.places)))
            self.places.append(place)
        self.values.append(np.nan if value is None else value)

    def all_places(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        found = np.full(len(self.values), NOWHERE, dtype=np.int64)
        found[: len(self.places)] = self.places
        return found


class _Told:
    """Sentences about images, by their numbers."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._reasons: list[str] = []

    def add(self, number: int, reason: str) -> None:
        self._numbers.append(number)
        self._reasons.append(reason)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return zip(self._numbers, self._reasons, strict=True)


class Answer:
    """A `Record` that keeps values in a store, and becomes an evaluation.

    Args:
        subject: what is evaluated.
        metrics: that are measured.
        store: what is on record.
    """

    def __init__(self, subject: Subject, metrics: tuple[Metric, ...], store: Store):
        self._subject = subject
        self._metrics = metrics
        self._store = store
        self._names: list[str] = []
        self._targets, self._probabilities = array("q"), array("d")
        self._columns = [[_Column() for _ in metrics] for _ in subject.methods]
        self._of_maps = [_Told() for _ in subject.methods]
        self._problems: list[Problem] = []
        self._failure: ValueError | None = None
        self._places: dict[Key, Place] = {}  # of images that are under way
        self._sentences: dict[str, str] = {}

    def begin(self, images: Sequence[Image]) -> None:
        """Keep the images' probabilities.

        Raises:
            InvalidValueError: if other ones are on record: that was another model.
        """
        self._places |= self._store.places(key for image in images for key in image.all_keys())
        for image in images:
            self._require_the_same_model(image)
        self.add({image.plain: Entry(image.row.probability) for image in images})

    def _require_the_same_model(self, image: Image) -> None:
        """The last thing by which a model is known whose weights are as they were, and its functions are not."""
        kept, row = self._places.get(image.plain), image.row
        if kept is not None and abs((kept.value or 0) - row.probability) > PROBABILITY_TOLERANCE:
            raise InvalidValueError(
                f"The folder has values of another model: it gave class {row.target} of {row.name!r} the probability "
                f"{kept.value}, and {self._subject.model} gives {row.probability}. Give another "
                "folder, or another model_name=."
            )

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def add(self, entries: Mapping[Key, Entry]) -> None:
        """Keep values."""
        self._places |= self._store.add(entries)

    def problem(self, image: str, method: str | None, metric: str | None, error: str) -> None:
        """Note why there are no values."""
        self._problems.append(Problem(_legible(image), method, metric, self._once(error)))

    def failed(self, image: str, error: ValueError) -> None:
        """Note that the model does not run on an image."""
        self._failure = self._failure or error
        self.problem(image, None, None, str(error))

    def settle(self, images: Sequence[Image]) -> None:
        """Take the images' values."""
        for image in images:
            number = len(self._names)
            self._names.append(_legible(image.row.name))
            self._targets.append(image.row.target)
            self._probabilities.append(image.row.probability)
            for m, (of_map, of_values) in enumerate(zip(image.maps, image.values, strict=True)):
                self._note_map(self._of_maps[m], number, of_map)
                for column, metric, key in zip(self._columns[m], self._metrics, of_values, strict=True):
                    self._take(column, metric, number, key)
        self.forget(images)

    def forget(self, images: Sequence[Image]) -> None:
        """What was found about the images stays in the store alone, until they begin once more."""
        for image in images:
            for key in image.all_keys():
                self._places.pop(key, None)

    def _note_map(self, told: _Told, number: int, key: Key) -> None:
        kept = self._places.get(key)
        if kept is not None and kept.reason is not None:
            told.add(number, self._once(kept.reason))

    def _take(self, column: _Column, metric: Metric, number: int, key: Key) -> None:
        kept = self._places.get(key)
        if kept is None:
            column.add(None, None)
            return
        if kept.value is None:
            column.told.add(number, self._once(kept.reason or metric.undefined))
        column.add(kept.value, kept.place if kept.curved else None)

    def _once(self, sentence: str) -> str:
        """Legible, and one text for equal ones: thousands of images may be without a value for one reason."""
        legible = _legible(sentence)
        return self._sentences.setdefault(legible, legible)

    def evaluation(self, reference: str) -> Evaluation:
        """What was found.

        Raises:
            ValueError: if there was no image, or the model ran on none.
        """
        if not self._names:
            raise self._failure or InvalidValueError(
                "There is no image to evaluate: the source is empty, or nothing in it could be read."
            )
        followed = dict(self._followed())
        return Evaluation(
            model=self._subject.model,
            images=tuple(self._names),
            targets=np.asarray(self._targets),
            probabilities=np.asarray(self._probabilities),
            methods=self._subject.methods,
            metrics=self._metrics,
            values=self._values(),
            curves=read_curves(followed, self._store.lines),
            fractions={metric: each.fractions for metric, each in followed.items()},
            reference=reference,
            problems=tuple(self._all_problems()),
            titles=self._subject.titles,
        )

    def _values(self) -> Values:
        """(M, L, N)."""
        values = np.empty((len(self._columns), len(self._metrics), len(self._names)))
        for of_method, columns in zip(values, self._columns, strict=True):
            for own, column in zip(of_method, columns, strict=True):
                own[:] = column.values
        return values

    def _followed(self) -> Iterator[tuple[str, Followed]]:
        """The metrics that follow curves, each at the fractions of its first one."""
        for k, metric in enumerate(self._metrics):
            columns = [of_method[k] for of_method in self._columns]
            if any(column.places for column in columns):
                places = np.stack([column.all_places() for column in columns])
                first = places[places != NOWHERE][0]
                yield metric.name, Followed(np.asarray(self._store.lines.entry(int(first)).fractions), places)

    def _all_problems(self) -> Iterator[Problem]:
        yield from self._problems
        for label, of_maps, columns in zip(self._subject.methods, self._of_maps, self._columns, strict=True):
            for number, reason in of_maps:
                yield Problem(self._names[number], label, None, reason)
            for metric, column in zip(self._metrics, columns, strict=True):
                for number, reason in column.told:
                    yield Problem(self._names[number], label, metric.name, reason)


def _legible(text: str) -> str:
    """The text with what is no character, as a file's name in another encoding has it, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
