"""A model's arrays on a device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.devices import chosen_device
from fusioncam_core.plugins.foreign import foreign_code
from fusioncam_jax.given import is_a


def place(model: Any, device: str, name: str) -> Any:
    """The model with its arrays on the device, to which they are bound: what is computed with them follows.

    An NNX module keeps its identity; of the others a copy of the tree comes back.

    Args:
        model: as the adapter takes it.
        device: as the user says it.
        name: of the model, for messages.

    Raises:
        InvalidValueError: there is no such device, or no array of the model can be seen.
    """
    target = device_of(device)
    with foreign_code(f"{name} does not go to {device}"):
        if is_a(model, "flax.nnx", "Module"):
            from flax import nnx

            nnx.update(model, moved(nnx.state(model), target))
            return model
        if not any(map(_is_array, jax.tree.leaves(model))) and target != _by_default():
            raise InvalidValueError(
                f"{name} holds its arrays where they cannot be seen, in a function or what is bound to it, and they "
                f"stay where they are. Make them inside `with jax.default_device(...)` in the function after python:, "
                "or give (apply, parameters)."
            )
        return moved(model, target)


def moved(tree: Any, target: jax.Device) -> Any:
    """The tree with its arrays on the device; keys of random numbers are arrays too."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, target) if _is_array(leaf) else leaf, tree)


def device_of(device: str) -> jax.Device:
    """The device that is meant.

    Raises:
        InvalidValueError: there is none; it names those there are.
    """
    there = {f"{each.platform}:{place}": each for kind in _kinds() for place, each in enumerate(kind)}
    return there[chosen_device(device, list(there), "JAX")]


def _kinds() -> list[list[jax.Device]]:
    """The devices of each kind: JAX lists those of the one that it prefers, and has the CPUs besides."""
    preferred, cpus = jax.local_devices(), jax.local_devices(backend="cpu")
    return [cpus] if preferred[0].platform == "cpu" else [preferred, cpus]


def _by_default() -> jax.Device:
    return next(iter(jax.numpy.zeros(()).devices()))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
