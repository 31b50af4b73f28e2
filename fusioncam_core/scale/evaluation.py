"""`evaluate` on Ray: workers explain and measure pieces of the source, and this process alone keeps the values."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.prefetching import prefetched
from fusioncam_core.data.progress import Steps, progress_bar
from fusioncam_core.data.sources import (
    Group,
    SourceTargets,
    Unreadable,
    images_in,
    length,
    named,
    read_named,
    regrouped,
)
from fusioncam_core.errors import EmptyMapWarning
from fusioncam_core.evaluation.answer import Answer, Subject
from fusioncam_core.evaluation.compared import (
    METHODS,
    EvaluationOptions,
    Methods,
    compared_methods,
    distinct_metrics,
    reference_of,
    refuse_misnamed,
)
from fusioncam_core.evaluation.ground_truth import GroundTruth, Masks
from fusioncam_core.evaluation.index import Known
from fusioncam_core.evaluation.keys import Keys
from fusioncam_core.evaluation.notes import Collected, Notes
from fusioncam_core.evaluation.results import Evaluation
from fusioncam_core.evaluation.run import Run
from fusioncam_core.evaluation.runner import WAIT, ground_truth_of, kept_keys, together, told_of
from fusioncam_core.evaluation.store import Store, opened
from fusioncam_core.extras import require
from fusioncam_core.metrics.measures import FAITHFULNESS
from fusioncam_core.metrics.metric import Metric
from fusioncam_core.models.inputs import Inputs, map_leaves
from fusioncam_core.models.steps import skip
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.scale.workers import PURPOSE, Workers

PIECE = 64
"""Images that a worker has at once: what is computed again if it dies."""


def evaluate_on_ray(
    factory: Callable[[], Any],
    source: Any,
    methods: Methods = METHODS,
    metrics: Sequence[str | Metric | type[Metric]] = FAITHFULNESS,
    targets: Any = None,
    *,
    workers: int = 2,
    gpus_per_worker: float = 0,
    address: str | None = None,
    piece: int = PIECE,
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
    **keywords: Unpack[EvaluationOptions],
) -> Evaluation:
    """`evaluate` by several workers of a Ray cluster, each with a model of its own.

    With `out` the values are those of `evaluate`: what was begun on one machine goes on on Ray, and the reverse.

    Args:
        factory: returns the model, as `evaluate` takes it; it is called once on each worker, and travels there by
            pickle, as all other arguments do.
        source: as for `evaluate`. It is read here, but for photographs: their paths travel, and have to be files there.
        methods: as for `evaluate`, and so are all arguments that are not listed here.
        metrics: likewise.
        targets: likewise.
        workers: how many.
        gpus_per_worker: 0 for none, a fraction for workers that share one.
        address: of a cluster; None for that which this process or `RAY_ADDRESS` names, and else for one that is started
            on this machine, and ended.
        piece: images that a worker has at once; those of a worker that dies are given to another one.
        layer: as for `evaluate`.
        reference: likewise.
        masks: likewise. They are read on the workers.
        out: likewise. It is filled by this process alone.
        preprocessing: as for `evaluate`.
        prefetch: how many pieces are read ahead.
        progress: as for `evaluate`.
        backend_options: likewise.
        model_name: likewise.
        wait: likewise.
        **keywords: likewise.

    Returns:
        What `evaluate` gives: values differ by rounding, since images run in other groups.

    Raises:
        WorkerError: if several workers died over one piece, or the model's code raised what is no error of ours.
        MissingExtra: if Ray is not installed.
        TypeError, ValueError, FolderInUseError, KeyboardInterrupt: as of `evaluate`.
    """
    refuse_misnamed(keywords, evaluate_on_ray)
    require("ray", PURPOSE, "ray")
    measures = distinct_metrics(metrics)
    ground_truth = ground_truth_of(masks, measures, preprocessing, source)
    size, total = require_count(piece, "piece"), length(source)
    with opened(None if out is None else Path(out), wait) as store, told_of(store, out):
        task = _Task(
            factory,
            methods,
            measures,
            targets,
            layer,
            keywords,
            backend_options,
            ground_truth,
            preprocessing,
            out is not None,
            model_name,
            total,
            store.known(),
        )
        loading = functools.partial(_Loaded, task)
        with Workers(loading, workers=workers, gpus_per_worker=gpus_per_worker, address=address) as found:
            return _Driver(found, store, measures, source, size, total).evaluation(reference, prefetch, progress)


@dataclass(frozen=True)
class _Task:
    """What a worker is told once."""

    factory: Callable[[], Any]
    methods: Methods
    metrics: tuple[Metric, ...]
    targets: Any
    layer: Any
    keywords: Mapping[str, Any]
    backend_options: Mapping[str, Any] | None
    ground_truth: GroundTruth
    preprocessing: Callable[[Any], Any] | None
    kept: bool
    model_name: str | None
    total: int | None
    known: Known


class _Part(NamedTuple):
    """Neighbours in a source: batches and None, or files and their names.

    Attributes:
        number: the parts before it.
        start: the place of its first image.
        pairs: as `fusioncam_core.data.sources.named` gives them.
    """

    number: int
    start: int
    pairs: list[tuple[Any, str | None]]


class _Found(NamedTuple):
    """What a worker found of a part: what it noted, the steps of progress, and how far the source goes."""

    told: list[tuple[str, tuple[Any, ...]]]
    done: int
    skipped: int
    seen: int


class _Described(NamedTuple):
    """What the driver, which has no model, has to know of it."""

    subject: Subject
    masked_input: Any
    shared: Sequence[Any]


class _Loaded:
    """The model on a worker, with methods and keys."""

    def __init__(self, task: _Task):
        model = task.factory()
        adapter = adapt_model(model, task.backend_options)
        self.task = task
        self.compared = compared_methods(adapter, task.methods, task.layer, task.keywords)
        self.compared.require_maps(task.total)
        self.keys = Keys(task.ground_truth)
        if task.kept:
            self.keys = kept_keys(
                adapter, model, self.compared, task.metrics, task.ground_truth, task.model_name, task.backend_options
            )
        self.first = next(iter(self.compared.explainers.values()))
        self.targets = SourceTargets(task.targets)

    def groups(self, part: _Part, unreadable: Unreadable) -> Iterator[Group]:
        """The images of a part."""
        first, preprocessing = self.first, self.task.preprocessing
        shared = first.shared
        return read_named(
            part.pairs, first.adapter, first.masked_input, shared, preprocessing, unreadable, place=part.start
        )

    @property
    def finds_layers(self) -> bool:
        """Whether a method has not found the layer that it explains."""
        return any(each.layer_names is None for each in self.compared.explainers.values())

    def explains(self, image: Inputs) -> bool:
        """Whether all methods that find their layers can explain the image, by which they have found them."""
        try:
            inputs = self.first.prepared(image)
            for each in self.compared.explainers.values():
                if each.layer_names is None:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", EmptyMapWarning)
                        each._call(inputs, None, progress=False)
        except ValueError:  # of this image; another one is tried, and it is told of when it is measured
            return False
        return True


def _describe(loaded: _Loaded, _: None) -> _Described:
    first = loaded.first
    return _Described(Subject.of(loaded.compared), first.masked_input, first.shared)


def _require_maps(loaded: _Loaded, images: int) -> None:
    loaded.compared.require_maps(images)


def _begin(loaded: _Loaded, part: _Part) -> Inputs | None:
    """The first image that all methods can explain, if there are layers to be found; None if there are none."""
    if not loaded.finds_layers:
        return None
    groups = loaded.groups(part, lambda *_: None)
    images = (group.rows(number, number + 1).inputs for group in groups for number in range(len(group.names)))
    return next((map_leaves(to_numpy, image) for image in images if loaded.explains(image)), None)


def _measure(loaded: _Loaded, part: _Part, begin: Inputs | None) -> _Found:
    """Explain and measure a part, but for what is known.

    Args:
        loaded: on this worker.
        part: of the source.
        begin: an image by which all workers find the same layers.
    """
    task, steps, notes = loaded.task, _Counted(), Notes(loaded.task.known)
    if begin is not None and loaded.finds_layers:
        loaded.explains(begin)
    run = Run(loaded.compared, task.metrics, task.ground_truth, loaded.keys, notes)
    size = together(loaded.first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyMapWarning)
        for group in regrouped(loaded.groups(part, run.unreadable), lambda _: size):
            run.group(group, loaded.targets, steps)
    return _Found(notes.told, steps.done, steps.skipped, run.seen)


class _Counted(Steps):
    """Steps of progress, for whoever shows it."""

    def __init__(self) -> None:
        self.done = self.skipped = 0

    def __call__(self, steps: int) -> None:
        self.done += steps

    def skip(self, steps: int) -> None:
        self.skipped += steps


class _Driver:
    """Hands out parts of a source, and collects what comes of them."""

    def __init__(
        self,
        workers: Workers[_Loaded],
        store: Store,
        metrics: tuple[Metric, ...],
        source: Any,
        size: int,
        total: int | None,
    ):
        self._workers, self._store, self._metrics = workers, store, metrics
        self._source, self._size, self._total = source, size, total

    def evaluation(self, reference: str | None, prefetch: int, progress: bool | None) -> Evaluation:
        described = self._workers.first(_describe, None)
        methods = described.subject.methods
        chosen = reference_of(reference, methods)
        answer = Answer(described.subject, self._metrics, self._store)
        collected, seen = Collected(answer), 0
        bar = progress_bar(None if self._total is None else self._total * len(methods), "Evaluating", progress)
        ahead = prefetched(self._parts(described), prefetch)
        with bar as advance, contextlib.closing(ahead):
            first = next(ahead, None)
            begin = None if first is None else self._workers.first(_begin, first)
            measure = functools.partial(_measure, begin=begin)
            for part, found in self._workers.each(measure, itertools.chain([] if first is None else [first], ahead)):
                collected.take(part.number, found.told)
                seen = max(seen, found.seen)
                advance(found.done)
                skip(advance, found.skipped)
        if self._total is None:
            self._workers.first(_require_maps, seen)
        return answer.evaluation(chosen)

    def _parts(self, described: _Described) -> Iterator[_Part]:
        """The source in parts of so many images, or of one batch where those are larger."""
        start = 0
        numbers = itertools.count()
        for pairs, count in self._gathered(described):
            yield _Part(next(numbers), start, pairs)
            start += count

    def _gathered(self, described: _Described) -> Iterator[tuple[list[tuple[Any, str | None]], int]]:
        pairs: list[tuple[Any, str | None]] = []
        count = 0
        for batch, name in named(self._source, self._size):
            pairs.append((batch, name))
            count += 1 if name is not None else images_in(batch, described.masked_input, described.shared)
            if count >= self._size:
                yield pairs, count
                pairs, count = [], 0
        if pairs:
            yield pairs, count
