"""What users are warned of: maps that are right, and say nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import of_dtype
from fusioncam_core.arrays.namespaces import array_namespace, to_numpy
from fusioncam_core.errors import EmptyMapWarning, InvalidValueError, warn
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.function_scores import Scores
from fusioncam_core.models.inputs import Inputs, Which, leaf, rows_of, with_leaf
from fusioncam_core.models.outputs import ClassScores, unpack
from fusioncam_core.models.target_functions import SegmentationLogit
from fusioncam_core.results.explanation import Explanation

EXTREMES = (0.0, 256.0, -256.0)
"""Multiples of an image for which probabilities stay in [0, 1] and logits hardly do: black, and far out of range."""

ROUNDING = 1e-3
"""How far out of [0, 1] half precision may bring a probability."""

OUTSIDE = 0.01
"""How far out of [0, 1] a value must be to be no probability: images under noise are a little out of range, too."""

FAR_FROM_ONE = 0.1
"""How far the sum of an image's probabilities must be from 1 to be no matter of half precision."""


class OutputCheck:
    """Warns of outputs that look like probabilities where logits were expected, and refuses what cannot be any.

    Of a softmax over classes the sum tells. Other probabilities lie in [0, 1], where logits may lie by chance: then the
    model is asked about multiples of the first image as well, once for each of its outputs.

    Args:
        adapter: of the model.
        which: the explained one of several inputs.
    """

    def __init__(self, adapter: ModelAdapter, which: Which):
        self._adapter = adapter
        self._which = which
        self._stay: dict[int | str | None, bool] = {}

    def __call__(self, inputs: Inputs, outputs: Any, scores: Scores) -> None:
        """Warn, if the outputs of the inputs, of which `scores` reads logits, look like probabilities.

        Raises:
            InvalidValueError: `scores` reads probabilities, and an output lies outside of [0, 1].
        """
        if isinstance(scores, ClassScores):
            if scores.output_kind == "probabilities":
                self._require_probabilities(outputs, scores)
            if scores.output_kind == "logits" and self._are_suspect(inputs, outputs, scores):
                seen, ending = (
                    ("none is negative, and an image's add up to one", "softmax")
                    if scores.task == "multiclass"
                    else (
                        "they lie in [0, 1] for these images, for black ones and for ones far out of range",
                        "sigmoid",
                    )
                )
                self._warn(f"{seen}. If they are, say output_kind='probabilities', or take the {ending} off the end of")
            return
        for output in dict.fromkeys(each.output for each in scores.functions if isinstance(each, SegmentationLogit)):
            if self._stay_probabilities(inputs, outputs, output):
                self._warn(
                    "they lie in [0, 1], far out of range as well. If they are, take the activation off the end of"
                )

    def _require_probabilities(self, outputs: Any, scores: ClassScores) -> None:
        values = _values(outputs, scores.output)
        if values.min() < -OUTSIDE or values.max() > 1 + OUTSIDE:
            raise InvalidValueError(
                f"Expected probabilities, in [0, 1], of {self._adapter.model_name} with output_kind='probabilities': "
                f"got outputs from {values.min():.4g} to {values.max():.4g}. Of logits "
                "say output_kind='logits'."
            )
        furthest = float(np.abs(values.sum(axis=1) - 1).max()) if scores.task == "multiclass" else 0.0
        if furthest > FAR_FROM_ONE:
            warn(
                f"The outputs of {self._adapter.model_name} are taken for probabilities of classes of which one is "
                f"right, and those of an image do not add up to 1: they are {furthest:.3g} off. If each class has a "
                "sigmoid of its own, say task='multilabel'.",
                EmptyMapWarning,
            )

    def _warn(self, what: str) -> None:
        warn(
            f"The outputs of {self._adapter.model_name} look like probabilities: {what} the model; here they are taken "
            "for logits.",
            EmptyMapWarning,
        )

    def _are_suspect(self, inputs: Inputs, outputs: Any, scores: ClassScores) -> bool:
        if scores.task != "multiclass":
            return self._stay_probabilities(inputs, outputs, scores.output)
        values = _values(outputs, scores.output)
        # Half-precision probabilities of a thousand classes add up to one within a few hundredths.
        return _in_unit_interval(values) and bool(np.abs(values.sum(axis=1) - 1).max() < 0.02)

    def _stay_probabilities(self, inputs: Inputs, outputs: Any, output: int | str | None) -> bool:
        """Whether an output lies in [0, 1], for multiples of the first image too, and nothing tells that it may."""
        if not _in_unit_interval(_values(outputs, output)) or self._adapter.ending(inputs, output) is not None:
            return False
        if output not in self._stay:
            first = rows_of(inputs, 0, 1)
            image = leaf(first, self._which)
            others = (with_leaf(first, self._which, image * multiple) for multiple in EXTREMES)
            self._stay[output] = all(self._stays(other, output) for other in others)
        return self._stay[output]

    def _stays(self, inputs: Inputs, output: int | str | None) -> bool:
        try:
            outputs = self._adapter.forward(inputs)
        except InvalidValueError:  # a model that checks the range of its inputs
            return False
        return _in_unit_interval(_values(outputs, output))


