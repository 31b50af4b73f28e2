"""The model as seen through masks: resize, mask, forward, logits; one compiled step, chunk by chunk."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import require_finite_sum
from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, indices_like, to_numpy
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _blur, _normalise, _resize
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.axes import masks_of, under_masks
from fusioncam_core.models.batch_search import make_batching
from fusioncam_core.models.batch_size import BatchSize, ModelBatching, Setting, Span, is_light
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engine_steps import BatchEngine, MaskedEngine
from fusioncam_core.models.function_scores import OwnFunctionScores, OwnLogits, RawOutputs, Scores
from fusioncam_core.models.inputs import Inputs, Which, leaf, taken, with_leaf
from fusioncam_core.models.outputs import ClassScores, Task, probabilities_at
from fusioncam_core.models.spans import SpanIndices, taken_maps
from fusioncam_core.models.structure import map_rows

Baseline = Any
"""What an erased pixel is: "zero", "blur", a number, one value a channel, or an image."""

BLUR_SHARE = 1 / 9
"""The "blur" baseline's standard deviation, as a share of the shorter side.

A blur of 25 pixels on 224 leaves no outline by which a network would know the object.
"""


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
        self._batchings: dict[tuple[bool, tuple[int, ...]], ModelBatching] = {}
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

    def batching(self, images: Array) -> ModelBatching:
        """How many of such images (B, ...) at once; what "auto" found is kept for each shape of an image."""
        key = self.choice.on, tuple(int(length) for length in images.shape[1:])
        if key not in self._batchings:
            execution = None if self.engine is None else self.engine.execution
            self._batchings[key] = make_batching(self.adapter, self._batch_size, execution, light=is_light(images))
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
        return next((each for (on, _), each in self._batchings.items() if on == self.choice.on), None)

    def _new_groups(self, *, light: bool) -> ModelBatching:
        if not self._masked:
            return make_batching(self.adapter, self._batch_size, light=light)
        if self._batch_size == "auto":
            usual = self.adapter.execution.batch_size
            return ModelBatching(self.adapter, max(usual, MANY_LIGHT) if light else usual)
        return make_batching(self.adapter, self._batch_size)


class MaskedScorer:
    """Scores and probabilities of one batch of images under masks.

    Args:
        steps: of the model.
        scores: what its outputs mean.
        inputs: (B, ...) of the model.
        targets: (B, K) integers.
        erased: what `erased_images` gave for the explained input.
        channel_axis: of the explained input.

    Attributes:
        batching: how many images the model sees at once.
        evaluations: the images the model has been run on so far, through this object.
    """

    def __init__(
        self,
        steps: MaskedSteps,
        scores: Scores,
        inputs: Inputs,
        targets: Array,
        *,
        erased: Array | None,
        channel_axis: int | None = 1,
    ):
        self.adapter = steps.adapter
        self.batching = steps.batching(leaf(inputs, steps.which))
        self.evaluations = 0
        self._scores = scores
        self._steps = steps.of(scores, channel_axis)
        self._reader = steps.reader(scores)
        self._channel_axis = channel_axis
        self._inputs = inputs
        self._which = steps.which
        self._targets = targets
        self._erased = erased
        self._black: list[Array] = []
        self._copies: dict[int, Inputs] = {}
        self._engine = self._with_engine(steps.engine)

    def _with_engine(self, engine: MaskedEngine | None) -> BatchEngine | None:
        """The engine for this batch; None for the framework."""
        if engine is None:
            return None
        axis, steps = self._channel_axis, self._steps
        size = spatial_size(leaf(self._inputs, self._which), axis)
        framework = functools.partial(_framework_step, steps, self.adapter, self._which, axis)
        return BatchEngine(engine, steps.scores, axis, size, self._inputs, self._erased, framework)

    def sharing(self) -> MaskedScorer:
        """The same, counting its evaluations from 0; the wholly erased images are run by one of them for all."""
        other = copy.copy(self)
        other.evaluations = 0
        return other

    def erasing(self, erased: Array | None) -> MaskedScorer:
        """The same with another erased image, counting its evaluations from 0."""
        other = self.sharing()
        other._erased, other._black = erased, []
        other._engine = None if self._engine is None else other._with_engine(self._engine.engine)
        return other

    def logits_of(self, outputs: Any, owners: Array) -> Array:
        """(n, classes) logits, or (n, K) values of functions, of the model's outputs for copies of images `owners`."""
        return self._scores.logits(outputs) if self._reader is None else self._reader(outputs, owners)

    def _logits(self, maps: Array, owners: Array, *, normalised: bool = True) -> Array:
        return self._read(self._made(maps, owners, normalised=normalised), owners)

    def _read(self, made: Any, owners: Array) -> Array:
        """The logits of what a step made."""
        return made if self._reader is None else self._reader(made, owners)

    def _made(self, maps: Array, owners: Array, *, normalised: bool = True) -> Any:
        xp = self.adapter.namespace
        if self._engine is not None and self._engine.engine.choice.on:
            try:
                return self._engine(maps, owners, normalised=normalised)
            except InvalidValueError as error:
                self._engine.engine.choice.give_up(error)
        erased = None if self._erased is None else xp.take(self._erased, owners, axis=0)
        rows = self._rows(owners)
        if self._is_alone(owners) and self.adapter.has_pass(rows):
            return self._steps.in_parts(rows, maps, erased, normalised=normalised)
        step = self._steps.normalised if normalised else self._steps.plain
        return step(rows, maps, erased)

    def _is_alone(self, owners: Array) -> bool:
        """Whether it is one copy of the only image: all such runs of one explanation are then of one program.

        A map that is zero must not contribute a rounding more than the wholly erased image, which stands for several.
        """
        return int(owners.shape[0]) == int(self._targets.shape[0]) == 1

    def _rows(self, owners: Array) -> Inputs:
        """The inputs (n, ...) of the images `owners`; the explained input of a single image is not copied.

        Where shapes are fixed it is, once for each n.
        """
        xp, images = self.adapter.namespace, leaf(self._inputs, self._which)
        alone = int(images.shape[0]) == 1
        if alone and self.adapter.execution.fixed_shapes and getattr(xp, "compiled", None) is not None:
            return self._repeated(int(owners.shape[0]))
        single = alone and not self.adapter.execution.fixed_shapes
        if single and self._which is None:
            return images
        rows = taken(self._inputs, owners, xp)
        return with_leaf(rows, self._which, images) if single else rows

    def _repeated(self, count: int) -> Inputs:
        """The inputs of the only image so many times: by way of the host, where that needs no program."""
        if count not in self._copies:
            xp = self.adapter.namespace
            self._copies[count] = map_rows(
                lambda each: constant_like(np.repeat(to_numpy(each), count, axis=0), each, xp), self._inputs
            )
        return self._copies[count]

    def score_maps(self, maps: Array, owners: Array, count: int, *, normalised: bool = True) -> Array:
        """The targets' logits (n, K) of the images `owners` (n,) under the maps (n, *spatial), `count` no padding."""
        logits = self._logits(maps, owners, normalised=normalised)
        self.evaluations += count
        return self._steps.scores_of(logits, self._targets, owners)

    def probability_maps(self, maps: Array, owners: Array, count: int, *, normalised: bool = True) -> Array:
        """The same as probabilities."""
        logits = self._logits(maps, owners, normalised=normalised)
        self.evaluations += count
        return self._steps.probabilities_of(logits, self._targets, owners)

    def probabilities(self, masks: Array) -> Array:
        """Each target's probability (B, K) for its image under its own mask (B, K, *size)."""
        xp = self.adapter.namespace
        batch, several = (int(length) for length in self._targets.shape)
        logits = self._over(np.repeat(np.arange(batch), several), self._own_masks(masks))
        wanted = self._targets if several == 1 else xp.reshape(self._targets, (batch * several, 1))
        with np.errstate(all="ignore"):
            chosen, finite = probabilities_at(logits, wanted, task=self._task, xp=xp)
        require_finite_sum(chosen, finite, "probabilities of the masked images", xp)
        return chosen if several == 1 else xp.reshape(chosen, (batch, several))

    def probabilities_under(self, owners: np.ndarray[Any, Any], masks: Callable[[Span], Array]) -> Array:
        """The first target's probability (n,) for the images `owners` (n,) under masks that are made when needed.

        The masks of a span are (length, *size), padding included, and used as they are.
        """

        def logits(span: Span, owned: Array) -> Array:
            return self._logits(masks(span), owned, normalised=False)

        return self._first_probabilities(owners, logits)

    def probabilities_of(self, owners: np.ndarray[Any, Any], images: Callable[[Span], Array]) -> Array:
        """The first target's probability (n,) of the images `owners` (n,) for others in the explained one's place."""

        def logits(span: Span, owned: Array) -> Array:
            rows = taken(self._inputs, owned, self.adapter.namespace)
            return self._read(self._steps.bare(with_leaf(rows, self._which, images(span))), owned)

        return self._first_probabilities(owners, logits)

    def _first_probabilities(self, owners: np.ndarray[Any, Any], logits: Callable[[Span, Array], Array]) -> Array:
        xp = self.adapter.namespace
        probabilities = self._scores.probabilities(self._over(owners, logits))
        wanted = xp.take(self._targets[:, :1], indices_like(owners, probabilities, xp), axis=0)
        return xp.take_along_axis(probabilities, wanted, axis=1)[:, 0]

    def _own_masks(self, masks: Array) -> Callable[[Span, Array], Array]:
        """The logits of the images under the masks `N(U(m))` (B, K, *size) of the same places."""
        xp, count = self.adapter.namespace, int(masks.shape[0]) * int(masks.shape[1])
        rows = SpanIndices(self.batching.padded(np.arange(count)), masks, xp)
        return lambda span, owned: self._logits(taken_maps(masks, rows.of(span), xp=xp), owned)

    def _over(self, owners: np.ndarray[Any, Any], logits: Callable[[Span, Array], Array]) -> Array:
        """The logits (n, classes) of the images `owners` (n,), of each span of them as the function has it."""
        xp, like = self.adapter.namespace, leaf(self._inputs, self._which)
        padded = SpanIndices(self.batching.padded(owners), like, xp)

        def work(span: Span) -> Array:
            found = logits(span, padded.of(span))
            self.evaluations += span.count
            return found

        found = [
            each if count == int(each.shape[0]) else each[:count, ...]
            for each, count in self.batching.over(len(owners), work, search=False)
        ]
        return found[0] if len(found) == 1 else xp.concat(found, axis=0)

    @property
    def _task(self) -> Task | None:
        return self._scores.task if isinstance(self._scores, ClassScores) else None

    @property
    def black_logits(self) -> Array:
        """The logits (B, classes) of the wholly erased images; run once for all images if that is zero."""
        if not self._black:
            self._black.append(self._run_black())
        return self._black[0]

    def _run_black(self) -> Array:
        xp = self.adapter.namespace
        batch = int(self._targets.shape[0])
        images = leaf(self._inputs, self._which)
        distinct = 1 if self._erased is None and self._which is None else batch
        size = spatial_size(images, self._channel_axis)
        like = images if images.dtype == xp.float32 else xp.astype(images[:0, ...], xp.float32)
        black = constant_like(np.zeros((1, *size)), like, xp)
        if distinct == 1 and self._reader is not None:
            return self._read_for_all(self._reader, black)
        logits = self._over(
            np.arange(distinct),
            lambda span, owned: self._logits(xp.broadcast_to(black, (span.length, *size)), owned),
        )
        return xp.broadcast_to(logits, (batch, logits.shape[1]))

    def _read_for_all(self, reader: OwnLogits, black: Array) -> Array:
        """(B, K) values of one wholly erased image by the functions of every image."""
        xp, like = self.adapter.namespace, leaf(self._inputs, self._which)
        first = SpanIndices(self.batching.padded(np.zeros(1, np.int64)), like, xp)

        def work(span: Span) -> Array:
            masks = xp.broadcast_to(black, (span.length, *black.shape[1:]))
            return reader.of_first(self._made(masks, first.of(span)))

        ((logits, count),) = self.batching.over(1, work, search=False)
        self.evaluations += count
        return logits

    def black_scores(self) -> Array:
        """The targets' logits (B, K) of the wholly erased images."""
        return self.adapter.namespace.take_along_axis(self.black_logits, self._targets, axis=1)

    def black_probabilities(self) -> Array:
        """The targets' probabilities (B, K) of the wholly erased images."""
        return probabilities_at(self.black_logits, self._targets, task=self._task, xp=self.adapter.namespace)[0]


