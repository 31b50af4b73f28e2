"""Ready target functions for detectors: how strongly one object is still found, whatever form candidates come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from fusioncam_core.arrays.checks import require_word, widened
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, to_numpy
from fusioncam_core.arrays.words import _softmax, sigmoid
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.function_scores import holds_mappings
from fusioncam_core.models.outputs import unpack
from fusioncam_core.models.target_functions import Named

BoxForm = Literal["corners", "centre"]
"""What four numbers say of a box: (x0, y0, x1, y1), or its centre, width and height."""

Activation = Literal["none", "softmax", "sigmoid"]
"""What makes probabilities of class scores."""


class Found(NamedTuple):
    """Candidates of n images.

    Attributes:
        boxes: (n, N, 4) corners.
        classes: (n, N, classes) scores of all classes; None where each candidate has one.
        labels: (n, N) the class of each candidate, where it has one; None if there is only one class.
        confidence: (n, N) how sure the detector is of each candidate, whatever its class; None if it does not tell.
    """

    boxes: Array
    classes: Array | None
    labels: Array | None = None
    confidence: Array | None = None

    def scores_of(self, index: int, xp: Namespace) -> Array:
        """(n, N) how strongly each candidate is of a class."""
        if self.classes is not None:
            _require_class(index, self.classes)
            own = self.classes[..., index]
            return own if self.confidence is None else own * self.confidence
        assert self.confidence is not None
        if self.labels is None:
            return self.confidence
        return xp.where(self.labels == index, self.confidence, xp.zeros_like(self.confidence))


class ReadsCandidates(Protocol):
    """How candidates are read off a detector's outputs."""

    def __call__(self, outputs: Any) -> list[Found]:
        """Those of all n images at once, or of one image after the other where they vary in number."""


@dataclass(frozen=True)
class Candidates:
    """Candidates in outputs by name or position, or in a list of one mapping an image.

    Arrays are `boxes` (n, N, 4) and `class_scores` (n, N, classes), as DETR has them. A list of mappings, as
    torchvision's detectors return it, has `boxes` (N, 4), and `class_scores` (N, classes) or else `scores` (N,) with
    `labels` (N,); N varies, and may be 0.

    Attributes:
        boxes: the position or name of the boxes.
        class_scores: of the scores of all classes.
        scores: of a candidate's one score, where there are no class scores.
        labels: of its class; None where there is only one class.
        confidence: of a score (n, N) that multiplies the class scores, such as objectness; None for none.
        form: "corners" (x0, y0, x1, y1), or "centre": centre, width and height.
        activation: "none", "softmax" or "sigmoid": what makes probabilities of the class scores, if they are logits.

    Raises:
        ValueError: for another form or activation, or outputs without these names.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import Candidates, DetectionScore
        >>> found = {"boxes": np.array([[0.0, 0, 4, 4]]), "scores": np.array([0.8]), "labels": np.array([1])}
        >>> DetectionScore((0, 0, 4, 4), 1, Candidates())([found])  # one mapping an image, as torchvision returns them
        array([0.8])
        >>> halves = Candidates(boxes=0, class_scores=1, form="centre", activation="sigmoid")
        >>> outputs = np.array([[[2.0, 2, 4, 4]]]), np.array([[[0.0, 0.0]]])
        >>> DetectionScore((0, 0, 4, 4), 1, halves)(outputs)
        array([0.5])
    """

    boxes: int | str = "boxes"
    class_scores: int | str = "logits"
    scores: int | str = "scores"
    labels: int | str | None = "labels"
    confidence: int | str | None = None
    form: BoxForm = "corners"
    activation: Activation = "none"

    def __post_init__(self) -> None:
        require_word(self.form, "form", BoxForm)
        require_word(self.activation, "activation", Activation)

    def __call__(self, outputs: Any) -> list[Found]:
        """One of all images, or one an image."""
        if holds_mappings(outputs):
            return [self._of_one(each) for each in outputs]
        boxes, classes = unpack(outputs, self.boxes), unpack(outputs, self.class_scores)
        confidence = None if self.confidence is None else unpack(outputs, self.confidence)
        return [self._found(boxes, classes, None, confidence)]

    def _of_one(self, outputs: Any) -> Found:
        """Of one image's mapping, with an axis of one image."""
        classes = labels = None
        if isinstance(outputs, Mapping) and self.class_scores not in outputs:
            confidence = unpack(outputs, self.scores)
            labels = None if self.labels is None else unpack(outputs, self.labels)
        else:
            classes = unpack(outputs, self.class_scores)
            confidence = None if self.confidence is None else unpack(outputs, self.confidence)
        each = (unpack(outputs, self.boxes), classes, labels, confidence)
        return self._found(*(array if array is None else array[None, ...] for array in each))

    def _found(self, boxes: Any, classes: Any, labels: Any, confidence: Any) -> Found:
        xp = array_namespace(boxes)
        return Found(
            _corners(widened(boxes, xp=xp), self.form, xp),
            None if classes is None else _probabilities(widened(classes, xp=xp), self.activation, xp),
            labels,
            None if confidence is None else widened(confidence, xp=xp),
        )


