"""What is asked to be explained: classes, the top few of them, or functions of the outputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError

TargetFunction = Callable[[Any], Array]
"""(the model's raw outputs for n images) -> (n,) scores, differentiable in the framework."""


class Targets(NamedTuple):
    """What to explain in each image.

    Attributes:
        classes: (B, K) integers, or None for the top classes or for functions.
        several: whether K belongs in the result's shape.
        top: how many of the top classes, if `classes` is None.
        functions: K functions of the outputs, instead of classes.
    """

    classes: np.ndarray[Any, Any] | None
    several: bool
    top: int = 1
    functions: tuple[TargetFunction, ...] = ()

    def rows(self, start: int, stop: int) -> Targets:
        """The targets of some of the images."""
        return self if self.classes is None else self._replace(classes=self.classes[start:stop])


def read_targets(targets: Any, batch: int) -> Targets:
    """The targets of `batch` images.

    Args:
        targets: None (the top class), "top5" or another number (as many top classes, no more than there are), an int,
            (B,) or (B, K) integers of any library, a function of the model's outputs, or a list of K functions.
        batch: the number of images.

    Raises:
        TypeError: if they are none of these.
        ValueError: if there are not as many rows as images, or a class is negative.
    """
    if targets is None:
        return Targets(None, several=False)
    if callable(targets):
        return Targets(None, several=False, functions=(targets,))
    if isinstance(targets, str):
        return Targets(None, several=True, top=_top(targets))
    if isinstance(targets, list | tuple) and targets and all(callable(each) for each in targets):
        return Targets(None, several=True, functions=tuple(targets))
    classes = _as_integers(targets)
    if classes.ndim == 0:
        classes = np.broadcast_to(classes, (batch,))
    if classes.ndim > 2 or classes.shape[0] != batch or classes.size == 0:
        raise InvalidValueError(
            f"Targets of shape {classes.shape} came with {batch} image{'s' * (batch != 1)}. Expected: one class, "
            f"({batch},) classes, or ({batch}, K) for K classes of each image."
        )
    if classes.min() < 0:
        raise InvalidValueError(f"Classes count from 0: got the target {classes.min()}.")
    return Targets(classes.reshape(batch, -1), several=classes.ndim == 2)


def _top(text: str) -> int:
    found = re.fullmatch(r"top([1-9][0-9]*)", text)
    if found is None:
        raise InvalidTypeError(
            f"Targets are whole class numbers, functions of the outputs or a word such as 'top5': got {text!r}."
        )
    return int(found[1])


def _as_integers(targets: Any) -> np.ndarray[Any, Any]:
    try:
        classes = to_numpy(targets) if hasattr(targets, "shape") else np.asarray(targets)
    except ValueError:
        raise InvalidValueError("Targets form no array: every image needs the same number of classes.") from None
    if classes.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"Targets are whole class numbers: got {classes.dtype}. None takes each image's top class; a "
            "function of the model's outputs explains anything else."
        )
    return classes.astype(np.int64)


def check_top(top: int, classes: int, model_name: str) -> None:
    """Refuse to rank more classes than the model has: a result of fewer columns would be none of those asked for.

    Raises:
        ValueError: naming both numbers.
    """
    if top > classes:
        raise InvalidValueError(f"{model_name} has {classes} classes: expected 'top{classes}' at most, got 'top{top}'.")


def check_range(targets: np.ndarray[Any, Any], classes: int, model_name: str) -> None:
    """Refuse classes the model does not have.

    Raises:
        ValueError: naming the first one and the classes there are.
    """
    beyond = targets[targets >= classes]
    if beyond.size:
        raise InvalidValueError(
            f"{model_name} has {classes} classes, numbered 0 to {classes - 1}: got the target {beyond[0]}."
        )