def _framework_step(
    steps: Steps,
    adapter: ModelAdapter,
    which: Which,
    channel_axis: int | None,
    normalised: bool,
    inputs: Inputs,
    maps: Array,
    erased: Array | None,
) -> Any:
    """What the framework's step gives: logits of classes, the outputs of anything else."""
    raw = steps if isinstance(steps.scores, ClassScores) else Steps(adapter, RawOutputs(), which, channel_axis)
    return (raw.normalised if normalised else raw.plain)(inputs, maps, erased)


def spatial_axes(ndim: int, channel_axis: int | None) -> tuple[int, ...]:
    """The axes of a batch of images that are neither the batch nor the channels."""
    channels = None if channel_axis is None else channel_axis % ndim
    return tuple(axis for axis in range(1, ndim) if axis != channels)


def spatial_size(images: Array, channel_axis: int | None) -> tuple[int, ...]:
    """The lengths of the spatial axes of batched images: all but the first and the channels'."""
    shape = [int(length) for length in images.shape]
    if channel_axis is not None:
        _require_axis(shape, channel_axis)
        del shape[channel_axis]
    return tuple(shape[1:])


def _require_axis(shape: Sequence[int], channel_axis: int) -> None:
    """Raise InvalidValueError unless a batch of this shape has the axis, and it is not the first."""
    if channel_axis >= len(shape) or channel_axis <= -len(shape):
        raise InvalidValueError(
            f"The channels are in axis {channel_axis} of a batch, and images of shape {tuple(shape)} came. Say where "
            "they are with backend_options={'channels': ...}: 'first', 'last', 'none' or the number of the axis."
        )


