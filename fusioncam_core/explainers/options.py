"""The keywords that all explainers share, their defaults, and the arguments of an explainer as values."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from fusioncam_core.approximation.budget import Limits, require_limits
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.batch_size import BatchSize
from fusioncam_core.models.layout import Reshape
from fusioncam_core.models.masking import Baseline
from fusioncam_core.models.outputs import OutputKind, Task

Combine = Literal["mean", "max", "product"]


class ModelOptions(TypedDict, total=False):
    """Keywords of every explainer about the model and the images; `Explainer` says what they mean."""

    task: Task
    output_kind: OutputKind
    output: int | str | None
    masked_input: int | str | None
    reshape: Reshape
    combine: Combine
    batch_size: BatchSize
    baseline: Baseline


class ExplainerOptions(ModelOptions, total=False):
    """Keywords of every explainer."""

    progress: bool | None
    backend_options: Mapping[str, Any]


class MethodOptions(ModelOptions, total=False):
    """Keywords of methods that are given by name; `Budgeted` says what the last two mean."""

    budget: int | None
    tolerance: float | None


class BudgetOptions(ExplainerOptions, total=False):
    """Those of methods that need not run all of their masks; `Budgeted` says what the two more mean."""

    budget: int | None
    tolerance: float | None


DEFAULTS: ExplainerOptions = {
    "task": "multiclass",
    "output_kind": "logits",
    "output": None,
    "masked_input": None,
    "reshape": None,
    "combine": "mean",
    "batch_size": "auto",
    "baseline": "zero",
    "progress": None,
    "backend_options": {},
}


def require_known(options: Iterable[str], known: Iterable[str], method: type) -> None:
    """Refuse keywords that a method does not have.

    Raises:
        InvalidTypeError: naming the first one, and what it may have been meant for.
    """
    own = [*known, *own_parameters(method)]
    for name in options:
        if name not in own:
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.75)
            raise InvalidTypeError(
                f"{method.__name__} has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else ".")
                + " What belongs to a backend goes into backend_options={...}."
            )


def own_parameters(method: type) -> dict[str, Any]:
    """The arguments that the method's constructor writes out, but the model and the layer, with their defaults."""
    taken = inspect.signature(method.__init__).parameters.values()  # type: ignore[misc]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        each.name: each.default
        for each in taken
        if each.kind not in kinds and each.name not in ("self", "model", "layer")
    }


def bound_arguments(method: type, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor was called with, by names; the keywords behind `**` among the others.

    Raises:
        InvalidTypeError: if it cannot be called so.
    """
    signature = inspect.signature(method.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind(None, *arguments, **keywords)
    except TypeError as error:
        raise InvalidTypeError(f"{method.__name__}: {error}.") from None
    given = dict(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def same(first: Any, second: Any) -> bool:
    """Whether two arguments are the same: arrays by their values, containers by their entries, models by identity."""
    if first is second:
        return True
    if hasattr(first, "shape") and hasattr(second, "shape"):
        return type(first) is type(second) and np.array_equal(to_numpy(first), to_numpy(second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    plain = (str, int, float, bool, type(None))
    return isinstance(first, plain) and isinstance(second, plain) and first == second


def shown(value: Any) -> str:
    """An argument in few words: arrays by their shape, models and layers by their class."""
    if isinstance(value, str | int | float | bool | type(None)):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {shown(each)}' for name, each in value.items())}}}"
    if hasattr(value, "shape"):
        return f"<{'x'.join(map(str, value.shape))} {value.dtype}>"
    return f"<{getattr(value, '__name__', type(value).__qualname__)}>"


def limits_of(method: type, options: BudgetOptions) -> tuple[Limits, ExplainerOptions]:
    """The limits among the options, and the others.

    Raises:
        InvalidTypeError, InvalidValueError: for unknown keywords, and limits out of range.
    """
    require_known(options, (*DEFAULTS, *BUDGET), method)
    left: Any = {name: value for name, value in options.items() if name not in BUDGET}
    return require_limits(options.get("budget"), options.get("tolerance")), left


BUDGET = ("budget", "tolerance")

COMBINES: tuple[str, ...] = get_args(Combine)
