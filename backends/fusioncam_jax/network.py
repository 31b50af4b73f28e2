"""What the adapter asks of a module system: a model as a pure function of its parameters."""

from __future__ import annotations

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.inputs import Inputs
from fusioncam_jax.taps import Listener

Path = tuple[Any, ...]
"""Where a leaf is in a pytree: JAX's keys."""

Parameters = Any
"""A pytree: its arrays are arguments of compiled functions, the rest of it is static."""

INFERENCE = {
    "train": False,
    "training": False,
    "is_train": False,
    "is_training": False,
    "enable_dropout": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}
"""Arguments by which models are told that they are not being trained."""


class Network(ABC):
    """A model of one module system. It is never changed: what runs is made anew from its parameters.

    Attributes:
        name: of the model, for messages.
        input_channel_axis: 1 or -1, in batched inputs, where the user does not say otherwise.
        activation_channel_axis: 1 or -1, or None if it is that of the inputs.
        per_image: whether the model takes one image, without a batch axis.
        input_ndim: the axes of a batch of images as far as the model's structure suggests them, or None.
        parts: the names of all layers that are known before the model runs.
        without_layers: what to say besides where the model has no layer to explain.
        libraries: the modules of the libraries beside JAX that the model is of.
        errors: what else than TypeError and ValueError the module system raises for inputs that do not fit.
    """

    name: str
    input_channel_axis: int = -1
    activation_channel_axis: int | None = -1
    per_image: bool = False
    input_ndim: int | None = None
    without_layers: str = ""
    libraries: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = ()

    @property
    def anchor(self) -> Any:
        """The object by which adapters of one model know each other."""
        return self

    @property
    def parts(self) -> Iterable[str]:
        return ()

    @property
    def known_by(self) -> Any:
        """What tells models apart that share the anchor."""
        return None

    def told(self) -> Any:
        """What the model goes by beside its parameters, whose structure says the rest, to be compared."""
        return None

    @abstractmethod
    def parameters(self) -> Parameters:
        """The model's present parameters, where they are."""

    def weight_name(self, path: Path) -> str | None:
        """The name of the weight at this path in the parameters, which begins with its layer's; None if it is none."""
        return path_name(path_part(key) for key in path)

    @abstractmethod
    def run(self, parameters: Parameters, inputs: Inputs, listener: Listener | None) -> Any:
        """The outputs at inference; layers report to the listener. Only ever called while JAX traces."""

    def sentence(self, error: Exception) -> Exception | None:
        """What to say in place of an error that the model raised, or None if it says enough itself."""
        return None

    @abstractmethod
    def find(self, layer: Any) -> str:
        """The name of what the user gave as layer. Whether there is one of that name turns out when it runs.

        Raises:
            TypeError, ValueError: for an object that is no name and no part of the model.
        """


def first_array(parameters: Any) -> Any:
    """The first array of a pytree, by which models without an object of their own are known; None if there is none."""
    return next((leaf for leaf in jax.tree.leaves(parameters) if isinstance(leaf, jax.Array | np.ndarray)), None)


def on_device(parameters: Any) -> Any:
    """The pytree with JAX's arrays in place of NumPy's, which would be copied to the device at every call."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, parameters)


def kind_of(layer: Any) -> str:
    """The name of a layer's class; of a function, its own."""
    function = layer.func if isinstance(layer, functools.partial) else layer
    return str(getattr(function, "__name__", type(function).__name__))


def inference_keywords(
    function: Callable[..., Any],
    inputs: Inputs,
    given: Mapping[str, Any],
    supplied: Mapping[str, Callable[[], Any]],
    sentence: str,
) -> dict[str, Any]:
    """What to call a model with beside its inputs.

    Args:
        function: that is called.
        inputs: an array, or several by position or name.
        given: what the user has bound; the usual switches between training and inference are set to inference all the
            same.
        supplied: makes what may be asked for though inference has no use for it, such as a key.
        sentence: says how an argument is bound, with "{argument}" in it.

    Raises:
        InvalidValueError: if the function requires another argument, whose name the sentence gets.
    """
    signature = inspect.signature(function)
    keywords = {**given, **{name: value for name, value in INFERENCE.items() if name in signature.parameters}}
    named = {**inputs, **keywords} if isinstance(inputs, Mapping) else keywords
    by_position = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, Mapping) else (inputs,)
    try:
        filled = signature.bind_partial(*by_position, **named).arguments
    except TypeError:  # the model says it itself when it is called
        return keywords
    for name in _required(signature):
        if name in filled:
            continue
        if name not in supplied:
            raise InvalidValueError(sentence.format(argument=name))
        keywords[name] = supplied[name]()
    return keywords


def _required(signature: inspect.Signature) -> list[str]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    each = signature.parameters.values()
    return [one.name for one in each if one.default is inspect.Parameter.empty and one.kind not in several]


def required_words(name: str, way_out: str) -> str:
    """The sentence for an argument that a model requires, with its place open; `way_out` binds `{argument}`."""
    return (
        f"{name} requires the argument '{{argument}}', and images alone came. If it is a setting, bind it: "
        f"{way_out}. If it is a second input, give both and say which is explained: "
        "explainer((images, {argument})) of an explainer made with masked_input=0."
    )


def at_inference(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call inside of a model, with the usual switches set to inference."""
    parameters = inspect.signature(function).parameters
    if not any(name in parameters for name in INFERENCE):
        return arguments, keywords
    bound = inspect.signature(function).bind_partial(*arguments, **keywords).arguments
    places = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    by_position, by_name = list(arguments), dict(keywords)
    for name, value in INFERENCE.items():
        # Something else than a switch may go by such a name.
        if name not in parameters or not isinstance(bound.get(name), bool | None):
            continue
        if name in places[: len(arguments)]:
            by_position[places.index(name)] = value
        else:
            by_name[name] = value
    return tuple(by_position), by_name


def path_name(parts: Iterable[int | str]) -> str:
    """The path as Python writes it: ("blocks", 3, "conv") is "blocks[3].conv"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def path_part(key: Any) -> int | str:
    """A key of a path as an attribute's name or an index."""
    for attribute in ("name", "idx", "key"):
        if hasattr(key, attribute):
            part: int | str = getattr(key, attribute)
            return part
    return str(key)


def path_parts(name: str) -> tuple[int | str, ...]:
    """The parts of "blocks[3].conv", ".blocks[3].conv" or "blocks.3.conv"."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]'\"]+", name))


def named_layer(layer: Any, model_name: str) -> str:
    """The layer if it is a name.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(layer, str):
        raise InvalidTypeError(
            f"A layer of {model_name} is given by its name: got {type(layer).__qualname__}. "
            "List the names with explainer.layers(images)."
        )
    return layer
