"""Functions of the outputs in the place of classes: the same for all images, or each image's own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.checks import of_one_dtype
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, indices_like, to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.outputs import ClassScores, copied_with, shapes_of
from fusioncam_core.models.structure import entries, is_array, is_container, rebuilt

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter

TargetFunction = Callable[[Any], Array]
"""(the model's raw outputs for n images) -> (n,) scores, differentiable in the framework."""

Functions = tuple[TargetFunction, ...]
"""The K functions of one image."""


@dataclass(frozen=True)
class FunctionScores:
    """The same functions for all images: a function's value is its logit and its probability.

    Attributes:
        functions: K functions of the model's raw outputs for n images that return (n,) scores.
    """

    functions: Functions

    def of_images(self, batch: int) -> tuple[Functions, ...]:
        """The functions of each of so many images."""
        return (self.functions,) * batch

    def logits(self, outputs: Any) -> Array:
        """(B, K) values of the functions, in float32 or, where any is in float64, in that.

        Raises:
            TypeError: if a function returns anything but an array.
            ValueError: if it returns another shape than (B,).
        """
        return values_of(self.functions, outputs)

    def probabilities(self, logits: Array) -> Array:
        """The values themselves."""
        return logits

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, K) values of all functions."""
        return self.logits(outputs)

    def default_targets(self, logits: Array) -> Array:
        """(B, K) the functions' positions."""
        return _positions(len(self.functions), logits)


@dataclass(frozen=True)
class OwnFunctionScores:
    """The functions of each image in turn: K of the first, K others of the second.

    A function sees the outputs of its own image alone, so that it may name what only that image has: a mask, a box, the
    fifth of its detections. Where programs are compiled it may be run on others' rows as well, and their values are
    dropped.

    Attributes:
        rows: for each image its K functions of raw outputs for n images that return (n,) scores.
    """

    rows: tuple[Functions, ...]

    @property
    def functions(self) -> Functions:
        """All of them."""
        return tuple(itertools.chain.from_iterable(self.rows))

    def of_images(self, batch: int) -> tuple[Functions, ...]:
        """The functions of each image."""
        return self.rows

    def of_rows(self, numbers: Sequence[int]) -> OwnFunctionScores:
        """The same for some of the images, which may come several times."""
        return OwnFunctionScores(tuple(self.rows[number] for number in numbers))

    def logits(self, outputs: Any) -> Array:
        """(B, K) values, in float32 or float64, of outputs for all images in their order.

        Raises:
            TypeError, ValueError: as for `FunctionScores`.
        """
        numbered = enumerate(self.rows)
        runs = [
            [number for number, _ in run] for _, run in itertools.groupby(numbered, key=lambda pair: _identity(pair[1]))
        ]
        found = [
            values_of(self.rows[run[0]], rows_of_outputs(outputs, np.asarray(run), len(self.rows)), len(run))
            for run in runs
        ]
        return _joined(found, array_namespace(*found))

    def probabilities(self, logits: Array) -> Array:
        """The values themselves."""
        return logits

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, K) values of each image's own functions."""
        return self.logits(outputs)

    def default_targets(self, logits: Array) -> Array:
        """(B, K) the functions' positions."""
        return _positions(len(self.rows[0]), logits)


Scores = ClassScores | FunctionScores | OwnFunctionScores
"""How targets' scores and probabilities are read off the outputs."""


@dataclass(frozen=True)
class RawOutputs:
    """Reads nothing: the outputs as the model returned them, of which any functions can be taken afterwards."""

    def logits(self, outputs: Any) -> Any:
        """The outputs."""
        return outputs

    def probabilities(self, logits: Array) -> Array:
        """What is given."""
        return logits


class OwnLogits:
    """The values of outputs' rows by the functions of the images that the rows are of.

    Args:
        adapter: of the model.
        scores: each image's functions.
    """

    def __init__(self, adapter: ModelAdapter, scores: OwnFunctionScores):
        self._adapter = adapter
        self._rows = scores.rows
        # Images with the same functions are read together, by the number of the first of them.
        first = {_identity(functions): number for number, functions in reversed(list(enumerate(scores.rows)))}
        self._first = np.asarray([first[_identity(functions)] for functions in scores.rows])
        self._compiled: dict[int, Callable[[Any], Array]] = {}

    def __call__(self, outputs: Any, owners: Array) -> Array:
        """(n, K) values, in float32 or float64, of outputs for n copies of the images `owners` (n,).

        Raises:
            TypeError, ValueError: as for `FunctionScores`.
        """
        # Of one image all rows are: nothing is asked of the device.
        own = np.zeros(int(owners.shape[0]), np.int64) if len(self._rows) == 1 else self._first[to_numpy(owners)]
        if self._adapter.execution.fixed_shapes:
            return self._selected(outputs, own)
        xp = self._adapter.namespace
        groups = [np.flatnonzero(own == number) for number in np.unique(own)]
        found = [
            values_of(self._rows[own[group[0]]], rows_of_outputs(outputs, group, len(own)), len(group))
            for group in groups
        ]
        if len(found) == 1:
            return found[0]
        order = np.argsort(np.concatenate(groups), kind="stable")
        return xp.take(_joined(found, xp), indices_like(order, found[0], xp), axis=0)

    def of_first(self, outputs: Any) -> Array:
        """(B, K) values of outputs for one image, by the functions of every image."""
        xp = self._adapter.namespace
        found = {number: values_of(self._rows[number], outputs)[:1, ...] for number in np.unique(self._first).tolist()}
        return _joined([found[number] for number in self._first.tolist()], xp)

    def _selected(self, outputs: Any, own: np.ndarray[Any, Any]) -> Array:
        """Every function on all rows, of which its own are taken: shapes that do not change are compiled once."""
        xp = self._adapter.namespace
        numbers = np.unique(own).tolist()
        found = of_one_dtype([self._program(number)(outputs) for number in numbers], xp=xp)
        result = found[0]
        if len(found) > 1:
            owned = xp.expand_dims(indices_like(own, result, xp), axis=1)
            for number, values in zip(numbers[1:], found[1:], strict=True):
                result = xp.where(owned == number, values, result)
        return result

    def _program(self, number: int) -> Callable[[Any], Array]:
        if number not in self._compiled:
            self._compiled[number] = self._adapter.compile(functools.partial(values_of, self._rows[number]))
        return self._compiled[number]


