"""Metrics of many maps of one image, by the library's own classes; the network answers what they ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.study.views import View
from fusioncam_core.metrics import (
    ROAD,
    AverageDrop,
    AverageIncrease,
    Complexity,
    Deletion,
    Insertion,
    Metric,
    measure_maps,
)
from fusioncam_core.metrics.metric import Measured

STEPS = 10
"""Of curves."""

FRACTIONS = (0.5,)
"""Of ROAD, whose imputed images take longer than the network."""

HELD = 0.25
"""The mean of maps whose complexity is held."""

HELD_DROP = "drop at held complexity"

Values = dict[str, dict[str, float]]
"""By method and metric."""


def metrics_of(view: View, *, road: bool = True) -> list[Metric]:
    """Those of every map."""
    erased: Any = view.network.erased or "zero"
    found: list[Metric] = [
        AverageDrop(),
        AverageIncrease(),
        Insertion(steps=STEPS),
        Deletion(steps=STEPS, baseline=erased),
        Complexity(),
    ]
    return [*found, ROAD(fractions=FRACTIONS)] if road else found


def measured(view: View, maps: Mapping[str, np.ndarray], metrics: Sequence[Metric]) -> Values:
    """Each metric of each map (h, w) of the view's first target, and the drop at held complexity."""
    stacked = np.stack(list(maps.values())).astype(np.float32)
    held = np.stack([at_complexity(each) for each in stacked])
    found = {metric.name: _values(view, metric, stacked) for metric in metrics}
    found[HELD_DROP] = _values(view, AverageDrop(), held)
    return {
        method: {metric: float(values[place]) for metric, values in found.items()} for place, method in enumerate(maps)
    }


def _values(view: View, metric: Metric, maps: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(view.image).expand(len(maps), *view.image.shape)
    targets = np.repeat(view.targets[:1], len(maps))
    found: Measured = measure_maps(
        metric,
        torch.from_numpy(maps),
        view.answers.black_box(),
        images,
        targets,
        baseline=view.network.erased or "zero",
    )
    return found.values.numpy()


def at_complexity(values: np.ndarray, mean: float = HELD) -> np.ndarray:
    """The map raised to the power that makes its mean so large; NaN throughout where no power does."""
    low, high = -6.0, 6.0
    if not (values**2.0**high).mean() < mean < (values**2.0**low).mean():
        return np.full_like(values, np.nan)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if (values**2.0**middle).mean() > mean else (low, middle)
    return values ** np.float32(2.0**low)
