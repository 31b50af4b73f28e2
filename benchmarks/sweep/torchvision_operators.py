"""Lets torchvision's Python part import beside a PyTorch that its compiled operators do not load in.

`install()` defines the schemas of the operators that are missing. Those that detectors run at inference are written in
Python here: slower, and the same values.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

import torch

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, "
        "bool aligned) -> Tensor"
    ),
    "roi_pool": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) -> (Tensor, Tensor)"
    ),
    "ps_roi_align": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio) "
        "-> (Tensor, Tensor)"
    ),
    "ps_roi_pool": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) -> (Tensor, Tensor)"
    ),
    "deform_conv2d": (
        "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, "
        "int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, bool use_mask) -> Tensor"
    ),
}


@functools.cache
def install() -> Any:
    """Import torchvision, with Python in place of its operators where they do not load.

    Returns:
        The library of operators, None where torchvision's own are there. It lasts as long as it is referred to: this
        function keeps it.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    else:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
    library.impl("nms", nms, "CPU")
    importlib.import_module("torchvision.extension")._has_ops = lambda: True
    # Without its operator torchvision aligns regions in Python, which it would compile first.
    regions: Any = importlib.import_module("torchvision.ops.roi_align")
    regions._roi_align = regions._roi_align.__wrapped__
    return library


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of boxes (N, 4) by falling score, without those that overlap a better one by more than the threshold."""
    order = scores.argsort(descending=True, stable=True)
    overlaps = _overlaps(boxes[order])
    keep = torch.ones(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if keep[index]:
            keep[index + 1 :] &= overlaps[index, index + 1 :] <= threshold
    return order[keep]


def _overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """(N, N) intersections over unions."""
    sides = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(
        boxes[:, None, :2], boxes[None, :, :2]
    )
    shared = sides.clamp(min=0).prod(dim=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    return shared / (areas[:, None] + areas[None, :] - shared)
