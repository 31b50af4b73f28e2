"""Photographs with two cut-outs on them, of which one's class is explained: where the objects are is known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.study.networks import Network
from benchmarks.study.photographs import Photograph
from benchmarks.study.stamps import FOLDER, STAMPS
from fusioncam_core import softmax
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.metrics import energy_in_mask, pointing_game

SIDE = 448
"""Of a composite, before it is made as large as the network wants it."""

SHARE = 0.38
"""The longer side of a cut-out, of the composite's."""

LEAST = 0.1
"""The least probability of the explained class: what a network does not see it cannot be right about."""

SEED = 2603


@dataclass(frozen=True)
class Composite:
    """A picture and the masks of what was pasted.

    Attributes:
        name: its place in the draw, and the two cut-outs.
        picture: RGB, `SIDE` x `SIDE`.
        explained, distractor: (SIDE, SIDE) booleans, of the two cut-outs.
        label: the class of the explained one.
    """

    name: str
    picture: Image.Image
    explained: np.ndarray
    distractor: np.ndarray
    label: int


def cut_out(path: Path, side: int) -> Image.Image:
    """An RGBA picture without its empty border, its longer side that long."""
    stamp = Image.open(path).convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    factor = side / max(stamp.size)
    width, height = (max(1, round(length * factor)) for length in stamp.size)
    return stamp.resize((width, height), Image.Resampling.LANCZOS)


def pasted(picture: Image.Image, stamp: Image.Image, corner: tuple[int, int]) -> np.ndarray:
    """Paste a cut-out, and give its mask (h, w): where more than half of a pixel is the cut-out's."""
    picture.paste(stamp, corner, stamp)
    canvas = Image.new("L", picture.size)
    canvas.paste(stamp.getchannel("A"), corner)
    return np.asarray(canvas) > 127


def compose(name: str, background: Image.Image, stamps: Sequence[Path], label: int, seed: int) -> Composite:
    """The explained cut-out and the distractor, in two halves of the background, somewhere in each."""
    generator = np.random.default_rng(seed)
    picture = _square(background)
    halves = [(0, SIDE // 2), (SIDE // 2, SIDE)]
    if generator.integers(2):
        halves.reverse()
    masks = []
    for path, (left, right) in zip(stamps, halves, strict=True):
        stamp = cut_out(path, round(SHARE * SIDE))
        column = int(generator.integers(left, right - stamp.width + 1))
        row = int(generator.integers(0, SIDE - stamp.height + 1))
        masks.append(pasted(picture, stamp, (column, row)))
    return Composite(name, picture, masks[0], masks[1], label)


def _square(photograph: Image.Image) -> Image.Image:
    side = min(photograph.size)
    left, top = ((length - side) // 2 for length in photograph.size)
    cropped = photograph.convert("RGB").crop((left, top, left + side, top + side))
    return cropped.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def draw(backgrounds: Sequence[Photograph], folder: Path = FOLDER) -> Iterator[Composite]:
    """Composites without end, the same each time; explained class and distractor are never the same."""
    generator, stamps = np.random.default_rng(SEED), list(STAMPS)
    number = 0
    while True:
        first, second = (stamps[place] for place in generator.choice(len(stamps), 2, replace=False))
        background = backgrounds[int(generator.integers(len(backgrounds)))]
        if STAMPS[first] == STAMPS[second] or background.label in (STAMPS[first], STAMPS[second]):
            continue
        name = f"{number:04d} {Path(first).stem}, not {Path(second).stem}"
        paths = [folder / first, folder / second]
        yield compose(name, read_photograph(background.path), paths, STAMPS[first], number)
        number += 1


def seen(composite: Composite, network: Network) -> np.ndarray | None:
    """(C, h, w) as the network takes it; None if it does not see the explained class."""
    assert network.preprocessing is not None
    image = network.preprocessing(composite.picture)
    probability = np.asarray(softmax(network.run(image[None])))[0, composite.label]
    return image if probability >= LEAST else None


def as_seen(mask: np.ndarray, network: Network) -> np.ndarray:
    """A mask (SIDE, SIDE) in the network's size, (h, w): cropped and shrunk as the picture is."""
    assert network.preprocessing is not None
    picture = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    shrunk = network.preprocessing(picture)[0]
    return shrunk > (shrunk.min() + shrunk.max()) / 2 if mask.any() else np.zeros(shrunk.shape, dtype=bool)


def localised(values: np.ndarray, explained: np.ndarray, distractor: np.ndarray) -> dict[str, float]:
    """Whether a map (h, w) points at the explained object, how much lies on it, and of both objects' share on it."""
    on_both = values * (explained | distractor)
    return {
        "pointing game": float(pointing_game(values, explained)),
        "energy in the mask": float(energy_in_mask(values, explained)),
        "share of the right object": float(energy_in_mask(on_both, explained)),
    }
