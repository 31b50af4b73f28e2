"""Small JAX models for tests: the shapes network in every module system."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusioncam_core.testing import BrokenModelError
from fusioncam_jax import tap

LAYERS = ("conv1", "conv2", "conv3", "conv4")
CHANNELS = (3, 16, 32, 48, 48)
POOLED = (True, True, False, False)


def breaks(values: jax.Array) -> jax.Array:
    raise BrokenModelError


def parameters(weights: dict[str, np.ndarray], *, channels: str) -> dict[str, dict[str, jax.Array]]:
    """The weights by layer, as `kernel` and `bias`; "last" in Flax's layout, "first" in PyTorch's and Equinox's."""
    made = {}
    for name in (*LAYERS, "fc"):
        kernel = weights[f"{name}.weight"]
        if channels == "last":
            kernel = kernel.T if name == "fc" else kernel.transpose(2, 3, 1, 0)
        made[name] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(weights[f"{name}.bias"])}
    return made


def max_pool(values: jax.Array) -> jax.Array:
    """Halves a batch (B, H, W, C)."""
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def convolve(layer: dict[str, jax.Array], values: jax.Array) -> jax.Array:
    """A 3 x 3 convolution of (B, H, W, C) and its ReLU."""
    numbers = ("NHWC", "HWIO", "NHWC")
    convolved = jax.lax.conv_general_dilated(values, layer["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(convolved + layer["bias"])


def arrays_of(tree: Any) -> dict[str, Any]:
    """Every leaf by its path: arrays as NumPy, and which objects they are; other leaves as they are."""
    state: dict[str, Any] = {"structure": str(jax.tree.structure(tree))}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        state[name] = np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
        state[f"{name} identity"] = id(leaf)
    return state


def features(layers: dict[str, dict[str, jax.Array]], images: jax.Array) -> jax.Array:
    values = images
    for name, pooled in zip(LAYERS, POOLED, strict=True):
        values = tap(name, convolve(layers[name], values))
        values = max_pool(values) if pooled else values
    return values


def head(layer: dict[str, jax.Array], values: jax.Array) -> jax.Array:
    return values.mean(axis=(1, 2)) @ layer["kernel"] + layer["bias"]


def broken_head(layer: dict[str, jax.Array], values: jax.Array) -> jax.Array:
    return head(layer, breaks(values))


def tapped_function(weights: dict[str, np.ndarray], *, broken: bool = False) -> tuple[Any, Any]:
    last = broken_head if broken else head

    def apply(layers: dict[str, dict[str, jax.Array]], images: jax.Array) -> jax.Array:
        return last(layers["fc"], features(layers, images))

    return apply, parameters(weights, channels="last")


def pair_of_functions(weights: dict[str, np.ndarray], *, broken: bool = False) -> tuple[Any, Any]:
    layers = parameters(weights, channels="last")
    return (functools.partial(features, layers), functools.partial(broken_head if broken else head, layers["fc"]))
