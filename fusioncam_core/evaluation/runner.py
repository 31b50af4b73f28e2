"""Explains images by several methods and measures the maps, skipping what a folder already has."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, indices_like, to_numpy
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.data.sources import Group, SourceTargets, length, prefetched, read, regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidTypeError, InvalidValueError
from fusioncam_core.evaluation.ground_truth import GroundTruth, Masks
from fusioncam_core.evaluation.results import Evaluation, Problem, Values
from fusioncam_core.evaluation.store import PROBABILITY_TOLERANCE, Entry, Key, Store, digest, fingerprint
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.options import MethodOptions
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.metrics.measures import FAITHFULNESS
from fusioncam_core.metrics.metric import Measured, Metric, find_metric
from fusioncam_core.models.inputs import Inputs, batch_length, map_rows
from fusioncam_core.models.outputs import require_rows
from fusioncam_core.models.targets import check_range, read_targets
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.explanation import Explanation

Method = str | Explainer | type[Explainer] | tuple[str, Mapping[str, Any]]

Methods = Sequence[str | Explainer | type[Explainer]] | Mapping[str, Method]

METHODS = ("grad-cam", "score-cam", "fusion-cam")
"""What is compared if nothing else is asked for."""

PLAIN = "probability"
"""What the plain images' probabilities are called on record."""

ZERO = "the map is zero everywhere (its values count)"


class _Row(NamedTuple):
    """One image: its name, its digest, its target and that one's probability."""

    name: str
    digest: str
    target: int
    probability: float


def evaluate(
    model: Any,
    source: Any,
    methods: Methods = METHODS,
    metrics: Sequence[str | Metric | type[Metric]] = FAITHFULNESS,
    targets: Any = None,
    *,
    layer: Any = None,
    reference: str | None = None,
    masks: Masks | None = None,
    out: str | Path | None = None,
    preprocessing: Callable[[Any], Any] | None = None,
    prefetch: int = 2,
    progress: bool | None = None,
    backend_options: Mapping[str, Any] | None = None,
    **keywords: Unpack[MethodOptions],
) -> Evaluation:
    """Compare methods on images by metrics.

    Args:
        model: as explainers take it.
        source: images, as `Explainer.explain_many` takes them.
        methods: names, explainers and their classes; or a mapping from what they are to be called to one of these, or
            to a pair of one and options.
        metrics: names (`fusioncam_core.metrics.METRICS`), metrics with options and their classes, each kind once.
        targets: the explained class of each image: None for the top ones, "labels", one class, or (N,) classes.
        layer: of the methods given by name.
        reference: the method that others are compared with; Fusion-CAM if it is there, else the first.
        masks: of the objects, for metrics that compare with them: (N, *size); a mapping from the images' names (or
            their numbers, as text) to (*size) arrays; or a folder of pictures that are called like the photographs.
        out: a folder in which every value is kept as soon as it is there. Another call with the same folder computes
            what is not in it: an interrupted one goes on, and one with more methods, metrics or images adds to it.
        preprocessing: of photographs.
        prefetch: how many groups of images are read ahead.
        progress: a bar that counts images times methods.
        backend_options: for the model's backend.
        **keywords: of all methods given by name, such as `baseline` or `batch_size`; `budget` and `tolerance` of those
            that know them.

    Returns:
        Values, means with intervals, comparisons. What has no value is left out of means, counted and named: an image
        that cannot be read, a map with NaN, a class with probability 0.

    Raises:
        TypeError: if methods or metrics are no such thing.
        ValueError: for unknown names, metrics that need masks and have none, several targets an image, or a folder
            with values of another model.
    """
    adapter = adapt_model(model, backend_options)
    explainers = _explainers(adapter, methods, layer, keywords)
    measures = _distinct([find_metric(each) for each in metrics])
    ground_truth = GroundTruth(masks, preprocessing)
    if masks is None and any(metric.needs_ground_truth for metric in measures):
        needing = ", ".join(metric.name for metric in measures if metric.needs_ground_truth)
        raise InvalidValueError(f"{needing} compare maps with masks of the objects: got none. Give masks=.")
    run = _Run(explainers, measures, ground_truth, Store(None if out is None else Path(out)))
    first = next(iter(explainers.values()))
    size = first.adapter.execution.batch_size if first.batch_size == "auto" else int(first.batch_size)
    groups = read(source, first.adapter, first.masked_input, first.shared, preprocessing, size, run.unreadable)
    wanted, total = SourceTargets(targets), length(source)
    bar = progress_bar(None if total is None else total * len(explainers), "Evaluating", progress)
    with bar as advance, warnings.catch_warnings():
        # They tell of images by their places in a group; what matters of them is among the problems.
        warnings.simplefilter("ignore", EmptyMapWarning)
        for group in prefetched(regrouped(groups, size), prefetch):
            run.group(group, wanted.of(group), advance)
    return run.evaluation(_reference(reference, list(explainers)))


