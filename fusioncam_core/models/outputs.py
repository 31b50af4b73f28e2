"""What a model's outputs mean: from what the model returned to the logit and probability of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, indices_like
from fusioncam_core.arrays.words import _softmax, sigmoid
from fusioncam_core.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import Ending

Task = Literal["multiclass", "multilabel", "binary"]
OutputKind = Literal["logits", "probabilities"]


OTHER_THAN_CLASSES = (
    "What is no classifier is explained by a function of its outputs, given as targets=: of a segmentation "
    "SegmentationLogit(class, mask), with channel_axis=-1 where classes come last and output= where outputs are "
    "several; of a detector's candidates DetectionScore(box, class)."
)


def unpack(outputs: Any, which: int | str | None = None) -> Array:
    """The array of class scores in what a model returned.

    Args:
        outputs: an array, or a tuple, list, mapping or object that holds it.
        which: the position, key or attribute of the output that is explained. With None an object's or
            mapping's `logits` is taken, the only entry of a mapping, or the first of a tuple or list
            (auxiliary heads come after it).

    Raises:
        TypeError: for a mapping with several entries and no `logits`, or anything that holds no array.
        ValueError: if there is no output of the name `which`.
    """
    if which is not None:
        return unpack(_named_output(outputs, which))
    if hasattr(outputs, "shape"):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if logits is not None:
        return logits
    entries = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(outputs, Mapping) and len(entries) > 1:
        raise InvalidTypeError(
            f"The model returned several outputs, {_names(outputs)}, and none is called 'logits'. Say which is "
            f"explained with output=. {OTHER_THAN_CLASSES}"
        )
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], Mapping):
        several = "s" * (len(outputs) != 1)
        raise InvalidTypeError(
            f"The model returned {len(outputs)} mapping{several} of {_names(outputs[0])}, one for each image, as "
            "detectors do. "
            "Give as targets= a function that makes one score an image of them, (n,): such as the best score of a "
            "class, or its overlap with a box times its score, as DetectionScore has it."
        )
    if isinstance(entries, tuple | list) and entries:
        return unpack(entries[0])
    raise InvalidTypeError(
        f"The model returned a {type(outputs).__qualname__}, which holds no array of class scores. Wrap the model "
        "so that it returns one."
    )


def scores_in(outputs: Any) -> list[Array]:
    """The array of class scores in what a model returned; if there is none that is known to be, all floating arrays.

    Raises:
        TypeError: if there are none.
    """
    try:
        return [unpack(outputs)]
    except InvalidTypeError:
        found = [each for each in _arrays(outputs) if array_namespace(each).isdtype(each.dtype, "real floating")]
        if not found:
            raise
        return found


def _arrays(outputs: Any) -> Iterator[Array]:
    if hasattr(outputs, "shape"):
        yield outputs
    elif isinstance(outputs, Mapping | tuple | list):
        for each in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _arrays(each)


def _named_output(outputs: Any, which: int | str) -> Any:
    if isinstance(outputs, Mapping) and which in outputs:
        return outputs[which]
    if isinstance(outputs, tuple | list) and isinstance(which, int) and which < len(outputs):
        return outputs[which]
    if isinstance(which, str) and hasattr(outputs, which) and not hasattr(outputs, "shape"):
        return getattr(outputs, which)
    raise InvalidValueError(f"The model has no output {which!r}: it returned {_names(outputs)}.")


def _names(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return ", ".join(map(repr, outputs))
    if isinstance(outputs, tuple | list):
        return f"{len(outputs)} outputs, 0 to {len(outputs) - 1}"
    return f"one {type(outputs).__qualname__}"


@dataclass(frozen=True)
class ClassScores:
    """How a class's logit `y_c` and probability `p` are read off the outputs.

    Attributes:
        task: "multiclass" (softmax over the classes), "multilabel" (a sigmoid per class) or "binary" (one
            logit `z`: class 1 is `z`, class 0 is `-z`).
        output_kind: whether the model returns "logits" or "probabilities". Of probabilities the logit is taken
            as `log p` (multiclass: the logit up to a constant of the image) or `log p - log(1 - p)`.
        output: the position or name of the explained one of several outputs.
        top: how many classes to score when no targets are given: an image's top ones.

    Two of them with the same fields are equal and have the same hash, so that compiled functions are found again.

    Raises:
        ValueError: for another task or kind of outputs.
    """

    task: Task = "multiclass"
    output_kind: OutputKind = "logits"
    output: int | str | None = None
    top: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (("task", self.task, Task), ("output_kind", self.output_kind, OutputKind)):
            if value not in get_args(known):
                choices = ", ".join(map(repr, get_args(known)))
                raise InvalidValueError(f"{name} is one of {choices}: got {value!r}.")

    def behind(self, ending: Ending | None) -> ClassScores:
        """The same of a model whose last softmax or sigmoid the adapter leaves out: its outputs are logits then.

        Raises:
            ValueError: if the task is not what a model with that ending was made for.
        """
        if ending is None:
            return self
        if ending == "softmax" and self.task != "multiclass":
            raise InvalidValueError(
                f"The model ends in a softmax, by which its classes exclude each other: got task={self.task!r}. "
                "Say task='multiclass'."
            )
        if ending == "sigmoid" and self.task == "multiclass":
            raise InvalidValueError(
                "The model ends in a sigmoid, and task='multiclass' is for a softmax over classes that exclude each "
                "other. Say task='binary' for one output that decides between two classes, or task='multilabel' for "
                "one output a class."
            )
        return replace(self, output_kind="logits")

    def logits(self, outputs: Any) -> Array:
        """(B, classes) float32 logits of the model's outputs.

        Raises:
            ValueError: if the outputs are not (B, classes); for "binary" (B, 1) or (B,).
        """
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        values = xp.astype(values, xp.float32)
        if self.task == "binary":
            return self._binary_logits(values, xp)
        if values.ndim != 2:
            advice = f"{OTHER_THAN_CLASSES} " if values.ndim > 2 else ""
            raise InvalidValueError(
                f"The model returned outputs of shape {tuple(values.shape)}, and (batch, classes) was expected. "
                f"{advice}If several values a class are meant, wrap the model so that it returns one."
            )
        if self.task == "multiclass" and values.shape[1] == 1:
            raise InvalidValueError(
                "The model returns one value an image, whose softmax is always 1. Say task='binary' for one logit "
                "that decides between two classes."
            )
        return values if self.output_kind == "logits" else self._log_odds(values, xp)

    def _binary_logits(self, values: Array, xp: Namespace) -> Array:
        if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
            raise InvalidValueError(
                f"task='binary' expects one value an image: got outputs of shape {tuple(values.shape)}. "
                "Two columns are task='multiclass'."
            )
        values = xp.reshape(values, (-1, 1))
        positive = values if self.output_kind == "logits" else self._log_odds(values, xp)
        return xp.concat([-positive, positive], axis=1)

    def _log_odds(self, probabilities: Array, xp: Namespace) -> Array:
        # The smallest normal number, not zero, is the least probability: its logarithm is finite.
        smallest = xp.full_like(probabilities, float(xp.finfo(probabilities.dtype).smallest_normal))
        logarithm = xp.log(xp.maximum(probabilities, smallest))
        if self.task == "multiclass":
            return logarithm
        return logarithm - xp.log(xp.maximum(1 - probabilities, smallest))

    def probabilities(self, logits: Array) -> Array:
        """(B, classes) probabilities in [0, 1] of logits that `logits` returned."""
        xp = array_namespace(logits)
        if self.task == "multiclass":
            return _softmax(logits, -1, xp=xp)
        return sigmoid(logits, xp=xp)

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, K) logits of the targets (B, K), or (B, top) of each image's top classes when there are none."""
        logits = self.logits(outputs)
        xp = array_namespace(logits)
        if targets is None:
            return xp.take_along_axis(logits, self.default_targets(logits), axis=1)
        # A class beyond the last is refused once the number of classes is known; here it must only not crash.
        last = xp.full_like(targets, logits.shape[1] - 1)
        return xp.take_along_axis(logits, xp.minimum(targets, last), axis=1)

    def default_targets(self, logits: Array) -> Array:
        """(B, top) the classes with the largest logits, the largest first."""
        xp = array_namespace(logits)
        if self.top == 1:
            return xp.argmax(logits, axis=1, keepdims=True)
        return xp.argsort(logits, axis=1, descending=True)[:, : self.top]


