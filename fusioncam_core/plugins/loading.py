"""A model, and what belongs to it, from a line of text."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import Any

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.plugins.guarded import OWN_ANSWERS, expect
from fusioncam_core.plugins.loaded_model import LoadedModel, as_loaded
from fusioncam_core.plugins.manager import left_out, plugin_manager


def load_model(spec: Any) -> LoadedModel:
    """A model and what belongs to it, from a line of text, or from what people hold.

    Args:
        spec: a text such as `python:package.module:function`, a function that takes no arguments and returns one of the
            following; or, itself, a model, `(model, preprocessing)` or a `LoadedModel`. The model can be a pipeline of
            transformers, and the preprocessing an image processor of theirs, a data configuration of timm or a
            `preprocess_input` of Keras: plugins know what is in them.

    Raises:
        InvalidValueError: no plugin knows such a text, or it names something that does not load; or what is held
            cannot be used.
        InvalidTypeError: a path without the kind of its file, or a plugin says that it does not read what is held.

    Examples:
        >>> import torch
        >>> from fusioncam_core import Preprocessing, load_model
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> loaded = load_model((model, Preprocessing((16, 16))))
        >>> loaded.model is model, loaded.preprocessing.size
        (True, (16, 16))
    """
    if isinstance(spec, os.PathLike):
        raise InvalidTypeError(f"expected a text with the kind of the file, such as 'keras:{spec}', got a path alone.")
    held = _loaded(spec) if isinstance(spec, str) else as_loaded(spec, "load_model was given")
    return _first("fusioncam_complete_model", loaded=held) or held


def place_model(loaded: LoadedModel, device: str) -> LoadedModel:
    """The model on a device, where it is explained then.

    Args:
        loaded: as `load_model` gives it; its model may be moved in place.
        device: such as "cpu", "cuda", "cuda:1" or "gpu", for the first of any kind.

    Raises:
        InvalidValueError: the model's framework has no such device, or does not move the model there.
        InvalidTypeError: no plugin places such a model.
    """
    check = functools.partial(expect, type(loaded.model))
    answers = plugin_manager().answers(
        "fusioncam_place_model", check, own=OWN_ANSWERS, model=loaded.model, device=device
    )
    placed = next((answer for _, answer in answers), None)
    if placed is None:
        kind = f"{type(loaded.model).__module__}.{type(loaded.model).__qualname__}"
        raise InvalidTypeError(
            f"No plugin places a model of type {kind} on a device, got {device!r}{left_out()}. Leave the device out: "
            "the model runs where its loader puts it."
        )
    return replace(loaded, model=placed)


def _loaded(spec: str) -> LoadedModel:
    loaded = _first("fusioncam_load_model", spec=spec)
    if loaded is None:
        raise InvalidValueError(
            f"No plugin can load {spec!r}{left_out()}. A spec starts with its kind, as in "
            "python:package.module:function, which names a function that takes no arguments and returns the model, "
            "keras:model.keras or timm:NAME."
        )
    return loaded


def _first(hook: str, **arguments: Any) -> LoadedModel | None:
    """The first plugin's answer."""
    check = functools.partial(expect, LoadedModel)
    answers = plugin_manager().answers(hook, check, own=OWN_ANSWERS, **arguments)
    return next((answer for _, answer in answers), None)
