"""Cells and rows of the study's tables: means with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.report import table
from benchmarks.study import recorded
from benchmarks.study.recorded import Recorded
from fusioncam_core.evaluation.statistics import Comparison, compare, holm, interval

LOWER = {"average-drop", "deletion", "complexity", "drop at held complexity"}
"""Metrics of which less is better; of all others more."""

TITLES = {
    "average-drop": "Average drop",
    "average-increase": "Average increase",
    "insertion": "Insertion",
    "deletion": "Deletion",
    "complexity": "Complexity",
    "road": "ROAD",
    "drop at held complexity": "Drop at held complexity",
    "coherency": "Coherency",
    "adcc": "ADCC",
    "pointing-game": "Pointing game",
    "energy-in-mask": "Energy in the mask",
    "mask-auc": "Mask AUC",
    "pointing game": "Pointing game",
    "energy in the mask": "Energy in the mask",
    "share of the right object": "Share of the right object",
    "share of the own cell": "Share of the own cell",
}

SUBJECT = "fusion-cam united"
"""What is held against the others: the form that was chosen."""

RIVALS = ("grad-cam", "layer-cam", "score-cam", "group-cam", "fusion-cam")

CONTROLS = ("ones", "centre")
"""Maps that ask no network: the best of them is never in bold."""


def better(metric: str) -> str:
    """ "lower" or "higher"."""
    return "lower" if metric in LOWER else "higher"


def mean(values: np.ndarray, *, bold: bool = False, digits: int = 3) -> str:
    """The mean with its interval."""
    found = interval(values)
    if not found.n:
        return ""
    strong = "**" if bold else ""
    return f"{strong}{found.mean:.{digits}f}{strong} ({found.low:.2f} to {found.high:.2f})"


def means(found: Recorded, metrics: Sequence[str], methods: Sequence[str] | None = None) -> Iterator[str]:
    """A method a row, a metric a column, the best mean of each in bold."""
    rows = found.methods if methods is None else methods
    metrics = [metric for metric in metrics if metric in found.metrics]
    best = {metric: best_of(found, metric, [each for each in rows if each not in CONTROLS]) for metric in metrics}
    heads = [f"{TITLES[metric]} ({'↓' if metric in LOWER else '↑'})" for metric in metrics]
    cells = (
        (method, *(mean(found.of(method, metric), bold=best[metric] == method) for metric in metrics))
        for method in rows
    )
    yield from table(("method", *heads), cells)
    yield f"n: {counts(found, metrics, rows)}."


def counts(found: Recorded, metrics: Sequence[str], methods: Sequence[str]) -> str:
    """How many images there are, and of which metrics fewer."""
    known = {metric: int(max((~np.isnan(found.of(method, metric))).sum() for method in methods)) for metric in metrics}
    few = [f"{number} for {TITLES[metric].lower()}" for metric, number in known.items() if number < len(found.names)]
    return "; ".join([str(len(found.names)), *few])


def best_of(found: Recorded, metric: str, methods: Sequence[str]) -> str:
    """The method of the best mean."""
    sign = 1 if metric in LOWER else -1
    defined = [each for each in methods if not np.isnan(found.of(each, metric)).all()]
    return min(defined, key=lambda method: sign * float(np.nanmean(found.of(method, metric))), default="")


def against(
    found: Recorded, subject: str, rivals: Sequence[str], metrics: Sequence[str]
) -> dict[tuple[str, str], tuple[Comparison, float]]:
    """By rival and metric, the paired difference, and its p-value corrected for all of these."""
    pairs = {
        (rival, metric): compare(found.of(subject, metric), found.of(rival, metric), better(metric))
        for rival in rivals
        for metric in metrics
        if metric in found.metrics
    }
    corrected = holm([each.p for each in pairs.values()])
    return {key: (each, p) for (key, each), p in zip(pairs.items(), corrected, strict=True)}


def versus(found: Recorded, metrics: Sequence[str], subject: str = SUBJECT) -> Iterator[str]:
    """The subject less each rival, image by image, with intervals and p-values; in bold what is better, beyond 0."""
    rivals = [each for each in RIVALS if each in found.methods and each != subject]
    metrics = [metric for metric in metrics if metric in found.metrics]
    pairs = against(found, subject, rivals, metrics)
    heads = [f"{TITLES[metric]} ({'↓' if metric in LOWER else '↑'})" for metric in metrics]
    rows = ((rival, *(difference(*pairs[rival, metric], metric) for metric in metrics)) for rival in rivals)
    yield f"{subject} less:"
    yield ""
    yield from table(("", *heads), rows)
    yield f"n: {counts(found, metrics, [subject, *rivals])}. In brackets: the interval of 95 %, and Holm's p."


def changed(part: str, reference: str, names: Callable[[str], bool], metrics: Sequence[str]) -> Iterator[str]:
    """Each form less the reference, image by image."""
    found = recorded.read(part)
    methods = [each for each in found.methods if names(each) and each != reference]
    pairs = {
        (method, metric): compare(found.of(method, metric), found.of(reference, metric), better(metric))
        for method in methods
        for metric in metrics
    }
    corrected = dict(zip(pairs, holm([each.p for each in pairs.values()]), strict=True))
    heads = [f"{TITLES[metric]} ({'↓' if metric in LOWER else '↑'})" for metric in metrics]
    first = (f"{reference}, as it is", *(mean(found.of(reference, metric)) for metric in metrics))
    rows = [
        (each, *(difference(pairs[each, metric], corrected[each, metric], metric) for metric in metrics))
        for each in methods
    ]
    yield from table((f"less {reference}", *heads), [first, *rows])
    yield f"n: {len(found.names)}. In brackets: the interval of 95 %, and Holm's p."


def difference(found: Comparison, p: float, metric: str) -> str:
    """A cell of `versus`."""
    each = found.difference
    if not each.n:
        return ""
    clear = each.high < 0 if metric in LOWER else each.low > 0
    strong = "**" if clear else ""
    words = f"p {p:.3f}" if p >= 0.001 else "p < .001"
    return f"{strong}{each.mean:+.3f}{strong} ({each.low:+.3f} to {each.high:+.3f}; {words})"
