"""Masks of the objects, from arrays or from a folder of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.preprocessing import Preprocessing, read_photograph
from fusioncam_core.data.sources import photographs
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require

Masks = Any
"""(N, *size), a mapping from names to (*size) arrays, or a folder of pictures."""

BRIGHT = 127
"""A mask's picture shows the object where it is brighter."""


class GroundTruth:
    """The masks by the images' names.

    Args:
        masks: as `evaluate` takes them; None for none.
        preprocessing: of the photographs: pictures of masks are cropped and resized as those are.

    Raises:
        ValueError: if a folder holds no picture.
    """

    def __init__(self, masks: Masks | None, preprocessing: Callable[[Any], Any] | None = None):
        self._preprocessing = preprocessing
        self._files: dict[str, Path] = {}
        self._arrays: Mapping[str, Any] = {}
        if isinstance(masks, str | Path):
            self._files = {path.stem: path for path in photographs(masks)}
        elif isinstance(masks, Mapping):
            self._arrays = {str(name): mask for name, mask in masks.items()}
        elif masks is not None:
            rows = to_numpy(masks) if hasattr(masks, "shape") else np.asarray(masks)
            self._arrays = {str(number): row for number, row in enumerate(rows)}

    def of(self, names: Sequence[str], size: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """(n, *size) booleans: the masks of these images.

        Raises:
            ValueError: if an image has none, or one of another size.
        """
        return np.stack([self._one(name, size) for name in names])

    def _one(self, name: str, size: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if name in self._files:
            mask = self._read(self._files[name])
        elif name in self._arrays:
            mask = np.asarray(to_numpy(self._arrays[name])) > 0
        else:
            raise InvalidValueError(f"There is no mask for the image {name!r}.")
        if mask.shape != size:
            raise InvalidValueError(f"The mask of {name!r} has shape {mask.shape}, and its image {size}.")
        return mask

    def _read(self, path: Path) -> np.ndarray[Any, Any]:
        """A picture as a mask, cropped as the photographs are, of pixels that are taken, not mixed."""
        picture = read_photograph(path)
        if isinstance(self._preprocessing, Preprocessing):
            height, width = self._preprocessing.size
            nearest = require("PIL.Image", "Reading masks").Resampling.NEAREST
            picture = self._preprocessing.window(picture).resize((width, height), nearest)
        bright: np.ndarray[Any, Any] = np.asarray(picture.convert("L")) > BRIGHT
        return bright

    def fingerprint(self, name: str) -> str:
        """Of the image's mask: another mask is another value."""
        if name in self._files:
            content = self._files[name].read_bytes()
        elif name in self._arrays:
            content = np.ascontiguousarray(to_numpy(self._arrays[name])).tobytes()
        else:
            return "no mask"
        return hashlib.sha256(content).hexdigest()[:16]
