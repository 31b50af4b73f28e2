"""Explains images by several methods and measures the maps, skipping what a folder already has."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, indices_like, to_numpy
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.data.sources import Group, SourceTargets, length, prefetched, read, regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidTypeError, InvalidValueError
from fusioncam_core.evaluation.fingerprints import Fingerprints
from fusioncam_core.evaluation.ground_truth import GroundTruth, Masks
from fusioncam_core.evaluation.keys import KeptKeys, Keys, Row
from fusioncam_core.evaluation.results import Evaluation, Problem, Values
from fusioncam_core.evaluation.store import PROBABILITY_TOLERANCE, Entry, Store, opened
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

ZERO = "the map is zero everywhere (its values count)"

KEPT = "{count} values are kept in {folder}"
"""What an interrupt is told with first."""

WAIT = 600.0
"""Seconds for which another evaluation is waited for that fills the folder: what a few hundred images take."""


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
    model_name: str | None = None,
    wait: float = WAIT,
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
        masks: of the objects, for metrics that compare with them: (N, *size), in the order of the images; or, by
            names, a mapping to (*size) arrays or a folder of pictures. A photograph's mask is called like its path in
            its folder, with or without the ending, such as "cat/001"; or has the same name, if that is no other mask's
            and no other photograph's. Other images have their numbers, as text.
        out: a folder in which every value is kept as soon as it is there. Another call with the same folder computes
            what is not in it: an interrupted one goes on, and one with more methods, metrics or images adds to it.
            Values are kept by all that they depend on: the image, its target and mask, all arguments of method and
            metric, the model's weights and this library's version. So every option needs a value: a closure gets one by
            `fusioncam_core.evaluation.named`. A file called values.jsonl that is no evaluation's is refused.
        preprocessing: of photographs.
        prefetch: how many groups of images are read ahead.
        progress: a bar that counts images times methods.
        backend_options: for the model's backend.
        model_name: with `out`, of a model that shows no weights, such as a function: what its values are kept by.
            Another one whenever the model changes.
        wait: with `out`, for how many seconds another evaluation that fills the folder is waited for.
        **keywords: of all methods given by name, such as `baseline` or `batch_size`; `budget` and `tolerance` of those
            that know them.

    Returns:
        Values, means with intervals, comparisons. What has no value is left out of means, counted and named: an image
        that cannot be read or on which the model does not run, a map with NaN, a class with probability 0.

    Raises:
        TypeError: if methods or metrics are no such thing; with `out`, for an option without a value, and for a model
            that shows no weights and has no name.
        ValueError: for unknown names, metrics that need masks and have none, masks of which it is not clear whose they
            are, several targets an image, a folder with somebody else's values.jsonl, or with values of another model
            by the same name.
        FolderInUseError: if another evaluation still fills the folder.
        KeyboardInterrupt: as it came, with a note of how much is kept.
    """
    adapter = adapt_model(model, backend_options)
    explainers = _explainers(adapter, methods, layer, keywords)
    measures = _distinct([find_metric(each) for each in metrics])
    compared = _reference(reference, list(explainers))
    ground_truth = _ground_truth(masks, measures, preprocessing, source)
    keys = Keys(ground_truth)
    if out is not None:
        fingerprints = Fingerprints(model_name)
        fingerprints.model(adapter, model)
        keys = KeptKeys(explainers, measures, ground_truth, fingerprints, backend_options)
    with opened(None if out is None else Path(out), wait) as store, _told_of(store, out):
        run = _Run(explainers, measures, ground_truth, store, keys)
        first = next(iter(explainers.values()))
        size = first.adapter.execution.batch_size if first.batch_size == "auto" else int(first.batch_size)
        groups = read(source, first.adapter, first.masked_input, first.shared, preprocessing, size, run.unreadable)
        wanted, total = SourceTargets(targets), length(source)
        bar = progress_bar(None if total is None else total * len(explainers), "Evaluating", progress)
        with bar as advance, warnings.catch_warnings():
            # They tell of images by their places in a group; what matters of them is among the problems.
            warnings.simplefilter("ignore", EmptyMapWarning)
            for group in prefetched(regrouped(groups, size), prefetch):
                run.group(group, wanted, advance)
        return run.evaluation(compared)


@contextlib.contextmanager
def _told_of(store: Store, out: str | Path | None) -> Iterator[None]:
    """A context that notes on an interrupt how much is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if out is not None:
            error.add_note(KEPT.format(count=store.count, folder=out))
            error.add_note("The same call goes on from there.")
        raise


def _ground_truth(
    masks: Masks | None, metrics: Sequence[Metric], preprocessing: Callable[[Any], Any] | None, source: Any
) -> GroundTruth:
    needing = ", ".join(metric.name for metric in metrics if metric.needs_ground_truth)
    if masks is None and not needing:
        return GroundTruth(None)
    if masks is None:
        raise InvalidValueError(f"{needing} compare maps with masks of the objects: got none. Give masks=.")
    return GroundTruth(masks, preprocessing, source)


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
        method.require_usual("Methods are compared by")
        return method
    given, options = method if isinstance(method, tuple) else (method, {})
    kind = given if inspect.isclass(given) and issubclass(given, Explainer) else find_method(given)
    limits = () if kind.takes_budget else ("budget", "tolerance")
    general = {key: value for key, value in keywords.items() if key not in limits}
    return _explainer(model, kind(model, layer, **{**general, **options}), layer, keywords)


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
        keys: of values.
    """

    def __init__(
        self,
        explainers: dict[str, Explainer],
        metrics: tuple[Metric, ...],
        ground_truth: GroundTruth,
        store: Store,
        keys: Keys,
    ):
        self._explainers = explainers
        self._metrics = metrics
        self._ground_truth = ground_truth
        self._store = store
        self._keys = keys
        self._rows: list[Row] = []
        self._problems: list[Problem] = []
        self._failure: ValueError | None = None

    def unreadable(self, name: str, reason: str) -> None:
        """A file was no photograph."""
        self._problems.append(_problem(name, None, None, reason))

    def group(self, group: Group, targets: SourceTargets, advance: Callable[[int], object]) -> None:
        """Explain and measure some images; one by one if the model does not run on one of them."""
        asked = _one_class_an_image(targets.of(group), len(group.names))
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
        rows = self._plain(first, inputs, plain_classes(first, inputs, outputs, asked), group)
        self._rows += rows
        for label, explainer in self._explainers.items():
            missing = [number for number, row in enumerate(rows) if self._is_missing(row, label)]
            if missing:
                self._fill(label, explainer, _rows(inputs, missing), [rows[number] for number in missing])
            advance(len(rows))

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
            explanation = explainer._call(inputs, np.asarray([row.target for row in rows]), progress=False)
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
