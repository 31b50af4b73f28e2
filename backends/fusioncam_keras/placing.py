"""A Keras model on a device, as far as the framework that Keras runs on moves models."""

from __future__ import annotations

from typing import Any

import keras

from fusioncam_core.errors import InvalidValueError


def place(model: Any, device: str) -> Any:
    """The model, if its variables are on the device, or have been moved there.

    Raises:
        InvalidValueError: there is no such device, or Keras computes on another.
    """
    _WAYS[keras.backend.backend()](model, device)
    return model


def _on_jax(model: Any, device: str) -> None:
    from fusioncam_jax.placing import device_of, moved

    target = device_of(device)
    for variable in model.variables:
        variable.assign(moved(variable.value, target))


def _on_tensorflow(model: Any, device: str) -> None:
    from fusioncam_tensorflow.engine import device_of
    from fusioncam_tensorflow.placing import require_on

    require_on(device_of(variable.value for variable in model.variables), device, model.name)


def _on_torch(model: Any, device: str) -> None:
    """Keras moves whatever it computes with to the device that it has chosen, for all models."""
    import torch

    from fusioncam_core.plugins.devices import chosen_device
    from fusioncam_torch.placing import there

    target = torch.device(chosen_device(device, there(), "PyTorch"))
    is_on = next((variable.value.device for variable in model.variables), torch.get_default_device())
    if (is_on.type, is_on.index or 0) != (target.type, target.index or 0):
        raise InvalidValueError(
            f"{model.name} is on {is_on}, on which Keras on PyTorch computes: load it and explain it inside "
            f"`with keras.device({str(target)!r}):` in Python, or let PyTorch see that device alone, with the "
            f"environment variable CUDA_VISIBLE_DEVICES={'-1' if target.type == 'cpu' else target.index}."
        )


_WAYS = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}
