"""The two networks for Fashion-MNIST in numbers: their sizes, and their trained parameters.

ResNet8 is the residual network of arXiv 1512.03385, section 4.2, with n = 1: three stages of one block each. The
tiny ViT is the vision transformer of arXiv 2010.11929 with a class token, at the size of the pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = 10

RESNET8 = "ResNet8"
STEM_CHANNELS = 16
BATCH_NORM_EPSILON = 1e-5

TINY_VIT = "Tiny ViT"
PATCH_SIZE = 4
GRID = 7
TOKENS = 1 + GRID * GRID
"""The class token, then the patches, row by row."""
WIDTH = 64
MLP_WIDTH = 128
HEADS = 4
HEAD_WIDTH = WIDTH // HEADS
BLOCKS = 4
LAYER_NORM_EPSILON = 1e-6

_CHECKPOINTS = {RESNET8: "resnet8_fashion_mnist.npz", TINY_VIT: "tiny_vit_fashion_mnist.npz"}


class Stage(NamedTuple):
    """One residual block, named `stage1` to `stage3`; its first convolution has the stride."""

    stride: int
    channels_in: int
    channels_out: int

    @property
    def resizes(self) -> bool:
        """Whether the block's input needs a convolution to be added to its output."""
        return self.stride > 1 or self.channels_in != self.channels_out


STAGES = {
    "stage1": Stage(1, STEM_CHANNELS, 16),
    "stage2": Stage(2, 16, 32),
    "stage3": Stage(2, 32, 64),
}


def checkpoint_path(network: str) -> Path:
    """The file of trained parameters of `RESNET8` or `TINY_VIT`, beside this module."""
    return Path(__file__).with_name(_CHECKPOINTS[network])


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Float32 arrays in PyTorch's layout (out, in, height, width), by names such as `stage1.conv1.weight`."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def write_parameters(path: Path, parameters: Mapping[str, np.ndarray]) -> None:
    """What `read_parameters` reads, compressed."""
    with path.open("wb") as file:  # given a path, NumPy would add .npz to a name that ends otherwise
        np.savez_compressed(file, **{name: np.asarray(array, np.float32) for name, array in parameters.items()})


def layer_parameters(network: str) -> dict[str, dict[str, np.ndarray]]:
    """The trained parameters of `RESNET8` or `TINY_VIT`, per layer, for frameworks with the channels last.

    Keys are layers such as `stage1.conv1` and `blocks.3.attention.query`. What a layer holds:

    - a convolution: `weight` (height, width, in, out), and `bias` (out,) where it has one;
    - a dense layer: `weight` (in, out) and `bias` (out,);
    - a norm: `weight` and `bias`, with a batch norm's `running_mean` and `running_var`, each (channels,);
    - `tokens`: `class_token` (1, 1, width) and `positions` (1, tokens, width).
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in read_parameters(checkpoint_path(network)).items():
        layer, parameter = name.rsplit(".", 1)
        layers.setdefault(layer, {})[parameter] = _channels_last(array)
    return layers


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(out, in, height, width) to (height, width, in, out), (out, in) to (in, out); others stay."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array
