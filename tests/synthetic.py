"""Signals, images and volumes whose evidence is known, and small PyTorch networks that learn them in seconds.

A bump or a ripple lies at a random place in noise, or neither. A network says of each of the two patterns whether it is
there (task "multilabel"): then each is evidence for its own output, and the absence of the other is none. With a
softmax over three classes the maps of equally good networks differ by what all classes share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

PATTERNS = 2
NOISE = 0.15


class Examples(NamedTuple):
    """Inputs (n, 1, *size), the pattern in each (n,), and where it is (n, *size); pattern 2 is none."""

    inputs: np.ndarray
    patterns: np.ndarray
    evidence: np.ndarray


def draw(size: tuple[int, ...], side: int, patterns: np.ndarray, *, seed: int) -> Examples:
    """Examples of the given patterns, `side` positions long in each direction."""
    generator = np.random.Generator(np.random.PCG64(seed))
    inputs = generator.normal(0, NOISE, (len(patterns), *size))
    evidence = np.zeros(inputs.shape, dtype=bool)
    for index, pattern in enumerate(patterns):
        corner = [generator.integers(0, length - side + 1) for length in size]
        box = (index, *(slice(start, start + side) for start in corner))
        if pattern < PATTERNS:
            inputs[box] += generator.uniform(0.8, 1.2) * _pattern(pattern, side, len(size))
            evidence[box] = True
    return Examples(inputs[:, None].astype(np.float32), patterns, evidence)


def _pattern(pattern: int, side: int, axes: int) -> np.ndarray:
    """A bump (0), or the same with alternating signs along the last axis (1): a ripple."""
    coordinates = np.meshgrid(*[np.linspace(-0.8, 0.8, side)] * axes, indexing="ij")
    bump = np.prod(np.cos(np.pi / 2 * np.stack(coordinates)), axis=0)
    return bump if pattern == 0 else bump * np.where(np.arange(side) % 2, -1, 1)


class Mean(nn.Module):
    """The mean over space."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.flatten(2).mean(dim=2)


class ConvNet(nn.Sequential):
    """Three convolutions and a linear head on the means of their maps, for any number of spatial axes."""

    def __init__(self, axes: int, width: int = 12):
        convolution, pool = getattr(nn, f"Conv{axes}d"), getattr(nn, f"MaxPool{axes}d")
        super().__init__(
            convolution(1, width, 3, padding=1),
            nn.ReLU(),
            pool(2),
            convolution(width, width, 3, padding=1),
            nn.ReLU(),
            convolution(width, width, 3, padding=1),
            nn.ReLU(),
            Mean(),
            nn.Linear(width, PATTERNS),
        )


class Block(nn.Module):
    """A transformer's block that normalises first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        queries, keys, values = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.projection(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))


class Tokens(nn.Module):
    """Two convolutions that cut an image into patches, and a class token: a row of numbers that are not negative."""

    def __init__(self, patch: tuple[int, int], width: int):
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, patch, stride=patch),
            nn.ReLU(),
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)


class TokenNet(nn.Module):
    """A vision transformer of one block, whose head reads the class token.

    One block, because deeper ones write what they found into the tokens of the background: then every map of their
    gradients, rightly, lies beside the pattern.
    """

    def __init__(self, size: tuple[int, int], patch: tuple[int, int], width: int = 32):
        super().__init__()
        self.tokens = Tokens(patch, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + size[0] // patch[0] * (size[1] // patch[1]), width))
        self.block = Block(width, heads=4)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, PATTERNS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.block(self.tokens(images) + self.positions))[:, 0])


class WithContext(nn.Module):
    """A network of an image and of a vector that is added to its logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, context: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.network(image) + context


class Problem(NamedTuple):
    """Where a pattern of `side` positions is sought, by which network, and how long that trains."""

    size: tuple[int, ...]
    side: int
    steps: int
    patch: tuple[int, int] | None = None

    def examples(self, count: int, *, seed: int) -> Examples:
        """Examples with a pattern in them, the patterns in turn."""
        return draw(self.size, self.side, np.resize(np.arange(PATTERNS), count), seed=seed)

    def train(self, *, batch: int = 32, rate: float = 4e-3) -> nn.Module:
        """The network after some steps of AdamW on fresh examples each: the same numbers every time on one machine."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = TokenNet(self.size, self.patch) if self.patch else ConvNet(len(self.size))
            return self._fit(network, batch, rate)
        finally:
            torch.set_num_threads(threads)

    def _fit(self, network: nn.Module, batch: int, rate: float) -> nn.Module:
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=self.steps)
        for step in range(self.steps):
            examples = draw(self.size, self.side, np.resize(np.arange(PATTERNS + 1), batch), seed=1000 + step)
            there = torch.from_numpy(examples.patterns[:, None] == np.arange(PATTERNS)).float()
            logits = network(torch.from_numpy(examples.inputs))
            nn.functional.binary_cross_entropy_with_logits(logits, there).backward()
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        return network.eval()


PROBLEMS = {
    "signal": Problem((48,), 12, 150),
    "image": Problem((24, 24), 8, 150),
    "volume": Problem((12, 12, 12), 6, 100),
    "tokens": Problem((24, 24), 8, 150, patch=(4, 4)),
    "oblong tokens": Problem((24, 24), 8, 150, patch=(3, 6)),
}
