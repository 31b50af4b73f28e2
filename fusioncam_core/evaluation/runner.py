"""Explains images by several methods and measures the maps, skipping what a folder already has."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from fusioncam_core.data.prefetching import prefetched
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.data.sources import SourceTargets, length, read, regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidValueError
from fusioncam_core.evaluation.answer import Answer, Subject
from fusioncam_core.evaluation.compared import (
    METHODS,
    Compared,
    EvaluationOptions,
    Methods,
    compared_methods,
    distinct_metrics,
    reference_of,
    refuse_misnamed,
)
from fusioncam_core.evaluation.ground_truth import GroundTruth, Masks
from fusioncam_core.evaluation.keys import KeptKeys, Keys
from fusioncam_core.evaluation.results import Evaluation
from fusioncam_core.evaluation.run import Run
from fusioncam_core.evaluation.store import Store, opened
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.metrics.measures import FAITHFULNESS
from fusioncam_core.metrics.metric import Metric
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.stores.fingerprints import Fingerprints

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
    **keywords: Unpack[EvaluationOptions],
) -> Evaluation:
    """Compare methods on images by metrics.

    Args:
        model: as explainers take it.
        source: images, as `Explainer.explain_many` takes them.
        methods: names, explainers and their classes; or a mapping from what they are to be called to one of these, to
            an array of maps (N, *size), or to a pair of one and options. Maps of any library, in [0, 1], belong to the
            images in their order, with the options of the model. A metric that explains images again
            (`coherency`, `adcc`, `max-sensitivity`) has no value for them.
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
            that know them, and so `percentile`, `contributions` and `variant`, Fusion-CAM's, which Union-CAM has in
            part. One that none of them knows is refused.

    Returns:
        Values, means with intervals, comparisons. What has no value is left out of means, counted and named: an image
        that cannot be read or on which the model does not run, a map with NaN, a class with probability 0.

    Raises:
        TypeError: if methods or metrics are no such thing, or for an argument that there is not; with `out`, for an
            option without a value, and for a model that shows no weights and has no name.
        ValueError: for unknown names, metrics that need masks and have none, masks of which it is not clear whose they
            are, several targets an image, a folder with somebody else's values.jsonl, or with values of another model
            by the same name; for given maps that are not in [0, 1], or not as many or as large as the images.
        FolderInUseError: if another evaluation still fills the folder.
        KeyboardInterrupt: as it came, with a note of how much is kept.

    Examples:
        >>> import torch
        >>> from fusioncam_core import evaluate
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> strips = torch.cat([strip, strip.flip(1, 3)])
        >>> found = evaluate(model, strips, ["grad-cam", "eigen-cam"], ["average-drop"], targets=[0, 1], layer="0")
        >>> found.values[0]  # what grad-cam loses of the probability, of each image
        array([[0., 0.]])
        >>> found.mean("grad-cam", "average-drop")[0] < found.mean("eigen-cam", "average-drop")[0]
        True
    """
    refuse_misnamed(keywords, evaluate)
    adapter, total = adapt_model(model, backend_options), length(source)
    compared = compared_methods(adapter, methods, layer, keywords)
    explainers = compared.explainers
    compared.require_maps(total)
    measures = distinct_metrics(metrics)
    chosen = reference_of(reference, list(explainers))
    ground_truth = ground_truth_of(masks, measures, preprocessing, source)
    keys = Keys(ground_truth)
    if out is not None:
        keys = kept_keys(adapter, model, compared, measures, ground_truth, model_name, backend_options)
    with opened(None if out is None else Path(out), wait) as store, told_of(store, out):
        answer = Answer(Subject.of(compared), measures, store)
        run = Run(compared, measures, ground_truth, keys, answer)
        first = next(iter(explainers.values()))
        size = together(first)
        groups = read(source, first.adapter, first.masked_input, first.shared, preprocessing, size, run.unreadable)
        wanted = SourceTargets(targets)
        bar = progress_bar(None if total is None else total * len(explainers), "Evaluating", progress)
        with bar as advance, warnings.catch_warnings():
            # They tell of images by their places in a group; what matters of them is among the problems.
            warnings.simplefilter("ignore", EmptyMapWarning)
            for group in prefetched(regrouped(groups, lambda _: size), prefetch):
                run.group(group, wanted, advance)
        if total is None:
            compared.require_maps(run.seen)
        return answer.evaluation(chosen)


def together(explainer: Explainer) -> int:
    """How many images are explained and measured together."""
    return explainer.adapter.execution.batch_size if explainer.batch_size == "auto" else int(explainer.batch_size)


def kept_keys(
    adapter: ModelAdapter,
    model: Any,
    compared: Compared,
    metrics: Sequence[Metric],
    ground_truth: GroundTruth,
    model_name: str | None,
    backend_options: Mapping[str, Any] | None,
) -> KeptKeys:
    """The keys of an evaluation in a folder; the model's weights are looked at once.

    Raises:
        TypeError: for an option without a value, or a model that shows no weights and has no name.
    """
    fingerprints = Fingerprints(model_name)
    fingerprints.model(adapter, model)
    return KeptKeys(compared.explainers, metrics, ground_truth, fingerprints, backend_options, compared.given)


@contextlib.contextmanager
def told_of(store: Store, out: str | Path | None) -> Iterator[None]:
    """A context that notes on an interrupt how much is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if out is not None:
            error.add_note(KEPT.format(count=store.count, folder=out))
            error.add_note("The same call goes on from there.")
        raise


def ground_truth_of(
    masks: Masks | None, metrics: Sequence[Metric], preprocessing: Callable[[Any], Any] | None, source: Any
) -> GroundTruth:
    """The masks that were given.

    Raises:
        TypeError, ValueError: if they are none, or metrics need them and there are none.
    """
    needing = ", ".join(metric.name for metric in metrics if metric.needs_ground_truth)
    if masks is None and not needing:
        return GroundTruth(None)
    if masks is None:
        raise InvalidValueError(f"{needing} compare maps with masks of the objects: got none. Give masks=.")
    return GroundTruth(masks, preprocessing, source)
