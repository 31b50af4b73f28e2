"""The hooks of the Keras backend. Keras itself is imported once a model of it turns up, or a file is to be loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fusioncam_core.plugins.loaded_model import LoadedModel

hookimpl = pluggy.HookimplMarker("fusioncam")


# Asked before the frameworks: on PyTorch a Keras model is a torch.nn.Module as well.
@hookimpl(tryfirst=True)
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """A `KerasAdapter` for any layer or model of Keras 3, whatever framework Keras runs on."""
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, getattr(keras, "Layer", ())):
        from fusioncam_keras.adapter import KerasAdapter

        return KerasAdapter(model, options)
    if "tensorflow" in sys.modules or keras is not None:
        from fusioncam_keras.foreign import refusal

        error = refusal(model)
        if error is not None:
            raise error
    return None


@hookimpl
def fusioncam_load_model(spec: str) -> LoadedModel | None:
    """A model from `keras:PATH.keras` or `keras:PATH.h5`."""
    kind, _, path = spec.partition(":")
    if kind != "keras":
        return None
    from fusioncam_keras.loading import load

    return load(path)


@hookimpl
def fusioncam_complete_model(loaded: LoadedModel) -> LoadedModel | None:
    """Of a Keras model with the `preprocess_input` of an application."""
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(loaded.model, getattr(keras, "Layer", ())):
        return None
    from fusioncam_keras.held import complete

    return complete(loaded)


@hookimpl(tryfirst=True)
def fusioncam_place_model(model: Any, device: str) -> Any:
    """Moved on JAX; on TensorFlow and PyTorch Keras computes on one device, and another is refused."""
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, getattr(keras, "Layer", ())):
        return None
    from fusioncam_keras.placing import place

    return place(model, device)


@hookimpl
def fusioncam_describe_models() -> str:
    """Keras 3 models."""
    return 'keras.Model (Keras 3, on TensorFlow, PyTorch or JAX): pip install "fusioncam[keras]"'