@dataclass(frozen=True)
class YOLOCandidates:
    """Candidates of a YOLO head as it is, before non-maximum suppression: one array of boxes and class scores.

    Ultralytics' models from YOLOv8 on return (n, 4 + classes, N), the first of two outputs: centres, widths and
    heights in pixels, and class scores behind their sigmoid. YOLOv5 returns (n, N, 5 + classes) with the objectness in
    fifth place: `YOLOCandidates(axis=1, objectness=True)`.

    Attributes:
        axis: 2 or 1: where the candidates are; -1 is 2.
        objectness: whether the number behind the box is the candidate's objectness.
        classes: how many class scores there are; None takes all that follow. Segmentation and pose models have other
            numbers behind them.
        form: "centre" (centre, width and height) or "corners" (x0, y0, x1, y1).
        output: the position or name of the output; None takes the first.

    Raises:
        ValueError: for another axis or form, or outputs of another shape.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import DetectionScore, YOLOCandidates
        >>> head = np.array([[[2.0, 2.0], [2.0, 1.0], [4.0, 4.0], [4.0, 2.0], [0.1, 0.1], [0.5, 0.9]]])
        >>> head.shape  # (n, 4 + classes, N): two candidates, two classes
        (1, 6, 2)
        >>> DetectionScore((0, 0, 4, 4), 1, YOLOCandidates())(head)  # the first: 1 * 0.5, more than 0.5 * 0.9
        array([0.5])
    """

    axis: int = 2
    objectness: bool = False
    classes: int | None = None
    form: BoxForm = "centre"
    output: int | str | None = None

    def __post_init__(self) -> None:
        require_word(self.form, "form", BoxForm)
        if self.axis not in (1, 2, -1):
            raise InvalidValueError(f"axis is 1 or 2, where the candidates are: got {self.axis!r}.")

    def __call__(self, outputs: Any) -> list[Found]:
        """One of all images."""
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        first = 4 + self.objectness
        rows = values if values.ndim != 3 or self.axis == 1 else xp.moveaxis(values, 1, 2)
        if values.ndim != 3 or int(rows.shape[2]) < first + (self.classes or 1):
            expected = f"{first} + classes"
            shape = f"(n, N, {expected})" if self.axis == 1 else f"(n, {expected}, N)"
            raise InvalidValueError(f"Expected a YOLO head's outputs, {shape}, got {tuple(values.shape)}.")
        rows = widened(rows, xp=xp)
        last = None if self.classes is None else first + self.classes
        return [
            Found(
                _corners(rows[..., :4], self.form, xp),
                rows[..., first:last],
                confidence=rows[..., 4] if self.objectness else None,
            )
        ]


