"""Ready functions of a model's outputs, to be given as targets: what else than a class can be explained.

Each is called with the raw outputs for n images and returns n scores; its contribution under a mask is its own value.
Write your own the same way: any function of the outputs made of the framework's operations. A `name` of its own, if it
has one, stands in tables and pictures.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import widened
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, to_numpy
from fusioncam_core.arrays.words import _softmax, sigmoid
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.outputs import unpack


class Named:
    """A target function that is called by its class, and by the fields that are not as by default."""

    @property
    def name(self) -> str:
        """Such as "Contrast(3, instead_of=5)": what stands in tables and pictures."""
        ordered: list[Field[Any]] = sorted(fields(self), key=lambda each: each.name != "index")  # type: ignore[arg-type]
        given = [each for each in ordered if not _is_default(getattr(self, each.name), each)]
        words = (("" if each.name == "index" else f"{each.name}=") + _shown(getattr(self, each.name)) for each in given)
        return f"{type(self).__name__}({', '.join(words)})"


def _is_default(value: Any, of: Field[Any]) -> bool:
    default = of.default if of.default_factory is MISSING else of.default_factory()
    return type(value) is type(default) and not hasattr(value, "shape") and bool(value == default)


def _shown(value: Any) -> str:
    return f"<{'x'.join(map(str, value.shape))}>" if hasattr(value, "shape") else repr(value)


def _scores(outputs: Any, output: int | str | None, function: Named) -> Array:
    """The outputs (n, classes) of a classifier.

    Raises:
        InvalidValueError: for another number of axes.
    """
    values = unpack(outputs, output)
    if values.ndim != 2:
        raise InvalidValueError(
            f"{type(function).__name__} takes outputs of shape (n, classes): got {tuple(values.shape)}."
        )
    return values


def _require_classes(*indices: int, values: Array) -> None:
    """Raise InvalidValueError for a class that the outputs (n, classes) do not have."""
    classes = int(values.shape[1])
    beyond = [index for index in indices if not -classes <= index < classes]
    if beyond:
        raise InvalidValueError(f"The outputs have {classes} classes, numbered from 0: got the class {beyond[0]}.")


@dataclass(frozen=True)
class ClassLogit(Named):
    """The output of one class (n, classes) -> (n,), whatever the model's outputs mean.

    Attributes:
        index: of the class.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: if the outputs are not (n, classes), or have no such class.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import ClassLogit
        >>> outputs = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 2.0]])  # of two images, for three classes
        >>> ClassLogit(2)(outputs)
        array([2., 2.])
    """

    index: int
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = _scores(outputs, self.output, self)
        _require_classes(self.index, values=values)
        return values[:, self.index]


@dataclass(frozen=True)
class ClassProbability(Named):
    """The probability of one class, of logits (n, classes) -> (n,).

    Choose this to see what a class has ahead of the others: a gradient of the probability also follows what lowers
    *their* logits. Where the model is sure it vanishes; `log=True` and `ResidualSoftmax` do not.

    Attributes:
        index: of the class.
        task: "multiclass" (softmax over the classes) or "multilabel" (a sigmoid of the class's own logit).
        log: whether to take its logarithm.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: for another task, outputs that are not (n, classes), or a class that they do not have.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import ClassProbability
        >>> outputs = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 2.0]])  # of two images, for three classes
        >>> ClassProbability(1)(outputs).round(4)
        array([0.6652, 0.0159])
        >>> ClassProbability(1, task="multilabel")(outputs).round(4)
        array([0.9526, 0.5   ])
    """

    index: int
    task: str = "multiclass"
    log: bool = False
    output: int | str | None = None

    def __post_init__(self) -> None:
        if self.task not in ("multiclass", "multilabel"):
            raise InvalidValueError(f"task is 'multiclass' or 'multilabel': got {self.task!r}.")

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        logits = _widened(_scores(outputs, self.output, self))
        _require_classes(self.index, values=logits)
        xp = array_namespace(logits)
        if self.task == "multilabel":
            own = logits[:, self.index]
            return _log_sigmoid(own, xp) if self.log else sigmoid(own, xp=xp)
        return _log_softmax(logits, xp)[:, self.index] if self.log else _softmax(logits, axis=-1, xp=xp)[:, self.index]


@dataclass(frozen=True)
class ResidualSoftmax(Named):
    """ReST: a class's logit and the logarithm of its probability, `y_c + log p_c`, (n, classes) -> (n,).

    The Residual Softmax Target-Class utility of Cai, CAMs as Shapley Value-based Explainers (arXiv 2501.06261), as the
    author's code has it: the logit less the cross entropy. Choose this where the logit alone shows what all classes
    share, and the probability, saturated, nothing.

    Attributes:
        index: of the class.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: if the outputs are not (n, classes), or have no such class.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import ResidualSoftmax
        >>> outputs = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 2.0]])  # of two images, for three classes
        >>> ResidualSoftmax(1)(outputs).round(4)
        array([ 2.5924, -4.1429])
    """

    index: int
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        logits = _widened(_scores(outputs, self.output, self))
        _require_classes(self.index, values=logits)
        return logits[:, self.index] + _log_softmax(logits, array_namespace(logits))[:, self.index]


@dataclass(frozen=True)
class BinaryLogit(Named):
    """The single logit `z` of a binary classifier, (n,) or (n, 1) -> (n,): `z` for class 1, `-z` for class 0.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import BinaryLogit
        >>> BinaryLogit()(np.array([[0.5], [-2.0]]))
        array([ 0.5, -2. ])
        >>> BinaryLogit(positive=False)(np.array([[0.5], [-2.0]]))
        array([-0.5,  2. ])
    """

    positive: bool = True
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        values = array_namespace(values).reshape(values, (-1,))
        return values if self.positive else -values


@dataclass(frozen=True)
class Regression(Named):
    """One number that the model predicts, (n,) or (n, numbers) -> (n,); `sign=-1` explains what lowers it.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import Regression
        >>> Regression()(np.array([[3.5], [-1.0]]))
        array([ 3.5, -1. ])
    """

    index: int = 0
    sign: int = 1
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        return self.sign * (values if values.ndim == 1 else values[:, self.index])


@dataclass(frozen=True)
class Contrast(Named):
    """Why one class and not another: the difference of two outputs (n, classes) -> (n,).

    Raises:
        ValueError: if the outputs are not (n, classes), or have no such class.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import Contrast
        >>> outputs = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 2.0]])  # of two images, for three classes
        >>> Contrast(1, instead_of=2)(outputs)
        array([ 1., -2.])
    """

    index: int
    instead_of: int
    output: int | str | None = None

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = _scores(outputs, self.output, self)
        _require_classes(self.index, self.instead_of, values=values)
        return values[:, self.index] - values[:, self.instead_of]


@dataclass(frozen=True)
class Finer(Named):
    """Finer-CAM's target: a class's logit less those of similar classes, (n, classes) -> (n,).

    `y_c - alpha * mean_d y_d` over the similar classes `d`: the mean of the differences `y_c - alpha y_d` of Zhang et
    al., Finer-CAM (arXiv 2501.11309), as the authors' `FinerDefaultTarget` has it. Choose this to see what tells a
    class from those that look like it; `alpha` nearer 0 shows more of the object, nearer 1 more of the difference.

    Without `minus` the similar classes are chosen once an image, by the plain image's outputs: as in the authors' code
    those whose logits are closest to the class's own, which for the top class are the next ones. They stay the same
    for the masked copies of the image. That costs one more evaluation of each image.

    Attributes:
        index: of the class; None takes each image's top class.
        minus: the similar classes, by number; None chooses them.
        alpha: how much of their mean logit is taken off.
        count: how many are chosen.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: for an `alpha` that is no finite number of at least 0, a `count` below 1 or of as many classes as
            there are, no classes in `minus`, or the class itself among them; and for outputs that are not (n, classes).

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import Finer
        >>> outputs = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 2.0]])  # of two images, for three classes
        >>> Finer(1, minus=(0, 2))(outputs)  # less the mean of the other two
        array([ 1.5, -3. ])
    """

    index: int | None = None
    minus: tuple[int, ...] | None = None
    alpha: float = 1.0
    count: int = 3
    output: int | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise InvalidValueError(f"alpha is a number of at least 0: got {self.alpha!r}.")
        if self.count < 1:
            raise InvalidValueError(f"count is a number of classes, 1 or more: got {self.count!r}.")
        if self.minus is None:
            return
        given: Any = self.minus
        minus = tuple(int(each) for each in ((given,) if isinstance(given, int) else given))
        if not minus or (self.index is not None and self.index in minus):
            raise InvalidValueError(f"minus lists classes other than {self.index}, one at least: got {minus}.")
        object.__setattr__(self, "minus", minus)

    @property
    def waits(self) -> bool:
        """Whether a class is left to choose by the plain image."""
        return self.index is None or self.minus is None

    def on_plain(self, outputs: Any) -> Finer:
        """The same with its classes, by the outputs (1, classes) for the plain image."""
        logits = to_numpy(_scores(outputs, self.output, self))[0].astype(np.float64)
        index = int(np.argmax(logits)) if self.index is None else self.index
        _require_classes(index, values=logits[None])
        if self.minus is not None:
            return replace(self, index=index, minus=tuple(each for each in self.minus if each != index))
        distances = np.abs(logits - logits[index])
        distances[index] = math.inf
        if self.count > int(np.isfinite(distances).sum()):
            raise InvalidValueError(
                f"The outputs have {len(logits)} classes: {self.count} others than class {index} cannot be chosen. Say "
                "a smaller count=, or name them with minus=."
            )
        return replace(self, index=index, minus=tuple(np.argsort(distances, kind="stable")[: self.count].tolist()))

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = _scores(outputs, self.output, self)
        if self.index is None or self.minus is None:
            raise InvalidTypeError(
                "This Finer chooses its classes by the outputs for the plain image: on_plain(outputs) gives the "
                "function of outputs, or name index= and minus=."
            )
        _require_classes(self.index, *self.minus, values=values)
        others = sum(values[:, each] for each in self.minus)
        return values[:, self.index] - self.alpha * others / len(self.minus)


@dataclass(frozen=True, eq=False)
class SegmentationLogit(Named):
    """The mean logit of a class over the pixels of a mask, of outputs (n, classes, *size) -> (n,).

    A mask of the image's size is brought to that of smaller outputs by area: a position of the outputs counts by the
    share of its pixels that are in the mask.

    Attributes:
        index: of the class.
        mask: (*size), booleans or weights, of the outputs' spatial size or a larger one of the same proportions; None
            takes all pixels.
        channel_axis: 1 or -1, where the classes are in the outputs.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: if the mask is smaller than the outputs, of other proportions, or empty, or holds NaN or infinity.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import SegmentationLogit
        >>> outputs = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])  # (1, 1, 2, 2): one class
        >>> SegmentationLogit(0)(outputs)
        array([2.5])
        >>> SegmentationLogit(0, mask=np.array([[True, True], [False, False]]))(outputs)
        array([1.5])
    """

    index: int
    mask: Any = None
    channel_axis: int = 1
    output: int | str | None = None

    def __post_init__(self) -> None:
        if self.mask is not None:
            object.__setattr__(self, "mask", _on_host(self.mask))

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        logits = values[:, self.index, ...] if self.channel_axis == 1 else values[..., self.index]
        flat = xp.reshape(logits, (logits.shape[0], -1))
        if self.mask is None:
            return xp.mean(flat, axis=1)
        size = tuple(int(length) for length in logits.shape[1:])
        if not _fits(self.mask.shape, size) or not self.mask.any() or not np.isfinite(self.mask).all():
            raise InvalidValueError(
                f"Expected a mask of the outputs' shape {size}, or a larger one of the same proportions, with at least "
                f"one pixel, got one of {self.mask.shape} with {int((self.mask != 0).sum())}."
                f"{self._other_axis(tuple(values.shape))}"
            )
        weights = _by_area(self.mask, size)
        return xp.sum(flat * constant_like(weights.reshape(-1) / weights.sum(), flat, xp), axis=1)

    def _other_axis(self, shape: tuple[int, ...]) -> str:
        fits = _fits(self.mask.shape, shape[1:-1] if self.channel_axis == 1 else shape[2:])
        return f" Say channel_axis={-self.channel_axis} if the classes are there." if fits else ""


def _fits(mask: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a mask is of that size, or a larger one of its proportions, as far as whole numbers allow."""
    if len(mask) != len(size) or any(length < own for length, own in zip(mask, size, strict=True)) or 0 in size:
        return False
    factors = [length / own for length, own in zip(mask, size, strict=True)]
    return all(abs(length / max(factors) - own) < 1 for length, own in zip(mask, size, strict=True))


