"""An explainer of maps that are known, and models that look at known pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fusioncam_core import RISE, Explainer
from fusioncam_core.arrays.namespaces import constant_like
from fusioncam_core.explainers import Batch, Result

SIDE = 24
SQUARE = (slice(8, 16), slice(8, 16))
SHARE = 64 / SIDE**2
"""Of the pixels that are in the square."""


class Given(RISE):
    """Gives the maps that a function makes of the images: (B, C, *size) -> (B, *size), as NumPy, for every target."""

    title = "Given"
    needs_masks = False

    def __init__(self, model: Any, maps: Callable[[np.ndarray], Any], **keywords: Any):
        super().__init__(model, masks=1, **keywords)
        self._maps = maps
        self.explained = 0

    def mask_count(self, batch: Batch) -> int:
        return 0

    def explain(self, batch: Batch) -> Result:
        images = batch.images.detach().cpu().numpy()
        self.explained += len(images)
        maps = np.asarray(self._maps(images), dtype=np.float32)[:, None]
        every = np.broadcast_to(maps, (*batch.targets.shape, *maps.shape[2:]))
        return Result(constant_like(every, batch.logits, batch.xp))


# A class that has a name when it is made can be asked for by it, in other tests as well.
Given.name = "given"
assert issubclass(Given, Explainer)


def perfect(images: np.ndarray) -> np.ndarray:
    """1 on the square, 0 around it."""
    maps = np.zeros((len(images), SIDE, SIDE))
    maps[(slice(None), *SQUARE)] = 1
    return maps


def inverted(images: np.ndarray) -> np.ndarray:
    """0 on the square, 1 around it."""
    return 1 - perfect(images)


def white(count: int = 2) -> np.ndarray:
    return np.ones((count, 3, SIDE, SIDE), dtype=np.float32)


class Looks(nn.Module):
    """Probabilities (n, 2) of a model that looks at the square alone: the second is the mean of its pixels.

    Args:
        outside: how much of what is seen around the square counts against it.
        constant: a probability that nothing changes, instead.
    """

    def __init__(self, outside: float = 0.0, constant: float | None = None):
        super().__init__()
        self.features = nn.Identity()
        self.outside, self.constant = outside, constant

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.features(images)
        inside = images[(slice(None), slice(None), *SQUARE)].mean(dim=(1, 2, 3))
        around = (images.mean(dim=(1, 2, 3)) - SHARE * inside) / (1 - SHARE)
        score = inside * (1 - self.outside * around)
        score = score if self.constant is None else 0 * score + self.constant
        return torch.stack([1 - score, score], dim=1)