def _values(outputs: Any, output: int | str | None) -> np.ndarray[Any, Any]:
    values = unpack(outputs, output)
    xp = array_namespace(values)
    return to_numpy(of_dtype(values, xp.float32, xp=xp))


def _in_unit_interval(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING)


def warn_of_zero_gradients(batch: Batch, *, several: bool) -> None:
    """Of targets whose gradient is zero everywhere."""
    if batch.largest_gradients is None:
        return
    zero = to_numpy(batch.largest_gradients) == 0
    empty = np.argwhere(zero if several else zero[:, 0])
    if not len(empty):
        return
    if batch.reads_layer()[zero].all():
        warn(
            f"The gradient {batch.at_layer('of the score')} is zero at every patch for {_places(empty)}: the "
            "gradient map is zeros. The score reads other tokens of this layer, such as a class token, and no patch. "
            "Take an earlier layer, in front of the last attention: layer=None finds it.",
            EmptyMapWarning,
        )
        return
    warn(
        f"The gradient {batch.at_layer('of the score')} is zero everywhere for {_places(empty)}: the "
        "gradient map is zeros. A saturated softmax or sigmoid at the end of the model does that (explain its "
        "logits), or a layer that the score does not depend on (take another one; layer=None finds it).",
        EmptyMapWarning,
    )


def warn_of_empty_maps(explanation: Explanation) -> None:
    """Of maps that are zero everywhere."""
    values = to_numpy(explanation.maps)
    flat = values.reshape(*explanation.targets.shape, -1)
    empty = np.argwhere((flat.max(axis=-1) == 0) & (flat.min(axis=-1) == 0))
    if len(empty):
        warn(
            f"The {explanation.method} map is zero everywhere for {_places(empty)}: at layer {explanation.layer!r} "
            "nothing speaks for this target at one place more than at another.",
            EmptyMapWarning,
        )


# Of the call that is under way in this thread: passing them down would be an argument of every method on the way.
_CALLED: ContextVar[tuple[str, ...]] = ContextVar("_CALLED", default=())


@contextlib.contextmanager
def images_called(words: Sequence[str]) -> Iterator[None]:
    """Let warnings call the images of a batch by these words, such as "image 12 (cat/001)"."""
    token = _CALLED.set(tuple(words))
    try:
        yield
    finally:
        _CALLED.reset(token)


def images_from(start: int, stop: int) -> contextlib.AbstractContextManager[None]:
    """The same for some rows of the images that are called so already, or are numbered."""
    return images_called([_called(row) for row in range(start, stop)])


def _called(row: int) -> str:
    words = _CALLED.get()
    return words[row] if row < len(words) else f"image {row}"


def _places(indices: np.ndarray[Any, Any]) -> str:
    """The first images (and targets, when there are several) as words."""
    named = [_called(row[0]) + (f", target number {row[1]}" if len(row) > 1 else "") for row in indices[:3]]
    return "; ".join(named) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
