"""What tells options, methods, metrics and models apart in another run: their values, never the objects they are."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.adapter import HasState, HasWeights, ModelAdapter

_PART = 1 << 26
"""Bytes of an array that are looked at together."""

_LENGTH = 16
"""Hexadecimal digits of a digest: among a billion values two have the same one with a probability of 3 %."""


@runtime_checkable
class TellsItself(Protocol):
    """What says itself by which values it is told from others: explainers, metrics."""

    def fingerprint(self, words: Fingerprints) -> str:
        """Equal ones for what gives equal results."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A function that goes by a name instead of by its code: `named`."""

    function: Callable[..., Any]
    name: str

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the function returns."""
        return self.function(*arguments, **keywords)


def named(function: Any, name: Any) -> Named:
    """The function, by whose name an evaluation keeps values in a folder: for a closure, which has no value of its own.

    Args:
        function: such as one for `reshape`.
        name: says what it does; another one whenever it does something else.

    Raises:
        InvalidTypeError: if the function cannot be called, or the name is no text.

    Examples:
        >>> from fusioncam_core.evaluation import named
        >>> halved = named(lambda images: images / 2, "halved, version 2")
        >>> halved(3.0)
        1.5
    """
    if not callable(function) or not isinstance(name, str) or not name:
        raise InvalidTypeError(f"Expected a function and its name, got {function!r} and {name!r}.")
    return Named(function, name)


def same_model(first: Any, second: Any) -> bool:
    """Whether it is one model: the same object, or made of the same objects."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_model(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_model, first, second))
    return first is second


def digest(*contents: bytes) -> str:
    """A short digest of several pieces, in which it is told where one ends."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(len(content).to_bytes(8, "little"))
        whole.update(content)
    return whole.hexdigest()[:_LENGTH]


class Fingerprints:
    """Words for values: equal ones for equal values, in every run.

    Args:
        model_name: what the user calls the model; needed of one that shows no weights.
    """

    def __init__(self, model_name: str | None = None):
        self._model_name = model_name
        self._models: list[tuple[Any, str]] = []

    def of(self, value: Any, where: str = "The value") -> str:
        """The words.

        Args:
            value: an option; an explainer, a metric; containers of them, arrays, functions without a closure.
            where: what it is, as the start of a sentence.

        Raises:
            InvalidTypeError: for what has no value, with what to do.
        """
        for kind, words in _SORTS:
            if isinstance(value, kind):
                return words(self, value, where)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return _array(value)
        if dataclasses.is_dataclass(value):
            return self.of_object(value, fields_of(value), where)
        own: Any = type(value)
        shows_its_value = own.__repr__ is not object.__repr__ and " at 0x" not in repr(value)
        if callable(value) or not shows_its_value:
            _refuse(f"a {type(value).__qualname__}, an object without a value", where)
        return f"{_name(own)}:{value!r}"

    def model(self, adapter: ModelAdapter, given: Any = None) -> str:
        """A digest of the model's weights and of what else it computes with; looked at once a model.

        Args:
            adapter: of the model.
            given: the model as the user has it, by which several adapters are known to be of one.

        Raises:
            InvalidTypeError: if it shows no array and has no name.
        """
        model = adapter if given is None else given
        seen = (words for known, words in self._models if same_model(known, adapter) or same_model(known, model))
        words = next(seen, None) or self._digest_of(adapter)
        # The adapter as well: it is all that the parts of an explainer have of the model.
        self._models += [(adapter, words), (model, words)]
        return words

    def _digest_of(self, adapter: ModelAdapter) -> str:
        weights = adapter.weights() if isinstance(adapter, HasWeights) else {}
        state = adapter.state() if isinstance(adapter, HasState) else {}
        values = [*weights.values(), *state.values()]  # names differ where a framework numbers the layers it makes
        if self._model_name is None and not any(hasattr(each, "shape") for each in values):
            raise InvalidTypeError(
                f"{adapter.model_name} shows no weights by which it could be told from another model, and results in a "
                "folder are kept by model. Expected model_name= (--model-name), got none: give it one, and another "
                "whenever the model changes."
            )
        numbered = re.sub(r"_\d+$", "", adapter.model_name)  # Keras numbers models as well
        words = [self._model_name or "", numbered, *(self.of(each, "The model's state") for each in values)]
        return digest(*(each.encode() for each in words))

    def _sequence(self, value: Iterable[Any], where: str) -> str:
        return f"[{', '.join(self.of(each, f'{where}[{place}]') for place, each in enumerate(value))}]"

    def _set(self, value: Iterable[Any], where: str) -> str:
        return f"{{{', '.join(sorted(self.of(each, where) for each in value))}}}"

    def _mapping(self, value: Mapping[Any, Any], where: str) -> str:
        pairs = sorted((self.of(name, where), self.of(each, f"{where}[{name!r}]")) for name, each in value.items())
        return f"{{{', '.join(f'{name}: {each}' for name, each in pairs)}}}"

    def _function(self, value: types.FunctionType, where: str) -> str:
        if value.__closure__:
            _refuse(f"a closure ({value.__qualname__})", where)
        defaults = self.of((value.__defaults__, value.__kwdefaults__), f"A default of {where}")
        return f"{value.__module__}.{value.__qualname__}:{_code(value.__code__)}{defaults}"

    def _method(self, value: types.MethodType, where: str) -> str:
        return f"{self.of(value.__self__, where)}.{value.__name__}"

    def _partial(self, value: functools.partial[Any], where: str) -> str:
        return f"partial({self.of(value.func, where)}, {self.of((value.args, value.keywords), where)})"

    def _class(self, value: type, where: str) -> str:
        return f"{_name(value)}:{_code_of_class(value)}"

    def of_object(self, value: Any, attributes: Mapping[str, Any], where: str) -> str:
        """The words of an object by what its class does, and by attributes that tell it from others of the class."""
        words = (f"{name}={self.of(each, f'The {name} of {where}')}" for name, each in sorted(attributes.items()))
        return f"{self._class(type(value), where)}({', '.join(words)})"


def _plain(value: Any) -> str:
    """Numbers that are equal in the same words: 10 and 10.0 are one percentile."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value)


