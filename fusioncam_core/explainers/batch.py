"""What a method sees of one batch at one layer: activations, gradients, and the model under masks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.checks import of_dtype, require_finite_sum, sum_is_finite
from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, to_numpy
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.function_scores import Scores
from fusioncam_core.models.inputs import Inputs, Which, batch_length, leaf, taken, with_leaf
from fusioncam_core.models.layout import Layout, Reshape, find_layout
from fusioncam_core.models.masking import MaskedScorer
from fusioncam_core.models.probe import Evidence

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import LayerCapture, ModelAdapter


class Batch:
    """One batch of images and its targets, at one layer of the model.

    Attributes:
        adapter: of the model.
        layer: its name; "none" for methods that need no layer.
        xp: the namespace.
        inputs: (B, ...) of the model.
        images: (B, ...) the explained input.
        size: its spatial size.
        channel_axis: where it has its channels, or None.
        targets: (B, K) integers.
        scores: what the outputs mean.
        logits: (B, classes) of the plain images, in float32 or, of outputs in float64, in that: all that maps are made
            of has their dtype.
        target_scores: (B, K) those of the targets.
        captured: the layer's output as it was; None for methods that need no layer.
        activations: (B, C, *spatial) of the layer, in the dtype of `logits`; None likewise.
        gradients: (B, K, C, *spatial) of the targets' logits, likewise; None if no method asked for them.
        masked: the model under masks.
        advance: told how many masked images are done.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        layer: str,
        scores: Scores,
        inputs: Inputs,
        targets: Array,
        logits: Array,
        target_scores: Array,
        capture: LayerCapture | None,
        masked: MaskedScorer,
        *,
        which: Which,
        reshape: Reshape = None,
        channel_axis: int | None = 1,
        evaluations: int = 0,
        evidence: Evidence | None = None,
        kind: str = "",
    ):
        self.adapter = adapter
        self.layer = layer
        self.xp: Namespace = adapter.namespace
        self.scores = scores
        self.inputs = inputs
        self._which = which
        self.images = leaf(inputs, which)
        self.channel_axis = channel_axis
        self.size = spatial_size(self.images, channel_axis)
        self.targets = targets
        self.logits = logits
        self.target_scores = target_scores
        self.masked = masked
        self.advance: Callable[[int], object] = _ignore
        self._capture = capture
        self._reshape = reshape
        self._evidence = evidence
        self._kind = kind
        self._plain_evaluations = evaluations
        self.captured: Array = None if capture is None else capture.activations
        self.activations: Array = None
        self.gradients: Array | None = None
        self.largest_gradients: Array | None = None
        if capture is not None:
            self.activations, self.gradients, self.largest_gradients = self._channels_first(capture)

    @functools.cached_property
    def layout(self) -> Layout:
        """Where channels and positions are in the layer's output."""
        assert self._capture is not None
        return find_layout(
            self.captured.shape,
            self.size,
            self._capture.channel_axis,
            self._reshape,
            self.layer,
            self._evidence,
            self._kind,
        )

    @property
    def required_gradients(self) -> Array:
        """The gradients, of a method that has said that it needs them."""
        if self.gradients is None:
            raise InvalidTypeError("A method asked for gradients without needs_gradients = True.")
        return self.gradients

    def reads_layer(self) -> np.ndarray[Any, Any]:
        """(B, K) whether the score has a gradient anywhere in the layer's output, at a class token too.

        None of a layer without gradients, or without one row an image.
        """
        gradients = None if self._capture is None else self._capture.gradients
        if gradients is None or not self.layout.plain:
            return np.zeros(tuple(self.targets.shape), dtype=bool)
        flat = self.xp.reshape(self.xp.abs(gradients), (*gradients.shape[:2], -1))
        return to_numpy(self.xp.max(flat, axis=-1) > 0).T

    @property
    def evaluations(self) -> int:
        """The images the model was run on so far, masked and plain; a pass that several layers share counts once."""
        return self._plain_evaluations + self.masked.evaluations

    def count(self, images: int) -> None:
        """Say that the model was run on so many images besides."""
        self._plain_evaluations += images

    def capture(self, images: Array) -> tuple[Array, Array]:
        """The activations and gradients of the same targets for other images (B, ...) in the explained ones' place."""
        inputs = with_leaf(self.inputs, self._which, images)
        captured = self.adapter.capture(inputs, [self.layer], self.scores, self.targets).layers[self.layer]
        self.count(batch_length(inputs))
        return self._channels_first(captured)[:2]

    def ablated_scores(self, rows: Array, channels: np.ndarray[Any, Any], count: int) -> Array:
        """The targets' logits (n, K) of the images (n,), each without a channel (n,) of the layer, `count` no padding.

        Raises:
            ValueError: if it is not plain where a user's `reshape` takes the channels from, or the layer's output does
                not have one row an image.
        """
        xp = self.xp
        self._require_a_row_an_image()
        captured = xp.take(self.captured, rows, axis=0)
        ablated = captured * constant_like(self._all_but(channels), captured, xp)
        inputs = taken(self.inputs, rows, xp)
        logits = self.masked.logits_of(self.adapter.forward_with(inputs, self.layer, ablated), rows)
        self.count(count)
        return xp.take_along_axis(logits, xp.take(self.targets, rows, axis=0), axis=1)

    @property
    def chunking(self) -> dict[str, Any]:
        """How its masks are cut into chunks, and who is told of them."""
        return {"batching": self.masked.batching, "advance": self.advance, "xp": self.xp}

    def _require_a_row_an_image(self) -> None:
        if not self.layout.plain:
            raise InvalidValueError(
                f"{self.at_layer('The output')} has shape {tuple(self.captured.shape)}, in which an image has not one "
                "row of the first axis: single channels of it cannot be switched off for one image. Take another "
                "method, or a layer before the images' rows are folded together."
            )

    def _all_but(self, channels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Ones in the layer's own layout (n, ..., C, ...), zero in the channels (n,)."""
        length = int(self.activations.shape[1])
        shape = [len(channels), *(1,) * (self.captured.ndim - 1)]
        shape[self._channel_axis()] = length
        kept: np.ndarray[Any, Any] = np.arange(length) != channels[:, None]
        return kept.reshape(shape).astype(np.float32)

    def _channel_axis(self) -> int:
        """Where the channels are in the layer's own layout."""
        if self.layout.function is None:
            return self.layout.channel_axis
        shape, channels = tuple(self.captured.shape), int(self.activations.shape[1])
        fitting = [axis for axis in range(1, len(shape)) if shape[axis] == channels]
        if len(fitting) != 1:
            raise InvalidValueError(
                f"{self.at_layer('The output')} has shape {shape}, and which of its axes holds the {channels} "
                "channels that reshape= makes of it is not plain, so that none can be switched off. Give reshape= as a "
                "grid, or take another method."
            )
        return fitting[0]

    def _channels_first(self, capture: LayerCapture) -> tuple[Array, Array | None, Array | None]:
        """What was captured, laid out: (B, C, *spatial), (B, K, C, *spatial), and (B, K) the largest gradients.

        In one program, unless a user's function does it, which may do what it likes.
        """
        steps = _laid_out if self.layout.function is not None else as_one_program(_laid_out)
        given = [
            None if each is None else of_dtype(each, self.logits.dtype, xp=self.xp)
            for each in (capture.activations, capture.gradients)
        ]
        with np.errstate(all="ignore"):
            made = steps(*given, layout=self.layout, xp=self.xp)
        require_finite_sum(capture.activations, made.activations_finite, self.at_layer("activations"), self.xp)
        if capture.gradients is not None:
            require_finite_sum(capture.gradients, made.gradients_finite, self.at_layer("gradients"), self.xp)
        return made.activations, made.gradients, made.largest

    def at_layer(self, what: str) -> str:
        """The words for something at the explained layer, with the layer's and the model's names."""
        return f"{what} at layer {self.layer!r} of {self.adapter.model_name}"


class _LaidOut(NamedTuple):
    """What was captured of a layer, channels first, whether the sums are finite, and the largest gradients' size."""

    activations: Array
    activations_finite: Array
    gradients: Array | None = None
    gradients_finite: Array | None = None
    largest: Array | None = None


def _laid_out(activations: Array, gradients: Array | None, *, layout: Layout, xp: Namespace) -> _LaidOut:
    made = _LaidOut(layout.channels_first(activations, xp=xp), sum_is_finite(activations, xp=xp))
    if gradients is None:
        return made
    each = [layout.channels_first(gradients[k, ...], xp=xp) for k in range(gradients.shape[0])]
    values = xp.stack(each, axis=1)
    largest = xp.max(xp.abs(values), axis=tuple(range(2, values.ndim)))
    return made._replace(gradients=values, gradients_finite=sum_is_finite(gradients, xp=xp), largest=largest)


def _ignore(count: int) -> None:
    """Progress that nobody watches."""