def with_channels_first(images: Array, channel_axis: int | None, *, xp: Namespace) -> Array:
    """(B, C, *spatial) of batched images; of those without channels (B, 1, *spatial)."""
    if channel_axis is None:
        return xp.expand_dims(images, axis=1)
    return images if channel_axis == 1 else xp.moveaxis(images, channel_axis, 1)


def with_channels_back(images: Array, channel_axis: int | None, *, xp: Namespace) -> Array:
    """The inverse of `with_channels_first`."""
    if channel_axis is None:
        return images[:, 0, ...]
    return images if channel_axis == 1 else xp.moveaxis(images, 1, channel_axis)


def drawn_for_one(
    draw: Callable[[tuple[int, ...]], np.ndarray[Any, Any]], shape: Sequence[int], channel_axis: int | None
) -> np.ndarray[Any, Any]:
    """What is drawn for one image, channels first so that all layouts get the same, as (1, *shape).

    Args:
        draw: gives values of a shape.
        shape: of the image, without a batch axis.
        channel_axis: where a batch has its channels, or None.
    """
    axis = 0 if channel_axis is None else channel_axis % (len(shape) + 1) - 1
    values = draw((int(shape[axis]), *(int(length) for place, length in enumerate(shape) if place != axis)))
    return np.moveaxis(values, 0, axis)[None]