def function_scores(rows: tuple[Functions, ...], *, shared: bool) -> FunctionScores | OwnFunctionScores:
    """The scores by each image's functions, which are the same ones for all images if they are `shared`."""
    return FunctionScores(rows[0]) if shared else OwnFunctionScores(rows)


def values_of(functions: Functions, outputs: Any, count: int | None = None) -> Array:
    """(n, K) values, in float32 or float64, of functions of outputs.

    Args:
        functions: K of them.
        outputs: for n images.
        count: n, where it is known.

    Raises:
        InvalidTypeError: if a function returns anything but an array.
        InvalidValueError: if it returns another shape than (n,).
    """
    values = [function(outputs) for function in functions]
    for function, each in zip(functions, values, strict=True):
        _require_a_score_an_image(function, each, count)
    xp = array_namespace(*values)
    return xp.stack(of_one_dtype(values, xp=xp), axis=1)


def _joined(values: list[Array], xp: Namespace) -> Array:
    """The rows of all, one below the other."""
    return values[0] if len(values) == 1 else xp.concat(of_one_dtype(values, xp=xp), axis=0)


def _require_a_score_an_image(function: TargetFunction, values: Any, count: int | None) -> None:
    if not is_array(values):
        raise InvalidTypeError(
            f"The target {target_name(function)} returned a {type(values).__qualname__}, and an array of one score an "
            "image, (n,), was expected. Make it of the framework's own operations, so that it has a gradient."
        )
    shape = tuple(values.shape)
    if len(shape) != 1 or (count is not None and shape[0] != count):
        images = "" if count is None else f" for {count} image{'s' * (count != 1)}"
        raise InvalidValueError(
            f"The target {target_name(function)} returned shape {shape}{images}, and one score an image was expected. "
            "It is called with the outputs for n images, the batch axis first (outputs[:, 3], not outputs[3]), and "
            "returns (n,) scores."
        )


def target_name(function: TargetFunction) -> str:
    """What a function is called in tables and messages: by its own `name`, that of its definition, or its kind."""
    if isinstance(function, functools.partial):
        return target_name(function.func)
    own = getattr(function, "name", None)
    if isinstance(own, str) and own:
        return own
    named = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(named).rpartition("<locals>.")[2].replace("<lambda>", "lambda")


def rows_of_outputs(outputs: Any, numbers: np.ndarray[Any, Any], count: int) -> Any:
    """The outputs of some images.

    Arrays with a row an image are cut; so is a list with an entry an image, as detectors return it: one of mappings, or
    one of arrays that differ in their lengths alone. What else there is stays.

    Args:
        outputs: of the model for `count` images.
        numbers: of the images.
        count: how many there are.
    """
    if len(numbers) == count and (numbers == np.arange(count)).all():
        return outputs
    if holds_mappings(outputs) and len(outputs) == count:
        return type(outputs)(outputs[number] for number in numbers.tolist())
    return _inner_rows(outputs, numbers, count)


def _inner_rows(outputs: Any, numbers: np.ndarray[Any, Any], count: int) -> Any:
    """The same of a part of outputs, in which a list may also have an entry a head, with a row an image in each."""
    if is_array(outputs):
        return _rows(outputs, numbers) if tuple(outputs.shape[:1]) == (count,) else outputs
    if _has_an_entry_an_image(outputs, count):
        return type(outputs)(outputs[number] for number in numbers.tolist())
    if is_container(outputs):
        return rebuilt(outputs, [_inner_rows(each, numbers, count) for _, each in entries(outputs)])
    return copied_with(outputs, lambda each: _inner_rows(each, numbers, count))


def holds_mappings(outputs: Any) -> bool:
    """Whether outputs are a list of mappings."""
    is_list = isinstance(outputs, list | tuple) and not hasattr(outputs, "_make") and len(outputs) > 0
    return is_list and all(isinstance(each, Mapping) for each in outputs)


def _has_an_entry_an_image(outputs: Any, count: int) -> bool:
    if not isinstance(outputs, list) or len(outputs) != count:
        return False
    if holds_mappings(outputs):
        return any(shape[:1] != (count,) for each in outputs for shape in shapes_of(each).values())
    alike = all(is_array(each) and each.ndim > 1 for each in outputs) and len({each.shape[1:] for each in outputs}) == 1
    return alike and any(int(each.shape[0]) != count for each in outputs)


def _rows(array: Array, numbers: np.ndarray[Any, Any]) -> Array:
    start, stop = int(numbers[0]), int(numbers[-1]) + 1
    if (numbers == np.arange(start, start + len(numbers))).all():
        return array[start:stop, ...]
    xp: Namespace = array_namespace(array)
    return xp.take(array, indices_like(numbers, array, xp), axis=0)


def _identity(functions: Functions) -> tuple[int, ...]:
    return tuple(map(id, functions))


def _positions(several: int, logits: Array) -> Array:
    xp = array_namespace(logits)
    return xp.broadcast_to(indices_like(np.arange(several), logits, xp), tuple(logits.shape))
