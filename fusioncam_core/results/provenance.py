"""How an explanation came to be, in values that go into a file of JSON and come back equal."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.errors import InvalidValueError


@dataclass(frozen=True)
class Provenance:
    """How an explanation came to be. Everything is text, a number, True, False, None, or a list or dictionary of them.

    Two are equal if all of it is equal. There is no date in it, so that the same work gives the same files.

    Attributes:
        version: of fusioncam.
        method: the explainer's name, such as "fusion-cam".
        options: all arguments of its constructor by name, the defaults among them, but the model, the layer and those
            that no map depends on (`progress`, `weights_digest`). A method that is made of others has each of them
            here: its `method`, its `options`, and its `layers` where they are its own. An array is told by its
            shape, dtype and digest, a function or a class by its module and name.
        layers: the explained layers; `name#0`, `name#1`, ... is a call of one that runs several times. None of a method
            that needs no layer.
        model: the name of the model's class.
        weights_digest: of the weights as they were explained, where `weights_digest=True` asked for it; else None.
        frameworks: the versions of the libraries that the model is of, by their modules' names.
        device: where the images were, in the framework's words.
        preprocessing: of photographs that `explain_many` or the command line read, as it was given; else None.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> provenance = GradCAM(model, "0")(strip, 0).provenance
        >>> provenance.method, provenance.layers, provenance.model, provenance.device
        ('grad-cam', ('0',), 'Sequential', 'cpu')
        >>> provenance.options["relu"]
        True
    """

    version: str
    method: str
    options: Mapping[str, Any]
    layers: tuple[str, ...]
    model: str
    weights_digest: str | None = None
    frameworks: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    preprocessing: Any = None

    # Options are dictionaries, which have no hash.
    __hash__ = None  # type: ignore[assignment]

    @property
    def seed(self) -> int | None:
        """Of the method, or of the first of the methods it is made of that draws random numbers; None if none does."""
        return _seed(self.options)

    def to_json(self) -> dict[str, Any]:
        """The values by the attributes' names, as `json.dumps` takes them."""
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**own, "layers": list(self.layers), "options": dict(self.options), "frameworks": dict(self.frameworks)}

    @classmethod
    def from_json(cls, values: Any) -> Provenance:
        """What `to_json` was called on.

        Args:
            values: as `json.loads` gives them back.

        Raises:
            ValueError: if they are others.
        """
        if not isinstance(values, dict) or values.keys() != {each.name for each in dataclasses.fields(cls)}:
            raise InvalidValueError(f"Expected the values of a provenance, got {type(values).__name__} without them.")
        for name, fits in _FITS.items():
            if not fits(values[name]):
                raise InvalidValueError(f"Expected a provenance, got one whose {name} is {values[name]!r:.80}.")
        return cls(**{**values, "layers": tuple(values["layers"])})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


_FITS = {
    "version": _is_text,
    "method": _is_text,
    "options": lambda value: isinstance(value, dict),
    "layers": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "model": _is_text,
    "weights_digest": lambda value: value is None or _is_text(value),
    "frameworks": _is_texts,
    "device": _is_text,
}
"""Whether what a file says of an attribute can be it; options and preprocessing may be anything that JSON has."""


def _seed(options: Mapping[str, Any]) -> int | None:
    own = options.get("seed")
    if own is not None:
        return int(own)
    inner = (each["options"] for each in options.values() if isinstance(each, Mapping) and "options" in each)
    return next((seed for each in inner if (seed := _seed(each)) is not None), None)


def plain(value: Any) -> Any:
    """A value in the words of JSON, by which two are told apart where that can be: not what it can be made of again.

    Args:
        value: an option, or what was given as preprocessing.

    Returns:
        Text, numbers that are finite, True, False, None, lists, and dictionaries with texts as names.
    """
    if type(value) in (str, int, bool, type(None)):  # most of them, at every call
        return value
    if isinstance(value, np.generic):
        value = value.item()
    for kind, words in _WORDS:
        if isinstance(value, kind):
            return words(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if dataclasses.is_dataclass(value):
        own = {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"kind": _name(type(value)), **own}
    shown = _name(value) if hasattr(value, "__qualname__") else repr(value)
    return shown if " at 0x" not in shown else _name(type(value))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _float(value: float) -> float | str:
    """JSON has no word for NaN and infinity."""
    return float(value) if math.isfinite(value) else repr(value)


def _array(value: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(to_numpy(value))
    found = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "digest": f"sha256:{found}"}


def _partial(value: functools.partial[Any]) -> dict[str, Any]:
    return {
        "kind": "functools.partial",
        "function": plain(value.func),
        "arguments": plain(value.args),
        "keywords": plain(value.keywords),
    }


_WORDS: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda value: f"{_name(type(value))}.{value.name}"),
    (type(None) | bool, lambda value: value),
    (int, int),
    (float, _float),
    (str, str),
    (Mapping, lambda value: {str(name): plain(each) for name, each in value.items()}),
    (list | tuple, lambda value: [plain(each) for each in value]),
    (set | frozenset, lambda value: sorted((plain(each) for each in value), key=repr)),
    (functools.partial, _partial),
)
"""How values are put into words, by what they are; the first that fits."""
