"""The hooks of the TensorFlow backend. TensorFlow itself is imported once something of it turns up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pluggy

from fusioncam_core.errors import InvalidTypeError

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """A `PairAdapter` for a pair (features, head); Keras models have a plugin of their own."""
    if "tensorflow" not in sys.modules or options.get("framework", "tensorflow") != "tensorflow":
        return None
    if _is_pair(model) and ("framework" in options or any(map(_has_tensorflow_in_it, model))):
        from fusioncam_tensorflow.adapter import PairAdapter

        return PairAdapter(model, options)
    if _is_module(model):
        raise InvalidTypeError(
            "A tf.Module has no layers that can be looked into: expected two functions or modules as a pair (features, "
            f"head), got a {type(model).__qualname__}. features(images) returns the activations to explain, "
            "head(activations) the class scores."
        )
    return None


def _is_pair(model: Any) -> bool:
    return isinstance(model, tuple) and len(model) == 2 and all(map(callable, model))


def _has_tensorflow_in_it(function: Any) -> bool:
    """Whether it is a module or `tf.function`, a module's method, or `functools.partial` has bound tensors to it."""
    tensorflow = sys.modules["tensorflow"]
    own = (tensorflow.types.experimental.PolymorphicFunction, tensorflow.Tensor, tensorflow.Variable)
    bound = [*getattr(function, "args", ()), *getattr(function, "keywords", {}).values()]
    parts = [function, getattr(function, "__self__", None), *bound]
    return any(isinstance(part, own) or _is_module(part) for part in parts)


def _is_module(value: Any) -> bool:
    keras = sys.modules.get("keras")
    of_keras = keras is not None and isinstance(value, keras.Layer)
    return isinstance(value, sys.modules["tensorflow"].Module) and not of_keras


@hookimpl
def fusioncam_array_namespace(array: Any) -> Any:
    """Array API names over `tf`."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(array, tensorflow.Tensor):
        return None
    from fusioncam_tensorflow import namespace

    return namespace


@hookimpl
def fusioncam_place_model(model: Any, device: str) -> Any:
    """A pair stays where its variables are: another device is refused."""
    if "tensorflow" not in sys.modules or not (_is_pair(model) and any(map(_has_tensorflow_in_it, model))):
        return None
    from fusioncam_tensorflow.adapter import PairAdapter
    from fusioncam_tensorflow.placing import require_on

    adapter = PairAdapter(model, {})
    require_on(adapter._device, device, adapter.model_name)
    return model


@hookimpl
def fusioncam_describe_models() -> str:
    """Pairs of functions."""
    return (
        'TensorFlow: functions (features, head), with backend_options={"framework": "tensorflow"} '
        'where nothing in them is TensorFlow\'s: pip install "fusioncam[tensorflow]"'
    )