@dataclass(frozen=True, eq=False)
class DetectionScore(Named):
    """How strongly a detector still finds one object: the best of overlap times class score -> (n,).

    The maximum over all candidates of `IoU(box, candidate) * score of the class`: the similarity of D-RISE (arXiv
    2006.03204) with the class's score in place of the whole vector, for which there is `BoxSimilarity`. Without
    candidates it is 0: nothing is found any more.

    Attributes:
        box: the object's (x0, y0, x1, y1), in the units of the candidates.
        index: of its class.
        candidates: how they are read: `Candidates`, or `YOLOCandidates` for a raw head.

    Raises:
        ValueError: for a box without area, outputs that are read otherwise, or a class that they do not have.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import DetectionScore
        >>> boxes, class_scores = np.array([[[0.0, 0, 4, 4], [0, 0, 4, 2]]]), np.array([[[0.1, 0.5], [0.1, 0.9]]])
        >>> outputs = {"boxes": boxes, "logits": class_scores}
        >>> DetectionScore((0, 0, 4, 4), 1)(outputs)  # the first: 1 * 0.5, more than 0.5 * 0.9
        array([0.5])
    """

    box: tuple[float, float, float, float]
    index: int
    candidates: ReadsCandidates = field(default_factory=Candidates)

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", _box(self.box))

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        return _best(outputs, self.candidates, self._similarities)

    def _similarities(self, found: Found, xp: Namespace) -> Array:
        return _overlap(self.box, found.boxes, xp) * found.scores_of(self.index, xp)


@dataclass(frozen=True, eq=False)
class BoxSimilarity(Named):
    """D-RISE's similarity to one detection: the best of overlap, alike classes and objectness -> (n,).

    The maximum over all candidates `j` of `IoU(box, box_j) * cos(classes, classes_j) * objectness_j`: Petsiuk et al.,
    D-RISE (arXiv 2006.03204). Where candidates tell no objectness it is left out; of a candidate with one class and a
    score the class is its vector and the score its objectness. Without candidates it is 0. Choose this for RISE on a
    detector, and `DetectionScore` where the class's own score is to count.

    Attributes:
        box: the detection's (x0, y0, x1, y1), in the units of the candidates.
        classes: its class probabilities (classes,), or its class.
        candidates: how they are read: `Candidates`, or `YOLOCandidates` for a raw head.

    Raises:
        ValueError: for a box without area, class probabilities that are zeros or of another number of classes, or
            outputs that are read otherwise.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import BoxSimilarity
        >>> boxes, class_scores = np.array([[[0.0, 0, 4, 4], [0, 0, 4, 2]]]), np.array([[[0.0, 0.5], [0.3, 0.4]]])
        >>> outputs = {"boxes": boxes, "logits": class_scores}
        >>> BoxSimilarity((0, 0, 4, 4), 1)(outputs)  # the first: it overlaps wholly, and is of no other class
        array([1.])
    """

    box: tuple[float, float, float, float]
    classes: Any
    candidates: ReadsCandidates = field(default_factory=Candidates)

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", _box(self.box))
        if _is_whole(self.classes):
            return
        vector = np.array(to_numpy(self.classes) if hasattr(self.classes, "shape") else self.classes, dtype=np.float64)
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            raise InvalidValueError(
                f"classes are one class, or its detection's class probabilities, (classes,), finite and not all 0: got "
                f"shape {vector.shape}."
            )
        object.__setattr__(self, "classes", vector)

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        return _best(outputs, self.candidates, self._similarities)

    def _similarities(self, found: Found, xp: Namespace) -> Array:
        similar = _overlap(self.box, found.boxes, xp) * self._alike(found, xp)
        return similar if found.confidence is None else similar * found.confidence

    def _alike(self, found: Found, xp: Namespace) -> Array:
        """(n, N) the cosine of the angle between the class vectors."""
        if found.classes is None:
            return self._of_labels(found, xp)
        vector = self._vector(int(found.classes.shape[-1]))
        unit = constant_like(vector / np.linalg.norm(vector), found.classes, xp)
        squares = xp.sum(found.classes * found.classes, axis=-1)
        least = xp.full_like(squares, float(xp.finfo(squares.dtype).smallest_normal))
        return xp.sum(found.classes * unit, axis=-1) / xp.sqrt(xp.maximum(squares, least))

    def _of_labels(self, found: Found, xp: Namespace) -> Array:
        """The same of candidates that are each of one class."""
        assert found.confidence is not None
        if found.labels is None:
            return xp.ones_like(found.confidence)
        if _is_whole(self.classes):
            return xp.where(
                found.labels == self.classes, xp.ones_like(found.confidence), xp.zeros_like(found.confidence)
            )
        unit = constant_like(self.classes / np.linalg.norm(self.classes), found.confidence, xp)
        flat = xp.reshape(found.labels, (-1,))
        last = xp.full_like(flat, len(self.classes) - 1)
        known = xp.where(flat <= last, xp.take(unit, xp.minimum(flat, last), axis=0), xp.zeros_like(unit[:1]))
        return xp.reshape(known, tuple(found.labels.shape))

    def _vector(self, classes: int) -> np.ndarray[Any, Any]:
        if _is_whole(self.classes):
            if not -classes <= self.classes < classes:
                raise InvalidValueError(f"Candidates have {classes} classes, from 0: got the class {self.classes}.")
            one: np.ndarray[Any, Any] = np.eye(classes)[self.classes]
            return one
        if len(self.classes) != classes:
            raise InvalidValueError(
                f"Candidates have {classes} class scores: got class probabilities of {len(self.classes)} classes."
            )
        vector: np.ndarray[Any, Any] = self.classes
        return vector


