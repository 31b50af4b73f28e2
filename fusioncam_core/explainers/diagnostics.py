"""What users are warned of: maps that are right, and say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.errors import EmptyMapWarning, warn
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.outputs import ClassScores, Scores
from fusioncam_core.results.explanation import Explanation


def warn_of_probabilities(logits: Array, scores: Scores, adapter: ModelAdapter) -> None:
    """Of outputs that look like probabilities where logits were expected."""
    if not isinstance(scores, ClassScores) or scores.task != "multiclass" or scores.output_kind != "logits":
        return
    values = to_numpy(logits)
    # Half-precision probabilities of a thousand classes add up to one within a few hundredths.
    if values.min() >= 0 and values.max() <= 1 and np.abs(values.sum(axis=1) - 1).max() < 0.02:
        warn(
            f"The outputs of {adapter.model_name} look like probabilities: none is negative, and an image's add up to "
            "one. Say output_kind='probabilities', or take the softmax off the end of the model.",
            EmptyMapWarning,
        )


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
