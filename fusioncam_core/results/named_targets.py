"""Targets that are no classes, beside those that are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation

_NO_CLASS = -1
"""What stands in `targets` for a target that is no class."""

_WITH_TARGETS = ("maps", "scores", "probabilities", "uncertainty", "raw_range")
"""Arrays with a row an image and a column a target."""


def with_target(explanation: Explanation, other: Explanation, name: str) -> Explanation:
    """An explanation of several targets an image, with one more that is no class.

    Args:
        explanation: of NumPy arrays, with one target an image or several.
        other: of the same images by the same method, of NumPy arrays, with one function of the outputs as target.
        name: what that target is called.
    """
    before = explanation if explanation.targets.ndim == 2 else _with_axis(explanation)
    added = _with_axis(other)
    classes = (("",) * before.targets.shape[1],) * before.targets.shape[0]
    arrays: dict[str, Any] = {
        each: _beside(getattr(before, each), getattr(added, each))
        for each in _WITH_TARGETS
        if getattr(before, each) is not None and getattr(added, each) is not None
    }
    return replace(
        before,
        **arrays,
        targets=_beside(before.targets, np.full_like(added.targets, _NO_CLASS)),
        parts={part: _beside(before.parts[part], added.parts[part]) for part in before.parts},
        weights={weight: _beside(before.weights[weight], added.weights[weight]) for weight in before.weights},
        evaluations=before.evaluations + added.evaluations,
        target_names=tuple((*names, name) for names in before.target_names or classes),
    )


def _with_axis(explanation: Explanation) -> Explanation:
    """The explanation with an axis of one target."""
    arrays: dict[str, Any] = {
        each: getattr(explanation, each)[:, np.newaxis]
        for each in (*_WITH_TARGETS, "targets")
        if getattr(explanation, each) is not None
    }
    return replace(
        explanation,
        **arrays,
        parts={part: values[:, np.newaxis] for part, values in explanation.parts.items()},
        weights={weight: values[:, np.newaxis] for weight, values in explanation.weights.items()},
    )


def _beside(first: Any, second: Any) -> Any:
    return np.concatenate([first, second], axis=1)