def _best(outputs: Any, candidates: ReadsCandidates, similarities: Any) -> Array:
    """(n,) the largest similarity among each image's candidates; 0 where there are none."""
    found = candidates(outputs)
    xp = array_namespace(found[0].boxes)
    best = [_largest(similarities(each, xp), xp) for each in found]
    return best[0] if len(best) == 1 else xp.concat(best, axis=0)


def _largest(similarities: Array, xp: Namespace) -> Array:
    # The sum of no candidates is 0, and still depends on the outputs, as a gradient needs it.
    return xp.max(similarities, axis=1) if int(similarities.shape[1]) else xp.sum(similarities, axis=1)


def _overlap(box: tuple[float, float, float, float], candidates: Array, xp: Namespace) -> Array:
    """(n, N) intersections over unions of the candidates (n, N, 4) with the box; 0 of those without area."""
    corners = constant_like(np.asarray(box), candidates, xp)
    sides = xp.minimum(candidates[..., 2:], corners[2:]) - xp.maximum(candidates[..., :2], corners[:2])
    sides = xp.maximum(sides, xp.zeros_like(sides))
    shared = sides[..., 0] * sides[..., 1]
    own = candidates[..., 2:] - candidates[..., :2]
    own = xp.maximum(own, xp.zeros_like(own))
    x0, y0, x1, y1 = box
    return shared / (own[..., 0] * own[..., 1] + (x1 - x0) * (y1 - y0) - shared)


def _corners(boxes: Array, form: BoxForm, xp: Namespace) -> Array:
    """Boxes (n, N, 4) by their corners."""
    if boxes.ndim != 3 or int(boxes.shape[2]) != 4:
        raise InvalidValueError(f"Expected boxes of four numbers, (n, N, 4), got {tuple(boxes.shape)}.")
    if form == "corners":
        return boxes
    half = boxes[..., 2:] / 2
    return xp.concat([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _probabilities(scores: Array, activation: Activation, xp: Namespace) -> Array:
    if activation == "softmax":
        return _softmax(scores, axis=-1, xp=xp)
    return sigmoid(scores, xp=xp) if activation == "sigmoid" else scores


def _box(box: Any) -> tuple[float, float, float, float]:
    values = to_numpy(box) if hasattr(box, "shape") else np.asarray(box, dtype=np.float64)
    values = values.astype(np.float64).reshape(-1)
    if len(values) != 4 or not np.isfinite(values).all() or values[2] <= values[0] or values[3] <= values[1]:
        raise InvalidValueError(
            f"A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1: got {tuple(values.tolist())}. Of a centre, width and "
            "height make (x - w / 2, y - h / 2, x + w / 2, y + h / 2)."
        )
    x0, y0, x1, y1 = values.tolist()
    return x0, y0, x1, y1


def _require_class(index: int, scores: Array) -> None:
    classes = int(scores.shape[-1])
    if not -classes <= index < classes:
        raise InvalidValueError(f"Candidates have {classes} classes, from 0: got the class {index}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
