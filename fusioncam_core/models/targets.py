"""What is asked to be explained: classes, the top few of them, or functions of the outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.function_scores import Functions, TargetFunction, rows_of_outputs

LISTS = (
    "A flat list is one function an image; several of each image are rows of a nested list, "
    "[[first, second]] * {batch} where they are the same for all; one bare function is for all images."
)
"""How functions are listed."""


@runtime_checkable
class ChosenOnPlain(Protocol):
    """A target function that is chosen by the outputs for the plain image, and stays the same for masked copies."""

    @property
    def waits(self) -> bool:
        """Whether something of it is left to choose."""

    def on_plain(self, outputs: Any) -> TargetFunction:
        """The function, by the outputs for one image."""


class Targets(NamedTuple):
    """What to explain in each image.

    Attributes:
        classes: (B, K) integers, or None for the top classes or for functions.
        several: whether K belongs in the result's shape.
        top: how many of the top classes, if `classes` is None.
        functions: for each image K functions of the outputs, instead of classes.
        shared: whether they are the same ones for all images.
    """

    classes: np.ndarray[Any, Any] | None
    several: bool
    top: int = 1
    functions: tuple[Functions, ...] = ()
    shared: bool = False

    def rows(self, start: int, stop: int) -> Targets:
        """The targets of some of the images."""
        classes = None if self.classes is None else self.classes[start:stop]
        return self._replace(classes=classes, functions=self.functions[start:stop])

    @property
    def waits(self) -> bool:
        """Whether functions are chosen by the outputs for the plain images."""
        rows = self.functions[:1] if self.shared else self.functions
        return any(_waits(function) for row in rows for function in row)

    def on_plain(self, outputs: Any) -> Targets:
        """The same with the functions that the outputs for the plain images choose."""
        count = len(self.functions)
        chosen = []
        for number, row in enumerate(self.functions):
            own = rows_of_outputs(outputs, np.asarray([number]), count)
            chosen.append(tuple(each.on_plain(own) if _waits(each) else each for each in row))
        return self._replace(functions=tuple(chosen), shared=False)


def _waits(function: Any) -> TypeGuard[ChosenOnPlain]:
    return isinstance(function, ChosenOnPlain) and function.waits


def read_targets(targets: Any, batch: int) -> Targets:
    """The targets of `batch` images.

    Args:
        targets: None (the top class), "top5" or another number (as many top classes, no more than there are), an int,
            (B,) or (B, K) integers of any library, a function of the model's outputs for all images, a list of B
            functions, one an image, or B lists of K functions.
        batch: the number of images.

    Raises:
        TypeError: if they are none of these, or functions and classes in one list.
        ValueError: if there are not as many rows as images, or a class is negative.
    """
    if targets is None:
        return Targets(None, several=False)
    if callable(targets):
        return Targets(None, several=False, functions=((targets,),) * batch, shared=True)
    if isinstance(targets, str):
        return Targets(None, several=True, top=_top(targets))
    if holds_functions(targets):
        return _functions(list(targets), batch)
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


def holds_functions(targets: Any) -> bool:
    """Whether targets are a list, perhaps nested, with a function in it."""
    if isinstance(targets, np.ndarray) and targets.dtype == object:
        targets = targets.tolist()
    if not isinstance(targets, list | tuple):
        return False
    return any(callable(each) or (isinstance(each, list | tuple) and any(map(callable, each))) for each in targets)


def _functions(listed: Sequence[Any], batch: int) -> Targets:
    """Functions by the rule of classes: a flat list is one an image, nested rows are K of each."""
    nested = [isinstance(each, list | tuple) for each in listed]
    flat = [each for row in listed for each in (row if isinstance(row, list | tuple) else (row,))]
    others = [each for each in flat if not callable(each)]
    if others:
        hint = f" ClassLogit({others[0]}) is class {others[0]} as a function." if _is_whole(others[0]) else ""
        raise InvalidTypeError(
            f"Targets are functions or class numbers, not both in one list: got {others[0]!r} among functions.{hint}"
        )
    if any(nested) and not all(nested):
        raise InvalidValueError(
            f"Expected a flat list of functions or rows of them, got both. {LISTS.format(batch=batch)}"
        )
    if len(listed) != batch:
        what = (
            f"{len(listed)} row{'s' * (len(listed) != 1)} of target functions" if nested[0] else _counted(len(listed))
        )
        raise InvalidValueError(f"Got {what} for {_images(batch)}. {LISTS.format(batch=batch)}")
    rows = tuple(tuple(row) if isinstance(row, list | tuple) else (row,) for row in listed)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or not lengths[0]:
        raise InvalidValueError(
            "Every image needs the same number of target functions, one at least: got "
            f"{' and '.join(map(str, lengths))}."
        )
    same = batch > 1 and all(map(_are_same, rows, rows[1:]))
    return Targets(None, several=nested[0], functions=rows, shared=same)


def _counted(count: int) -> str:
    return f"{count} target function{'s' * (count != 1)}"


def _images(batch: int) -> str:
    return f"{batch} image{'s' * (batch != 1)}"


def _are_same(first: Functions, second: Functions) -> bool:
    return all(each is other for each, other in zip(first, second, strict=True))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


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
            f"function of the model's outputs explains anything else.{_labels_hint(classes)}"
        )
    return classes.astype(np.int64)


def _labels_hint(classes: np.ndarray[Any, Any]) -> str:
    """What to do with rows of labels, if that is what they are."""
    if classes.dtype.kind not in "bfiu" or classes.ndim != 2 or classes.shape[1] < 2 or not _are_labels(classes):
        return ""
    return (
        " These look like labels of several classes, a 0 or 1 each: give the numbers of an image's classes, "
        "np.flatnonzero(row), image by image, since not all have as many."
    )


def _are_labels(classes: np.ndarray[Any, Any]) -> bool:
    return bool(np.isin(classes, (0, 1)).all())


def check_top(top: int, classes: int, model_name: str) -> None:
    """Refuse to rank more classes than the model has: a result of fewer columns would be none of those asked for.

    Raises:
        ValueError: naming both numbers.
    """
    if top > classes:
        raise InvalidValueError(f"{model_name} has {classes} classes: expected 'top{classes}' at most, got 'top{top}'.")


def check_range(targets: np.ndarray[Any, Any], classes: int, model_name: str) -> None:
    """Refuse classes the model does not have, and rows of as many zeros and ones as it has classes: these are labels.

    Raises:
        ValueError: naming the first one and the classes there are.
    """
    beyond = targets[targets >= classes]
    if beyond.size:
        raise InvalidValueError(
            f"{model_name} has {classes} classes, numbered 0 to {classes - 1}: got the target {beyond[0]}."
        )
    # Of two classes, [0, 1] are both of them. Of more, zeros and ones alone name a class twice.
    if targets.ndim == 2 and targets.shape[1] == classes > 2 and _are_labels(targets):
        raise InvalidValueError(
            f"{model_name} has {classes} classes: expected their numbers as targets, got {classes} zeros and ones an "
            f"image.{_labels_hint(targets)}"
        )
