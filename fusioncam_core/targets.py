"""What is asked to be explained, checked: one class an image, or several."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays import to_numpy


class Targets(NamedTuple):
    """Classes to explain.

    Attributes:
        classes: (B, K) integers, or None for each image's top class.
        several: whether K belongs in the result's shape.
    """

    classes: np.ndarray[Any, Any] | None
    several: bool

    def rows(self, start: int, stop: int) -> Targets:
        """The targets of some of the images."""
        return self if self.classes is None else Targets(self.classes[start:stop], self.several)


def read_targets(targets: Any, batch: int) -> Targets:
    """The targets of `batch` images from None, an int, (B,) or (B, K) integers of any library.

    Raises:
        TypeError: if they are not integers.
        ValueError: if there are not as many rows as images, or a class is negative.
    """
    if targets is None:
        return Targets(None, several=False)
    classes = _as_integers(targets)
    if classes.ndim == 0:
        classes = np.broadcast_to(classes, (batch,))
    if classes.ndim > 2 or classes.shape[0] != batch or classes.size == 0:
        raise ValueError(
            f"Targets of shape {classes.shape} came with {batch} image{'s' * (batch != 1)}. Expected: one class, "
            f"({batch},) classes, or ({batch}, K) for K classes of each image."
        )
    if classes.min() < 0:
        raise ValueError(f"Classes count from 0, and the target {classes.min()} came.")
    return Targets(classes.reshape(batch, -1), several=classes.ndim == 2)


def _as_integers(targets: Any) -> np.ndarray[Any, Any]:
    try:
        classes = to_numpy(targets) if hasattr(targets, "shape") else np.asarray(targets)
    except ValueError:
        raise ValueError("Targets form no array: every image needs the same number of classes.") from None
    if classes.dtype.kind not in "iu":
        raise TypeError(
            f"Targets are whole class numbers, and {classes.dtype} came. None takes each image's top class."
        )
    return classes.astype(np.int64)


def check_range(targets: np.ndarray[Any, Any], classes: int, model_name: str) -> None:
    """Refuse classes the model does not have.

    Raises:
        ValueError: naming the first one and the classes there are.
    """
    beyond = targets[targets >= classes]
    if beyond.size:
        raise ValueError(
            f"{model_name} has {classes} classes, numbered 0 to {classes - 1}, and the target {beyond[0]} came."
        )
