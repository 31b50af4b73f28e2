"""What a method sees of one batch: activations, gradients, and the model under masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fusioncam_core.arrays import Array, Namespace, require_finite
from fusioncam_core.cams.gradient import channels_first
from fusioncam_core.inputs import Inputs, Which, leaf, leaves
from fusioncam_core.masking import MaskedScorer, spatial_size
from fusioncam_core.outputs import ClassScores

if TYPE_CHECKING:
    from fusioncam_core.adapter import Capture, ModelAdapter


class Batch:
    """One batch of images and its targets, at one layer of the model.

    Attributes:
        adapter: of the model and layer.
        xp: the namespace.
        inputs: (B, ...) of the model.
        images: (B, ...) the explained input.
        size: its spatial size.
        targets: (B, K) integers.
        scores: what the outputs mean.
        logits: (B, classes) of the plain images.
        activations: (B, C, *spatial) float32 of the layer.
        gradients: (B, K, C, *spatial) float32 of the targets' logits; None if no method asked for them.
        masked: the model under masks.
        advance: told how many masked images are done.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        scores: ClassScores,
        inputs: Inputs,
        targets: Array,
        logits: Array,
        capture: Capture,
        masked: MaskedScorer,
        *,
        which: Which,
    ):
        self.adapter = adapter
        self.xp: Namespace = adapter.namespace
        self.scores = scores
        self.inputs = inputs
        self.images = leaf(inputs, which)
        self.size = spatial_size(self.images, adapter.input_channel_axis)
        self.targets = targets
        self.logits = logits
        self.masked = masked
        self.advance: Callable[[int], object] = _ignore
        self.activations = self._float_activations(capture.activations)
        self.gradients = None if capture.gradients is None else self._float_gradients(capture.gradients)

    @property
    def required_gradients(self) -> Array:
        """The gradients, of a method that has said that it needs them."""
        if self.gradients is None:
            raise TypeError("A method asked for gradients without needs_gradients = True.")
        return self.gradients

    @property
    def evaluations(self) -> int:
        """The images the model was run on so far, masked and plain."""
        return batch_size(self.inputs) + self.masked.evaluations

    def _float_activations(self, activations: Array) -> Array:
        return channels_first(
            self._finite_float(activations, "activations"), self.adapter.activation_channel_axis, xp=self.xp
        )

    def _float_gradients(self, gradients: Array) -> Array:
        """(K, B, ...) in the layer's layout -> (B, K, C, *spatial)."""
        moved = self.xp.moveaxis(self._finite_float(gradients, "gradients"), 0, 1)
        return moved if self.adapter.activation_channel_axis == 1 else self.xp.moveaxis(moved, -1, 2)

    def _finite_float(self, values: Array, what: str) -> Array:
        return require_finite(self.xp.astype(values, self.xp.float32), at_layer(what, self.adapter), self.xp)


def batch_size(inputs: Inputs) -> int:
    """How many images the inputs hold."""
    return int(leaves(inputs)[0].shape[0])


def at_layer(what: str, adapter: ModelAdapter) -> str:
    """The words for something at the explained layer, with the layer's and the model's names."""
    return f"{what} at layer {adapter.layer_name!r} of {adapter.model_name}"


def _ignore(count: int) -> None:
    """Progress that nobody watches."""
