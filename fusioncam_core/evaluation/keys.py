"""What values are kept under: everything that they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.store import MAP, PLAIN, Key
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.metrics.given import GivenMaps
from fusioncam_core.metrics.metric import Metric
from fusioncam_core.models.inputs import Inputs, leaves
from fusioncam_core.models.structure import Shared, entries, found, is_array, is_container
from fusioncam_core.stores.fingerprints import Fingerprints, digest


class Row(NamedTuple):
    """One image: its name and place in the source, its key, its target and that one's probability."""

    name: str
    place: int
    image: str
    target: int
    probability: float


class Keys:
    """The keys of an evaluation that keeps nothing beyond itself: places and names tell its values apart.

    Args:
        ground_truth: the objects' masks.
    """

    def __init__(self, ground_truth: GroundTruth):
        self._ground_truth = ground_truth

    def images(self, inputs: Inputs, places: Sequence[int]) -> list[str]:
        """Of images (B, ...)."""
        return [str(place) for place in places]

    def plain(self, row: Row, label: str) -> Key:
        """Of a plain image's probability."""
        return Key(row.image, row.target, "", PLAIN)

    def map(self, row: Row, label: str) -> Key:
        """Of what is to be said of an image's map by a method."""
        return Key(row.image, row.target, self._method(row, label), MAP)

    def value(self, row: Row, label: str, metric: Metric) -> Key:
        """Of a value."""
        return Key(row.image, row.target, self._method(row, label), self._measure(metric, row))

    def _method(self, row: Row, label: str) -> str:
        return label

    def _measure(self, metric: Metric, row: Row) -> str:
        return metric.name


class KeptKeys(Keys):
    """The keys of an evaluation that keeps its values in a folder.

    Args:
        explainers: by what they are called here, which does not matter.
        metrics: to measure.
        ground_truth: the objects' masks.
        fingerprints: with the name of the model, if it needs one.
        backend_options: with which the model is read.
        given: the maps that are given, by what they are called.

    Raises:
        InvalidTypeError: for an option or a model of which it cannot be told whether it is the same in another run.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        metrics: Sequence[Metric],
        ground_truth: GroundTruth,
        fingerprints: Fingerprints,
        backend_options: Mapping[str, Any] | None,
        given: Mapping[str, GivenMaps] | None = None,
    ):
        from fusioncam_core import __version__

        super().__init__(ground_truth)
        self._fingerprints = fingerprints
        self._given = given or {}
        options = fingerprints.of(dict(backend_options or {}), "backend_options")
        with_them = f"{__version__} {options}"
        models = {
            label: fingerprints.model(each.adapter, each.get_params()["model"]) for label, each in explainers.items()
        }
        self._methods = {
            label: f"{each.name} {digest(with_them.encode(), fingerprints.of(each).encode())}"
            for label, each in explainers.items()
        }
        self._measures = {
            each.name: f"{each.name} {digest(__version__.encode(), fingerprints.of(each).encode())}" for each in metrics
        }
        self._plain = {label: digest(with_them.encode(), words.encode()) for label, words in models.items()}

    def images(self, inputs: Inputs, places: Sequence[int]) -> list[str]:
        """By their contents: equal for equal numbers, on every framework."""
        return image_digests(inputs, self._fingerprints)

    def plain(self, row: Row, label: str) -> Key:
        """By the model."""
        return Key(row.image, row.target, self._plain[label], PLAIN)

    def _method(self, row: Row, label: str) -> str:
        """By the method and its options; of given maps, by the image's own one."""
        own = self._methods[label]
        given = self._given.get(label)
        return own if given is None else f"{own} {self._fingerprints.of(given.maps[row.place])}"

    def _measure(self, metric: Metric, row: Row) -> str:
        own = self._measures[metric.name]
        if not metric.needs_ground_truth:
            return own
        return f"{own} {self._ground_truth.fingerprint(row.name, row.place, self._fingerprints)}"


def image_digests(inputs: Inputs, fingerprints: Fingerprints) -> list[str]:
    """A digest of each image's inputs (B, ...), with what all images share and what is no array among them."""
    own = leaves(inputs)
    arrays = [np.ascontiguousarray(to_numpy(each)) for each in own]
    shared = [each.array if isinstance(each, Shared) else each for _, each in found(inputs)]
    common = [_contents(to_numpy(each)) for each in shared if not any(each is one for one in own)]
    form = _form(inputs, fingerprints).encode()
    return [digest(form, *(_contents(array[row]) for array in arrays), *common) for row in range(len(arrays[0]))]


def _contents(array: np.ndarray[Any, Any]) -> bytes:
    return f"{array.shape} {array.dtype.name} ".encode() + array.tobytes()


def _form(value: Any, fingerprints: Fingerprints) -> str:
    """What inputs are besides their arrays: the containers, and the flags and words in them."""
    if is_container(value):
        steps = (f"{step!r}: {_form(each, fingerprints)}" for step, each in entries(value))
        return f"{type(value).__name__}({', '.join(steps)})"
    if isinstance(value, Shared) or is_array(value):
        return "array"
    return fingerprints.of(value, "A value among the model's inputs")
