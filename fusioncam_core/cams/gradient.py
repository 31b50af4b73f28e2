"""Gradient maps: from a layer's activations and the gradients of a class's logit with respect to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusioncam_core.arrays import (
    Array,
    Namespace,
    _normalise,
    _resize,
    array_namespace,
    require_finite,
    require_float,
)


def grad_cam(
    activations: Array, gradients: Array, *, size: Sequence[int] | None = None, channel_axis: int = 1
) -> Array:
    """Grad-CAM: `N(U(relu(sum_k mean_ij(dy_c/dA_k) A_k)))`.

    Selvaraju et al., Grad-CAM (arXiv 1610.02391), equations 1 and 2. A target whose gradient is zero
    everywhere gives a map of zeros.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        gradients: of the targets' logits, shaped like the activations, or (B, K, ...) for K targets an image.
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.

    Returns:
        (B, *size) or (B, K, *size) in [0, 1].

    Raises:
        TypeError: if an array is not floating, or the two are of different libraries.
        ValueError: if the shapes do not fit, or values are NaN or infinite.
    """
    xp = array_namespace(activations, gradients)
    activations, gradients, several = _check_pair(activations, gradients, channel_axis, xp)
    maps = _grad_cam(activations, gradients, _map_size(size, activations), xp=xp)
    return maps if several else maps[:, 0, ...]


def _grad_cam(activations: Array, gradients: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *size)."""
    space = tuple(range(-len(size), 0))
    weights = xp.mean(gradients, axis=space)
    return _activation_map(weights, activations, size, xp=xp)


def _activation_map(weights: Array, activations: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    """`N(U(relu(sum_k w_k A_k)))` of weights (B, K, C) and activations (B, C, *spatial): (B, K, *size)."""
    combined = weighted_sum(weights, activations, xp=xp)
    return _normalise(_resize(relu(combined, xp=xp), size, xp=xp), len(size), xp=xp)


def weighted_sum(weights: Array, activations: Array, *, xp: Namespace) -> Array:
    """`sum_k w_k A_k`: (B, K, C) and (B, C, *spatial) -> (B, K, *spatial)."""
    batch, channels, *spatial = activations.shape
    flat = xp.reshape(activations, (batch, channels, math.prod(spatial)))
    return xp.reshape(xp.matmul(weights, flat), (batch, weights.shape[1], *spatial))


def relu(values: Array, *, xp: Namespace) -> Array:
    """`max(values, 0)`."""
    return xp.maximum(values, xp.zeros_like(values))


def _check_pair(activations: Array, gradients: Array, channel_axis: int, xp: Namespace) -> tuple[Array, Array, bool]:
    """Both, channels first and finite, gradients as (B, K, C, *spatial); and whether they came with K."""
    require_float(activations, "activations", xp)
    require_float(gradients, "gradients", xp)
    several = gradients.ndim == activations.ndim + 1
    plain = tuple(gradients.shape[:1]) + tuple(gradients.shape[2:]) if several else tuple(gradients.shape)
    if plain != tuple(activations.shape):
        raise ValueError(
            f"gradients have shape {tuple(gradients.shape)} and activations {tuple(activations.shape)}: they must "
            "be equal, or the gradients have one more axis, for the targets, after the batch."
        )
    activations = channels_first(activations, channel_axis, xp=xp)
    gradients = gradients if several else xp.expand_dims(gradients, axis=1)
    if channel_axis == -1:
        gradients = xp.moveaxis(gradients, -1, 2)
    require_finite(activations, "activations", xp)
    return activations, require_finite(gradients, "gradients", xp), several


def channels_first(activations: Array, channel_axis: int, *, xp: Namespace) -> Array:
    """(B, C, *spatial) from activations whose channels are at 1 or -1.

    Raises:
        ValueError: if the channel axis is another one, or there is no axis of space.
    """
    if channel_axis not in (1, -1):
        raise ValueError(f"channel_axis is 1 or -1, and {channel_axis} came.")
    if activations.ndim < 3:
        raise ValueError(
            f"activations have shape {tuple(activations.shape)}: a batch, channels and at least one axis of space "
            "were expected."
        )
    return activations if channel_axis == 1 else xp.moveaxis(activations, -1, 1)


def _map_size(size: Sequence[int] | None, activations: Array) -> tuple[int, ...]:
    spatial = tuple(int(length) for length in activations.shape[2:])
    if size is None:
        return spatial
    if len(size) != len(spatial):
        raise ValueError(f"size {tuple(size)} has not as many axes as the activations have of space, {len(spatial)}.")
    return tuple(int(length) for length in size)
