"""Both classes of a binary model on one photograph: where pictures of maps mislead most easily (docs/pictures.md).

    python -m examples.two_classes --out two-classes-out

trains a small network for some seconds to tell healthy leaves from spotted ones, explains both classes of one spotted
leaf, and writes the pictures. The leaves are drawn, so that nothing needs to be downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from fusioncam_core import Explanation, FusionCAM, LayerCAM
from fusioncam_core.results.figures import png

SIDE = 96
CLASSES = ("spotted", "healthy")
SPOTTED = 0


def network() -> nn.Module:
    """Three convolutions and two logits."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, len(CLASSES)),
    )


def leaves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Photographs (n, 96, 96, 3), uint8, and their classes (n,): half of the leaves have brown spots."""
    generator = np.random.default_rng(seed)
    down, across = np.indices((SIDE, SIDE))
    photographs = np.empty((count, SIDE, SIDE, 3))
    classes = np.arange(count) % len(CLASSES)
    for photograph, kind in zip(photographs, classes, strict=True):
        veins = 12 * np.sin((across + down * generator.uniform(-0.6, 0.6)) / generator.uniform(3, 6))
        noise = generator.normal(0, 3, (SIDE, SIDE))
        photograph[:] = np.array([70, 130, 60]) + (veins + noise + generator.uniform(-15, 15))[..., None]
        for _ in range(generator.integers(1, 3) if kind == SPOTTED else 0):
            y, x = generator.integers(16, SIDE - 16, 2)
            inside = np.clip(generator.uniform(7, 12) - np.hypot(down - y, across - x), 0, 2) / 2
            photograph += inside[..., None] * np.array([45, -45, -20])
    return np.clip(photographs, 0, 255).astype(np.uint8), classes


def prepared(photographs: np.ndarray) -> torch.Tensor:
    """The network's inputs (n, 3, 96, 96)."""
    return torch.from_numpy(photographs).permute(0, 3, 1, 2).float() / 127.5 - 1


def trained() -> nn.Module:
    """The network after 60 steps over 192 leaves, parts of which are erased: it does not take a grey image for sick."""
    torch.manual_seed(0)
    model = network()
    photographs, classes = leaves(192, seed=0)
    images, labels = prepared(photographs), torch.from_numpy(classes)
    optimiser = torch.optim.Adam(model.parameters(), 0.003)
    for step in range(60):
        rows = torch.arange(32) + 32 * (step % 6)
        healthy = (labels[rows] != SPOTTED).float().reshape(-1, 1, 1, 1)
        kept = nn.functional.interpolate(torch.rand(32, 1, 3, 3), (SIDE, SIDE), mode="bilinear")
        optimiser.zero_grad()
        erased = images[rows] * (1 - healthy * (1 - kept))
        nn.functional.cross_entropy(model(erased), labels[rows]).backward()
        optimiser.step()
    return model.eval()


def explained(model: nn.Module, photographs: np.ndarray) -> dict[str, Explanation]:
    """Both classes of each photograph, by two methods."""
    both = np.tile(np.arange(len(CLASSES)), (len(photographs), 1))
    images = prepared(photographs)
    return {"fusion-cam": FusionCAM(model)(images, both), "layer-cam": LayerCAM(model)(images, both)}


def pictures(photographs: np.ndarray, found: dict[str, Explanation]) -> dict[str, Figure]:
    """The figures of docs/pictures.md, by their names."""
    return {
        "two_classes_after": found["fusion-cam"].plot(photographs, CLASSES, dpi=80),
        "two_classes_each": found["layer-cam"].plot(photographs, CLASSES, dpi=80, scale="each"),
        "two_classes_image": found["layer-cam"].plot(photographs, CLASSES, dpi=80, scale="image"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain, draw."""
    parser = argparse.ArgumentParser(prog="python -m examples.two_classes", description=main.__doc__)
    parser.add_argument("--out", default="two-classes-out", metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    photographs, _ = leaves(1, seed=1)
    found = explained(trained(), photographs)
    for number, kind in enumerate(CLASSES):
        print(f"{kind}: p = {found['fusion-cam'].numpy().probabilities[0, number]:.2g}")
    Path(options.out).mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(photographs, found).items():
        file = Path(options.out) / f"{name}.png"
        file.write_bytes(png(figure))
        print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
