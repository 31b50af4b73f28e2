"""The figure of docs/study.md: by how much one method is better than others, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study import recorded, tables
from benchmarks.study.recorded import Recorded
from fusioncam_core.evaluation.statistics import compare

SUBJECTS = ("photographs, Lite0", "photographs, Lite2", "garments, ResNet8", "garments, tiny ViT")
COLOURS = ("#1b6ca8", "#d1751f", "#4d8f4a", "#8a4f9e")
METRICS = ("insertion", "deletion", "adcc", "drop at held complexity")


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
        figure, axes = plt.subplots(1, len(METRICS), figsize=(11, 3.6), sharey=True, layout="constrained")
        networks = panels()
        for place, metric in enumerate(METRICS):
            _panel(axes[place], networks, metric)
        axes[0].set_yticks(range(len(tables.RIVALS)), tables.RIVALS)
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(f"How much better than each rival is {tables.SUBJECT}? Right of the line: better.", fontsize=10)
        stem.parent.mkdir(exist_ok=True)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)


def _panel(axes: Any, networks: dict[str, Recorded], metric: str) -> None:
    axes.axvline(0, color="0.4", linewidth=0.8)
    for number, (name, found) in enumerate(networks.items()):
        rows, ends = advantages(found, metric)
        heights = [row + (number - 1.5) * 0.18 for row in range(len(rows))]
        axes.hlines(heights, [low for low, _ in ends], [high for _, high in ends], color=COLOURS[number], linewidth=1.6)
        axes.plot(rows, heights, "o", color=COLOURS[number], markersize=3.5, label=f"{name} (n = {len(found.names)})")
    axes.set_title(tables.TITLES[metric], fontsize=9)


def advantages(found: Recorded, metric: str) -> tuple[list[float], Sequence[tuple[float, float]]]:
    """By rival, the mean by which the subject is better, and the interval of 95 %."""
    sign = -1 if metric in tables.LOWER else 1
    means, ends = [], []
    for rival in tables.RIVALS:
        each = compare(found.of(tables.SUBJECT, metric), found.of(rival, metric), tables.better(metric)).difference
        means.append(sign * each.mean)
        ends.append((each.low, each.high) if sign > 0 else (-each.high, -each.low))
    return means, ends
