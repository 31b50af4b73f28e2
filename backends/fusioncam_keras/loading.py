"""Model files: `keras:PATH.keras` and `keras:PATH.h5`."""

from __future__ import annotations

import importlib.util
import stat
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import InvalidValueError, PreprocessingWarning, warn
from fusioncam_core.extras import require
from fusioncam_core.models.outputs import Task
from fusioncam_core.plugins.foreign import described, foreign_code
from fusioncam_core.plugins.loaded_model import LoadedModel

FRAMEWORKS = ("tensorflow", "torch", "jax")
"""What Keras can run on and be differentiated."""

ENDINGS = (".keras", ".h5")


def load(path: str) -> LoadedModel:
    """The model in a file, without running code from it.

    Photographs are cropped to the model's input and scaled to [0, 1], or left at 0..255 for a model that scales
    them itself. The task follows from how the model ends: a softmax, a sigmoid for each class, or one sigmoid.

    Args:
        path: of a `.keras` or `.h5` file with a whole model.

    Raises:
        ValueError: if there is no such file, it holds no whole model or one with code in it, or the framework that
            Keras is set to is not installed.
        MissingExtra: if Keras is not installed.
    """
    file = Path(path)
    if file.suffix not in ENDINGS or file.name.endswith(".weights.h5"):
        raise InvalidValueError(f"'keras:{path}': the file of a whole model ends in .keras or .h5 (not .weights.h5).")
    with foreign_code(f"'keras:{path}'"):
        _check_file(file)
        model = _read(import_keras(), file)
        return LoadedModel(model, _preprocessing(model, path), name=file.stem, task=_task(model))


def _check_file(file: Path) -> None:
    """Refuse what Keras would wait for, or give a misleading reason for."""
    try:
        kind = file.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "no regular file"
            raise InvalidValueError(f"'keras:{file}': expected a model file, got {what}.")
        file.open("rb").close()
    except FileNotFoundError as error:
        raise InvalidValueError(f"'keras:{file}': there is no such file.") from error
    except OSError as error:
        raise InvalidValueError(f"'keras:{file}' cannot be read: {error.strerror}.") from error
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise InvalidValueError(f"'keras:{file}' is no file that Keras has saved: those are zip archives.")


def import_keras() -> ModuleType:
    """Keras, or a sentence about what to install or set.

    Raises:
        ValueError: if the framework that it is set to run on is not installed.
        MissingExtra: if Keras is not installed.
    """
    try:
        return require("keras", "Reading Keras models", "keras")
    except ModuleNotFoundError as error:
        if error.name not in FRAMEWORKS:
            raise
        there = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is not None]
        way_out = (
            f"set the environment variable KERAS_BACKEND to one that is, {' or '.join(there)}"
            if there
            else 'pip install "fusioncam[tensorflow]" (or [torch] or [jax], with KERAS_BACKEND set to it)'
        )
        raise InvalidValueError(f"Keras is set to run on {error.name}, which is not installed: {way_out}.") from error


def _read(keras: ModuleType, file: Path) -> Any:
    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except (Exception, SystemExit) as error:
        # Around the cause are the configurations of all that it is in.
        text = " ".join(str(error).split()).rpartition("Exception encountered: ")[2]
        text = described(error, text.partition(" Full object config")[0])
        if "lambda" in text.lower():
            text = (
                "it holds Python code (a Lambda layer), which is not run. Load it yourself, and name the function that "
                "does as python:package.module:function"
            )
        raise InvalidValueError(f"'keras:{file}': {text.rstrip('.')}.") from error


def _input_shape(model: Any) -> tuple[int | None, ...] | None:
    """(batch, ...) of a model with one input."""
    inputs = getattr(model, "inputs", None) or []
    return tuple(inputs[0].shape) if len(inputs) == 1 else None


class Photographs(NamedTuple):
    """The photographs that a model takes.

    Attributes:
        size: height and width, 224 where they are open.
        channels: where they are in a batch.
        colours: "grey" of a model with one channel.
    """

    size: tuple[int, int]
    channels: Literal["first", "last"]
    colours: Literal["rgb", "grey"]


def photographs_of(model: Any) -> Photographs | None:
    """The photographs, coloured or grey, that a model takes; None for a model of anything else."""
    shape = _input_shape(model)
    if shape is None or len(shape) != 4:
        return None
    for count, axis in ((3, 1), (3, -1), (1, -1), (1, 1)):
        if shape[axis] == count:
            height, width = shape[2:] if axis == 1 else shape[1:-1]
            return Photographs(
                (height or 224, width or 224), "first" if axis == 1 else "last", "rgb" if count == 3 else "grey"
            )
    return None


def _preprocessing(model: Any, path: str) -> Preprocessing | None:
    """For photographs; None for a model of anything else."""
    found = photographs_of(model)
    if found is None:
        return None
    from fusioncam_keras.taps import parts, rescales

    scales = rescales(parts(model))
    if not scales:
        warn(
            f"'keras:{path}' has no Rescaling or Normalization layer, and its file does not say what was done to the "
            "images: they are scaled to [0, 1]. If it was trained on another range, say so with --preprocess, such as "
            "--preprocess minus-one-to-one, or caffe for ResNet50 and VGG of Keras' applications; or load it in a "
            "function that returns (model, preprocessing) and name that as python:package.module:function.",
            PreprocessingWarning,
        )
    size, channels, colours = found
    return Preprocessing(size, mean=0.0, std=1.0 if scales else 255.0, channels=channels, colours=colours)


def _task(model: Any) -> Task:
    """What the model's last activation says."""
    from fusioncam_keras.adapter import KerasAdapter

    shape = _input_shape(model)
    if shape is None or len(shape) < 3:
        return "multiclass"
    adapter = KerasAdapter(model, {})
    blank = adapter.as_array(np.zeros([length or 224 for length in (1, *shape[1:])], dtype=np.float32))
    if adapter.ending(blank, None) != "sigmoid":
        return "multiclass"
    return "binary" if model.output_shape[-1] == 1 else "multilabel"