def _array(value: Any) -> str:
    """By a part after the other: an array may be a file that memory does not hold."""
    whole, shape = hashlib.sha256(), tuple(int(length) for length in value.shape)
    step = max(1, _PART // max(1, 8 * math.prod(shape[1:])))
    parts = (value[start : start + step] for start in range(0, max(shape[0], 1), step)) if shape else (value,)
    for place, part in enumerate(parts):
        values = np.ascontiguousarray(to_numpy(part))
        whole.update(f"{shape} {values.dtype}\n".encode() if place == 0 else b"")
        whole.update(values.tobytes())
    return f"array:{whole.hexdigest()[:_LENGTH]}"


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass's fields and their values."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _refuse(what: str, where: str) -> NoReturn:
    raise InvalidTypeError(
        f"{where} is {what}: whether it is the same one in another run cannot be told, and results in a folder are "
        "kept by what they were made with. Give a function of a module, or one with a name, "
        "fusioncam_core.evaluation.named(function, 'what it does'), and another name whenever it does something else."
    )


def _code(code: types.CodeType) -> str:
    """A digest of what a function does, wherever it stands in its file."""
    constants = [
        _code(each) if isinstance(each, types.CodeType) else _constant(each)
        for each in code.co_consts  # the functions inside it among them
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return digest(code.co_code, repr(names).encode(), *(each.encode() for each in constants))


def _constant(value: Any) -> str:
    """Sets in the order of their words: their own is another one in every process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


@functools.lru_cache(maxsize=256)
def _code_of_class(kind: type) -> str:
    """A digest of a class's and its bases' methods, and of attributes that are plain values."""
    words = [
        f"{name} {word}"
        for base in kind.__mro__
        if base.__module__ != "builtins"
        for name, attribute in sorted(vars(base).items())
        for word in _words_of_attribute(name, attribute)
    ]
    return digest(*(each.encode() for each in words))


def _words_of_attribute(name: str, attribute: Any) -> list[str]:
    if isinstance(attribute, property | functools.cached_property):
        attribute = attribute.fget if isinstance(attribute, property) else attribute.func
    function = inspect.unwrap(getattr(attribute, "__func__", attribute)) if callable(attribute) else attribute
    if isinstance(function, types.FunctionType):
        generated = function.__code__.co_filename == "<string>"  # by a dataclass, from fields that are told themselves
        return [] if generated else [_code(function.__code__), *_cells(function)]
    dunder = name.startswith("__")
    return [repr(attribute)] if isinstance(attribute, bool | int | float | str | tuple) and not dunder else []


def _cells(function: types.FunctionType) -> list[str]:
    """What a method of a class in a function closes over, as far as it has a value."""
    held = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    contents = [cell.cell_contents for name, cell in held if name != "__class__"]
    where = f"What {function.__qualname__} closes over"
    # A class, which may be the one whose method it is, by its name.
    return [_name(each) if isinstance(each, type) else Fingerprints().of(each, where) for each in contents]


_SORTS: tuple[tuple[Any, Callable[[Fingerprints, Any, str], str]], ...] = (
    (enum.Enum, lambda self, value, where: f"{_name(type(value))}.{value.name}"),
    (type(None) | bool | int | float | complex | str | bytes | np.generic, lambda self, value, where: _plain(value)),
    (PurePath, lambda self, value, where: f"path:{value}"),
    (Named, lambda self, value, where: f"named:{value.name!r}"),
    (type, Fingerprints._class),
    (TellsItself, lambda self, value, where: value.fingerprint(self)),
    (Mapping, Fingerprints._mapping),
    (list | tuple, Fingerprints._sequence),
    (set | frozenset, Fingerprints._set),
    (types.FunctionType, Fingerprints._function),
    (types.MethodType, Fingerprints._method),
    (functools.partial, Fingerprints._partial),
    (types.BuiltinFunctionType, lambda self, value, where: f"{value.__module__}.{value.__qualname__}"),
)
"""How values are put into words, by what they are; the first that fits."""
