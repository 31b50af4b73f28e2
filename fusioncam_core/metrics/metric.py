"""What a metric is: a name, a direction, options, and the value of every map of a batch."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.metrics import registry
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.stores.fingerprints import Fingerprints, fields_of

Better = Literal["higher", "lower"]


class Measured(NamedTuple):
    """The values (B,) of a batch's maps, and of metrics that follow a curve the curves (B, n) at the fractions (n,)."""

    values: Array
    curves: Array | None = None
    fractions: np.ndarray[Any, Any] | None = None


class Metric(ABC):
    """A metric of maps. One value a map; what is undefined is NaN.

    A metric of your own is a frozen dataclass with its options, these attributes and one method, `measure`:
    docs/tutorials/own_method.md. By its name it can be asked for like any other.

    Attributes:
        name: by which it is asked for.
        title: as the papers write it.
        better: whether "higher" or "lower" values are.
        paper: where it comes from.
        needs_ground_truth: whether it compares maps with masks of the object.
        undefined: when a value is NaN, in words.
        axes: of a metric that follows curves, what they are drawn over, and what they are of.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Better]
    paper: ClassVar[str] = ""
    needs_ground_truth: ClassVar[bool] = False
    undefined: ClassVar[str] = "the map holds NaN"
    axes: ClassVar[tuple[str, str]] = ("share of the pixels", "probability")

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            registry.register(cls)

    @abstractmethod
    def measure(self, explained: ExplainedBatch, ground_truth: np.ndarray[Any, Any] | None = None) -> Measured:
        """The values of the explained's maps.

        Args:
            explained: of the batch.
            ground_truth: (B, *size) masks of the objects, for metrics that need them.
        """

    def fingerprint(self, words: Fingerprints) -> str:
        """What tells its values from those of others, in a folder of results: its class, and its options."""
        values: Any = self
        own = fields_of(values) if dataclasses.is_dataclass(values) else vars(self)
        return words.of_object(self, own, repr(self.name))


def find_metric(metric: str | Metric | type[Metric]) -> Metric:
    """A metric of its name, or of its class, with default options; or the one given.

    Raises:
        InvalidValueError: for an unknown name.
        InvalidTypeError: for anything else.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, type) and issubclass(metric, Metric):
        return metric()
    return registry.METRICS.find(metric, "A metric")()
