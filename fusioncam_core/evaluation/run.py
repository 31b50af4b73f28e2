"""An evaluation under way: images are explained by each method, and what is not on record yet is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, indices_like, to_numpy
from fusioncam_core.data.sources import Group, SourceTargets
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.compared import Compared
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.keys import Keys, Row
from fusioncam_core.evaluation.results import Evaluation, Problem, Values
from fusioncam_core.evaluation.store import PROBABILITY_TOLERANCE, Entry, Store
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.metrics.explained_batch import ExplainedBatch, require_map_size
from fusioncam_core.metrics.metric import Measured, Metric
from fusioncam_core.models.inputs import Inputs, batch_length, map_rows
from fusioncam_core.models.outputs import require_rows
from fusioncam_core.models.steps import skip
from fusioncam_core.models.targets import check_range, read_targets
from fusioncam_core.results.explanation import Explanation

ZERO = "the map is zero everywhere (its values count)"


class Run:
    """An evaluation under way.

    Args:
        compared: the methods by what they are called.
        metrics: to measure.
        ground_truth: the objects' masks.
        store: what is on record.
        keys: of values.
    """

    def __init__(
        self,
        compared: Compared,
        metrics: tuple[Metric, ...],
        ground_truth: GroundTruth,
        store: Store,
        keys: Keys,
    ):
        self._explainers = compared.explainers
        self._given = compared.given
        self._metrics = metrics
        self._ground_truth = ground_truth
        self._store = store
        self._keys = keys
        self._rows: list[Row] = []
        self._problems: list[Problem] = []
        self._failure: ValueError | None = None
        self._seen = 0

    def unreadable(self, name: str, reason: str) -> None:
        """A file was no photograph."""
        self._problems.append(_problem(name, None, None, reason))

    def group(self, group: Group, targets: SourceTargets, advance: Callable[[int], object]) -> None:
        """Explain and measure some images; one by one if the model does not run on one of them."""
        asked = _one_class_an_image(targets.of(group), len(group.names))
        self._seen = max(self._seen, *(place + 1 for place in group.places))
        first = next(iter(self._explainers.values()))
        try:
            inputs = first.prepared(group.inputs)
            outputs = first.fitting(lambda: first.adapter.forward(inputs), inputs)
        except ValueError as error:
            if len(group.names) > 1:
                for number in range(len(group.names)):
                    self.group(group.rows(number, number + 1), targets, advance)
            else:
                self._failed(group, error)
                advance(len(self._explainers))
            return
        self._require_maps(group.places, inputs)
        rows = self._plain(first, inputs, plain_classes(first, inputs, outputs, asked), group)
        self._rows += rows
        for label, explainer in self._explainers.items():
            missing = [number for number, row in enumerate(rows) if self._is_missing(row, label)]
            skip(advance, len(rows) - len(missing))
            if missing:
                self._fill(label, explainer, _rows(inputs, missing), [rows[number] for number in missing])
                advance(len(missing))

    def _require_maps(self, places: Sequence[int], inputs: Inputs) -> None:
        """Nothing, if every given method has maps of the images' size for these places of the source."""
        for given in self._given.values():
            if max(places) >= len(given.maps):
                given.require_count(max(places) + 1)
            require_map_size(given.maps, given.asks.size_for(inputs))

    def require_all_maps(self) -> None:
        """Nothing, if there are as many given maps as there were images.

        Raises:
            InvalidValueError: otherwise.
        """
        for given in self._given.values():
            given.require_count(self._seen)

    def _failed(self, group: Group, error: ValueError) -> None:
        """The model does not run on an image."""
        self._failure = self._failure or error
        self._problems.append(_problem(_name(group, 0), None, None, str(error)))

    def _plain(
        self,
        explainer: Explainer,
        inputs: Inputs,
        found: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
        group: Group,
    ) -> list[Row]:
        """The images' targets and probabilities, on record from now on."""
        images = self._keys.images(inputs, group.places)
        names = [_name(group, number) for number in range(len(images))]
        classes, probabilities = (each.tolist() for each in found)
        rows = [Row(*each) for each in zip(names, group.places, images, classes, probabilities, strict=True)]
        label = next(iter(self._explainers))
        for row in rows:
            self._require_the_same_model(row, label)
        self._store.add({self._keys.plain(row, label): Entry(row.probability) for row in rows})
        return rows

    def _require_the_same_model(self, row: Row, label: str) -> None:
        """The last thing by which a model is known whose weights are as they were, and its functions are not."""
        kept = self._store.get(self._keys.plain(row, label))
        if kept is not None and abs((kept.value or 0) - row.probability) > PROBABILITY_TOLERANCE:
            raise InvalidValueError(
                f"The folder has values of another model: it gave class {row.target} of {row.name!r} the probability "
                f"{kept.value}, and {self._explainers[label].adapter.model_name} gives {row.probability}. Give another "
                "folder, or another model_name=."
            )

    def _is_missing(self, row: Row, label: str) -> bool:
        """Whether anything is not known of an image and a method."""
        return any(self._keys.value(row, label, metric) not in self._store for metric in self._metrics)

    def _fill(self, label: str, explainer: Explainer, inputs: Inputs, rows: list[Row]) -> None:
        """Measure images; one by one if something is wrong with one of them."""
        try:
            explanation = self._explanation(label, explainer, inputs, rows)
        except ValueError as error:
            if len(rows) == 1:
                self._problems.append(_problem(rows[0].name, label, None, str(error)))
                return
            for number, row in enumerate(rows):
                self._fill(label, explainer, _rows(inputs, [number]), [row])
            return
        self._note_zeros(label, explanation, rows)
        explained = ExplainedBatch(explainer, inputs, explanation)
        for metric in self._metrics:
            try:
                explainer.session()(self._measured)(label, metric, explained, rows)
            except ValueError as error:
                self._problems += [_problem(row.name, label, metric.name, str(error)) for row in rows]

    def _explanation(self, label: str, explainer: Explainer, inputs: Inputs, rows: list[Row]) -> Explanation:
        targets = np.asarray([row.target for row in rows])
        if label in self._given:
            return self._given[label].explanation(inputs, targets, [row.place for row in rows])
        return explainer._call(inputs, targets, progress=False)

    def _measured(self, label: str, metric: Metric, explained: ExplainedBatch, rows: list[Row]) -> None:
        keys = [self._keys.value(row, label, metric) for row in rows]
        if all(key in self._store for key in keys):
            return
        ground_truth, missing = self._masks(rows, explained.size) if metric.needs_ground_truth else (None, {})
        found = metric.measure(explained, ground_truth)
        entries = dict(zip(keys, _entries(found, metric), strict=True))
        entries |= {keys[number]: Entry(None, reason=reason) for number, reason in missing.items()}
        self._store.add(entries)

    def _masks(self, rows: list[Row], size: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        """(n, *size) the objects' masks; and why some rows have none, whose masks are empty."""
        masks, missing = np.zeros((len(rows), *size), dtype=bool), {}
        for number, row in enumerate(rows):
            try:
                masks[number] = self._ground_truth.of([row.name], size, [row.place])[0]
            except ValueError as error:
                missing[number] = str(error)
        return masks, missing

    def _note_zeros(self, label: str, explanation: Explanation, rows: list[Row]) -> None:
        """On record, before any value of theirs is: who goes on hears of them, too."""
        largest = np.abs(to_numpy(explanation.maps)).reshape(len(rows), -1).max(axis=1)
        empty = [row for row, value in zip(rows, largest, strict=True) if value == 0]
        self._store.add({self._keys.map(row, label): Entry(None, reason=ZERO) for row in empty})

    def _said_of_maps(self, label: str) -> Iterator[Problem]:
        for row in self._rows:
            entry = self._store.get(self._keys.map(row, label))
            if entry is not None and entry.reason is not None:
                yield _problem(row.name, label, None, entry.reason)

    def evaluation(self, reference: str) -> Evaluation:
        """What was found."""
        if not self._rows:
            raise self._failure or InvalidValueError(
                "There is no image to evaluate: the source is empty, or nothing in it could be read."
            )
        shape = (len(self._explainers), len(self._metrics), len(self._rows))
        values = np.full(shape, np.nan)
        problems = list(self._problems)
        curves: dict[str, Values] = {}
        fractions: dict[str, Values] = {}
        for m, label in enumerate(self._explainers):
            problems += self._said_of_maps(label)
            for k, metric in enumerate(self._metrics):
                entries = [self._entry(row, label, metric) for row in self._rows]
                for n, (row, entry) in enumerate(zip(self._rows, entries, strict=True)):
                    if entry is not None and entry.value is not None:
                        values[m, k, n] = entry.value
                    elif entry is not None:
                        problems.append(_problem(row.name, label, metric.name, entry.reason or metric.undefined))
                followed = next((entry for entry in entries if entry is not None and entry.fractions), None)
                if followed is not None and followed.fractions is not None:
                    points = fractions.setdefault(metric.name, np.asarray(followed.fractions))
                    own = curves.setdefault(metric.name, np.full((shape[0], shape[2], len(points)), np.nan))
                    own[m] = [_curve(entry, points) for entry in entries]
        first = next(iter(self._explainers.values()))
        return Evaluation(
            model=first.adapter.model_name,
            images=tuple(_legible(row.name) for row in self._rows),
            targets=np.asarray([row.target for row in self._rows]),
            probabilities=np.asarray([row.probability for row in self._rows]),
            methods=tuple(self._explainers),
            metrics=self._metrics,
            values=values,
            curves=curves,
            fractions=fractions,
            reference=reference,
            problems=tuple(problems),
            titles={label: each.title for label, each in self._explainers.items() if label == each.name},
        )

    def _entry(self, row: Row, label: str, metric: Metric) -> Entry | None:
        return self._store.get(self._keys.value(row, label, metric))


def _name(group: Group, number: int) -> str:
    """An image's name, or its place in the source."""
    name = group.names[number]
    return str(group.places[number]) if name is None else name


def _legible(text: str) -> str:
    """The text with what is no character, as a file's name in another encoding has it, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _problem(image: str, method: str | None, metric: str | None, reason: str) -> Problem:
    return Problem(_legible(image), method, metric, _legible(reason))


def plain_classes(
    explainer: Explainer, inputs: Inputs, outputs: Any, classes: np.ndarray[Any, Any] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The targets (B,) of images, or their top classes, and their probabilities (B,).

    Args:
        explainer: of the model.
        inputs: (B, ...).
        outputs: of the model for them.
        classes: (B,) those asked for, or None.

    Raises:
        ValueError: for a class that the model does not have.
    """
    adapter, xp = explainer.adapter, explainer.adapter.namespace
    scores = explainer.scores.behind(adapter.ending(inputs, explainer.scores.output))
    logits = scores.logits(outputs)
    require_rows(logits, batch_length(inputs))
    asked = scores.default_targets(logits)
    if classes is not None:
        check_range(classes, int(logits.shape[1]), adapter.model_name)
        asked = indices_like(classes[:, None], logits, xp)
    probabilities = xp.take_along_axis(scores.probabilities(logits), asked, axis=1)
    return to_numpy(asked)[:, 0], to_numpy(probabilities)[:, 0]


def _one_class_an_image(targets: Any, batch: int) -> np.ndarray[Any, Any] | None:
    """(B,) classes, or None for the top ones."""
    wanted = read_targets(targets, batch)
    if wanted.functions or wanted.several:
        raise InvalidValueError("An evaluation has one class an image: None, one class, (N,) classes or 'labels'.")
    return None if wanted.classes is None else wanted.classes[:, 0]


def _entries(found: Measured, metric: Metric) -> Iterator[Entry]:
    values = to_numpy(found.values).astype(np.float64)
    curves = None if found.curves is None else to_numpy(found.curves).astype(np.float64)
    for row, value in enumerate(values):
        if not np.isfinite(value):
            yield Entry(None, reason=metric.undefined)
        elif curves is None or found.fractions is None:
            yield Entry(float(value))
        else:
            yield Entry(float(value), [round(each, 6) for each in curves[row].tolist()], found.fractions.tolist())


def _curve(entry: Entry | None, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An entry's curve at these fractions: images of another size have others."""
    if entry is None or entry.curve is None or entry.fractions is None:
        return np.full(len(points), np.nan)
    curve: np.ndarray[Any, Any] = np.interp(points, entry.fractions, entry.curve)
    return curve


def _rows(inputs: Inputs, numbers: list[int]) -> Inputs:
    """Some of the images."""
    if numbers == list(range(batch_length(inputs))):
        return inputs
    return map_rows(lambda each: _taken(each, numbers), inputs)


def _taken(array: Array, numbers: list[int]) -> Array:
    return array_namespace(array).concat([array[number : number + 1, ...] for number in numbers], axis=0)
