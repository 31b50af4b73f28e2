"""Ready functions of a model's outputs, to be given as targets: what else than a class can be explained.

Each is called with the raw outputs for n images and returns n scores; its contribution under a mask is its own value.
Write your own the same way: any function of the outputs made of the framework's operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.outputs import unpack


@dataclass(frozen=True)
class ClassLogit:
    """The output of one class (n, classes) -> (n,), whatever the model's outputs mean.

    Attributes:
        index: of the class.
        output: the position or name of the output, if there are several.
    """

    index: int
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        return unpack(outputs, self.output)[:, self.index]


@dataclass(frozen=True)
class BinaryLogit:
    """The single logit `z` of a binary classifier, (n,) or (n, 1) -> (n,): `z` for class 1, `-z` for class 0."""

    positive: bool = True
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        values = array_namespace(values).reshape(values, (-1,))
        return values if self.positive else -values


@dataclass(frozen=True)
class Regression:
    """One number that the model predicts, (n,) or (n, numbers) -> (n,); `sign=-1` explains what lowers it."""

    index: int = 0
    sign: int = 1
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        return self.sign * (values if values.ndim == 1 else values[:, self.index])


@dataclass(frozen=True)
class Contrast:
    """Why one class and not another: the difference of two outputs (n, classes) -> (n,)."""

    index: int
    instead_of: int
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        return values[:, self.index] - values[:, self.instead_of]


@dataclass(frozen=True, eq=False)
class SegmentationLogit:
    """The mean logit of a class over the pixels of a mask, of outputs (n, classes, *size) -> (n,).

    Attributes:
        index: of the class.
        mask: (*size), booleans or weights, of the outputs' spatial size; None takes all pixels.
        channel_axis: 1 or -1, where the classes are in the outputs.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: if the mask's shape is not the outputs' spatial one, or it is empty.
    """

    index: int
    mask: Any = None
    channel_axis: int = 1
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        logits = values[:, self.index, ...] if self.channel_axis == 1 else values[..., self.index]
        flat = xp.reshape(logits, (logits.shape[0], -1))
        if self.mask is None:
            return xp.mean(flat, axis=1)
        mask = np.asarray(self.mask, dtype=np.float64)
        if mask.shape != tuple(logits.shape[1:]) or not mask.any():
            raise InvalidValueError(
                f"Expected a mask of the outputs' shape {tuple(logits.shape[1:])} with at least one pixel, got one of "
                f"{mask.shape} with {int((mask != 0).sum())}.{self._other_axis(mask, values)}"
            )
        return xp.sum(flat * constant_like(mask.reshape(-1) / mask.sum(), flat, xp), axis=1)

    def _other_axis(self, mask: np.ndarray[Any, Any], values: Array) -> str:
        shape = tuple(values.shape)
        fits = mask.shape == (shape[1:-1] if self.channel_axis == 1 else shape[2:])
        return f" Say channel_axis={-self.channel_axis} if the classes are there." if fits else ""


@dataclass(frozen=True, eq=False)
class EmbeddingSimilarity:
    """The cosine of the angle between an embedding (n, D) and a reference -> (n,) in [-1, 1].

    Attributes:
        reference: (D,), such as the embedding of another image or of a text.
        output: the position or name of the output, if there are several.
    """

    reference: Any
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        reference = np.asarray(self.reference, dtype=np.float64).reshape(-1)
        unit = constant_like(reference / np.linalg.norm(reference), values, xp)
        return xp.sum(values * unit, axis=1) / _length(values, xp)


def _length(values: Array, xp: Namespace) -> Array:
    """Euclidean lengths (n,), not below the smallest normal number."""
    squares = xp.sum(values * values, axis=1)
    return xp.sqrt(xp.maximum(squares, xp.full_like(squares, float(xp.finfo(squares.dtype).smallest_normal))))


@dataclass(frozen=True, eq=False)
class DetectionScore:
    """How strongly a detector still finds one object: the best of overlap times class score -> (n,).

    The similarity of D-RISE (arXiv 2006.03204, equation 4) with the class score in place of the whole vector:
    the maximum over all candidates of `IoU(box, candidate) * score of the class`. Without candidates it is 0: nothing
    is found any more.

    Attributes:
        box: the object's (x0, y0, x1, y1).
        index: of its class.
        boxes: the position or name of the output with candidate boxes (n, N, 4).
        class_scores: the position or name of the output with their class scores (n, N, classes).
    """

    box: tuple[float, float, float, float]
    index: int
    boxes: int | str = "boxes"
    class_scores: int | str = "logits"

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        candidates = unpack(outputs, self.boxes)
        scores = unpack(outputs, self.class_scores)[..., self.index]
        xp = array_namespace(candidates)
        found = scores * self._overlap(candidates, xp)
        # The sum of no candidates is 0, and still depends on the outputs, as a gradient needs it.
        return xp.max(found, axis=1) if candidates.shape[1] else xp.sum(found, axis=1)

    def _overlap(self, candidates: Array, xp: Namespace) -> Array:
        """(n, N) intersections over unions of the candidates (n, N, 4) with the box."""
        box = constant_like(np.asarray(self.box), candidates, xp)
        sides = xp.minimum(candidates[..., 2:], box[2:]) - xp.maximum(candidates[..., :2], box[:2])
        sides = xp.maximum(sides, xp.zeros_like(sides))
        shared = sides[..., 0] * sides[..., 1]
        own = candidates[..., 2:] - candidates[..., :2]
        areas = own[..., 0] * own[..., 1]
        x0, y0, x1, y1 = self.box
        return shared / (areas + (x1 - x0) * (y1 - y0) - shared)
