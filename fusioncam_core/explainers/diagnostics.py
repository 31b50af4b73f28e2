"""What users are warned of: maps that are right, and say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.errors import EmptyMapWarning, warn
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.inputs import Inputs, Which, leaf, rows_of, with_leaf
from fusioncam_core.models.outputs import ClassScores, Scores
from fusioncam_core.results.explanation import Explanation

EXTREMES = (0.0, 256.0, -256.0)
"""Multiples of an image for which probabilities stay in [0, 1] and logits hardly do: black, and far out of range."""

ROUNDING = 1e-3
"""How far out of [0, 1] half precision may bring a probability."""


class OutputCheck:
    """Warns of outputs that look like probabilities where logits were expected.

    Of a softmax the sum tells. A sigmoid's outputs lie in [0, 1], where a logit may lie by chance: then the model is
    asked about multiples of the first image as well, once for each reading of its outputs.

    Args:
        adapter: of the model.
        which: the explained one of several inputs.
    """

    def __init__(self, adapter: ModelAdapter, which: Which):
        self._adapter = adapter
        self._which = which
        self._stay: dict[ClassScores, bool] = {}

    def __call__(self, inputs: Inputs, logits: Array, scores: Scores) -> None:
        """Warn, if the logits (B, classes) of the inputs look like probabilities."""
        if not isinstance(scores, ClassScores) or scores.output_kind != "logits":
            return
        values = to_numpy(logits)
        if scores.task == "multiclass":
            # Half-precision probabilities of a thousand classes add up to one within a few hundredths.
            if _in_unit_interval(values) and np.abs(values.sum(axis=1) - 1).max() < 0.02:
                self._warn("none is negative, and an image's add up to one", "softmax")
        elif _in_unit_interval(_raw(values, scores)) and self._stays(inputs, scores):
            self._warn("they lie in [0, 1] for these images, for black ones and for ones far out of range", "sigmoid")

    def _warn(self, seen: str, ending: str) -> None:
        warn(
            f"The outputs of {self._adapter.model_name} look like probabilities: {seen}. If they are, say "
            f"output_kind='probabilities', or take the {ending} off the end of the model: here they are taken for "
            "logits.",
            EmptyMapWarning,
        )

    def _stays(self, inputs: Inputs, scores: ClassScores) -> bool:
        """Whether the outputs lie in [0, 1] for multiples of the first image, too."""
        key = replace(scores, top=1)
        if key not in self._stay:
            first = rows_of(inputs, 0, 1)
            image = leaf(first, self._which)
            others = (with_leaf(first, self._which, image * multiple) for multiple in EXTREMES)
            outputs = (to_numpy(scores.logits(self._adapter.forward(other))) for other in others)
            self._stay[key] = all(_in_unit_interval(_raw(values, scores)) for values in outputs)
        return self._stay[key]


def _raw(logits: np.ndarray[Any, Any], scores: ClassScores) -> np.ndarray[Any, Any]:
    """The model's own outputs, of the logits (B, classes) that were read off them."""
    return logits[:, 1:] if scores.task == "binary" else logits


def _in_unit_interval(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING)


def warn_of_zero_gradients(batch: Batch, *, several: bool) -> None:
    """Of targets whose gradient is zero everywhere."""
    if batch.gradients is None:
        return
    flat = batch.xp.reshape(batch.gradients, (*batch.targets.shape, -1))
    zero = to_numpy(batch.xp.all(flat == 0, axis=-1))
    empty = np.argwhere(zero if several else zero[:, 0])
    if len(empty):
        warn(
            f"The gradient {batch.at_layer('of the score')} is zero everywhere for {_places(empty)}: the "
            "gradient map is zeros. A saturated softmax or sigmoid at the end of the model does that (explain its "
            "logits), or a layer that the score does not depend on.",
            EmptyMapWarning,
        )


def warn_of_empty_maps(explanation: Explanation) -> None:
    """Of maps that are zero everywhere."""
    values = to_numpy(explanation.maps)
    empty = np.argwhere(values.reshape(*explanation.targets.shape, -1).max(axis=-1) == 0)
    if len(empty):
        warn(
            f"The {explanation.method} map is zero everywhere for {_places(empty)}: at layer {explanation.layer!r} "
            "nothing speaks for this target at one place more than at another.",
            EmptyMapWarning,
        )


def _places(indices: np.ndarray[Any, Any]) -> str:
    """The first images (and targets, when there are several) as words."""
    named = [f"image {row[0]}" + (f", target number {row[1]}" if len(row) > 1 else "") for row in indices[:3]]
    return "; ".join(named) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
