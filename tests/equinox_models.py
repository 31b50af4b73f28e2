"""The shapes network in Equinox: of one image, channels first."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jax_models import CHANNELS, LAYERS, POOLED, breaks, parameters


class Shapes(eqx.Module):
    layers: list[Any]
    fc: eqx.nn.Linear
    broken: bool = eqx.field(static=True)

    def __init__(self, weights: dict[str, np.ndarray], *, broken: bool = False):
        made = parameters(weights, channels="first")
        key = jax.random.key(0)
        self.layers = []
        for index, name in enumerate(LAYERS):
            conv = eqx.nn.Conv2d(CHANNELS[index], CHANNELS[index + 1], 3, padding=1, key=key)
            self.layers += [_with(conv, made[name], (-1, 1, 1)), jax.nn.relu]
            self.layers += [eqx.nn.MaxPool2d(2, 2)] if POOLED[index] else []
        self.fc = _with(eqx.nn.Linear(48, 5, key=key), made["fc"], (-1,))
        self.broken = broken

    def __call__(self, image: jax.Array) -> jax.Array:
        values = image
        for layer in self.layers:
            values = layer(values)
        return self.fc(jnp.mean(breaks(values) if self.broken else values, axis=(1, 2)))


def _with(layer: Any, values: dict[str, jax.Array], shape: tuple[int, ...]) -> Any:
    values = (values["kernel"], values["bias"].reshape(shape))
    return eqx.tree_at(lambda each: (each.weight, each.bias), layer, values)
