"""What `layer=None` means in a model whose last layers are rows of tokens: the last one whose patches matter.

A head that reads the class token alone cuts the patches off from everything behind the keys and values of the last
attention: the gradients there are exactly zero, and so would be the maps. Of the layers before that the last
normalisation is taken, which for a vision transformer is the one that the last attention reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.adapter import LayerInfo, ModelAdapter, Score, Unconnected
from fusioncam_core.arrays import Array, array_namespace, constant_like
from fusioncam_core.inputs import Inputs
from fusioncam_core.layout import Reshape, find_layout, is_row
from fusioncam_core.outputs import unpack


@dataclass(frozen=True)
class AnyOutput:
    """A score that depends on all that a class could depend on: every value of an output, each with its own weight.

    Attributes:
        output: the position or name of the output, if there are several.
    """

    output: int | str | None = None

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, 1) weighted sums; the weights differ because the plain sum of probabilities is a constant."""
        values = unpack(outputs, self.output)
        xp = array_namespace(values)
        flat = xp.reshape(xp.astype(values, xp.float32), (values.shape[0], -1))
        weights = constant_like(np.linspace(1, 2, int(flat.shape[1])), flat, xp)
        return xp.sum(flat * weights, axis=1, keepdims=True)


def default_layer(
    listed: list[LayerInfo],
    at: Callable[[str], ModelAdapter],
    inputs: Inputs,
    score: Score,
    *,
    size: tuple[int, ...],
    reshape: Reshape,
) -> str | None:
    """The layer to explain when none is named, or None where the backend's own choice stands.

    Costs a forward and a backward pass of one image for each layer that is looked at: three in a vision transformer
    with a class token, one in a transformer that pools its patches, none where the backend's choice is no row.

    Args:
        listed: the model's layers in the order they ran, the backend's own choice marked.
        at: gives the adapter of a layer.
        inputs: one image, as a batch.
        score: what a layer has to matter for.
        size: the spatial size of the explained input.
        reshape: what the user says of the layer; a grid says which layers are rows of tokens.
    """
    rows = _candidates(listed, size, reshape)
    chosen = (row.name for row in rows if _patches_matter(at(row.name), inputs, score, size, reshape))
    return next(chosen, rows[0].name) if rows else None


def _candidates(listed: list[LayerInfo], size: tuple[int, ...], reshape: Reshape) -> list[LayerInfo]:
    """The rows of tokens to try: the last one, then the normalisations before it, from the end."""
    if callable(reshape):
        return []
    if reshape is None:
        own = next((index for index, layer in enumerate(listed) if layer.default), -1)
        listed = listed[: own + 1]
        if not listed or not is_row(listed[-1].shape, size):
            return []
    rows = [layer for layer in reversed(listed) if is_row(layer.shape, size, reshape)]
    normalisations = [layer for layer in rows[1:] if "norm" in layer.kind.lower()]
    return rows[:1] + (normalisations or rows[1:])


def _patches_matter(
    adapter: ModelAdapter, inputs: Inputs, score: Score, size: tuple[int, ...], reshape: Reshape
) -> bool:
    """Whether the score has a gradient at any patch of the layer."""
    try:
        gradients: Array = adapter.capture(inputs, score, None).gradients
    except Unconnected:
        return False
    axis, xp = adapter.activation_channel_axis, adapter.namespace
    layout = find_layout(gradients.shape[1:], size, axis, reshape, adapter.layer_name)
    return bool(xp.any(layout.channels_first(gradients[0, ...], xp=xp) != 0))
