"""Sparseness, a metric of the map alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like
from fusioncam_core.metrics import ExplainedBatch, Measured, Metric


@dataclass(frozen=True)
class Sparseness(Metric):
    """Sparseness: the Gini index of the map, near 1 where all of it lies on few pixels (arXiv 1810.06583).

    Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training (ICML 2020); it is called so in
    Quantus. It says how concentrated a map is, and nothing of whether the place is the right one.
    """

    name = "sparseness"
    title = "Sparseness"
    paper = "arXiv 1810.06583"
    better = "higher"
    undefined = "the map is zero everywhere, or holds NaN"

    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The Gini indices (B,) of the maps' absolute values, in [0, 1)."""
        maps = explained.maps
        pixels = explained.xp.reshape(maps, (maps.shape[0], math.prod(explained.size)))
        return Measured(gini_index(pixels, explained.xp))


def gini_index(values: Array, xp: Namespace) -> Array:
    """The Gini index `sum_i (2 i - n - 1) v_i / (n sum_i v_i)`, `v` the absolute values in rising order.

    (..., n) -> (...) in [0, 1); NaN where all are zero, or one is NaN.
    """
    count = values.shape[-1]
    rising = xp.sort(xp.abs(values), axis=-1)
    weights = constant_like((2 * np.arange(1, count + 1) - count - 1) / count, values, xp)
    total = xp.sum(rising, axis=-1)
    known = total > 0
    index = xp.sum(weights * rising, axis=-1) / xp.where(known, total, xp.ones_like(total))
    return xp.where(known, index, xp.full_like(index, float("nan")))
