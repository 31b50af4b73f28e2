"""The compiled steps of all region methods: resize, mask, forward, logits; and how many images they take at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _normalise, _resize
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.axes import masks_of, spatial_size, under_masks
from fusioncam_core.models.batch_search import make_batching
from fusioncam_core.models.batch_size import BatchSize, ModelBatching, Setting, is_light
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engine_steps import MaskedEngine
from fusioncam_core.models.function_scores import OwnFunctionScores, OwnLogits, RawOutputs, Scores
from fusioncam_core.models.inputs import Inputs, Which, leaf, with_leaf
from fusioncam_core.models.outputs import ClassScores

MANY_LIGHT = 64
"""So many light images are at least explained together where they share chunks of masks: Fusion-CAM of ResNet8, on 28 x
28 pixels, took a fifth longer in groups of 16.
"""


Step = Callable[[Inputs, Array, "Array | None"], Array]
"""(inputs (n, ...), maps (n, *spatial), erased images (n, ...) or None) -> logits (n, classes)."""


AS_ADAPTER: Any = "as the adapter has it"
"""The channel axis that the model's adapter tells."""


def masked_step(
    adapter: ModelAdapter,
    scores: Scores | RawOutputs,
    which: Which = None,
    *,
    normalised: bool = True,
    channel_axis: int | None = AS_ADAPTER,
) -> Step:
    """The compiled step of all region methods: the logits of images under the masks `N(U(maps))`.

    An image under a mask is `E + (I - E) M`, with `E` the erased image; `I M` when that is zero. If not `normalised`,
    the masks are `U(maps)`, whatever their values.
    """
    xp = adapter.namespace
    channel_axis = adapter.input_channel_axis if channel_axis is AS_ADAPTER else channel_axis

    def masked_logits(inputs: Inputs, maps: Array, erased: Array | None) -> Array:
        masked = masked_images(
            leaf(inputs, which), maps, erased, channel_axis=channel_axis, normalised=normalised, xp=xp
        )
        return scores.logits(adapter.forward(with_leaf(inputs, which, masked)))

    return adapter.compile(masked_logits)


@as_one_program
def masked_images(
    images: Array, maps: Array, erased: Array | None, *, channel_axis: int | None, normalised: bool, xp: Namespace
) -> Array:
    """The images (n, ...) under the masks of maps (n, *spatial)."""
    size = spatial_size(images, channel_axis)
    masks = _resize(maps, size, xp=xp)
    masks = _normalise(masks, len(size), xp=xp) if normalised else masks
    masks = masks_of(images, masks, channel_axis, xp=xp)
    # TensorFlow multiplies equal shapes faster than it broadcasts while it multiplies.
    masks = xp.broadcast_to(masks, (masks.shape[0], *images.shape[1:]))
    return under_masks(images, masks, erased)


class Steps:
    """The compiled steps of one model and one reading of its outputs, each made when it is first asked for.

    Attributes:
        scores: reads them.
    """

    def __init__(self, adapter: ModelAdapter, scores: Scores | RawOutputs, which: Which, channel_axis: int | None):
        self._adapter, self.scores = adapter, scores
        self._which, self._channel_axis = which, channel_axis
        self._made = functools.partial(masked_step, adapter, scores, which, channel_axis=channel_axis)

    @functools.cached_property
    def normalised(self) -> Step:
        """For the masks `N(U(maps))`."""
        return self._made(normalised=True)

    @functools.cached_property
    def plain(self) -> Step:
        """For the masks `U(maps)`."""
        return self._made(normalised=False)

    def in_parts(self, inputs: Inputs, maps: Array, erased: Array | None, *, normalised: bool) -> Array:
        """The same as either of them, with the model's pass as a program of its own."""
        masked = masked_images(
            leaf(inputs, self._which),
            maps,
            erased,
            channel_axis=self._channel_axis,
            normalised=normalised,
            xp=self._adapter.namespace,
        )
        return self.scores.logits(self._adapter.forward(with_leaf(inputs, self._which, masked)))

    @functools.cached_property
    def bare(self) -> Callable[[Inputs], Array]:
        """Without a mask: inputs (n, ...) -> logits (n, classes)."""
        adapter, scores = self._adapter, self.scores

        def logits(inputs: Inputs) -> Array:
            return scores.logits(adapter.forward(inputs))

        return adapter.compile(logits)

    @functools.cached_property
    def scores_of(self) -> Callable[[Array, Array, Array], Array]:
        """(logits (n, classes), targets (B, K), owners (n,)) -> the logits (n, K) of each owner's own targets."""
        xp = self._adapter.namespace

        def chosen(logits: Array, targets: Array, owners: Array) -> Array:
            return xp.take_along_axis(logits, xp.take(targets, owners, axis=0), axis=1)

        return self._small(chosen)

    @functools.cached_property
    def probabilities_of(self) -> Callable[[Array, Array, Array], Array]:
        """The same as probabilities."""
        xp, scores = self._adapter.namespace, self.scores

        def chosen(logits: Array, targets: Array, owners: Array) -> Array:
            return xp.take_along_axis(scores.probabilities(logits), xp.take(targets, owners, axis=0), axis=1)

        return self._small(chosen)

    def _small(self, function: Callable[[Array, Array, Array], Array]) -> Callable[[Array, Array, Array], Array]:
        """A function without the model as one call.

        Several small ones behind a large one would each wait for TensorFlow's threads.
        """
        own = getattr(self._adapter.namespace, "compiled", None)
        made: Callable[[Array, Array, Array], Array] = self._adapter.compile(function) if own is None else own(function)
        return made


