"""keras.applications: the smallest network of each file, on the backend that the process runs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import keras

from benchmarks.sweep import on_keras
from benchmarks.sweep.layouts import LAST, ByLayer
from benchmarks.sweep.subject import Size, Subject, expectation

SMALLEST = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "VGG19",
    "Xception",
)

LARGER = {"InceptionResNetV2": (160, 160), "InceptionV3": (160, 160)}
"""What leaves more than one position of the last map."""

EXPECTED = [
    ("ConvNeXtTiny", r"convnext_tiny_stage_3_block_2_identity|add_\d+"),
    ("DenseNet121", r"relu|bn|conv5_block16_concat"),
    ("EfficientNet.*", r"top_activation|top_bn|top_conv"),
    ("InceptionResNetV2", r"conv_7b_ac|conv_7b_bn|conv_7b"),
    ("InceptionV3", r"mixed10"),
    ("MobileNet", r"conv_pw_13(_relu|_bn)?"),
    ("MobileNetV2", r"out_relu|Conv_1(_bn)?"),
    ("MobileNetV3Small", r"activation_\d+|conv_1(_bn)?|hard_swish.*"),
    ("NASNetMobile", r"activation_\d+|normal_concat_12"),
    ("ResNet50", r"conv5_block3_out"),
    ("ResNet50V2", r"post_relu|post_bn|conv5_block3_out"),
    ("VGG16", r"block5_conv3"),
    ("VGG19", r"block5_conv4"),
    ("Xception", r"block14_sepconv2(_act|_bn)?"),
]


def framework() -> ModuleType:
    return on_keras


def names(package: str) -> list[str]:
    return list(SMALLEST)


def subject(package: str, name: str) -> Subject:
    """The network of a name."""
    return Subject(
        package,
        name,
        "classification",
        lambda size: _make(name, size),
        ByLayer(LAST),
        sizes=(LARGER.get(name, (128, 128)),),
        other=(128, 160),
        expected=expectation(EXPECTED, name),
        shape=lambda size: (*size, 3),
    )


def _make(name: str, size: Size) -> Any:
    return getattr(keras.applications, name)(weights=None, classes=10, input_shape=(*size, 3))
