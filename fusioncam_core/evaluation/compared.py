"""What an evaluation compares: methods, given maps among them, by metrics, with one of them as the reference."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.arguments import own_parameters
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.options import BUDGET, ENGINE_DEFAULTS, MethodOptions
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.methods.fusion import Contributions, Variant
from fusioncam_core.metrics.given import GivenMaps, are_maps
from fusioncam_core.metrics.metric import Metric, find_metric

Method = Any
"""A name, an explainer or its class, an array of maps (N, *size), or a pair of one of these and options."""

Methods = Sequence[str | Explainer | type[Explainer]] | Mapping[str, Method]

METHODS = ("grad-cam", "score-cam", "fusion-cam")
"""What is compared if nothing else is asked for."""


class EvaluationOptions(MethodOptions, total=False):
    """Keywords of methods given by name; the three more are Fusion-CAM's, and Union-CAM's as far as it has them."""

    percentile: float
    contributions: Contributions
    variant: Variant


_PARTICULAR = ("percentile", "contributions", "variant", *BUDGET, *ENGINE_DEFAULTS)
"""Keywords that go to those methods that have them."""


_MEANT = {
    **dict.fromkeys(("ground_truth", "ground_truths", "mask", "annotations", "segmentations"), "masks"),
    **dict.fromkeys(("labels", "classes"), "targets"),
    **dict.fromkeys(("images", "dataset", "data"), "source"),
}
"""Words for arguments of an evaluation that are too unlike ours to be taken for a slip of the hand."""


class Compared(NamedTuple):
    """The methods by what they are called.

    Attributes:
        explainers: of given maps, the model alone.
        given: the maps that are given.
    """

    explainers: dict[str, Explainer]
    given: dict[str, GivenMaps]

    def require_maps(self, images: int | None) -> None:
        """Nothing, if there are as many given maps as images, or nobody knows how many images there are.

        Raises:
            InvalidValueError: otherwise.
        """
        if images is not None:
            for given in self.given.values():
                given.require_count(images)


def compared_methods(model: Any, methods: Methods, layer: Any, keywords: Mapping[str, Any]) -> Compared:
    """The methods that are asked for.

    Raises:
        TypeError: if they are no such thing.
        ValueError: for unknown names, or two methods of one name.
    """
    if isinstance(methods, str) or are_maps(methods) or not methods:
        what = "maps without a name: give a mapping, {'mine': maps}" if are_maps(methods) else repr(methods)
        raise InvalidTypeError(f"Methods are a sequence or mapping of one or more: got {what}.")
    named = dict(methods) if isinstance(methods, Mapping) else {_label(each): each for each in methods}
    if len(named) < len(methods):
        raise InvalidValueError("Two methods have one name: give a mapping from what they are to be called.")
    _require_taken(named.values(), keywords)
    found = Compared({}, {})
    for label, each in named.items():
        one = _one(model, label, each, layer, keywords)
        if isinstance(one, GivenMaps):
            found.given[label] = one
        found.explainers[label] = one.asks if isinstance(one, GivenMaps) else one
    return found


def refuse_misnamed(keywords: Iterable[str], function: Callable[..., Any]) -> None:
    """Refuse a keyword that is meant for an argument of the function, which methods know nothing of.

    Raises:
        InvalidTypeError: naming the first one and what it was meant for.
    """
    own = [name for name in inspect.signature(function).parameters if name != "keywords"]
    for name in keywords:
        near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, own, n=1, cutoff=0.75)
        if name not in EvaluationOptions.__optional_keys__ and near:
            raise InvalidTypeError(f"{function.__name__} has no argument {name!r}; did you mean {near[0]!r}?")


def _label(method: Any) -> str:
    if are_maps(method):
        raise InvalidTypeError("Maps have no name: give a mapping, such as {'mine': maps}.")
    named = isinstance(method, Explainer) or (inspect.isclass(method) and issubclass(method, Explainer))
    return str(method.name) if named else str(method)


def _one(model: Any, label: str, method: Any, layer: Any, keywords: Mapping[str, Any]) -> Explainer | GivenMaps:
    if isinstance(method, Explainer):
        return _usual(method)
    given, options = method if isinstance(method, tuple) else (method, {})
    if hasattr(given, "maps") and hasattr(given, "targets"):
        raise InvalidTypeError(
            f"{label!r} is an explanation: expected its maps, explanation.maps, and for their classes "
            "targets=explanation.targets."
        )
    if are_maps(given):
        return GivenMaps(given, model, label, **{**_for(None, keywords), **options})
    kind = _kind(given)
    return _usual(kind(model, layer, **{**_for(kind, keywords), **options}))


def _usual(explainer: Explainer) -> Explainer:
    """The explainer, if its maps are what metrics measure."""
    explainer.require_usual("Methods are compared by")
    return explainer


def _kind(method: Any) -> type[Explainer]:
    return method if inspect.isclass(method) and issubclass(method, Explainer) else find_method(method)


def _for(kind: type[Explainer] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords without those that a method, or given maps, does not have."""
    return {key: value for key, value in keywords.items() if key not in _PARTICULAR or _takes(kind, key)}


def _takes(kind: type[Explainer] | None, keyword: str) -> bool:
    if kind is None:
        return False
    if keyword in ENGINE_DEFAULTS:
        return kind.takes_engine
    return kind.takes_budget if keyword in BUDGET else keyword in own_parameters(kind)


def _require_taken(methods: Iterable[Any], keywords: Mapping[str, Any]) -> None:
    """Raise InvalidTypeError for a keyword of some methods that none of those given by name has."""
    firsts = (each[0] if isinstance(each, tuple) else each for each in methods)
    kinds = [_kind(each) for each in firsts if isinstance(each, str | type)]
    for keyword in _PARTICULAR:
        if keyword in keywords and not any(_takes(kind, keyword) for kind in kinds):
            raise InvalidTypeError(
                f"{keyword}= goes to methods that are given by name, and none of these has it: "
                f"{', '.join(kind.name for kind in kinds) or 'there is none'}."
            )


def distinct_metrics(metrics: Sequence[str | Metric | type[Metric]]) -> tuple[Metric, ...]:
    """The metrics that are asked for.

    Raises:
        TypeError, ValueError: for what is no metric, none, or two of one kind.
    """
    found = [find_metric(each) for each in metrics]
    names = [metric.name for metric in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        raise InvalidValueError(f"Expected one or more metrics, each kind once, got {names}.")
    return tuple(found)


def reference_of(asked: str | None, methods: Sequence[str]) -> str:
    """The method that others are compared with.

    Raises:
        ValueError: if it is none of them.
    """
    if asked is None:
        return "fusion-cam" if "fusion-cam" in methods else methods[0]
    if asked not in methods:
        raise InvalidValueError(f"The reference is one of {', '.join(map(repr, methods))}: got {asked!r}.")
    return asked
