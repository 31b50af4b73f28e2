"""What torch-cam's metrics ask of one of its extractors, with maps and scores that are given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch


class GivenMaps:
    """An extractor of the same maps for whatever it is asked.

    Args:
        maps: (B, *spatial).
        score: (n, C, *spatial) images -> (n,) scores of the only class.
    """

    def __init__(self, maps: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor]):
        self.model = _Scorer(score)
        self._maps = maps

    def __call__(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        return [self._maps]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class _Scorer(torch.nn.Module):
    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self._score = score

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._score(images)[:, None]
