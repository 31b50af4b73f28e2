"""The shapes network in Flax NNX."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from jax_models import CHANNELS, LAYERS, POOLED, breaks, parameters


class Block(nnx.Module):
    def __init__(self, channels_in: int, channels_out: int, *, pooled: bool, rngs: nnx.Rngs):
        self.pooled = pooled
        self.conv = nnx.Conv(channels_in, channels_out, (3, 3), rngs=rngs)
        # Neither does anything at inference, and each would if it were left as it is made.
        self.norm = nnx.BatchNorm(channels_out, epsilon=0.0, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, values: jax.Array) -> jax.Array:
        if self.pooled:
            values = nnx.max_pool(values, (2, 2), (2, 2))
        return self.dropout(nnx.relu(self.norm(self.conv(values))))


class Shapes(nnx.Module):
    def __init__(self, weights: dict[str, np.ndarray], *, broken: bool = False):
        rngs = nnx.Rngs(0)
        sizes = zip(CHANNELS[:-1], CHANNELS[1:], (False, *POOLED[:-1]), strict=True)
        self.blocks = nnx.List([Block(before, after, pooled=pooled, rngs=rngs) for before, after, pooled in sizes])
        self.fc = nnx.Linear(48, 5, rngs=rngs)
        self.broken = broken
        made = parameters(weights, channels="last")
        for name, layer in zip((*LAYERS, "fc"), (*(block.conv for block in self.blocks), self.fc), strict=True):
            layer.kernel.set_value(made[name]["kernel"])
            layer.bias.set_value(made[name]["bias"])

    def __call__(self, images: jax.Array) -> jax.Array:
        values = images
        for block in self.blocks:
            values = block(values)
        return self.fc((breaks(values) if self.broken else values).mean(axis=(1, 2)))


def module_state(model: nnx.Module) -> dict[str, Any]:
    """All that an explanation must leave as it was."""
    graphdef, state = nnx.split(model)
    made: dict[str, Any] = {"graph": graphdef}
    for path, variable in nnx.to_flat_state(state):
        made[f"{path} identity"] = id(variable)
        value = variable.get_value()
        made[str(path)] = np.asarray(
            jax.random.key_data(value) if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key) else value
        )
    for path, module in nnx.iter_modules(model):
        made[f"{path} class"] = (type(module), id(module), sorted(vars(module)))
    return made