def _by_area(mask: np.ndarray[Any, Any], size: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The mask at another size: each cell has the mean of the part of the mask that it covers."""
    for axis, cells in enumerate(size):
        length = mask.shape[axis]
        if length == cells:
            continue
        edges = np.arange(cells + 1) * length / cells
        pixels = np.arange(length)
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        shares = np.maximum(covered, 0) * cells / length
        mask = np.moveaxis(np.tensordot(shares, mask, axes=(1, axis)), 0, axis)
    return mask


@dataclass(frozen=True, eq=False)
class EmbeddingSimilarity(Named):
    """The cosine of the angle between an embedding (n, D) and a reference -> (n,) in [-1, 1].

    One reference an image is a list of them: `targets=[EmbeddingSimilarity(each) for each in references]`.

    Attributes:
        reference: (D,), such as the embedding of another image or of a text: of any library and dtype. It is copied to
            the host, and whatever graph it is part of let go.
        output: the position or name of the output, if there are several.

    Raises:
        ValueError: for a reference of zeros, or with NaN or infinity, and embeddings that are not (n, D).

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import EmbeddingSimilarity
        >>> EmbeddingSimilarity(np.array([1.0, 0.0]))(np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])).round(4)
        array([1.    , 0.    , 0.7071])
    """

    reference: Any
    output: int | str | None = None

    def __post_init__(self) -> None:
        reference = _on_host(self.reference)
        if reference.ndim > 1 and reference.shape[0] > 1:
            raise InvalidValueError(
                f"A reference is one embedding, (D,): got shape {reference.shape}. One reference an image is a list, "
                "[EmbeddingSimilarity(each) for each in references]."
            )
        reference = reference.reshape(-1)
        if not np.isfinite(reference).all() or not reference.any():
            raise InvalidValueError("A reference is finite and not zero everywhere: an angle to this one is undefined.")
        object.__setattr__(self, "reference", reference)

    def __call__(self, outputs: Any) -> Array:
        """(n,) values."""
        values = _widened(unpack(outputs, self.output))
        if values.ndim != 2 or int(values.shape[1]) != len(self.reference):
            raise InvalidValueError(
                f"Expected embeddings of shape (n, {len(self.reference)}), as the reference has, got "
                f"{tuple(values.shape)}. Say with output= which output they are, if there are several."
            )
        xp = array_namespace(values)
        unit = constant_like(self.reference / np.linalg.norm(self.reference), values, xp)
        return xp.sum(values * unit, axis=1) / _length(values, xp)


def _on_host(values: Any) -> np.ndarray[Any, Any]:
    """Numbers of any library and dtype as NumPy's float64, without a graph."""
    return np.array(to_numpy(values) if hasattr(values, "shape") else values, dtype=np.float64)


def _widened(values: Array) -> Array:
    """The values in float32 at least: exponentials and squares do not fit into half precision."""
    return widened(values, xp=array_namespace(values))


def _log_softmax(logits: Array, xp: Namespace) -> Array:
    """Logarithms of probabilities (n, classes); -infinity for a class that the model rules out."""
    largest = xp.max(logits, axis=1, keepdims=True)
    below = xp.maximum(logits - largest, xp.full_like(logits, -1000.0))
    return logits - largest - xp.log(xp.sum(xp.exp(below), axis=1, keepdims=True))


def _log_sigmoid(logits: Array, xp: Namespace) -> Array:
    return xp.minimum(logits, xp.zeros_like(logits)) - xp.log(1 + xp.exp(-xp.abs(logits)))


def _length(values: Array, xp: Namespace) -> Array:
    """Euclidean lengths (n,), not below the smallest normal number."""
    squares = xp.sum(values * values, axis=1)
    return xp.sqrt(xp.maximum(squares, xp.full_like(squares, float(xp.finfo(squares.dtype).smallest_normal))))
