"""Preprocessing that somebody else's code does: its pixels, and what can be found out about where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.plugins.foreign import foreign_code

if TYPE_CHECKING:
    from PIL.Image import Image

    Processor = Callable[[Image], Any]

_SIZES = ((157, 211), (211, 157))
"""Width and height of the photographs that a processor is tried on: odd, and larger one way than the other."""

_LEVELS = 4.0
"""How far two readings of a photograph may lie apart, of 255 levels that rise along it. A pixel of the photograph is up
to 1.6 of them, and a network that looks at 224 of 256 pixels begins 16 levels inside what one that sees all does."""


@dataclass(frozen=True)
class ProcessorPreprocessing(Preprocessing):
    """A `Preprocessing` whose arrays a processor makes; the other fields say where in the photograph they come from.

    Attributes:
        processor: from a Pillow image, upright and RGB, to one input without a batch axis.
    """

    processor: Processor | None = None

    def __call__(self, photograph: Image) -> npt.NDArray[np.float32]:
        """What the processor makes of the photograph, as float32.

        Raises:
            TypeError: `photograph` is not a Pillow image.
            ValueError: its values have no known range, or the processor raises, or gives an array of another size.
        """
        if self.processor is None:
            return super().__call__(photograph)
        array = run(self.processor, self.whole(photograph))
        height, width = self.size
        expected = (3, height, width) if self.channels == "first" else (height, width, 3)
        if array.shape != expected:
            raise InvalidValueError(f"expected an array of shape {expected} from the processor, got {array.shape}.")
        return array


def run(processor: Processor, photograph: Image) -> npt.NDArray[np.float32]:
    """What a processor makes of a photograph, as float32.

    Args:
        processor: from a Pillow image to one input without a batch axis, in arrays of any framework.
        photograph: upright and RGB.

    Raises:
        ValueError: the processor raises.
    """
    with foreign_code("the model's own image processor"):
        return np.asarray(to_numpy(processor(photograph)), dtype=np.float32)


def located(
    processor: Processor, scale: tuple[float | Sequence[float], float | Sequence[float]], fractions: Iterable[Any]
) -> Processor:
    """The processor, with what it looks at where that can be told: it is tried on two photographs.

    Args:
        processor: from a Pillow image to one input without a batch axis.
        scale: what it subtracts from values 0..255, and what it divides by then, as its settings say.
        fractions: what `Preprocessing.crop_fraction` may be; the first that agrees with the processor is taken.

    Returns:
        A `ProcessorPreprocessing`, on whose photographs maps can be drawn; the processor itself where its arrays are no
        pictures of one size, or come from somewhere else than the settings say.

    Raises:
        ValueError: the processor raises.
        MissingExtra: Pillow is not installed.
    """
    photographs = [_rising(*size) for size in _SIZES]
    arrays = [run(processor, photograph) for photograph in photographs]
    found = _size(arrays)
    if found is None:
        return processor
    size, channels = found
    mean, std = scale
    for fraction in fractions:
        plain = Preprocessing(size, fraction, "bilinear", mean, std, "last")
        if all(
            _agrees(plain, photograph, array, channels) for photograph, array in zip(photographs, arrays, strict=True)
        ):
            settings = {name: getattr(plain, name) for name in Preprocessing.__dataclass_fields__}
            return replace(ProcessorPreprocessing(**settings, processor=processor), channels=channels)
    return processor


def _rising(width: int, height: int) -> Image:
    """Red rises to the right, green downwards, blue along the diagonal."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image: Image = require("PIL.Image", "Preparing photographs").fromarray(
        np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)
    )
    return image


def _size(arrays: Sequence[npt.NDArray[np.float32]]) -> tuple[tuple[int, int], Any] | None:
    """The size of pictures in colour that are all of one size, and where their channels are."""
    (shape, *others) = {array.shape for array in arrays}
    if others or len(shape) != 3 or not (shape[0] == 3) ^ (shape[2] == 3):
        return None
    return ((shape[1], shape[2]), "first") if shape[0] == 3 else ((shape[0], shape[1]), "last")


def _agrees(plain: Preprocessing, photograph: Image, array: npt.NDArray[np.float32], channels: str) -> bool:
    values = np.moveaxis(array, 0, -1) if channels == "first" else array
    levels = (values - plain(photograph)) * np.asarray(plain.std, dtype=np.float32)
    return bool(np.abs(levels).max() <= _LEVELS)
