"""What a metric is: a name, a direction, options, and the value of every map of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.metrics.explained_batch import ExplainedBatch

Better = Literal["higher", "lower"]


class Measured(NamedTuple):
    """The values (B,) of a batch's maps, and of metrics that follow a curve the curves (B, n) at the fractions (n,)."""

    values: Array
    curves: Array | None = None
    fractions: np.ndarray[Any, Any] | None = None


class Metric(ABC):
    """A metric of maps. One value a map; what is undefined is NaN.

    Attributes:
        name: by which it is asked for.
        title: as the papers write it.
        better: whether "higher" or "lower" values are.
        needs_ground_truth: whether it compares maps with masks of the object.
        undefined: when a value is NaN, in words.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Better]
    needs_ground_truth: ClassVar[bool] = False
    undefined: ClassVar[str] = "the map holds NaN"

    @abstractmethod
    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The values of the explained's maps.

        Args:
            explained: of the batch.
            ground_truth: (B, *size) masks of the objects, for metrics that need them.
        """
