"""What looks like a Keras 3 model and is none: each is recognised without an import, and told the way out."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from fusioncam_core.errors import InvalidTypeError

KERAS_2 = ("tf_keras.", "keras.engine.", "keras.src.engine.", "tensorflow.python.keras.")
"""Where the classes of Keras 2 are, alone (tf_keras), before Keras 3 and inside of TensorFlow."""

BLACK_BOX = (
    'take a method that only runs the model, RISE(BlackBox(function, channels="last"), output_kind=...), with a '
    "function that takes images and returns class scores"
)


def refusal(model: Any) -> InvalidTypeError | None:
    """The error for a model of Keras 2, a SavedModel, or a function around a Keras 3 model; None for anything else."""
    if is_keras_2(model):
        return InvalidTypeError(
            f"The {type(model).__name__} is of Keras 2 ({type(model).__module__.partition('.')[0]}), and layers are "
            "looked into in Keras 3 only. Save it as a .keras or .h5 file and load that with Keras 3, "
            "keras.models.load_model(path); or give two models as a pair (features, head), of which head takes what "
            f"features returns; or {BLACK_BOX}, such as lambda images: model(images).numpy()."
        )
    if _is_saved_model(model):
        return InvalidTypeError(
            f"The {type(model).__name__} comes out of a SavedModel: compiled functions, without the layers that "
            f"they were made of. Give the Keras model from which it was exported (a .keras file), or {BLACK_BOX}."
        )
    inside = _keras_model_in(model)
    if inside is not None:
        return InvalidTypeError(
            f"Expected a model, got a function around the Keras model {inside.name!r}, whose layers cannot be looked "
            "into from here. Give the model itself; it is compiled where that is faster."
        )
    return None


def is_keras_2(model: Any) -> bool:
    """Whether it is a layer or model of Keras 2."""
    return any(each.__module__.startswith(KERAS_2) and each.__name__ == "Layer" for each in type(model).__mro__)


def _is_saved_model(model: Any) -> bool:
    """Whether it is what `tf.saved_model.load` returned, or one of its signatures."""
    kind = type(model)
    loaded = kind.__module__.startswith("tensorflow.") and kind.__name__ in ("_UserObject", "AutoTrackable")
    return loaded or any(each.__name__ == "ConcreteFunction" for each in kind.__mro__)


def _keras_model_in(function: Any) -> Any | None:
    """The only Keras 3 model that a function, a method, a `tf.function` or `jax.jit` uses."""
    if "keras" not in sys.modules:
        return None
    inner = function
    for name in ("func", "python_function", "__wrapped__"):  # of a functools.partial, a tf.function, jax.jit
        inner = getattr(inner, name, inner)
    used = [inner, getattr(function, "__self__", None)]
    if inspect.isfunction(inner):
        used += [_contents(cell) for cell in inner.__closure__ or ()]
        used += [inner.__globals__.get(name) for name in inner.__code__.co_names]
    models = {id(each): each for each in used if isinstance(each, sys.modules["keras"].Layer)}
    return next(iter(models.values())) if len(models) == 1 else None


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None
