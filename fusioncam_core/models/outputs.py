"""What a model's outputs mean: from what the model returned to the logit and probability of a class."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard, get_args

import numpy as np

from fusioncam_core.arrays.checks import (
    at_least_float32,
    require_finite_sum,
    require_scores,
    sum_is_finite,
)
from fusioncam_core.arrays.namespaces import (
    Array,
    Namespace,
    array_namespace,
    constant_like,
    indices_like,
    is_traced,
    to_numpy,
)
from fusioncam_core.arrays.words import _softmax, sigmoid
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.structure import Path, entries, is_array, is_container, rebuilt

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import Ending

Task = Literal["multiclass", "multilabel", "binary"]
OutputKind = Literal["logits", "probabilities"]


OTHER_THAN_CLASSES = (
    "What is no classifier is explained by a function of its outputs, given as targets=: of a segmentation "
    "SegmentationLogit(class, mask), with channel_axis=-1 where classes come last and output= where outputs are "
    "several; of a detector's candidates DetectionScore(box, class), with candidates=YOLOCandidates() for a raw head."
)


def unpack(outputs: Any, which: int | str | None = None) -> Array:
    """The array of class scores in what a model returned.

    Args:
        outputs: an array, or a tuple, list, mapping or object that holds it.
        which: the position (a negative one counts from the end), key or attribute of the output that is explained.
            With None an object's or mapping's `logits` is taken, the only entry of a mapping, or the first of a tuple
            or list (auxiliary heads come after it).

    Raises:
        TypeError: for a mapping with several entries and no `logits`, or anything that holds no array.
        ValueError: if there is no output of that name or at that position.
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
            "Give as targets= DetectionScore(box, class) for one object, the best overlap with its box times the score "
            "of its class, or a function of your own that makes one score an image of them, (n,)."
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
    if isinstance(outputs, tuple | list) and _is_position(which) and -len(outputs) <= which < len(outputs):
        return outputs[which]
    if isinstance(which, str) and hasattr(outputs, which) and not hasattr(outputs, "shape"):
        return getattr(outputs, which)
    raise InvalidValueError(f"The model has no output {which!r}: it returned {_names(outputs)}.")


def _is_position(which: Any) -> TypeGuard[int]:
    return isinstance(which, int | np.integer) and not isinstance(which, bool)


