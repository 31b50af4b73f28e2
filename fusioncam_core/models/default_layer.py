"""What `layer=None` means in a model that has rows of tokens: the last layer whose patches matter.

A head that reads the class token alone cuts the patches off from everything behind the keys and values of the last
attention: the gradients there are exactly zero, and so would be the maps. Of the layers before that the last
normalisation is taken, which for a vision transformer is the one that the last attention reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like
from fusioncam_core.errors import UnconnectedError
from fusioncam_core.models.adapter import LayerInfo, ModelAdapter, Score
from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.layout import Reshape, find_layout, is_attention, is_row
from fusioncam_core.models.outputs import scores_in, unpack


@dataclass(frozen=True)
class AnyOutput:
    """A score that depends on all that a class could depend on: every value of an output, each with its own weight.

    Attributes:
        output: the position or name of the output, if there are several; None takes all of them, for one image, where
            they are several and none is that of a classifier.
    """

    output: int | str | None = None

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, 1) weighted sums; the weights differ because the plain sum of probabilities is a constant."""
        values = [unpack(outputs, self.output)] if self.output is not None else scores_in(outputs)
        xp = array_namespace(*values)
        rows = values[0].shape[0] if len(values) == 1 else 1
        flat = xp.concat([xp.reshape(xp.astype(each, xp.float32), (rows, -1)) for each in values], axis=1)
        weights = constant_like(np.linspace(1, 2, int(flat.shape[1])), flat, xp)
        return xp.sum(flat * weights, axis=1, keepdims=True)


def default_layer(
    listed: list[LayerInfo],
    adapter: ModelAdapter,
    inputs: Inputs,
    score: Score,
    *,
    size: tuple[int, ...],
    reshape: Reshape,
) -> str | None:
    """The layer to explain when none is named: the backend's own choice, but in models that have rows of tokens.

    Costs a forward and a backward pass of one image for each layer that is looked at: three in a vision transformer
    with a class token, one in a transformer that pools its patches, none in a model without rows of tokens.

    Args:
        listed: the model's layers in the order they ran, the backend's own choice marked.
        adapter: of the model.
        inputs: one image, as a batch.
        score: what a layer has to matter for.
        size: the spatial size of the explained input.
        reshape: what the user says of the layer; a grid says which layers are rows of tokens.

    Returns:
        Its name; None if no layer has spatial extent.
    """
    layers = _candidates(listed, size, reshape)
    if not layers:
        return next((layer.name for layer in listed if layer.default), None)
    chosen = (layer.name for layer in layers if _patches_matter(adapter, layer.name, inputs, score, size, reshape))
    return next(chosen, layers[0].name)


def _candidates(listed: list[LayerInfo], size: tuple[int, ...], reshape: Reshape) -> list[LayerInfo]:
    """What to try: the backend's choice (or a given grid's last row), then the normalisations before it, last first."""
    if callable(reshape):
        return []
    rows = [index for index, layer in enumerate(listed) if is_row(layer.shape, size, reshape)]
    marked = [index for index, layer in enumerate(listed) if layer.default] if reshape is None else rows
    if not rows or not marked:
        return []
    last = marked[-1]
    tokens = {listed[index].shape[1] for index in rows}
    tried = [] if is_attention(listed[last].shape, size, tokens) else [listed[last]]
    before = [listed[index] for index in reversed(rows) if index < last]
    return tried + ([layer for layer in before if "norm" in layer.kind.lower()] or before)


def _patches_matter(
    adapter: ModelAdapter, layer: str, inputs: Inputs, score: Score, size: tuple[int, ...], reshape: Reshape
) -> bool:
    """Whether the score has a gradient at any patch of the layer."""
    try:
        captured = adapter.capture(inputs, [layer], score, None).layers[layer]
    except UnconnectedError:
        return False
    gradients: Array = captured.gradients
    xp = adapter.namespace
    layout = find_layout(gradients.shape[1:], size, captured.channel_axis, reshape, layer)
    return bool(xp.any(layout.channels_first(gradients[0, ...], xp=xp) != 0))
