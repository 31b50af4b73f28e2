"""What EfficientNet-Lite0 expects of a photograph, whatever the framework."""

from typing import Literal

from examples.zoo.architecture import IMAGE_SIZE
from fusioncam_core import Preprocessing


def preprocessing(channels: Literal["first", "last"]) -> Preprocessing:
    """How the weights were evaluated: RGB, the central 224/256 of the picture, bicubic, `(x - 127) / 128`."""
    return Preprocessing(
        size=(IMAGE_SIZE, IMAGE_SIZE),
        crop_fraction=IMAGE_SIZE / 256,
        interpolation="bicubic",
        mean=127.0,
        std=128.0,
        channels=channels,
    )