def _names(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return ", ".join(map(repr, outputs))
    if isinstance(outputs, tuple | list):
        several = "s" * (len(outputs) != 1)
        numbers = f", 0 to {len(outputs) - 1}, or -{len(outputs)} to -1 from the end" if outputs else ""
        return f"{len(outputs)} output{several}{numbers}"
    return f"one {type(outputs).__qualname__}"


Shapes = dict[Path, tuple[int, ...]]
"""The shapes of arrays by their paths."""


def arrays_in(outputs: Any, prefix: Path = ()) -> Iterator[tuple[Path, Array]]:
    """Every array in what a model returned, with its path: also those of an object's attributes."""
    if is_array(outputs):
        yield prefix, outputs
        return
    for step, each in entries(outputs) if is_container(outputs) else _attributes(outputs).items():
        yield from arrays_in(each, (*prefix, step))


def shapes_of(outputs: Any) -> Shapes:
    """The shapes of all arrays in what a model returned."""
    return {path: tuple(int(length) for length in each.shape) for path, each in arrays_in(outputs)}


def map_outputs(function: Callable[[Path, Array], Array], outputs: Any, prefix: Path = ()) -> Any:
    """The function of the path and the array of every array in outputs, in copies of what holds them."""
    if is_array(outputs):
        return function(prefix, outputs)
    if is_container(outputs):
        return rebuilt(outputs, [map_outputs(function, each, (*prefix, step)) for step, each in entries(outputs)])
    changed = {name: map_outputs(function, each, (*prefix, name)) for name, each in _attributes(outputs).items()}
    return _copied(outputs, changed)


def copied_with(outputs: Any, function: Callable[[Any], Any]) -> Any:
    """A copy of an object of outputs, with the function of what it holds in arrays and containers."""
    return _copied(outputs, {name: function(each) for name, each in _attributes(outputs).items()})


def _copied(outputs: Any, changed: Mapping[str, Any]) -> Any:
    if not changed:
        return outputs
    copied = copy.copy(outputs)
    vars(copied).update(changed)  # past the __setattr__ of a frozen dataclass
    return copied


def _attributes(outputs: Any) -> dict[str, Any]:
    """The attributes of an object of outputs that are arrays, or hold them."""
    attributes = vars(outputs) if hasattr(outputs, "__dict__") and not isinstance(outputs, type) else {}
    return {name: each for name, each in attributes.items() if is_array(each) or is_container(each)}


class LostAxes:
    """Gives the outputs of one image their batch axis back, where a model takes it off with a `squeeze()`.

    That an array has lost it is seen by a run of two images, once for outputs of these axes: theirs has two rows of
    what the one image has.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[Path, int], ...], frozenset[Path]] = {}

    def restored(self, outputs: Any, run_two: Callable[[], Any], xp: Namespace) -> Any:
        """The outputs of one image.

        Args:
            outputs: as the model returned them.
            run_two: gives the outputs of two images, or anything that has their shapes.
            xp: the namespace.
        """
        if hasattr(outputs, "shape") and tuple(outputs.shape[:1]) == (1,):
            return outputs
        suspects = {path: shape for path, shape in shapes_of(outputs).items() if shape[:1] != (1,)}
        if not suspects:
            return outputs
        key = tuple((path, len(shape)) for path, shape in suspects.items())
        if key not in self._known:
            pairs = shapes_of(run_two())
            self._known[key] = frozenset(path for path, shape in suspects.items() if pairs.get(path) == (2, *shape))
        lost = self._known[key]
        if not lost:
            return outputs
        return map_outputs(lambda path, each: xp.expand_dims(each, axis=0) if path in lost else each, outputs)


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
        """(B, classes) logits of the model's outputs, in float32 or, of outputs in float64, in that.

        Raises:
            ValueError: if the outputs are not (B, classes); for "binary" (B, 1) or (B,).
        """
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        values = at_least_float32(values, xp=xp)
        if self.task == "binary":
            return self._binary_logits(values, xp)
        if values.ndim != 2:
            raise InvalidValueError(
                f"The model returned outputs of shape {tuple(values.shape)}, and (batch, classes) was expected. "
                f"{_several_scores(values)}"
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
                + ("Two columns are task='multiclass'." if values.ndim == 2 else _several_scores(values))
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
        return probabilities_of(logits, self.task, array_namespace(logits))

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, K) logits of the targets (B, K), or (B, top) of each image's top classes when there are none."""
        logits = self.logits(outputs)
        xp = array_namespace(logits)
        if targets is None:
            return xp.take_along_axis(logits, self.default_targets(logits), axis=1)
        if targets.shape[0] is not None:  # which is recorded for any number of images
            require_rows(logits, int(targets.shape[0]))
        # A class beyond the last is refused once the number of classes is known; here it must only not crash.
        last = xp.full_like(targets, logits.shape[1] - 1)
        return xp.take_along_axis(logits, xp.minimum(targets, last), axis=1)

    def default_targets(self, logits: Array) -> Array:
        """(B, top) the classes with the largest logits, the largest first; all of them where there are no more."""
        return _top(logits, self.top, array_namespace(logits))


def probabilities_of(logits: Array, task: Task | None, xp: Namespace) -> Array:
    """(B, classes) of logits: by a softmax, by sigmoids, or as they are where there is no task."""
    if task is None:
        return logits
    return _softmax(logits, axis=-1, xp=xp) if task == "multiclass" else sigmoid(logits, xp=xp)


def _top(logits: Array, count: int, xp: Namespace) -> Array:
    if count == 1:
        return xp.argmax(logits, axis=1, keepdims=True)
    return xp.argsort(logits, axis=1, descending=True)[:, :count]


def few_on_host(array: Array, xp: Namespace) -> bool:
    """Whether steps of a few numbers are the host's, which is to look at them anyway.

    So where each would be a program for every shape, and compiling that takes longer than a thousand runs of it.
    """
    return getattr(xp, "compiled", None) is not None and not is_traced(array, xp)


def probabilities_at(logits: Array, targets: Array, *, task: Task | None, xp: Namespace) -> tuple[Array, Array]:
    """The targets' (n, K) probabilities, of logits (n, classes), and whether their sum is finite."""
    if not few_on_host(logits, xp):
        return _probabilities_at(logits, targets, task=task, xp=xp)
    values = to_numpy(logits)
    chosen, finite = _probabilities_at(values, to_numpy(targets), task=task, xp=array_namespace(values))
    return constant_like(chosen, logits, xp), finite


def _probabilities_at(logits: Array, targets: Array, *, task: Task | None, xp: Namespace) -> tuple[Array, Array]:
    chosen = xp.take_along_axis(probabilities_of(logits, task, xp), targets, axis=1)
    return chosen, sum_is_finite(chosen, xp=xp)


class AtTargets(NamedTuple):
    """What is read off the logits of a batch.

    Attributes:
        targets: (B, K) the explained classes.
        scores: (B, K) their logits.
        all_finite: whether the sum of all logits is, without those of classes that a model rules out by -infinity.
        scores_finite: whether the sum of the scores is.
    """

    targets: Array
    scores: Array
    all_finite: Array
    scores_finite: Array

    def require_finite(self, logits: Array, xp: Namespace) -> None:
        """Nothing, if the targets' logits are finite, and the others are or rule their classes out.

        Raises:
            InvalidValueError: if they are not.
        """
        if not is_traced(logits, xp) and not bool(self.all_finite):
            require_scores(logits, "model's outputs", xp)
        require_finite_sum(self.scores, self.scores_finite, "targets' scores", xp)


def at_targets(logits: Array, asked: Array | None, *, top: int, xp: Namespace) -> AtTargets:
    """What is read off logits (B, classes) at the classes that were asked for (B, K), or at the top ones."""
    if not few_on_host(logits, xp):
        return _at_targets(logits, asked, top=top, xp=xp)
    values = to_numpy(logits)
    found = _at_targets(values, None if asked is None else to_numpy(asked), top=top, xp=array_namespace(values))
    targets = indices_like(found.targets, logits, xp) if asked is None else asked
    return found._replace(targets=targets, scores=constant_like(found.scores, logits, xp))


def _at_targets(logits: Array, asked: Array | None, *, top: int, xp: Namespace) -> AtTargets:
    targets = _top(logits, top, xp) if asked is None else asked
    scores = xp.take_along_axis(logits, targets, axis=1)
    with np.errstate(all="ignore"):
        others = xp.where(logits == -math.inf, xp.zeros_like(logits), logits)
        return AtTargets(targets, scores, sum_is_finite(others, xp=xp), sum_is_finite(scores, xp=xp))


def _several_scores(values: Array) -> str:
    """What to do about outputs that hold several values a class, or none."""
    if values.ndim < 2:
        return "Wrap the model so that it returns one value a class."
    return (
        "If they are class scores at every pixel or step, explain those of some of them: "
        "targets=SegmentationLogit(index, mask, channel_axis=-1), or channel_axis=1 where the classes are the second "
        "axis; of a detector's candidates DetectionScore(box, index), with candidates=YOLOCandidates() for a raw head. "
        "For anything else give targets a function of the outputs that returns one score an image."
    )


def require_rows(logits: Array, batch: int) -> None:
    """Nothing, if the logits have a row an image.

    Raises:
        InvalidValueError: if there are as many images, and not as many rows.
    """
    rows = int(logits.shape[0])
    if rows != batch:
        raise InvalidValueError(
            f"The model returned {rows} row{'s' * (rows != 1)} of outputs for {batch} image{'s' * (batch != 1)}. If it "
            "takes one image at a time, say batch_size=1. If what it takes for a batch are the parts of one sample (a "
            "bag, the frames of a clip), give them as one image: wrap the model so that it takes (batch, parts, ...)."
        )
