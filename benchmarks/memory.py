"""The memory that a Score-CAM takes beyond the model's own at one batch: one library in one process.

    python -m benchmarks.memory fusioncam --channels 2048 --images 4 --batch 16

prints JSON. The network is one convolution over patches of 32 x 32: what is measured is not its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
from collections.abc import Callable

import numpy as np
import torch

LIBRARIES = ("fusioncam", "of_torchcam", "of_pytorch_grad_cam")
SIZE = 224


def main() -> int:
    """Measure one library."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = network(options.channels)
    images = np.random.default_rng(0).normal(size=(options.images, 3, SIZE, SIZE)).astype(np.float32)
    explain = explanation(options.library, model, images, options.batch)
    with torch.no_grad():
        for _ in range(3):
            model(torch.zeros(options.batch, 3, SIZE, SIZE))
    before = peak()
    explain()
    print(json.dumps({"library": options.library.removeprefix("of_"), "megabytes": peak() - before, **vars(options)}))
    return 0


def network(channels: int) -> torch.nn.Module:
    """A classifier with so many maps of 7 x 7 in its layer "1"."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, channels, 32, stride=32),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(channels, 10),
    ).eval()


def explanation(library: str, model: torch.nn.Module, images: np.ndarray, batch: int) -> Callable[[], object]:
    """What computes Score-CAM, with everything imported."""
    if library == "fusioncam":
        from fusioncam_core import ScoreCAM

        cam = ScoreCAM(model, "1", batch_size=batch)
        return lambda: cam(images, 1)
    module = importlib.import_module(f"benchmarks.peers.{library}")
    return lambda: module.score_cam(model, "1", images, 1, batch)


def peak() -> float:
    """The largest memory of the process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
