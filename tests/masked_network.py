"""The shapes network on PyTorch, asked with NumPy about masked images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.words import softmax

torch = pytest.importorskip("torch")

SIZE = (48, 48)


def live_channels(shapes: dict[str, Any]) -> int:
    activations = shapes["activations"]
    return int((activations.max(axis=(2, 3)) > activations.min(axis=(2, 3))).sum())


class Network:
    """The shapes network, asked with NumPy: probabilities or logits of the golden targets under masks."""

    def __init__(self, model: Any, shapes: dict[str, Any]):
        self.model, self.images, self.target = model, shapes["images"], shapes["target"]
        self.asked = 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.asked += len(images)
        with torch.no_grad():
            return self.model(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))).numpy()

    def masked(self, masks: Any, owners: Any, *, probability: bool = False, erased: Any = None) -> np.ndarray:
        masks, owners = np.asarray(masks)[:, None], np.asarray(owners)
        images = self.images[owners] * masks
        outputs = self.logits(images if erased is None else images + erased[owners] * (1 - masks))
        values = softmax(outputs) if probability else outputs
        return values[np.arange(len(owners)), self.target[owners]]


def blurred(images: np.ndarray) -> np.ndarray:
    """A Gaussian of 25 pixels in a window of 51, edges mirrored, written as sums over the window."""
    offsets = np.arange(-25, 26)
    kernel = np.exp(-0.5 * (offsets / 25) ** 2)
    for axis in (2, 3):
        padded = np.pad(images, [(25, 25) if each == axis else (0, 0) for each in range(4)], mode="reflect")
        parts = [np.take(padded, np.arange(25 + o, 25 + o + images.shape[axis]), axis=axis) for o in offsets]
        images = sum(part * weight for part, weight in zip(parts, kernel / kernel.sum(), strict=True))
    return images.astype(np.float32)
