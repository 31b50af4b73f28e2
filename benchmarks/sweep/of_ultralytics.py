"""ultralytics: the smallest YOLO of each generation and each task, from its description alone."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import MAPS, ByLayer
from benchmarks.sweep.subject import Size, Subject

torchvision_operators.install()
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
from ultralytics.nn import tasks  # noqa: E402 - torchvision's operators come first

CLASSES = {
    "yolov3-tiny": "DetectionModel",
    "yolov5n": "DetectionModel",
    "yolov6n": "DetectionModel",
    "yolov8n": "DetectionModel",
    "yolov8n-seg": "SegmentationModel",
    "yolov8n-pose": "PoseModel",
    "yolov8n-obb": "OBBModel",
    "yolov8n-cls": "ClassificationModel",
    "yolov9t": "DetectionModel",
    "yolov10n": "DetectionModel",
    "yolo11n": "DetectionModel",
    "yolo11n-seg": "SegmentationModel",
    "yolo11n-cls": "ClassificationModel",
    "yolo12n": "DetectionModel",
    "yolo26n": "DetectionModel",
    "yolo26n-cls": "ClassificationModel",
    "rtdetr-resnet50": "RTDETRDetectionModel",
}


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    return list(CLASSES)


def subject(package: str, name: str) -> Subject:
    """The model of a description."""
    classifies = name.endswith("-cls")
    return Subject(
        package,
        name,
        "classification" if classifies else "segmentation" if name.endswith("-seg") else "detection",
        lambda size: _make(name, size),
        ByLayer(MAPS),
        sizes=((128, 128),),
        score=_class if classifies else _detected,
        expected=r"model\.\d+(\.conv)?" if classifies else None,
    )


def _make(name: str, size: Size) -> torch.nn.Module:
    words: dict[str, Any] = {"verbose": False, "ch": 3}
    return getattr(tasks, CLASSES[name])(f"{name}.yaml", **words)


def _class(outputs: Any, number: int) -> Any:
    """A class's score."""
    values = outputs[-1] if isinstance(outputs, tuple) else outputs
    return values[:, number]


def _detected(outputs: Any, number: int) -> Any:
    """The best candidate of a class: behind the four numbers of a box."""
    values = outputs[0] if isinstance(outputs, tuple | list) else outputs
    while not isinstance(values, torch.Tensor):
        values = values[0]
    # Candidates with their boxes are (B, 4 + classes, N), or (B, N, 4 + classes) of those that end in queries.
    candidates = values if values.shape[1] < values.shape[2] else values.transpose(1, 2)
    return candidates[:, 4 + number % (candidates.shape[1] - 4)].amax(dim=1)
