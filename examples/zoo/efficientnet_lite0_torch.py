"""EfficientNet-Lite0 for PyTorch: `python:examples.zoo.efficientnet_lite0_torch:load`."""

import torch

from examples.zoo.architecture import NAME
from examples.zoo.checkpoint import checkpoint_path
from examples.zoo.imagenet import class_names
from examples.zoo.installed import package_folder
from examples.zoo.preprocessing import preprocessing
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The pretrained network with its preprocessing and class names; images are (batch, 3, 224, 224).

    Raises:
        ModuleNotFoundError: one of the two packages named in this folder's README is not installed.
    """
    return LoadedModel(build(), preprocessing(channels="first"), class_names(), name=NAME)


def build() -> torch.nn.Module:
    """The bare network in evaluation mode: (batch, 3, 224, 224) in, (batch, 1000) logits out.

    `_blocks.15` is the last block (320 maps of 7 x 7); `_swish` serves the stem and then the head, so its
    last call is the head's activation (1280 maps of 7 x 7).

    Raises:
        ModuleNotFoundError: one of the two packages named in this folder's README is not installed.
    """
    package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    model: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(checkpoint_path(), map_location="cpu", weights_only=True))
    return model.eval()
