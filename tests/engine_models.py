"""What the tests of engines run: small PyTorch networks, and what some of them cannot be written down for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libraries import framework

torch = framework("torch")
nn = torch.nn


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make().eval()


class Convolutions(nn.Module):
    """With running averages, which are not what they are at the beginning."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )
        self.fc = nn.Linear(12, 5)
        self.features[1].running_mean.uniform_(-0.2, 0.2)
        self.features[1].running_var.uniform_(0.5, 2)

    def forward(self, images: Any) -> Any:
        return self.fc(self.features(images).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """A small vision transformer: a class token, positions, attention; its head sees the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Any) -> Any:
        rows = self.patches(images).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(rows.shape[0], -1, -1), rows], dim=1) + self.places
        return self.head(self.norm(self.block(rows))[:, 0])


@functools.cache
def convolutions() -> Any:
    """One for all tests that change nothing of it, so that it is converted once for each way."""
    return seeded(Convolutions)


IMAGES = torch.from_numpy(np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32))


def counted_exports(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a program was written down from now on."""
    export, calls = torch.export.export, []

    def counting(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return export(*arguments, **keywords)

    monkeypatch.setattr(torch.export, "export", counting)
    return lambda: len(calls)


class Dropping(nn.Module):
    def forward(self, values: Any) -> Any:
        return values * (torch.rand_like(values) > 0.5)


class Deciding(nn.Module):
    def forward(self, values: Any) -> Any:
        return values if float(values.sum()) > 0 else -values


def with_part(part: Any) -> Any:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), part, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )
    )
