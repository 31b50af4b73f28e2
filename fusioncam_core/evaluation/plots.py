"""An evaluation as pictures: where the methods stand by each metric, and the mean curves."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.results.figures import png
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fusioncam_core.evaluation.results import Evaluation

COLUMNS = 2
_WIDTH = 4.2  # inches of a panel
_LINE = 0.24  # of a method in the ranking
_HEAD = 0.75  # above and below them
_CURVES = 3.2  # the height of a panel of curves
_FONT = 8.0


def ranking_png(evaluation: Evaluation) -> bytes:
    """A panel for each metric: the methods from the best to the worst, means with their 95 % intervals."""
    rows = math.ceil(len(evaluation.metrics) / COLUMNS)
    figure = _figure(rows, _HEAD + _LINE * len(evaluation.methods))
    for axes, metric in zip(_panels(figure, rows, len(evaluation.metrics)), evaluation.metrics, strict=True):
        order = evaluation.ranking(metric.name)[::-1]
        for place, method in enumerate(order):
            found = evaluation.mean(method, metric.name)
            emphasis = method == evaluation.reference
            axes.plot([found.low, found.high], [place, place], color="C0" if emphasis else "0.6", linewidth=2)
            axes.plot(found.mean, place, "o", color="C0" if emphasis else "0.2", markersize=4)
        axes.set_yticks(range(len(order)), [_as_text(method) for method in order])
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_title(f"{metric.title}: {metric.better} is better", fontsize=_FONT + 1)
        axes.tick_params(labelsize=_FONT)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    return png(figure, "evaluation")


def curves_png(evaluation: Evaluation) -> bytes:
    """A panel for each metric that follows curves: every method's mean over the images."""
    rows = math.ceil(len(evaluation.curves) / COLUMNS)
    figure = _figure(rows, _CURVES)
    metrics = [metric for metric in evaluation.metrics if metric.name in evaluation.curves]
    for axes, metric in zip(_panels(figure, rows, len(metrics)), metrics, strict=True):
        for number, method in enumerate(evaluation.methods):
            with warnings.catch_warnings():  # a method without a single value has no curve
                warnings.simplefilter("ignore", RuntimeWarning)
                mean = np.nanmean(evaluation.curves[metric.name][number], axis=0)
            style = "-" if number < 10 else "--"
            axes.plot(evaluation.fractions[metric.name], mean, style, label=_as_text(method), linewidth=1.2)
        axes.set_title(f"{metric.title}: {metric.better} is better", fontsize=_FONT + 1)
        axes.set_xlabel("share of the pixels", fontsize=_FONT)
        axes.set_ylabel("probability", fontsize=_FONT)
        axes.tick_params(labelsize=_FONT)
        axes.legend(fontsize=_FONT - 1, frameon=False)
    return png(figure, "evaluation")


def _as_text(label: str) -> str:
    """A method's label as matplotlib is to show it: no formula between dollars, and not left out for a first "_"."""
    return " " * label.startswith("_") + visible(label).replace("$", r"\$")


def _figure(rows: int, height: float) -> Figure:
    figure: Figure = require("matplotlib.figure", "Drawing pictures").Figure(
        figsize=(COLUMNS * _WIDTH, rows * height), dpi=150, layout="constrained"
    )
    return figure


def _panels(figure: Figure, rows: int, count: int) -> list[Any]:
    """So many axes, and what is left of the grid empty."""
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]
