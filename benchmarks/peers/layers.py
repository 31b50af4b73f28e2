"""Where the 1280 maps of 7 x 7 of EfficientNet-Lite0's head are, after their ReLU6, in each framework.

The PyTorch package has one `_swish` for the stem and the head. A hook on it fires for both, and libraries differ in
which of the two calls they explain: pytorch-grad-cam the first, without a word, torch-cam and fusioncam the last.
`separate_activations` makes a network in which the head's activation is a module of its own.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

TORCH_HEAD = "_bn1.activation"
"""In the network that `separate_activations` returns."""

KERAS_HEAD = "head_relu"

HEAD_MAPS = (1280, 7, 7)
"""Channels, rows and columns there."""


def separate_activations(network: Any) -> Any:
    """A copy of the zoo's PyTorch network that computes the same, with an activation of its own for stem and head.

    They are `_bn0.activation` and `_bn1.activation`, each of which runs once; `_swish` does nothing any more.
    """
    import torch

    separated = copy.deepcopy(network)
    for name in ("_bn0", "_bn1"):
        parts = OrderedDict(norm=getattr(separated, name), activation=copy.deepcopy(network._swish))
        setattr(separated, name, torch.nn.Sequential(parts))
    separated._swish = torch.nn.Identity()
    return separated.eval()
