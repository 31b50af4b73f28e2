"""The keywords that all explainers share, their defaults, and the arguments of an explainer as values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, cast, get_args

from fusioncam_core.approximation.budget import Limits, require_limits
from fusioncam_core.arrays.checks import require_size
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.arguments import own_parameters
from fusioncam_core.models.baselines import Baseline
from fusioncam_core.models.batch_size import BatchSize
from fusioncam_core.models.engines import Chosen, Precision, require_engine
from fusioncam_core.models.inputs import Which
from fusioncam_core.models.layout import Reshape
from fusioncam_core.models.outputs import OutputKind, Task

Combine = Literal["mean", "max", "product"]

Size = Literal["input", "layer"] | tuple[int, ...]
"""Of maps: the input's, the layer's, or one length for each axis of space."""


KeptMaps = Literal["made"] | tuple[int, ...] | None
"""Which maps a job keeps: as they are made, smaller ones of that size, or none."""


class ModelOptions(TypedDict, total=False):
    """Keywords of every explainer about the model and the images; `Explainer` says what they mean."""

    task: Task
    output_kind: OutputKind
    output: int | str | None
    masked_input: Which
    shared: Sequence[Any]
    reshape: Reshape
    combine: Combine
    batch_size: BatchSize
    baseline: Baseline


class ExplainerOptions(ModelOptions, total=False):
    """Keywords of every explainer."""

    relu: bool
    normalised: bool
    size: Size
    progress: bool | None
    weights_digest: bool
    backend_options: Mapping[str, Any]


class EngineOptions(ExplainerOptions, total=False):
    """Those of methods that mask images; `Masking` says what the two more mean."""

    engine: str | None
    engine_precision: Precision


class MethodOptions(ModelOptions, total=False):
    """Keywords of methods that are given by name; `Masking` and `Budgeted` say what the last four mean."""

    engine: str | None
    engine_precision: Precision

    budget: int | None
    tolerance: float | None


class BudgetOptions(EngineOptions, total=False):
    """Those of methods that need not run all of their masks; `Budgeted` says what the two more mean."""

    budget: int | None
    tolerance: float | None


DEFAULTS: ExplainerOptions = {
    "task": "multiclass",
    "output_kind": "logits",
    "output": None,
    "masked_input": None,
    "shared": (),
    "reshape": None,
    "combine": "mean",
    "batch_size": "auto",
    "baseline": "zero",
    "relu": True,
    "normalised": True,
    "size": "input",
    "progress": None,
    "weights_digest": False,
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
            near = ["layer"] if name in LAYER_WORDS else difflib.get_close_matches(name, own, n=1, cutoff=0.75)
            raise InvalidTypeError(
                f"{method.__name__} has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else ".")
                + " What belongs to a backend goes into backend_options={...}."
            )


def require_map_size(size: Any) -> Size:
    """One of the two words, or the lengths as whole numbers.

    Raises:
        InvalidValueError: for anything else.
    """
    if isinstance(size, str) and size in ("input", "layer"):
        return cast(Size, size)
    if isinstance(size, str) or not isinstance(size, Iterable):
        raise InvalidValueError(
            f"size is 'input', 'layer', or one length for each axis of space, such as (56, 56): got {size!r}."
        )
    return require_size(size)


def limits_of(method: type, options: BudgetOptions) -> tuple[Limits, EngineOptions]:
    """The limits among the options, and the others.

    Raises:
        InvalidTypeError, InvalidValueError: for unknown keywords, and limits out of range.
    """
    require_known(options, (*DEFAULTS, *ENGINE_DEFAULTS, *BUDGET), method)
    left: Any = {name: value for name, value in options.items() if name not in BUDGET}
    return require_limits(options.get("budget"), options.get("tolerance")), left


def engine_of(method: type, options: EngineOptions) -> tuple[Chosen, ExplainerOptions]:
    """The engine among the options, and the others.

    Raises:
        InvalidTypeError, InvalidValueError: for unknown keywords, and what is no engine nor precision.
    """
    require_known(options, (*DEFAULTS, *ENGINE_DEFAULTS), method)
    left: Any = {name: value for name, value in options.items() if name not in ENGINE_DEFAULTS}
    told = {**ENGINE_DEFAULTS, **options}
    return require_engine(told["engine"], told["engine_precision"]), left


ENGINE_DEFAULTS: Mapping[str, Any] = {"engine": None, "engine_precision": "float32"}
"""The keywords of methods that mask images, beside those of all."""

BUDGET = ("budget", "tolerance")

LAYER_WORDS = ("layers", "layer_name", "target_layer", "target_layers")
"""What other libraries call the layer."""

COMBINES: tuple[str, ...] = get_args(Combine)