def _explainers(model: Any, methods: Methods, layer: Any, keywords: Mapping[str, Any]) -> dict[str, Explainer]:
    if isinstance(methods, str) or not methods:
        raise InvalidTypeError(f"Methods are a sequence or mapping of one or more: got {methods!r}.")
    named = dict(methods) if isinstance(methods, Mapping) else {_label(each): each for each in methods}
    if len(named) < len(methods):
        raise InvalidValueError("Two methods have one name: give a mapping from what they are to be called.")
    return {label: _explainer(model, each, layer, keywords) for label, each in named.items()}


def _label(method: Any) -> str:
    named = isinstance(method, Explainer) or (inspect.isclass(method) and issubclass(method, Explainer))
    return str(method.name) if named else str(method)


def _explainer(model: Any, method: Any, layer: Any, keywords: Mapping[str, Any]) -> Explainer:
    if isinstance(method, Explainer):
        return method
    given, options = method if isinstance(method, tuple) else (method, {})
    kind = given if inspect.isclass(given) and issubclass(given, Explainer) else find_method(given)
    limits = () if kind.takes_budget else ("budget", "tolerance")
    general = {key: value for key, value in keywords.items() if key not in limits}
    return kind(model, layer, **{**general, **options})


def _distinct(metrics: list[Metric]) -> tuple[Metric, ...]:
    names = [metric.name for metric in metrics]
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        raise InvalidValueError(f"Expected one or more metrics, each kind once, got {names}.")
    return tuple(metrics)


def _reference(asked: str | None, methods: list[str]) -> str:
    if asked is None:
        return "fusion-cam" if "fusion-cam" in methods else methods[0]
    if asked not in methods:
        raise InvalidValueError(f"The reference is one of {', '.join(map(repr, methods))}: got {asked!r}.")
    return asked


