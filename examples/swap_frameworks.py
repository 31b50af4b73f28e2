"""The same photographs and the same explainer on PyTorch, TensorFlow and JAX, side by side.

    python -m examples.swap_frameworks --out swap-out

writes one picture (rows: photographs; columns: frameworks) and prints the largest differences between the maps. The
network is EfficientNet-Lite0, rebuilt in each framework from one set of weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from examples.zoo.photographs import photograph
from fusioncam_core import FusionCAM, LoadedModel, load_model
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.results.figures import FigureRow, figure, png

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MODELS = {
    "PyTorch": "python:examples.zoo.efficientnet_lite0_torch:load",
    "TensorFlow": "python:examples.zoo.efficientnet_lite0_keras:load",
    "JAX": "python:examples.zoo.efficientnet_lite0_flax:load",
}
"""The same network in each framework."""

LAYERS = {"PyTorch": "_blocks.15", "TensorFlow": "block_15_project_norm", "JAX": "blocks.15"}
"""The last block (320 maps of 7 x 7), by the name it has in each framework."""

PHOTOGRAPHS = ("coffee", "chelsea")


def explain(loaded: LoadedModel, layer: str, photographs: Sequence[object]) -> np.ndarray:
    """Fusion-CAM maps (B, H, W) of the photographs' top classes: the one function, whatever the framework."""
    images = np.stack([loaded.preprocessing(each) for each in photographs])
    return FusionCAM(loaded.model, layer)(images).numpy().maps


def differences(maps: dict[str, np.ndarray]) -> list[str]:
    """A table: of every pair of frameworks the largest and the mean absolute difference, over all photographs."""
    names = list(maps)
    lines = [f"{'':24}  {'largest':>9}  {'mean':>9}"]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            gap = np.abs(maps[first] - maps[second])
            lines.append(f"{first + ' and ' + second:24}  {gap.max():9.1e}  {gap.mean():9.1e}")
    return lines


def picture(photographs: Sequence[object], maps: dict[str, np.ndarray]) -> bytes:
    """A PNG: a row a photograph, a column a framework."""
    rows = [
        FigureRow(np.asarray(each), [columns[index] for columns in maps.values()], name)
        for index, (each, name) in enumerate(zip(photographs, PHOTOGRAPHS, strict=True))
    ]
    return png(figure(rows, ["Photograph", *maps]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain, compare, draw."""
    parser = argparse.ArgumentParser(prog="python -m examples.swap_frameworks")
    parser.add_argument("--out", default="swap-out", metavar="DIR", help="where the picture goes")
    options = parser.parse_args(arguments)
    photographs = [read_photograph(photograph(name)) for name in PHOTOGRAPHS]
    maps = {}
    for framework, spec in MODELS.items():
        loaded = load_model(spec)
        start = time.perf_counter()
        maps[framework] = explain(loaded, LAYERS[framework], photographs)
        print(f"{framework}: {time.perf_counter() - start:.0f} s, compiling included")
    windows = [loaded.preprocessing.window(each) for each in photographs]
    Path(options.out).mkdir(parents=True, exist_ok=True)
    file = Path(options.out) / "frameworks.png"
    file.write_bytes(picture(windows, maps))
    print("\n".join(differences(maps)))
    print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
