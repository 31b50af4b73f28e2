"""How far engines are from the framework: what the bounds of fusioncam_core/models/engine_trust.py rest on.

    python -m benchmarks.engine_trust --engine openvino

Score-CAM of scikit-image's photographs, or of a folder's, by several networks, in float32 and in bfloat16: of the six
masked images by which an engine is trusted the largest difference of logits as a share of their range, of 32 the rank
correlation of the class's scores, and the largest difference of the map. Prints a table, a row for each network and
precision.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.sweep import torchvision_operators
from benchmarks.sweep.on_torch import settle
from examples.zoo import efficientnet_lite0_torch, resnet8_torch, tiny_vit_torch
from examples.zoo.photographs import photograph
from fusioncam_core import ScoreCAM
from fusioncam_core.arrays.ranks import rank_correlation
from fusioncam_core.models import engine_steps, engine_trust
from fusioncam_core.models.engines import Converted, Precision

torchvision_operators.install()
import timm  # noqa: E402 - torchvision's operators come first
from torchvision import models  # noqa: E402

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "hubble_deep_field", "camera", "coins")

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

COMPARED = engine_trust.COMPARED
"""Images whose logits are compared."""

SIDE = 96
"""Of the images of networks without trained weights."""

Values = np.ndarray[Any, Any]


@dataclass
class Found:
    """What was found of one network in one precision, a value a photograph."""

    logits: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    maps: list[float] = field(default_factory=list)

    def row(self, name: str, precision: str) -> str:
        """Median and worst of each, as a row of the table."""
        logits, maps = (f"{np.median(each):.1e}, {max(each):.1e}" for each in (self.logits, self.maps))
        ranks = f"{np.median(self.ranks):.4f}, {min(self.ranks):.4f}"
        return f"| {name} | {precision} | {len(self.maps)} | {logits} | {ranks} | {maps} |"


def networks(paths: Sequence[Path]) -> Iterator[tuple[str, Any, Values]]:
    """Their names, the networks, and the photographs as they take them."""
    for name, zoo in (
        ("EfficientNet-Lite0", efficientnet_lite0_torch),
        ("ResNet8 (Fashion-MNIST)", resnet8_torch),
        ("tiny ViT (Fashion-MNIST)", tiny_vit_torch),
    ):
        loaded = zoo.load()
        yield name, loaded.model, np.stack([np.asarray(loaded.preprocessing(each)) for each in _opened(paths)])
    pixels = np.stack([np.asarray(each.resize((SIDE, SIDE)), np.float32) for each in _opened(paths)])
    images = (pixels.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225
    for name, make in {
        "ResNet-18, random": lambda: models.resnet18(weights=None),
        "MobileNetV3-Small, random": lambda: models.mobilenet_v3_small(weights=None),
        "ConvNeXt-Atto, random": lambda: timm.create_model("convnext_atto", pretrained=False),
        "ViT-Ti/16, random": lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=SIDE),
    }.items():
        torch.manual_seed(0)
        yield name, settle(make(), images), images


def _opened(paths: Sequence[Path]) -> Iterator[Image.Image]:
    return (Image.open(path).convert("RGB") for path in paths)


class Once:
    """A conversion that is made once and handed out for every photograph, so that each is compared anew."""

    def __init__(self, conversion: Any):
        self._conversion = conversion
        self._made: Converted | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conversion, name)

    def converted(self, *arguments: Any) -> Converted:
        if self._made is None:
            self._made = self._conversion.converted(*arguments)
        return self._made


def compared(model: Any, images: Values, engine: str, precision: Precision, budget: int) -> Found:
    """A network's maps and scores with an engine, beside its own."""
    found = Found()
    cam = ScoreCAM(model, engine=engine, engine_precision=precision, budget=budget)
    cam._choice.conversion = Once(cam._choice.conversion)
    own = ScoreCAM(model, budget=budget)

    def look(run: Callable[[Values], Any], expected: Any, *_: Any) -> None:
        one, other = run(np.arange(len(expected[0])))[0], expected[0]
        few = COMPARED
        found.logits.append(float(np.abs(one - other)[:few].max() / np.ptp(other[:few])))
        top = int(np.argmax(other[0]))
        found.ranks.append(rank_correlation(one[:, top], other[:, top]))

    ranked = mock.patch.object(engine_trust, "COMPARED", engine_trust.RANKED)  # as many probes in either precision
    with ranked, mock.patch.object(engine_steps, "require_trust", look):
        for image in images:
            cam.adapter.converted.clear()
            given = torch.as_tensor(image)[None].float()
            found.maps.append(float((cam(given).maps - own(given).maps).abs().max()))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_trust")
    parser.add_argument("--engine", default="openvino", metavar="NAME")
    parser.add_argument("--photographs", type=int, default=len(PHOTOGRAPHS), help="so many of them (%(default)s)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="of JPEG files to take in place of scikit-image's")
    parser.add_argument("--budget", type=int, default=32, help="masks of each map (%(default)s)")
    parser.add_argument("--only", default="", metavar="REGEX", help="networks in whose names it is found")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of weights that nobody trained
    head = "| network | precision | photographs | logits, median and worst | rank correlation | map |"
    print(head, "|" + " --- |" * 6, sep="\n", flush=True)
    paths = (
        [photograph(name) for name in PHOTOGRAPHS] if options.folder is None else sorted(options.folder.glob("*.jpg"))
    )
    for name, model, images in networks(paths[: options.photographs]):
        if not re.search(options.only, name):
            continue
        for precision in PRECISIONS:
            found = compared(model, images, options.engine, precision, options.budget)
            print(found.row(name, precision), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
