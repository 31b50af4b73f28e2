"""What a metric sees: a batch's maps, and the model that can be asked about masked and other images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, indices_like, to_numpy
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.axes import over_channels, spatial_size
from fusioncam_core.models.baselines import Baseline, erased_images
from fusioncam_core.models.batch_size import Span
from fusioncam_core.models.inputs import Inputs, leaf, with_leaf
from fusioncam_core.models.masking import MaskedScorer
from fusioncam_core.models.targets import Targets

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer
    from fusioncam_core.results.explanation import Explanation


def require_map_size(maps: Array, size: tuple[int, ...]) -> None:
    """Nothing, if maps (B, *size) are of the images' size.

    Raises:
        ValueError: otherwise.
    """
    if tuple(maps.shape[1:]) != tuple(size):
        raise InvalidValueError(
            f"Maps are measured in the images' size: expected maps of {tuple(size)}, got {tuple(maps.shape[1:])}. "
            f"fusioncam_core.resize(maps, {tuple(size)}) makes them so, and explainers give them so by default."
        )


class ExplainedBatch:
    """The maps of one batch of images, one target each, and what a model says of these images otherwise.

    Args:
        explainer: that made the maps.
        inputs: (B, ...) of the model, as `prepare` gives them.
        explanation: of them, with one target an image.

    Raises:
        ValueError: if the explainer's maps are not in [0, 1] or not of the input's size.

    Attributes:
        maps: (B, *size).
        targets: (B,) on the host.
        plain: (B,) the targets' probabilities for the plain images.
        images: (B, ...) the explained input.
        channel_axis: where it has its channels, or None.

    Raises:
        ValueError: if the maps are of another size than the images.
    """

    def __init__(self, explainer: Explainer, inputs: Inputs, explanation: Explanation):
        explainer.require_usual("Metrics measure")
        self.xp: Namespace = explainer.adapter.namespace
        self.maps: Array = explanation.maps
        self.plain: Array = self._floored(explanation.probabilities)
        self.targets: np.ndarray[Any, Any] = to_numpy(explanation.targets)
        self.images: Array = leaf(inputs, explainer.masked_input)
        self.channel_axis = explainer.channel_axis_of(self.images)
        require_map_size(self.maps, self.size)
        self._explainer = explainer
        self._inputs = inputs

    def _floored(self, probabilities: Array) -> Array:
        """0 for what a model's own 0 becomes on its way through a logarithm."""
        smallest = 2 * float(self.xp.finfo(probabilities.dtype).smallest_normal)
        return self.xp.where(self.xp.abs(probabilities) <= smallest, self.xp.zeros_like(probabilities), probabilities)

    @property
    def size(self) -> tuple[int, ...]:
        """The images' spatial size."""
        return spatial_size(self.images, self.channel_axis)

    @functools.cached_property
    def _masked(self) -> MaskedScorer:
        targets = Targets(self.targets[:, None], several=True)
        scores = self._explainer._scores_of(self._inputs, targets)
        asked = indices_like(self.targets[:, None], self.images, self.xp)
        return self._explainer._masked(scores, self._inputs, asked)

    def _erasing(self, baseline: Baseline) -> MaskedScorer:
        return self._masked.erasing(erased_images(self.images, baseline, self.channel_axis, self.xp))

    @functools.cached_property
    def masked(self) -> Array:
        """(B,) the probabilities of the targets for the images under their maps, over the explainer's baseline."""
        self._require_shares()
        maps = self._padded(self.maps)
        rows = np.arange(len(self.targets))
        return self._floored(self._masked.probabilities_under(rows, lambda span: span.of(maps)))

    @functools.cached_property
    def again(self) -> Array:
        """(B, *size) the maps of the images times their maps; of one with NaN it is that of the black image."""
        self._require_shares()
        known = self.xp.where(self.maps == self.maps, self.maps, self.xp.zeros_like(self.maps))
        return self.explain(self.images * self.xp.astype(self.over_channels(known), self.images.dtype))

    def _require_shares(self) -> None:
        """Raise ValueError if the maps, which are to mask images, are no shares of them; NaN is left to the metric."""
        known = self.xp.where(self.maps == self.maps, self.maps, self.xp.zeros_like(self.maps))
        low, high = float(self.xp.min(known)), float(self.xp.max(known))
        rounding = 8 * float(self.xp.finfo(known.dtype).eps)
        if low < -rounding or high > 1 + rounding:
            raise InvalidValueError(
                f"A map that masks an image lies in [0, 1]: got values from {low:.4g} to {high:.4g}. Explainers give "
                "such maps by default, and fusioncam_core.normalise(maps) makes them so."
            )

    def _padded(self, rows: Array) -> Array:
        """Rows (B, ...) repeated as far as spans may reach."""
        order = self._masked.batching.padded(np.arange(int(rows.shape[0])))
        return self.xp.take(rows, indices_like(order, rows, self.xp), axis=0)

    def under(self, owners: np.ndarray[Any, Any], masks: Callable[[Array], Array], baseline: Baseline) -> Array:
        """The probabilities (n,) of the targets of images `owners` (n,) under masks.

        Args:
            owners: (n,) on the host.
            masks: of the places (m,) of some of them, on the device: (m, *size).
            baseline: what is seen where a mask is 0, as explainers take it.
        """
        scorer = self._erasing(baseline)
        return self._floored(scorer.probabilities_under(owners, self._of_places(len(owners), masks)))

    def of_others(self, owners: np.ndarray[Any, Any], images: Callable[[Array], Array]) -> Array:
        """The probabilities (n,) of the targets of images `owners` (n,) for other images in their place.

        Args:
            owners: (n,) on the host.
            images: of the places (m,) of some of them, on the device: (m, ...).
        """
        return self._floored(self._masked.probabilities_of(owners, self._of_places(len(owners), images)))

    def _of_places(self, count: int, make: Callable[[Array], Array]) -> Callable[[Span], Array]:
        places = indices_like(self._masked.batching.padded(np.arange(count)), self.images, self.xp)
        return lambda span: make(span.of(places))

    def erased(self, baseline: Baseline) -> Array:
        """(B, ...) what is seen where nothing of the images is; zeros for "zero"."""
        erased = erased_images(self.images, baseline, self.channel_axis, self.xp)
        return self.xp.zeros_like(self.images) if erased is None else erased

    def over_channels(self, maps: Array) -> Array:
        """Maps (..., *size) with an axis of one channel where images have theirs, if they have any."""
        return over_channels(maps, len(self.size), self.channel_axis, xp=self.xp)

    def explain(self, images: Array) -> Array:
        """(B, *size) the maps of the same targets for other images (B, ...) in the explained ones' place."""
        inputs = with_leaf(self._inputs, self._explainer.masked_input, images)
        maps: Array = self._explainer._call(inputs, self.targets, progress=False).maps
        return maps
