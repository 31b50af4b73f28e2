"""The softmax or sigmoid that makes a model's output: what goes into it are the logits."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_keras.taps import attribute, passing

ENDINGS = {"softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}
"""Names of functions and operations that turn logits into probabilities; `softmax_v2` is `tf.nn.softmax`."""

PLAIN_LAYERS = "keras.src.layers"
"""Where Keras's own layers are; those of them that have variables make what they return themselves."""

ROUNDING = 1e-5
"""How far a float32 probability may be off, relative to itself, for a logarithm of one."""

HALF_ROUNDING = 1e-2
"""The same for a result of half precision, from whose cast the output was made."""

INFORMATIVE = (1e-30, 0.999)
"""Probabilities that tell something about the logits behind them: others are rounded to 0 or 1."""


@dataclass(frozen=True)
class Source:
    """Where the logits behind an output are.

    Attributes:
        kind: "softmax" or "sigmoid", which makes the output of them.
        part: the layer by which they are found.
        calls: which of its calls, counted from 0; several are those for the frames of a `TimeDistributed`.
        inside: whether they go into the layer's own activation function; if not, they are what it returns.
    """

    kind: str
    part: keras.Operation
    calls: tuple[int, ...]
    inside: bool

    @property
    def known(self) -> bool:
        """Whether the layer says that its activation function is the one."""
        return self.inside and ending(self.part) == self.kind


def ending(part: keras.Operation) -> str | None:
    """Whether the layer ends in a "softmax" over the classes or in a "sigmoid"; None for any other."""
    if isinstance(part, keras.layers.Softmax) or not isinstance(part, keras.Layer):
        over_classes = getattr(part, "axis", -1) in (-1, 1)
        return ENDINGS.get(type(part).__name__.lower()) if over_classes else None
    name = "function" if isinstance(part, keras.layers.Lambda) else "activation"
    return ENDINGS.get(getattr(getattr(part, name, None), "__name__", ""))


def _function_attribute(part: keras.Operation) -> str | None:
    """The attribute of the layer that is its activation function, or its call; None if it has none."""
    if isinstance(part, keras.layers.Softmax) or not isinstance(part, keras.Layer):
        return None if ending(part) is None else "call"
    name = "function" if isinstance(part, keras.layers.Lambda) else "activation"
    function = vars(part).get(name)
    return name if callable(function) and function is not keras.activations.linear else None


class Listener:
    """Keeps what goes into layers' activation functions, or what the layers return, call by call.

    Args:
        watched: layers, and whether to listen inside of them; those without an activation function are left alone.
    """

    def __init__(self, watched: Iterable[tuple[keras.Operation, bool]]):
        self._watched = list({(id(part), inside): (part, inside) for part, inside in watched}.values())
        # Results are kept as well, so that no other array can get their id.
        self._heard: dict[tuple[int, bool], list[tuple[Any, Any]]] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part, inside in self._watched:
                heard = self._heard.setdefault((id(part), inside), [])
                name = _function_attribute(part) if inside else None
                if name is not None:
                    stack.enter_context(attribute(part, name, _into(getattr(part, name), heard)))
                elif not inside:
                    stack.enter_context(passing(part, functools.partial(_keep, heard)))
            yield

    def made(self) -> Iterator[tuple[Any, keras.Operation, int]]:
        """The results of activation functions, with their layers and the numbers of the calls."""
        parts = {id(part): part for part, _ in self._watched}
        for (key, inside), heard in self._heard.items():
            for call, (values, result) in enumerate(heard):
                if inside and values is not None:
                    yield result, parts[key], call

    def behind(self, output: Any) -> Any | None:
        """What went into the activation function that returned this very array; None if none did."""
        return next((values for result, values in self._inside() if result is output), None)

    def _inside(self) -> Iterator[tuple[Any, Any]]:
        for (_, inside), heard in self._heard.items():
            if inside:
                yield from ((result, values) for values, result in heard)

    def logits(self, source: Source) -> Any | None:
        """What a source says, frames along axis 1; None if it was not called as often."""
        heard = self._heard.get((id(source.part), source.inside), [])
        values = [heard[call][0] for call in source.calls if call < len(heard)]
        if len(values) < len(source.calls) or any(value is None for value in values):
            return None
        return values[0] if len(values) == 1 else keras.ops.stack(values, axis=1)


