"""What a model's outputs mean: from what the model returned to the logit and probability of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fusioncam_core.arrays import Array, Namespace, _softmax, array_namespace, sigmoid

Task = Literal["multiclass", "multilabel", "binary"]
OutputKind = Literal["logits", "probabilities"]


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
        raise TypeError(
            f"The model returned several outputs, {_names(outputs)}, and none is called 'logits'. Say which is "
            "explained with output=."
        )
    if isinstance(entries, tuple | list) and entries:
        return unpack(entries[0])
    raise TypeError(
        f"The model returned a {type(outputs).__qualname__}, which holds no array of class scores. Wrap the model "
        "so that it returns one."
    )


def _named_output(outputs: Any, which: int | str) -> Any:
    if isinstance(outputs, Mapping) and which in outputs:
        return outputs[which]
    if isinstance(outputs, tuple | list) and isinstance(which, int) and which < len(outputs):
        return outputs[which]
    if isinstance(which, str) and hasattr(outputs, which) and not hasattr(outputs, "shape"):
        return getattr(outputs, which)
    raise ValueError(f"The model has no output {which!r}: it returned {_names(outputs)}.")


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
        outputs: whether the model returns "logits" or "probabilities". Of probabilities the logit is taken
            as `log p` (multiclass: the logit up to a constant of the image) or `log p - log(1 - p)`.
        output: the position or name of the explained one of several outputs.

    Two of them with the same fields are equal and have the same hash, so that compiled functions are found again.

    Raises:
        ValueError: for another task or kind of outputs.
    """

    task: Task = "multiclass"
    outputs: OutputKind = "logits"
    output: int | str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("task", self.task, Task), ("outputs", self.outputs, OutputKind)):
            if value not in get_args(known):
                choices = ", ".join(map(repr, get_args(known)))
                raise ValueError(f"{name} is one of {choices}, and {value!r} came.")

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
            raise ValueError(
                f"The model returned outputs of shape {tuple(values.shape)}, and (batch, classes) was expected. "
                "If several values a class are meant, wrap the model so that it returns one."
            )
        if self.task == "multiclass" and values.shape[1] == 1:
            raise ValueError(
                "The model returns one value an image, whose softmax is always 1. Say task='binary' for one logit "
                "that decides between two classes."
            )
        return values if self.outputs == "logits" else self._log_odds(values, xp)

    def _binary_logits(self, values: Array, xp: Namespace) -> Array:
        if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
            raise ValueError(
                f"task='binary' expects one value an image, and outputs of shape {tuple(values.shape)} came. "
                "Two columns are task='multiclass'."
            )
        values = xp.reshape(values, (-1, 1))
        positive = values if self.outputs == "logits" else self._log_odds(values, xp)
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
        """(B, K) logits of the targets (B, K), or (B, 1) of each image's top class when there are none."""
        logits = self.logits(outputs)
        xp = array_namespace(logits)
        if targets is None:
            return xp.max(logits, axis=1, keepdims=True)
        # A class beyond the last is refused once the number of classes is known; here it must only not crash.
        last = xp.full_like(targets, logits.shape[1] - 1)
        return xp.take_along_axis(logits, xp.minimum(targets, last), axis=1)