class _Run:
    """An evaluation under way.

    Args:
        explainers: by what they are called.
        metrics: to measure.
        ground_truth: the objects' masks.
        store: what is on record.
    """

    def __init__(
        self, explainers: dict[str, Explainer], metrics: tuple[Metric, ...], ground_truth: GroundTruth, store: Store
    ):
        self._explainers = explainers
        self._metrics = metrics
        self._ground_truth = ground_truth
        self._store = store
        # With the label: of an explainer of the user's own the options that are not public cannot be seen.
        self._methods = {label: f"{label}: {fingerprint(each)}" for label, each in explainers.items()}
        self._measures = {metric.name: fingerprint(metric) for metric in metrics}
        self._rows: list[_Row] = []
        self._problems: list[Problem] = []

    def unreadable(self, name: str, reason: str) -> None:
        """A file was no photograph."""
        self._problems.append(Problem(name, None, None, reason))

    def group(self, group: Group, targets: Any, advance: Callable[[int], object]) -> None:
        """Explain and measure some images."""
        first = next(iter(self._explainers.values()))
        inputs = first.prepared(group.inputs)
        rows = self._plain(first, inputs, group, targets)
        self._rows += rows
        for label, explainer in self._explainers.items():
            missing = [
                number
                for number, row in enumerate(rows)
                if any(key not in self._store for key in self._keys(row, label))
            ]
            if missing:
                self._fill(label, explainer, _rows(inputs, missing), [rows[number] for number in missing])
            advance(len(rows))

    def _plain(self, explainer: Explainer, inputs: Inputs, group: Group, targets: Any) -> list[_Row]:
        """The images' targets and probabilities, by one run of the plain images."""
        classes, probabilities = plain_classes(explainer, inputs, targets)
        names = [str(place) if name is None else name for name, place in zip(group.names, group.places, strict=True)]
        rows = [
            _Row(*each) for each in zip(names, digest(inputs), classes.tolist(), probabilities.tolist(), strict=True)
        ]
        for row in rows:
            self._require_the_same_model(row, explainer)
        return rows

    def _require_the_same_model(self, row: _Row, explainer: Explainer) -> None:
        key = Key(row.digest, row.target, "", PLAIN)
        if key in self._store and abs((self._store[key].value or 0) - row.probability) > PROBABILITY_TOLERANCE:
            raise InvalidValueError(
                f"The folder has values of another model: it gave class {row.target} of {row.name!r} the probability "
                f"{self._store[key].value}, and {explainer.adapter.model_name} gives {row.probability}. Give another "
                "folder."
            )
        if key not in self._store:
            self._store.add({key: Entry(row.probability)})

    def _keys(self, row: _Row, label: str) -> Iterator[Key]:
        """The keys of everything that is to be known of an image and a method."""
        for metric in self._metrics:
            yield Key(row.digest, row.target, self._methods[label], self._measure(metric, row))

    def _measure(self, metric: Metric, row: _Row) -> str:
        own = self._measures[metric.name]
        return f"{own} {self._ground_truth.fingerprint(row.name)}" if metric.needs_ground_truth else own

    def _fill(self, label: str, explainer: Explainer, inputs: Inputs, rows: list[_Row]) -> None:
        """Measure images; one by one if something is wrong with one of them."""
        try:
            explanation = explainer._call(inputs, np.asarray([row.target for row in rows]), progress=False)
        except ValueError as error:
            if len(rows) == 1:
                self._problems.append(Problem(rows[0].name, label, None, str(error)))
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
                self._problems += [Problem(row.name, label, metric.name, str(error)) for row in rows]

    def _measured(self, label: str, metric: Metric, explained: ExplainedBatch, rows: list[_Row]) -> None:
        keys = [Key(row.digest, row.target, self._methods[label], self._measure(metric, row)) for row in rows]
        if all(key in self._store for key in keys):
            return
        ground_truth, missing = self._masks(rows, explained.size) if metric.needs_ground_truth else (None, {})
        found = metric.measure(explained, ground_truth)
        entries = dict(zip(keys, _entries(found, metric), strict=True))
        entries |= {keys[number]: Entry(None, reason=reason) for number, reason in missing.items()}
        self._store.add({key: entry for key, entry in entries.items() if key not in self._store})

    def _masks(self, rows: list[_Row], size: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        """(n, *size) the objects' masks; and why some rows have none, whose masks are empty."""
        masks, missing = np.zeros((len(rows), *size), dtype=bool), {}
        for number, row in enumerate(rows):
            try:
                masks[number] = self._ground_truth.of([row.name], size)[0]
            except ValueError as error:
                missing[number] = str(error)
        return masks, missing

    def _note_zeros(self, label: str, explanation: Explanation, rows: list[_Row]) -> None:
        largest = np.abs(to_numpy(explanation.maps)).reshape(len(rows), -1).max(axis=1)
        for row, value in zip(rows, largest, strict=True):
            if value == 0:
                self._problems.append(Problem(row.name, label, None, ZERO))

    def evaluation(self, reference: str) -> Evaluation:
        """What was found."""
        if not self._rows:
            raise InvalidValueError(
                "There is no image to evaluate: the source is empty, or nothing in it could be read."
            )
        shape = (len(self._explainers), len(self._metrics), len(self._rows))
        values = np.full(shape, np.nan)
        problems = list(self._problems)
        curves: dict[str, Values] = {}
        fractions: dict[str, Values] = {}
        for m, label in enumerate(self._explainers):
            for k, metric in enumerate(self._metrics):
                entries = [self._entry(row, label, metric) for row in self._rows]
                for n, (row, entry) in enumerate(zip(self._rows, entries, strict=True)):
                    if entry is not None and entry.value is not None:
                        values[m, k, n] = entry.value
                    elif entry is not None:
                        problems.append(Problem(row.name, label, metric.name, entry.reason or metric.undefined))
                followed = next((entry for entry in entries if entry is not None and entry.fractions), None)
                if followed is not None and followed.fractions is not None:
                    points = fractions.setdefault(metric.name, np.asarray(followed.fractions))
                    own = curves.setdefault(metric.name, np.full((shape[0], shape[2], len(points)), np.nan))
                    own[m] = [_curve(entry, points) for entry in entries]
        first = next(iter(self._explainers.values()))
        return Evaluation(
            model=first.adapter.model_name,
            images=tuple(row.name for row in self._rows),
            targets=np.asarray([row.target for row in self._rows]),
            probabilities=np.asarray([row.probability for row in self._rows]),
            methods=tuple(self._explainers),
            metrics=self._metrics,
            values=values,
            curves=curves,
            fractions=fractions,
            reference=reference,
            problems=tuple(problems),
        )

    def _entry(self, row: _Row, label: str, metric: Metric) -> Entry | None:
        key = Key(row.digest, row.target, self._methods[label], self._measure(metric, row))
        return self._store.get(key)


def plain_classes(
    explainer: Explainer, inputs: Inputs, targets: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The targets (B,) of images, or their top classes, and their probabilities (B,).

    Raises:
        ValueError: if the targets are not one class an image, or one that the model does not have.
    """
    classes = _one_class_an_image(targets, batch_length(inputs))
    outputs = explainer.fitting(lambda: explainer.adapter.forward(inputs), inputs)
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
