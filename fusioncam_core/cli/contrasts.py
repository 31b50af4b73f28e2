"""Rows that say why one class and not another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fusioncam_core.cli.classes import class_of
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.outputs import Task
from fusioncam_core.models.target_functions import BinaryLogit, Contrast
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.named_targets import with_target


def with_contrasts(
    explanation: Explanation,
    pairs: Sequence[Sequence[str]],
    class_names: Sequence[str] | None,
    task: Task,
    explain: Callable[[Any], Explanation],
) -> Explanation:
    """The explanation of one image with a further target a pair: why the first class and not the second.

    Args:
        explanation: of NumPy arrays.
        pairs: of classes, by their numbers or names.
        class_names: one per class, or None.
        task: of the model; one of two classes by a single logit has no output for each.
        explain: the same image, with a function of the outputs as target.

    Raises:
        ValueError: there is no such class, the name is that of several, or both of a pair are the same.
    """
    classes = int(explanation.class_probabilities.shape[1])
    numbered = [tuple(_number(each, class_names, classes) for each in pair) for pair in pairs]
    for first, second in numbered:
        if first == second:
            raise InvalidValueError(f"--contrast takes two classes that differ: got {first} twice.")
    for first, second in numbered:
        function = BinaryLogit(positive=first == 1) if task == "binary" else Contrast(first, second)
        name = f"why {_called(first, class_names)} and not {_called(second, class_names)}"
        explanation = with_target(explanation, explain(function), name)
    return explanation


def _number(text: str, class_names: Sequence[str] | None, classes: int) -> int:
    """The class of a number or a name; capitals do not count."""
    if text.isdecimal():
        if int(text) >= classes:
            raise InvalidValueError(f"--contrast: the model has classes 0 to {classes - 1}, got {text}.")
        return int(text)
    return class_of(text, class_names, "--contrast")


def _called(number: int, class_names: Sequence[str] | None) -> str:
    return str(number) if class_names is None else class_names[number]
