"""ResNet8 for PyTorch: `python:examples.zoo.resnet8_torch:load`."""

import torch
from torch import nn

from examples.zoo.fashion_mnist import class_names, preprocessing
from examples.zoo.fashion_networks import (
    BATCH_NORM_EPSILON,
    CLASSES,
    RESNET8,
    STAGES,
    STEM_CHANNELS,
    Stage,
    checkpoint_path,
    read_parameters,
)
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 1, 28, 28)."""
    return LoadedModel(build(), preprocessing(channels="first"), class_names(), name=RESNET8)


def build() -> "ResNet8":
    """The bare network in evaluation mode: (batch, 1, 28, 28) in, (batch, 10) logits out.

    `stage1` gives 16 maps of 28 x 28, `stage2` 32 maps of 14 x 14 and `stage3` 64 maps of 7 x 7, all after ReLU.
    """
    model = ResNet8()
    arrays = read_parameters(checkpoint_path(RESNET8))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, added to the input, which a 1 x 1 convolution resizes where it has to."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.conv1 = _conv(stage.channels_in, stage.channels_out, 3, stage.stride)
        self.norm1 = _norm(stage.channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(stage.channels_out, stage.channels_out, 3)
        self.norm2 = _norm(stage.channels_out)
        self.resizes = stage.resizes
        if self.resizes:
            self.shortcut_conv = _conv(stage.channels_in, stage.channels_out, 1, stage.stride)
            self.shortcut_norm = _norm(stage.channels_out)
        self.relu2 = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(batch, channels in, h, w) to (batch, channels out, h / stride, w / stride), values at least 0."""
        x = self.relu1(self.norm1(self.conv1(inputs)))
        x = self.norm2(self.conv2(x))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.resizes else inputs
        return self.relu2(x + shortcut)


class ResNet8(nn.Module):
    """The network, untrained: a convolution, three residual blocks, the mean over space, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = _conv(1, STEM_CHANNELS, 3)
        self.stem_norm = _norm(STEM_CHANNELS)
        self.stem_relu = nn.ReLU()
        for name, stage in STAGES.items():
            self.add_module(name, ResidualBlock(stage))
        self.classifier = nn.Linear(STAGES["stage3"].channels_out, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 28, 28) to logits (batch, 10)."""
        x = self.stem_relu(self.stem_norm(self.stem_conv(images)))
        for name in STAGES:
            x = self.get_submodule(name)(x)
        return self.classifier(x.mean(dim=(2, 3)))


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