def _into(function: Callable[..., Any], heard: list[tuple[Any, Any]]) -> Callable[..., Any]:
    own_thread = threading.get_ident()

    @functools.wraps(function)
    def tap(values: Any, *arguments: Any, **keywords: Any) -> Any:
        result = function(values, *arguments, **keywords)
        if threading.get_ident() == own_thread:
            plain = not arguments and not any(value is not None for value in keywords.values())
            heard.append((values if plain else None, result))  # with a mask or another axis it is another function
        return result

    return tap


def _keep(heard: list[tuple[Any, Any]], output: Any) -> Any:
    heard.append((output if keras.ops.is_tensor(output) else None, output))
    return output


def as_logits(output: Any, source: Source | None, listener: Listener, model_name: str) -> Any:
    """The logits behind an output, in its shape; the output itself if it has no source.

    Raises:
        InvalidValueError: if the layer did not run as often as when it was found to make the output.
    """
    if source is None:
        return output
    logits = listener.behind(output)
    logits = listener.logits(source) if logits is None else logits
    if logits is None:
        raise InvalidValueError(
            f"The outputs of {model_name} are made by a {source.kind} in its layer {source.part.name!r}, which did not "
            "run as often as for the first image, so that the logits behind them are not found. Give a model whose "
            "layers run equally often for all images, or one that returns the logits."
        )
    return logits if tuple(logits.shape) == tuple(output.shape) else keras.ops.reshape(logits, keras.ops.shape(output))


# --- behind a function of the model's own


def may_hide(maker: keras.Operation | None) -> bool:
    """Whether an output that this layer made (None: no layer) can be a softmax or sigmoid that does not say so."""
    if not isinstance(maker, keras.Layer) or not type(maker).__module__.startswith(PLAIN_LAYERS):
        return True
    return bool(_function_attribute(maker)) or not maker.variables or isinstance(maker, keras.layers.Wrapper)


def is_informative(output: np.ndarray) -> bool:
    """Whether an output has a probability that is not rounded to 0 or 1."""
    low, high = INFORMATIVE
    return bool(np.any((output > low) & (output < high)))


def find_source(output: np.ndarray, found: Sequence[tuple[Source, np.ndarray, bool]]) -> Source | None:
    """The latest of several possible sources whose values, through the softmax or sigmoid, are those of the output.

    Where these are rounded to 0 and 1, a layer must say itself that it is a softmax or sigmoid.

    Args:
        output: of the model, for one image.
        found: sources, their values, and whether these and the output have float32 or better.
    """
    flat = output.astype(np.float64).reshape(-1)
    informative = is_informative(flat)
    fitting = [
        source
        for source, values, precise in found
        if (informative or source.known) and _fits(source, values.astype(np.float64), flat, precise)
    ]
    return fitting[-1] if fitting else None


def _fits(source: Source, values: np.ndarray, output: np.ndarray, precise: bool) -> bool:
    if values.size != output.size or not (precise or source.known):
        return False  # a number of eleven bits is met by chance
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        expected = _softmax(values) if source.kind == "softmax" else 1 / (1 + np.exp(-values))
        tolerance = (ROUNDING if precise else HALF_ROUNDING) * (1 + np.abs(np.log(np.maximum(output, INFORMATIVE[0]))))
    return bool(np.all(np.abs(expected.reshape(-1) - output) <= tolerance * output + INFORMATIVE[0]))


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def possible_sources(part: keras.Operation, calls: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Source]:
    """How a layer's output of this shape could be the logits behind an output of the same length."""
    kinds = ("softmax", "sigmoid") if len(shape) > 1 and shape[-1] > 1 else ("sigmoid",)
    for inside in (False, True) if _function_attribute(part) is not None else (False,):
        for kind in kinds:
            yield Source(kind, part, calls, inside)


def length(shape: Sequence[int]) -> int:
    """How many numbers an array of this shape holds."""
    return math.prod(int(each) for each in shape)
