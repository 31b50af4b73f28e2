"""MONAI: networks of images and of volumes, classifiers and segmenters."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import MAPS, ByLayer, Layout
from benchmarks.sweep.subject import Size, Subject, expectation

torchvision_operators.install()
from monai.networks import nets  # noqa: E402 - torchvision's operators come first

LEVELS = {"channels": (8, 16, 32), "strides": (2, 2)}
KERNELS = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 16, 32]}
FEATURES = (8, 8, 16, 32, 64, 8)
CHANNELS = {"spatial_dims": 0, "in_channels": 1, "out_channels": 4}
"""Arguments that most networks share; `spatial_dims` is that of the size."""

Make = Callable[[Size], torch.nn.Module]

CLASSIFIERS: dict[str, Make] = {
    "DenseNet121": lambda size: nets.DenseNet121(len(size), 1, 4),
    "resnet10": lambda size: nets.resnet10(spatial_dims=len(size), n_input_channels=1, num_classes=4),
    "resnet18": lambda size: nets.resnet18(spatial_dims=len(size), n_input_channels=1, num_classes=4),
    "SEResNet50": lambda size: nets.SEResNet50(spatial_dims=len(size), in_channels=1, num_classes=4),
    "SEResNext50": lambda size: nets.SEResNext50(spatial_dims=len(size), in_channels=1, num_classes=4),
    "EfficientNetBN": lambda size: nets.EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=len(size), in_channels=1, num_classes=4
    ),
    "ViT": lambda size: nets.ViT(
        1, size, 16, 48, 96, 3, 4, classification=True, num_classes=4, spatial_dims=len(size), post_activation="none"
    ),
    "Classifier": lambda size: nets.Classifier((1, *size), 4, (8, 16, 32), (2, 2, 2)),
}
SEGMENTERS: dict[str, Make] = {
    "UNet": lambda size: nets.UNet(**_channels(size), **LEVELS),
    "UNet with residual units": lambda size: nets.UNet(**_channels(size), **LEVELS, num_res_units=2),
    "BasicUNet": lambda size: nets.BasicUNet(**_channels(size), features=FEATURES),
    "BasicUNetPlusPlus": lambda size: nets.BasicUNetPlusPlus(**_channels(size), features=FEATURES),
    "AttentionUnet": lambda size: nets.AttentionUnet(**_channels(size), **LEVELS),
    "DynUNet": lambda size: nets.DynUNet(**_channels(size), **KERNELS),
    "SegResNet": lambda size: nets.SegResNet(**_channels(size)),
    "SegResNetDS": lambda size: nets.SegResNetDS(**_channels(size), init_filters=8, blocks_down=(1, 1, 2)),
    "UNETR": lambda size: nets.UNETR(
        1, 4, size, feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4, spatial_dims=len(size)
    ),
    "SwinUNETR": lambda size: nets.SwinUNETR(1, 4, feature_size=12, window_size=4, spatial_dims=len(size)),
    "VNet": lambda size: nets.VNet(**_channels(size)),
    "HighResNet": lambda size: nets.HighResNet(**_channels(size)),
    "AHNet": lambda size: nets.AHNet(**_channels(size), upsample_mode="trilinear" if len(size) > 2 else "bilinear"),
    "MedNeXt": lambda size: nets.MedNeXt(
        **_channels(size), init_filters=8, kernel_size=3, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1, 1)
    ),
    "FlexibleUNet": lambda size: nets.FlexibleUNet(1, 4, "efficientnet-b0", spatial_dims=len(size)),
}

EXPECTED = [
    (r"DenseNet121 .*", r"features(\.norm5)?|class_layers\.relu"),
    (r"resnet1. .*", r"layer4(\.\d+)?"),
    (r"SEResNe.t50 .*|SEResNet50 .*", r"layer4(\.\d+)?"),
    (r"EfficientNetBN .*", r"_conv_head|_bn1|_swish"),
    (r"ViT .*", r"blocks\.2(\.norm1)?|norm"),
]


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    return [f"{name} {axes}-D" for name in (*CLASSIFIERS, *SEGMENTERS) for axes in (2, 3)]


def subject(package: str, name: str) -> Subject:
    """A network for images or for volumes."""
    model, _, axes = name.rpartition(" ")
    volume = axes == "3-D"
    classifies = model in CLASSIFIERS
    make = (CLASSIFIERS if classifies else SEGMENTERS)[model]
    sizes: tuple[Size, ...] = ((64, 64, 64), (96, 96, 96)) if volume else ((128, 128),)
    other: Size = (64, 64, 96) if volume else (96, 128)
    if volume and not classifies:
        sizes, other = ((32, 32, 32), (64, 64, 64)), (32, 32, 64)
    return Subject(
        package,
        name,
        "classification" if classifies else "segmentation",
        make,
        ByLayer(Layout(before=1) if model == "ViT" else MAPS),
        sizes=sizes,
        other=other,
        expected=expectation(EXPECTED, name),
        shape=lambda size: (1, *size),
        logits=_first_of_two if model == "ViT" else None,
        score=None if classifies else _segmented,
    )


def _channels(size: Size) -> dict[str, Any]:
    return {**CHANNELS, "spatial_dims": len(size)}


def _first_of_two(outputs: Any) -> Any:
    """The logits: the network returns its hidden states as well."""
    return outputs[0]


def _segmented(outputs: Any, number: int) -> Any:
    """The mean logit of a class, of the last of several outputs."""
    logits = outputs if isinstance(outputs, torch.Tensor) else outputs[-1]
    return logits[:, number % logits.shape[1]].flatten(1).mean(dim=1)