class MaskedSteps:
    """The compiled steps of one model, and how many images they take at once.

    Of the readings of its outputs the latest by classes and the latest by functions are kept: a program for every
    function that was ever explained would hold on to all that those functions hold. Where each image has functions of
    its own, one program gives the outputs, whatever the functions are, and these are programs of the outputs.

    Args:
        adapter: of the model.
        which: the explained one of several inputs.
        batch_size: the most images at once, or "auto"; or the way in which they are to run.
        masked: whether images run under masks: then the masks of a few images fill the batches whose size is looked
            for. Otherwise it is looked for how many images are best explained together.
        choice: whether an engine runs them; None for the framework alone.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        which: Which = None,
        batch_size: BatchSize | Setting = "auto",
        *,
        masked: bool = True,
        choice: Choice | None = None,
    ):
        self.adapter = adapter
        self.choice = Choice() if choice is None else choice
        self._engine = None if self.choice.conversion is None else MaskedEngine(adapter, which, self.choice)
        self.which = which
        self._batch_size = batch_size
        self._masked = masked
        self._batchings: dict[tuple[bool, int, tuple[int, ...]], ModelBatching] = {}
        self._groups: dict[tuple[int, ...], ModelBatching] = {}
        self._latest: dict[tuple[type, int | None], tuple[Scores | RawOutputs, Steps]] = {}
        self._reader: tuple[OwnFunctionScores, OwnLogits] | None = None

    @property
    def engine(self) -> MaskedEngine | None:
        """The engine that runs masked images now; None for the framework."""
        return self._engine if self.choice.on else None

    def of(self, scores: Scores, channel_axis: int | None) -> Steps:
        """The steps of one reading of the outputs, for inputs with their channels there, or None.

        How many top classes are asked for is no part of it; nor is what functions each image has of its own.
        """
        key: Scores | RawOutputs = scores
        if isinstance(scores, ClassScores):
            key = replace(scores, top=1)
        elif isinstance(scores, OwnFunctionScores):
            key = RawOutputs()
        kind = type(key), channel_axis
        latest = self._latest.get(kind)
        if latest is None or latest[0] != key:
            latest = self._latest[kind] = (key, Steps(self.adapter, key, self.which, channel_axis))
        return latest[1]

    def reader(self, scores: Scores) -> OwnLogits | None:
        """What makes logits of the outputs that the steps give; None if they give logits."""
        if not isinstance(scores, OwnFunctionScores):
            return None
        if self._reader is None or self._reader[0] != scores:
            self._reader = (scores, OwnLogits(self.adapter, scores))
        return self._reader[1]

    def batching(self, images: Array, scores: Scores) -> ModelBatching:
        """How many of such images (B, ...) at once; what "auto" found is kept for each shape of an image.

        An engine that runs rows apart may take more of them where the outputs are classes.
        """
        likes = self.adapter.execution if self.engine is None else self.engine.execution(scores)
        key = self.choice.on, likes.batch_size, tuple(int(length) for length in images.shape[1:])
        if key not in self._batchings:
            light, beside = is_light(images), likes.beside
            self._batchings[key] = make_batching(self.adapter, self._batch_size, likes, light=light, beside=beside)
        return self._batchings[key]

    def groups(self, images: Array) -> ModelBatching:
        """How many of such images (B, ...) are seen, and explained, together: fewer once memory did not hold them."""
        shape = tuple(int(length) for length in images.shape[1:])
        if shape not in self._groups:
            self._groups[shape] = self._new_groups(light=is_light(images))
        return self._groups[shape]

    @property
    def searched(self) -> ModelBatching | None:
        """Of the images that came first the batching whose size is looked for; None before there were any."""
        if not self._masked:
            return next(iter(self._groups.values()), None)
        return next((each for (on, *_), each in self._batchings.items() if on == self.choice.on), None)

    def _new_groups(self, *, light: bool) -> ModelBatching:
        if not self._masked:
            return make_batching(self.adapter, self._batch_size, light=light)
        if self._batch_size == "auto":
            usual = self.adapter.execution.batch_size
            return ModelBatching(self.adapter, max(usual, MANY_LIGHT) if light else usual)
        return make_batching(self.adapter, self._batch_size)