def erased_images(images: Array, baseline: Baseline, channel_axis: int | None, xp: Namespace) -> Array | None:
    """What is seen where a mask is 0, for each image; None for zero.

    Args:
        images: (B, ...) inputs of the model.
        baseline: "zero"; "blur", each image blurred with a standard deviation of a ninth of its shorter side;
            a number; one value a channel; or one image, for all. All in the model's input space, after
            preprocessing.
        channel_axis: of the images, or None.
        xp: the namespace.

    Raises:
        ValueError: for another word, or an array that does not broadcast to the images.
    """
    if isinstance(baseline, str):
        return _named_baseline(images, baseline, channel_axis, xp)
    values = to_numpy(baseline) if hasattr(baseline, "shape") else np.asarray(baseline, dtype=np.float64)
    if values.ndim == 1 and channel_axis is not None:
        values = values.reshape(-1, *(1,) * (images.ndim - 1 - channel_axis % images.ndim))
    try:
        values = np.broadcast_to(values, tuple(images.shape[1:]))
    except ValueError:
        raise InvalidValueError(
            f"A baseline of shape {values.shape} does not fit images of shape {tuple(images.shape[1:])}. A baseline is "
            "a number, one value a channel, or one image."
        ) from None
    return xp.broadcast_to(constant_like(values, images, xp), tuple(images.shape))


def _named_baseline(images: Array, name: str, channel_axis: int | None, xp: Namespace) -> Array | None:
    if name == "zero":
        return None
    if name != "blur":
        raise InvalidValueError(f"baseline is 'zero', 'blur', a number, one value a channel or an image: got {name!r}.")
    sigma = max(min(spatial_size(images, channel_axis)) * BLUR_SHARE, 1.0)
    return blurred_images(images, sigma, math.ceil(3 * sigma), channel_axis, xp)


def blurred_images(images: Array, sigma: float, radius: int, channel_axis: int | None, xp: Namespace) -> Array:
    """The images (B, ...) after a Gaussian blur of this standard deviation, cut off at this radius, in pixels."""
    moved = with_channels_first(images, channel_axis, xp=xp)
    return with_channels_back(_blur(moved, sigma, radius, moved.ndim - 2, xp=xp), channel_axis, xp=xp)
