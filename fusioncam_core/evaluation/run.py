"""An evaluation under way: images are explained by each method, and what is not on record yet is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, indices_like, to_numpy
from fusioncam_core.data.sources import Group, SourceTargets
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.answer import Image, Record
from fusioncam_core.evaluation.compared import Compared
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.keys import Keys, Row
from fusioncam_core.evaluation.store import Entry, Key
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.metrics.explained_batch import ExplainedBatch, require_map_size
from fusioncam_core.metrics.metric import Measured, Metric
from fusioncam_core.models.inputs import Inputs, batch_length, map_rows
from fusioncam_core.models.outputs import require_rows
from fusioncam_core.models.steps import skip
from fusioncam_core.models.targets import check_range, read_targets
from fusioncam_core.results.explanation import Explanation

ZERO = "the map is zero everywhere (its values count)"


class _Method(NamedTuple):
    """A method: its place among the others, and what it is called."""

    number: int
    label: str


class Run:
    """An evaluation under way.

    Args:
        compared: the methods by what they are called.
        metrics: to measure.
        ground_truth: the objects' masks.
        keys: of values.
        record: is told of everything.

    Attributes:
        seen: how many images there are up to the last one that came.
    """

    def __init__(
        self, compared: Compared, metrics: tuple[Metric, ...], ground_truth: GroundTruth, keys: Keys, record: Record
    ):
        self._explainers = compared.explainers
        self._given = compared.given
        self._metrics = metrics
        self._ground_truth = ground_truth
        self._keys = keys
        self._record = record
        self.seen = 0

    def unreadable(self, name: str, reason: str) -> None:
        """A file was no photograph."""
        self._record.problem(name, None, None, reason)

    def group(self, group: Group, targets: SourceTargets, advance: Callable[[int], object]) -> None:
        """Explain and measure some images; one by one if the model does not run on one of them."""
        asked = _one_class_an_image(targets.of(group), len(group.names))
        self.seen = max(self.seen, *(place + 1 for place in group.places))
        first = next(iter(self._explainers.values()))
        try:
            inputs = first.prepared(group.inputs)
            outputs = first.fitting(lambda: first.adapter.forward(inputs), inputs)
        except ValueError as error:
            if len(group.names) > 1:
                for number in range(len(group.names)):
                    self.group(group.rows(number, number + 1), targets, advance)
            else:
                self._record.failed(_name(group, 0), error)
                advance(len(self._explainers))
            return
        self._require_maps(group.places, inputs)
        images = self._plain(inputs, plain_classes(first, inputs, outputs, asked), group)
        self._record.begin(images)
        for number, label in enumerate(self._explainers):
            self._by_method(_Method(number, label), inputs, images, advance)
        self._record.settle(images)

    def _by_method(
        self, method: _Method, inputs: Inputs, images: list[Image], advance: Callable[[int], object]
    ) -> None:
        """Explain and measure those images of which anything is not known yet."""
        unknown = [
            number
            for number, image in enumerate(images)
            if any(key not in self._record for key in image.values[method.number])
        ]
        skip(advance, len(images) - len(unknown))
        if unknown:
            self._fill(method, _rows(inputs, unknown), [images[number] for number in unknown])
            advance(len(unknown))

    def _require_maps(self, places: Sequence[int], inputs: Inputs) -> None:
        """Nothing, if every given method has maps of the images' size for these places of the source."""
        for given in self._given.values():
            if max(places) >= len(given.maps):
                given.require_count(max(places) + 1)
            require_map_size(given.maps, given.asks.size_for(inputs))

    def _plain(
        self, inputs: Inputs, found: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], group: Group
    ) -> list[Image]:
        """The images with their targets and probabilities, and all keys of theirs."""
        digests = self._keys.images(inputs, group.places)
        names = [_name(group, number) for number in range(len(digests))]
        classes, probabilities = (each.tolist() for each in found)
        rows = [Row(*each) for each in zip(names, group.places, digests, classes, probabilities, strict=True)]
        return [self._image(row) for row in rows]

    def _image(self, row: Row) -> Image:
        keys, labels = self._keys, list(self._explainers)
        return Image(
            row,
            keys.plain(row, labels[0]),
            tuple(keys.map(row, label) for label in labels),
            tuple(tuple(keys.value(row, label, metric) for metric in self._metrics) for label in labels),
        )

    def _fill(self, method: _Method, inputs: Inputs, images: list[Image]) -> None:
        """Measure images; one by one if something is wrong with one of them."""
        try:
            explanation = self._explanation(method.label, inputs, [image.row for image in images])
        except ValueError as error:
            if len(images) == 1:
                self._record.problem(images[0].row.name, method.label, None, str(error))
                return
            for number, image in enumerate(images):
                self._fill(method, _rows(inputs, [number]), [image])
            return
        self._note_zeros(method, explanation, images)
        explainer = self._explainers[method.label]
        explained = ExplainedBatch(explainer, inputs, explanation)
        for number, metric in enumerate(self._metrics):
            keys = [image.values[method.number][number] for image in images]
            try:
                explainer.session()(self._measured)(metric, explained, images, keys)
            except ValueError as error:
                for image in images:
                    self._record.problem(image.row.name, method.label, metric.name, str(error))

    def _explanation(self, label: str, inputs: Inputs, rows: list[Row]) -> Explanation:
        targets = np.asarray([row.target for row in rows])
        if label in self._given:
            return self._given[label].explanation(inputs, targets, [row.place for row in rows])
        explainer = self._explainers[label]
        with explainer._choice.many(None):  # how many of them are on record already is not known
            return explainer._call(inputs, targets, progress=False)

    def _measured(self, metric: Metric, explained: ExplainedBatch, images: list[Image], keys: list[Key]) -> None:
        if all(key in self._record for key in keys):
            return
        rows = [image.row for image in images]
        ground_truth, missing = self._masks(rows, explained.size) if metric.needs_ground_truth else (None, {})
        found = metric.measure(explained, ground_truth)
        entries = dict(zip(keys, _entries(found, metric), strict=True))
        entries |= {keys[number]: Entry(None, reason=reason) for number, reason in missing.items()}
        self._record.add(entries)

    def _masks(self, rows: list[Row], size: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        """(n, *size) the objects' masks; and why some rows have none, whose masks are empty."""
        masks, missing = np.zeros((len(rows), *size), dtype=bool), {}
        for number, row in enumerate(rows):
            try:
                masks[number] = self._ground_truth.of([row.name], size, [row.place])[0]
            except ValueError as error:
                missing[number] = str(error)
        return masks, missing

    def _note_zeros(self, method: _Method, explanation: Explanation, images: list[Image]) -> None:
        """On record, before any value of theirs is: who goes on hears of them, too."""
        largest = np.abs(to_numpy(explanation.maps)).reshape(len(images), -1).max(axis=1)
        empty = [image.maps[method.number] for image, value in zip(images, largest, strict=True) if value == 0]
        self._record.add({key: Entry(None, reason=ZERO) for key in empty})


def _name(group: Group, number: int) -> str:
    """An image's name, or its place in the source."""
    name = group.names[number]
    return str(group.places[number]) if name is None else name


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


def _rows(inputs: Inputs, numbers: list[int]) -> Inputs:
    """Some of the images."""
    if numbers == list(range(batch_length(inputs))):
        return inputs
    return map_rows(lambda each: _taken(each, numbers), inputs)


def _taken(array: Array, numbers: list[int]) -> Array:
    return array_namespace(array).concat([array[number : number + 1, ...] for number in numbers], axis=0)
