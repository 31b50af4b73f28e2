"""The model as seen through masks: scores and probabilities of a batch of images, chunk by chunk."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import require_finite_sum
from fusioncam_core.arrays.namespaces import Array, constant_like, indices_like, to_numpy
from fusioncam_core.arrays.one_thread import in_one_thread
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.batch_size import Span
from fusioncam_core.models.engine_steps import BatchEngine, MaskedEngine
from fusioncam_core.models.function_scores import OwnLogits, RawOutputs, Scores
from fusioncam_core.models.inputs import Inputs, Which, leaf, taken, with_leaf
from fusioncam_core.models.masked_steps import MaskedSteps, Steps
from fusioncam_core.models.outputs import ClassScores, Task, probabilities_at
from fusioncam_core.models.spans import SpanIndices, taken_maps
from fusioncam_core.models.structure import map_rows

Values = np.ndarray[Any, Any]


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
        self.batching = steps.batching(leaf(inputs, steps.which), scores)
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

    @property
    def _by_engine(self) -> bool:
        return self._engine is not None and self._engine.engine.choice.on

    def between_passes(self) -> contextlib.AbstractContextManager[None]:
        """A context for what is worked out of one map beside an engine, which has threads of its own: in one thread."""
        return in_one_thread() if self._by_engine else contextlib.nullcontext()

    @property
    def on_host(self) -> HostScorer | None:
        """What scores NumPy's maps, while an engine runs; None where the framework does, or functions read outputs.

        The engine takes its arguments from the host and answers there. By way of the framework each chunk cost 2 ms
        more on JAX and TensorFlow, and .5 on PyTorch, where EfficientNet-Lite0 takes 23 to 40 for eight images.
        """
        return HostScorer(self) if self._by_engine and isinstance(self._scores, ClassScores) else None

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
        if self._engine is not None and isinstance(maps, np.ndarray):  # which has been given up
            images = leaf(self._inputs, self._which)
            maps, owners = constant_like(maps, images, xp), indices_like(owners, images, xp)
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
    def gives_probabilities(self) -> bool:
        """Whether those of the targets lie in [0, 1]: of classes they do, the values of users' functions are any."""
        return self._task is not None

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


class HostScorer:
    """Scores of images under masks, all of them arrays of NumPy.

    There are no probabilities: a regression goes by differences of them that may be a few roundings, and each
    framework rounds a softmax in its own way.

    Args:
        masked: of the same batch; it counts the evaluations.
    """

    def __init__(self, masked: MaskedScorer):
        self._masked = masked
        self._targets = to_numpy(masked._targets)

    def score_maps(self, maps: Values, owners: Values, count: int, *, normalised: bool = True) -> Values:
        """As of the masked scorer."""
        logits = to_numpy(self._masked._logits(maps, owners, normalised=normalised))
        self._masked.evaluations += count
        return np.take_along_axis(logits, self._targets[owners], axis=1)


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
