"""An explainer as a value: its constructor's arguments, listed, shown, compared, copied and pickled."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.stores.fingerprints import same_model


class Value:
    """Keeps the arguments that an object was made with; two of one class and equal arguments are equal."""

    _arguments: dict[str, Any]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        """The object, with the arguments it is made with on record."""
        made = super().__new__(cls)
        made._arguments = bound_arguments(cls, arguments, keywords)
        return made

    def _options(self) -> Mapping[str, Any]:
        """The keywords that the constructor takes besides those it writes out, with their defaults."""
        raise NotImplementedError

    def _model_name(self) -> str:
        """What the model is called when the object is shown."""
        raise NotImplementedError

    def get_params(self) -> dict[str, Any]:
        """The constructor's arguments and their values, the model and the layer first.

        `type(explainer)(**explainer.get_params())` makes an equal one.
        """
        return {"model": None, "layer": None, **own_parameters(type(self)), **self._options(), **self._arguments}

    def __repr__(self) -> str:
        given = {name: each for name, each in self._arguments.items() if name != "model"}
        words = [self._model_name(), *(f"{name}={shown(each)}" for name, each in given.items())]
        return f"{type(self).__name__}({', '.join(words)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self._arguments)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Value):
            return NotImplemented
        first, second = self.get_params(), other.get_params()
        return same_model(first.pop("model"), second.pop("model")) and same(first, second)

    def __hash__(self) -> int:
        return hash(type(self))


def _made_again(kind: type[Value], arguments: Mapping[str, Any]) -> Value:
    return kind(**arguments)


WITHOUT_EFFECT = ("model", "layer", "batch_size", "progress", "weights_digest")
"""Arguments that no fingerprint holds: how fast, how watched; and those that are told in other words."""

_own_parameters: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def own_parameters(method: type) -> Mapping[str, Any]:
    """The arguments that the method's constructor writes out, but the model and the layer, with their defaults."""
    if method not in _own_parameters:
        _own_parameters[method] = _written_out(method)
    return _own_parameters[method]


def _written_out(method: type) -> dict[str, Any]:
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
    """Whether two arguments are the same: arrays by their values, containers by their entries, the rest by identity."""
    if first is second:
        return True
    if hasattr(first, "shape") and hasattr(second, "shape"):
        return type(first) is type(second) and np.array_equal(to_numpy(first), to_numpy(second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    plain = (str, int, float, bool, type(None), Value)
    return isinstance(first, plain) and isinstance(second, plain) and bool(first == second)


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
