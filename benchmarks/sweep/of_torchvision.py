"""torchvision: the smallest model of each file of classification, segmentation, video and detection models."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import FIRST, LAST, MAPS, ByLayer, Layout
from benchmarks.sweep.subject import Size, Subject, expectation

torchvision_operators.install()
from torchvision import models  # noqa: E402 - its operators come first
from torchvision.models.video import mvit  # noqa: E402

CLASSIFIERS = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
)
SEGMENTERS = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large")
VIDEOS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t")
DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
AUXILIARY = " with aux_loss"

KINDS = {
    **dict.fromkeys(CLASSIFIERS, "classification"),
    **dict.fromkeys(SEGMENTERS, "segmentation"),
    **{f"{name}{AUXILIARY}": "segmentation" for name in SEGMENTERS if name != "lraspp_mobilenet_v3_large"},
    **dict.fromkeys(VIDEOS, "video"),
    **dict.fromkeys(DETECTORS, "detection"),
}

FIXED = {"inception_v3": ((128, 128),), "maxvit_t": ((224, 224),)}

POOLED = ByLayer(MAPS, [("avgpool", Layout(tokens=False, stretched=True))])

LAYOUTS = {
    **dict.fromkeys(("alexnet", "vgg11", "vgg11_bn"), POOLED),
    "swin_t": ByLayer(LAST, [(r"permute", FIRST)]),
    "swin_v2_t": ByLayer(LAST, [(r"permute", FIRST)]),
    "swin3d_t": ByLayer(LAST),
    "ssd300_vgg16": ByLayer(Layout(stretched=True)),
    "vit_b_32": ByLayer(Layout(before=1, patch=(32, 32))),
    # The stem has strides (2, 4, 4); stages halve height and width.
    "mvit_v1_b": ByLayer(
        Layout(before=1, patch=(2, 32, 32)), [(r"blocks\.14\.norm1", Layout(before=1, patch=(2, 16, 16)))]
    ),
    "mvit_v2_s": ByLayer(Layout(before=1, patch=(2, 32, 32))),
}
"""By name where channels are. All others are (B, C, H, W) or (B, C, T, H, W) throughout."""

EXPECTED = [
    ("alexnet|vgg.*|squeezenet.*|densenet.*|convnext.*|efficientnet.*|mobilenet.*", r"features(\.\d+)*"),
    ("googlenet", "inception5b"),
    ("inception_v3", "Mixed_7c"),
    ("maxvit_t", r"blocks\.3(\..*)?"),
    ("mnasnet.*", r"layers(\.\d+)?"),
    ("regnet.*", r"trunk_output(\.block4.*)?"),
    ("(wide_)?resne.*", r"layer4(\.\d+)?"),
    ("shufflenet.*", r"conv5(\.\d+)?"),
    ("swin_.*", "norm|permute|features|features\\.7(\\.1)?"),
    ("vit_b_32", r"encoder\.layers\.encoder_layer_11\.ln_1"),
    ("fcn.*|deeplabv3.*", r"backbone.*|classifier\.\d+"),
    ("lraspp.*", r"backbone.*|classifier\..*"),
    ("r3d_18|mc3_18|r2plus1d_18", r"layer4(\.\d+)?"),
    ("s3d", r"features(\.\d+)?"),
    ("mvit.*", r"norm|blocks\.15(\.norm1)?"),
    ("swin3d_t", r"norm|features(\.6)?(\.1)?"),
]
"""By name the layers that the field names."""


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    return list(KINDS)


def subject(package: str, name: str) -> Subject:
    """The model of a name."""
    kind = KINDS[name]
    words: dict[str, Any] = {"sizes": FIXED.get(name, ((128, 128), (224, 224)))}
    if kind == "video":
        words = {"sizes": ((16, 64, 64), (16, 112, 112), (16, 224, 224)), "other": (16, 64, 96)}
    if kind == "segmentation":
        words = {"sizes": ((64, 64),), "other": (64, 96)}
    scores = {"segmentation": _segmented, "detection": _detected}
    return Subject(
        package,
        name,
        kind,
        lambda size: _make(name, kind, size),
        LAYOUTS.get(name, ByLayer(MAPS)),
        expected=expectation(EXPECTED, name),
        score=scores.get(kind),
        **words,
    )


def _make(name: str, kind: str, size: Size) -> torch.nn.Module:
    plain = name.removesuffix(AUXILIARY)
    words: dict[str, Any] = {"weights": None}
    if kind in ("segmentation", "detection"):
        words["weights_backbone"] = None
    if name.endswith(AUXILIARY):
        words["aux_loss"] = True
    if kind == "detection":
        # Random weights find nothing: every candidate is kept, few of them.
        words |= _every_candidate(name, size)
    if name == "vit_b_32":
        words["image_size"] = size[0]
    if name in ("googlenet", "inception_v3"):
        words |= {"init_weights": True, "aux_logits": name == "inception_v3"}
    if name.startswith("mvit"):
        return _mvit(name, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = {"segmentation": models.segmentation, "video": models.video, "detection": models.detection}
        return getattr(source.get(kind, models), plain)(**words)


def _mvit(name: str, size: Size) -> torch.nn.Module:
    """With positions for inputs of that size, which torchvision's own function fixes at 16 x 224 x 224."""
    original = mvit.MViT

    def sized(**words: Any) -> torch.nn.Module:
        return original(**{**words, "spatial_size": tuple(size[1:]), "temporal_size": size[0]})

    mvit.MViT = sized
    try:
        return getattr(mvit, name)(weights=None)
    finally:
        mvit.MViT = original


def _every_candidate(name: str, size: Size) -> dict[str, Any]:
    common = {"min_size": min(size), "max_size": max(size)}
    if "rcnn" in name:
        few = {"rpn_post_nms_top_n_test": 10, "rpn_pre_nms_top_n_test": 50}
        return {**common, **few, "box_score_thresh": 0.0, "box_detections_per_img": 10}
    few = {"score_thresh": 0.0, "topk_candidates": 20, "detections_per_img": 10}
    return few if name.startswith("ssd") else {**common, **few}


def _segmented(outputs: Any, number: int) -> Any:
    """The mean logit of a class."""
    return outputs["out"][:, number].mean(dim=(1, 2))


def _detected(outputs: Any, number: int) -> Any:
    """A detection's score, of each image; the best of them first."""
    return torch.stack([each["scores"][min(number, len(each["scores"]) - 1)] for each in outputs])
