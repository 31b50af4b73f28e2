"""segmentation-models-pytorch: every decoder, and one with encoders of several families."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import MAPS, ByLayer
from benchmarks.sweep.subject import Subject

torchvision_operators.install()
import segmentation_models_pytorch as smp  # noqa: E402 - torchvision's operators come first

DECODERS = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet")
ENCODERS = ("mobilenet_v2", "efficientnet-b0", "mit_b0", "tu-convnext_atto", "densenet121", "tu-regnetx_002")
LABELLED = "Unet resnet18 with a classifier"


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    decoders = [f"{decoder} resnet18" for decoder in DECODERS]
    return [*decoders, "Segformer mit_b0", *(f"Unet {encoder}" for encoder in ENCODERS), LABELLED]


def subject(package: str, name: str) -> Subject:
    """A decoder on an encoder."""
    return Subject(
        package,
        name,
        "segmentation",
        lambda size: _make(name),
        ByLayer(MAPS),
        sizes=((64, 64), (128, 128)),
        other=(64, 96),
        score=_segmented,
    )


def _make(name: str) -> torch.nn.Module:
    decoder, encoder = name.split(" ")[:2]
    words: dict[str, Any] = {"aux_params": {"classes": 3}} if name == LABELLED else {}
    return getattr(smp, decoder)(encoder_name=encoder, encoder_weights=None, classes=4, **words)


def _segmented(outputs: Any, number: int) -> Any:
    """The mean logit of a class."""
    masks = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    return masks[:, number % masks.shape[1]].mean(dim=(1, 2))
