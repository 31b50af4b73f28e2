"""The figure of docs/study.md: by how much one method is better than others, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study import cells, recorded, tables
from benchmarks.study.recorded import Recorded
from fusioncam_core.evaluation.statistics import compare

SUBJECTS = ("photographs, Lite0", "photographs, Lite2", "garments, ResNet8", "garments, tiny ViT")
COLOURS = ("#1b6ca8", "#d1751f", "#4d8f4a", "#8a4f9e")
LIMITS = {
    "insertion": (-0.075, 0.1),
    "deletion": (-0.06, 0.06),
    "adcc": (-0.05, 0.2),
    "drop at held complexity": (-0.1, 0.25),
}
"""The metrics that are shown, and how far; what lies beyond is an arrow at the edge."""


def panels() -> dict[str, Recorded]:
    """The values of each network, by what the figure calls it."""
    found = (
        tables.photographs("lite0"),
        tables.photographs("lite2"),
        recorded.read("resnet8"),
        recorded.read("tiny_vit"),
    )
    return dict(zip(SUBJECTS, found, strict=True))


def draw(stem: Path) -> None:
    """Write the figure as `stem`.svg: a panel for each metric, a row for each rival, a mark for each network."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(
        {"svg.hashsalt": "study", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, axes = plt.subplots(1, len(LIMITS), figsize=(11, 3.6), sharey=True, layout="constrained")
        networks = panels()
        for place, metric in enumerate(LIMITS):
            _panel(axes[place], networks, metric)
        axes[0].set_yticks(range(len(cells.RIVALS)), cells.RIVALS)
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(f"How much better than each rival is {cells.SUBJECT}? Right of the line: better.", fontsize=10)
        stem.parent.mkdir(exist_ok=True)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)


def _panel(axes: Any, networks: dict[str, Recorded], metric: str) -> None:
    axes.axvline(0, color="0.4", linewidth=0.8)
    low, high = LIMITS[metric]
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=4)  # more would touch each other
    for number, (name, found) in enumerate(networks.items()):
        means, ends = advantages(found, metric)
        heights = np.arange(len(means)) + (number - 1.5) * 0.18
        colour, inside = COLOURS[number], np.asarray(means) < high
        lows, highs = np.clip(np.asarray(ends), low, high).T
        axes.hlines(heights[inside], lows[inside], highs[inside], color=colour, linewidth=1.6)
        axes.plot(
            np.asarray(means)[inside], heights[inside], "o", color=colour, markersize=3.5, label=_named(name, found)
        )
        beyond = axes.plot(
            np.full((~inside).sum(), high), heights[~inside], ">", color=colour, markersize=5, clip_on=False
        )
        beyond[0].set_in_layout(False)
    axes.set_title(cells.TITLES[metric], fontsize=9)


def _named(name: str, found: Recorded) -> str:
    return f"{name} (n = {len(found.names)})"


def advantages(found: Recorded, metric: str) -> tuple[list[float], Sequence[tuple[float, float]]]:
    """By rival, the mean by which the subject is better, and the interval of 95 %."""
    sign = -1 if metric in cells.LOWER else 1
    means, ends = [], []
    for rival in cells.RIVALS:
        each = compare(found.of(cells.SUBJECT, metric), found.of(rival, metric), cells.better(metric)).difference
        means.append(sign * each.mean)
        ends.append((each.low, each.high) if sign > 0 else (-each.high, -each.low))
    return means, ends
