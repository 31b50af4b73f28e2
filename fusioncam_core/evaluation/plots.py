"""An evaluation as pictures: where the methods stand, how they differ image by image, and the mean curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.evaluation.curves import mean_curve
from fusioncam_core.evaluation.tables import ALPHA
from fusioncam_core.results.figures import blank_page, png
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fusioncam_core.evaluation.results import Evaluation
    from fusioncam_core.evaluation.statistics import Interval
    from fusioncam_core.metrics.metric import Metric

COLUMNS = 2
_WIDTH = 4.2  # inches of a panel
_LINE = 0.24  # of a method in the ranking
_HEAD = 0.95  # above and below them
_TITLE = 0.25  # the figure's own
_CURVES = 3.2  # the height of a panel of curves
_FONT = 8.0


_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "X", "P")
"""Their periods have no common divisor: 28 lines that differ without colours."""


def ranking_png(evaluation: Evaluation) -> bytes:
    """A panel for each metric: the methods from the best to the worst, means with their 95 % intervals."""
    rows = math.ceil(len(evaluation.metrics) / COLUMNS)
    figure = _figure(rows, _HEAD + _LINE * len(evaluation.methods), _sentence(evaluation, "means"))
    for axes, metric in zip(_panels(figure, rows, len(evaluation.metrics)), evaluation.metrics, strict=True):
        order = evaluation.ranking(metric.name)[::-1]
        for place, method in enumerate(order):
            _mean_with_interval(axes, evaluation.mean(method, metric.name), place, method == evaluation.reference)
        _rows_of_methods(axes, evaluation, metric, order)
        axes.set_xlabel(metric.title, fontsize=_FONT)
    return png(figure, "evaluation")


def differences_png(evaluation: Evaluation) -> bytes:
    """A panel for each metric: every image's difference from the reference, and their means with 95 % intervals.

    A star stands where the p-value, corrected for all comparisons, is below 0.05.
    """
    rows, p_values = math.ceil(len(evaluation.metrics) / COLUMNS), evaluation.p_values()
    reference = _title(evaluation, evaluation.reference)
    heading = f"{_sentence(evaluation, 'paired differences')}; * p < {ALPHA} (Holm)"
    figure = _figure(rows, _HEAD + _LINE * (len(evaluation.methods) - 1), heading)
    for axes, metric in zip(_panels(figure, rows, len(evaluation.metrics)), evaluation.metrics, strict=True):
        order = [method for method in evaluation.ranking(metric.name)[::-1] if method != evaluation.reference]
        axes.axvline(0, color="0.4", linewidth=0.8)
        for place, method in enumerate(order):
            differences = evaluation.of(method, metric.name) - evaluation.of(evaluation.reference, metric.name)
            axes.plot(differences, np.full(len(differences), place), "|", color="0.65", markersize=7)
            _mean_with_interval(axes, evaluation.against(method, metric.name).difference, place, emphasis=True)
        stars = [" *" if p_values[method, metric.name] < ALPHA else "" for method in order]
        _rows_of_methods(axes, evaluation, metric, order, stars)
        axes.set_xlabel(f"{metric.title}, less that of {reference}", fontsize=_FONT)
    return png(figure, "evaluation")


def curves_png(evaluation: Evaluation) -> bytes:
    """A panel for each metric that follows curves: every method's mean over the images."""
    rows = math.ceil(len(evaluation.curves) / COLUMNS)
    figure = _figure(rows, _CURVES, _sentence(evaluation, "mean curves", intervals=False))
    metrics = [metric for metric in evaluation.metrics if metric.name in evaluation.curves]
    for axes, metric in zip(_panels(figure, rows, len(metrics)), metrics, strict=True):
        for number, method in enumerate(evaluation.methods):
            mean = mean_curve(evaluation.curves, metric.name, number)
            points = evaluation.fractions[metric.name]
            axes.plot(points, mean, label=_title(evaluation, method), **_style(number, len(points)))
        axes.set_title(_heading(metric), fontsize=_FONT + 1)
        for name, set_label in zip(metric.axes, (axes.set_xlabel, axes.set_ylabel), strict=True):
            set_label(name, fontsize=_FONT)
        axes.tick_params(labelsize=_FONT)
        axes.legend(fontsize=_FONT - 1, frameon=False, handlelength=4)
    return png(figure, "evaluation")


def _style(number: int, points: int) -> dict[str, Any]:
    """Dashes and a few markers, at other places on each line: colours alone are lost in grey print."""
    every = max(1, points // 6)
    return {
        "color": f"C{number % 10}",
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markevery": (number % every, every),
        "markersize": 3.5,
        "linewidth": 1.2,
    }


def _mean_with_interval(axes: Any, found: Interval, place: int, emphasis: bool) -> None:
    """A thick line and a dot; the reference's in colour, with a diamond."""
    axes.plot([found.low, found.high], [place, place], color="C0" if emphasis else "0.6", linewidth=2)
    axes.plot(found.mean, place, "D" if emphasis else "o", color="C0" if emphasis else "0.2", markersize=4)


def _rows_of_methods(
    axes: Any, evaluation: Evaluation, metric: Metric, order: list[str], endings: Sequence[str] = ()
) -> None:
    """A row for each method, with its title."""
    titles = [_title(evaluation, method) for method in order]
    ends = endings or [""] * len(order)
    axes.set_yticks(range(len(order)), [f"{title}{end}" for title, end in zip(titles, ends, strict=True)])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_title(_heading(metric), fontsize=_FONT + 1)
    axes.tick_params(labelsize=_FONT)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _heading(metric: Metric) -> str:
    return f"{metric.title}: {metric.better} is better"


def _sentence(evaluation: Evaluation, what: str, *, intervals: bool = True) -> str:
    """What a figure shows, of which model and how many images."""
    count = len(evaluation.images)
    ends = " with 95 % intervals" if intervals else ""
    few = "; few images: read with care" if evaluation.warnings else ""
    return f"{_as_text(evaluation.model)}, {count} image{'' if count == 1 else 's'}: {what}{ends}{few}"


def _title(evaluation: Evaluation, method: str) -> str:
    return _as_text(evaluation.titles.get(method, method))


def _as_text(label: str) -> str:
    """A method's label as matplotlib is to show it: no formula between dollars, and not left out for a first "_"."""
    return " " * label.startswith("_") + visible(label).replace("$", r"\$")


def _figure(rows: int, height: float, heading: str) -> Figure:
    figure = blank_page(figsize=(COLUMNS * _WIDTH, rows * height + _TITLE), dpi=150, layout="constrained")
    figure.suptitle(heading, fontsize=_FONT + 1)
    return figure


def _panels(figure: Figure, rows: int, count: int) -> list[Any]:
    """So many axes, and what is left of the grid empty."""
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]
