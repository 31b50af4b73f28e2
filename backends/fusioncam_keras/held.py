"""What people hold beside a Keras model: the `preprocess_input` of the application that it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.data.processors import ProcessorPreprocessing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_keras.loading import photographs_of


def complete(loaded: LoadedModel) -> LoadedModel | None:
    """The model with a preprocessing of photographs where it came with one of arrays; None where it did not.

    Photographs are cropped to the model's input, as those for models from files are.

    Raises:
        ValueError: the model's input is no picture in colour.
    """
    function: Any = loaded.preprocessing
    if not (inspect.isfunction(function) and function.__name__ == "preprocess_input" and _is_of_keras(function)):
        return None
    found = photographs_of(loaded.model)
    if found is None or found.colours == "grey":
        seen = getattr(loaded.model, "input_shape", None)
        raise InvalidValueError(
            f"expected a model of pictures with three channels beside preprocess_input, got one whose input_shape is "
            f"{seen}. Give a function from a Pillow image to one input in its place."
        )
    window = Preprocessing(found.size, mean=0.0, std=1.0, channels=found.channels)
    settings = {name: getattr(window, name) for name in Preprocessing.__dataclass_fields__} | _values(function)
    made = ProcessorPreprocessing(**settings, processor=_OfPhotographs(function, window))
    return replace(loaded, preprocessing=made)


def _values(function: Callable[..., Any]) -> dict[str, Any]:
    """The fields `mean`, `std` and `colours` of a function, as it turns out of a few colours; {} if it does more.

    They say in words what the processor does, and are what `--preprocess size=...` goes on with.
    """
    format_ = {"data_format": "channels_last"} if _takes_channels(function) else {}
    rows = np.asarray([[0, 0, 0], [255, 255, 255], [255, 0, 0], [10, 70, 200]], dtype=np.float32)
    found = np.asarray(function(rows[np.newaxis, np.newaxis].copy(), **format_))[0, 0]
    black, white, red, _ = found
    std = 255.0 / (white - black)
    bgr = abs(float(red[0] - black[0])) < abs(float(red[2] - black[2]))
    turned = rows[:, ::-1] if bgr else rows
    mean = -black * std
    if not np.allclose((turned - mean) / std, found, rtol=0.0, atol=1e-3):
        return {}
    order = slice(None, None, -1 if bgr else 1)
    return {
        "mean": tuple(float(np.float32(value)) for value in mean[order]),
        "std": tuple(float(np.float32(value)) for value in std[order]),
        "colours": "bgr" if bgr else "rgb",
    }


def _takes_channels(function: Callable[..., Any]) -> bool:
    return "data_format" in inspect.signature(function).parameters


def _is_of_keras(function: Any) -> bool:
    """Whether Keras defines it: somebody's own of the same name may well take photographs."""
    return str(function.__module__).partition(".")[0] == "keras"


class _OfPhotographs:
    """Crops and resizes a photograph, and hands its values 0..255 to the function."""

    def __init__(self, function: Callable[..., Any], window: Preprocessing) -> None:
        self._function = function
        self._window = window

    def __call__(self, photograph: Any) -> Any:
        values = self._window(photograph)[np.newaxis]
        format_ = {"data_format": f"channels_{self._window.channels}"} if _takes_channels(self._function) else {}
        return self._function(values, **format_)[0]

    def __repr__(self) -> str:
        return f"{self._function.__module__}.{self._function.__qualname__}"
