"""Trained parameters into a Flax NNX model whose modules have the checkpoint's names."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.zoo.fashion_networks import layer_parameters

_NAMES = {
    nnx.BatchNorm: {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    nnx.LayerNorm: {"weight": "scale", "bias": "bias"},
    nnx.Conv: {"weight": "kernel", "bias": "bias"},
    nnx.Linear: {"weight": "kernel", "bias": "bias"},
}
"""What Flax calls the parameters of its own modules; others have the checkpoint's names."""


def set_parameters(model: nnx.Module, network: str) -> None:
    """Fill the modules, such as `blocks.3.mlp_norm`; variables may have shapes only, as `nnx.eval_shape` makes them.

    Raises:
        ValueError: a variable has another shape than the checkpoint's.
    """
    for name, parameters in layer_parameters(network).items():
        module = _submodule(model, name)
        for parameter, array in parameters.items():
            _set(getattr(module, _NAMES.get(type(module), {}).get(parameter, parameter)), f"{name}.{parameter}", array)


def _submodule(model: nnx.Module, name: str) -> Any:
    module: Any = model
    for part in name.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    return module


def _set(variable: nnx.Variable, name: str, array: np.ndarray) -> None:
    if variable.shape != array.shape:
        raise ValueError(f"{name} has the shape {variable.shape}, the checkpoint's {array.shape}")
    variable.set_value(jnp.asarray(array))
