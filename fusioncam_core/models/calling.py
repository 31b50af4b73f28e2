"""How a model is called with its inputs: by position, by name, or whole, as its signature says."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar

from fusioncam_core.models.structure import bare, is_container

P = ParamSpec("P")
R = TypeVar("R")

Way = Literal["position", "name", "whole"]


class Caller:
    """Calls a function with inputs.

    A tuple or list is passed by position if the function can be called so, a mapping by name if its names are the
    function's; else the container is passed whole, as the one argument it is, in the type it came in. A single array
    is the first argument. Where nothing can be told of the function, containers are passed by position and by name.

    Args:
        function: is called.
        like: the function whose signature counts, if it is another one.
        reserved: names of its arguments that are no inputs.
    """

    def __init__(self, function: Callable[..., Any], *, like: Any = None, reserved: tuple[str, ...] = ()):
        self._function = function
        self._like = function if like is None else like
        self._reserved = reserved
        self._ways: dict[Any, Way] = {}

    def __call__(self, inputs: Any, *more: Any, **keywords: Any) -> Any:
        """The function of the inputs, then `more` by position, and keywords, over which the inputs' names win."""
        if not is_container(inputs):
            return self._function(inputs, *more, **keywords)
        given = bare(inputs)
        way = self.way(given, *more, **keywords)
        if way == "name":
            return self._function(**{**self._by_name(given, more), **keywords, **given})
        return self._function(*(given if way == "position" else (given,)), *more, **keywords)

    def way(self, inputs: Any, *more: Any, **keywords: Any) -> Way:
        """How such a container is passed."""
        entries = tuple(inputs) if isinstance(inputs, Mapping) else len(inputs)
        key = (isinstance(inputs, Mapping), entries, len(more), tuple(keywords))
        if key not in self._ways:
            self._ways[key] = self._find_way(inputs, more, keywords)
        return self._ways[key]

    def _find_way(self, inputs: Any, more: tuple[Any, ...], keywords: Mapping[str, Any]) -> Way:
        is_named = isinstance(inputs, Mapping)
        if self._signature is None:
            return "name" if is_named else "position"
        if is_named and self._fits_by_name(inputs, more, keywords):
            return "name"
        if not is_named and _binds(self._signature, (*inputs, *more), keywords):
            return "position"
        if _binds(self._signature, (inputs, *more), keywords):
            return "whole"
        return "name" if is_named else "position"  # the function says itself what it lacks

    def _fits_by_name(self, inputs: Mapping[Any, Any], more: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
        if not all(isinstance(name, str) for name in inputs):
            return False
        named = {**self._by_name(inputs, more), **keywords, **inputs}
        if self._signature is None or _binds(self._signature, (), named):
            return True
        # A decorator may take more arguments than the function inside, and know what to do with them.
        outer = _signature(self._like, self._reserved, inside=False)
        known = any(name in self._signature.parameters for name in inputs)
        return known and outer is not None and _binds(outer, (), named)

    def _by_name(self, inputs: Mapping[str, Any], more: tuple[Any, ...]) -> dict[str, Any]:
        """What comes by position, by the names that the inputs leave free."""
        if not more or self._signature is None:
            return {}
        free = [
            name for name, each in self._signature.parameters.items() if name not in inputs and _is_positional(each)
        ]
        return dict(zip(free, more, strict=False))

    def binds(self, inputs: Any) -> bool:
        """Whether the function can be called with these inputs, as far as its signature tells."""
        if self._signature is None:
            return True
        if not is_container(inputs):
            return _binds(self._signature, (inputs,), {})
        given = bare(inputs)
        way = self.way(given)
        if way == "name":
            return _binds(self._signature, (), given)
        return _binds(self._signature, given if way == "position" else (given,), {})

    @property
    def _signature(self) -> inspect.Signature | None:
        if "_known" not in vars(self):
            self._known = _signature(self._like, self._reserved)
        return self._known


def call_with(function: Callable[..., Any], inputs: Any, *more: Any, **keywords: Any) -> Any:
    """The function of the inputs, as `Caller` calls it."""
    return Caller(function)(inputs, *more, **keywords)


def _signature(function: Any, reserved: tuple[str, ...], *, inside: bool = True) -> inspect.Signature | None:
    """The signature without the reserved arguments; of what a decorator is around, or the decorator's own."""
    if isinstance(function, inspect.Signature):
        return function
    try:
        found = inspect.signature(function, follow_wrapped=inside)
    except (TypeError, ValueError):  # of a builtin, or of what is written in another language
        return None
    kept = [each for each in found.parameters.values() if each.name not in reserved]
    return found.replace(parameters=kept)


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _binds(signature: inspect.Signature, arguments: Any, keywords: Mapping[str, Any]) -> bool:
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def weakly(method: Callable[P, R]) -> Callable[P, R]:
    """A bound method as what its own object may keep, such as a program compiled of it, without living on through it.

    What an object holds in a circle goes only when Python looks for circles, and until then takes memory.
    """
    reference = weakref.WeakMethod(method)

    def called(*arguments: P.args, **keywords: P.kwargs) -> R:
        found = reference()
        assert found is not None, "called by its object alone, which is alive then"
        return found(*arguments, **keywords)

    return called