@dataclass(frozen=True)
class FunctionScores:
    """Functions of the outputs in the place of classes: a function's value is its logit and its probability.

    Attributes:
        functions: K functions of the model's raw outputs for n images that return (n,) scores.
    """

    functions: tuple[Callable[[Any], Array], ...]

    def logits(self, outputs: Any) -> Array:
        """(B, K) float32 values of the functions.

        Raises:
            ValueError: if a function returns another shape than (B,).
        """
        values = [function(outputs) for function in self.functions]
        for function, each in zip(self.functions, values, strict=True):
            if getattr(each, "ndim", None) != 1:
                shape = tuple(getattr(each, "shape", ()))
                raise InvalidValueError(
                    f"The target {function!r} returned shape {shape}, and one score an image was expected."
                )
        xp = array_namespace(*values)
        return xp.astype(xp.stack(values, axis=1), xp.float32)

    def probabilities(self, logits: Array) -> Array:
        """The values themselves."""
        return logits

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, K) values of all functions."""
        return self.logits(outputs)

    def default_targets(self, logits: Array) -> Array:
        """(B, K) the functions' positions."""
        xp = array_namespace(logits)
        positions = indices_like(np.arange(len(self.functions)), logits, xp)
        return xp.broadcast_to(positions, tuple(logits.shape))


Scores = ClassScores | FunctionScores
"""How targets' scores and probabilities are read off the outputs."""
