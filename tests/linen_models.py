"""The shapes network in Flax Linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jax_models import CHANNELS, LAYERS, POOLED, breaks, parameters


class Block(nn.Module):
    channels: int
    pooled: bool

    @nn.compact
    def __call__(self, values: jax.Array) -> jax.Array:
        if self.pooled:
            values = nn.max_pool(values, (2, 2), (2, 2))
        values = nn.Conv(self.channels, (3, 3))(values)
        # Neither does anything at inference, and each would if it were left as it is made.
        values = nn.BatchNorm(use_running_average=False, epsilon=0.0)(values)
        return nn.Dropout(0.5)(nn.relu(values), deterministic=False)


class Shapes(nn.Module):
    broken: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        values = images
        for channels, pooled in zip(CHANNELS[1:], (False, *POOLED[:-1]), strict=True):
            values = Block(channels, pooled)(values)
        return nn.Dense(5)((breaks(values) if self.broken else values).mean(axis=(1, 2)))


def build(weights: dict[str, np.ndarray], *, broken: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    made = parameters(weights, channels="last")
    norms = [{"scale": np.ones(n, np.float32), "bias": np.zeros(n, np.float32)} for n in CHANNELS[1:]]
    running = [{"mean": np.zeros(n, np.float32), "var": np.ones(n, np.float32)} for n in CHANNELS[1:]]
    blocks = {
        f"Block_{index}": {"Conv_0": made[name], "BatchNorm_0": norm}
        for index, (name, norm) in enumerate(zip(LAYERS, norms, strict=True))
    }
    statistics = {f"Block_{index}": {"BatchNorm_0": each} for index, each in enumerate(running)}
    variables = {"params": {**blocks, "Dense_0": made["fc"]}, "batch_stats": statistics}
    return Shapes(broken=broken), jax.tree.map(jax.numpy.asarray, variables)
