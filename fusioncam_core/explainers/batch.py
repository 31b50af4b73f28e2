"""What a method sees of one batch: activations, gradients, and the model under masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fusioncam_core.arrays import Array, Namespace, require_finite
from fusioncam_core.inputs import Inputs, Which, leaf, leaves, with_leaf
from fusioncam_core.layout import Reshape, find_layout
from fusioncam_core.masking import MaskedScorer, spatial_size
from fusioncam_core.outputs import Scores

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
        layout: where channels and positions are in the layer's output.
        activations: (B, C, *spatial) float32 of the layer.
        gradients: (B, K, C, *spatial) float32 of the targets' logits; None if no method asked for them.
        masked: the model under masks.
        advance: told how many masked images are done.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        scores: Scores,
        inputs: Inputs,
        targets: Array,
        logits: Array,
        capture: Capture,
        masked: MaskedScorer,
        *,
        which: Which,
        reshape: Reshape = None,
    ):
        self.adapter = adapter
        self.xp: Namespace = adapter.namespace
        self.scores = scores
        self.inputs = inputs
        self._which = which
        self.images = leaf(inputs, which)
        self.size = spatial_size(self.images, adapter.input_channel_axis)
        self.targets = targets
        self.logits = logits
        self.masked = masked
        self.advance: Callable[[int], object] = _ignore
        self.layout = find_layout(
            capture.activations.shape, self.size, adapter.activation_channel_axis, reshape, adapter.layer_name
        )
        self._captured = batch_size(inputs)
        self.activations = self._channels_first(capture.activations)
        self.gradients = None if capture.gradients is None else self._gradients_first(capture.gradients)

    @property
    def required_gradients(self) -> Array:
        """The gradients, of a method that has said that it needs them."""
        if self.gradients is None:
            raise TypeError("A method asked for gradients without needs_gradients = True.")
        return self.gradients

    @property
    def evaluations(self) -> int:
        """The images the model was run on so far, masked and plain."""
        return self._captured + self.masked.evaluations

    def capture(self, images: Array) -> tuple[Array, Array]:
        """The activations and gradients of the same targets for other images (B, ...) in the explained ones' place."""
        inputs = with_leaf(self.inputs, self._which, images)
        captured = self.adapter.capture(inputs, self.scores, self.targets)
        self._captured += batch_size(inputs)
        return self._channels_first(captured.activations), self._gradients_first(captured.gradients)

    def _channels_first(self, activations: Array) -> Array:
        return self.layout.channels_first(self._finite_float(activations, "activations"), xp=self.xp)

    def _gradients_first(self, gradients: Array) -> Array:
        """(K, B, ...) in the layer's layout -> (B, K, C, *spatial)."""
        finite = self._finite_float(gradients, "gradients")
        each = [self.layout.channels_first(finite[k, ...], xp=self.xp) for k in range(finite.shape[0])]
        return self.xp.stack(each, axis=1)

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
