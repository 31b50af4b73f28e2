"""The pictures and the numbers of docs/gallery.md: photographs with two things in them, by many methods.

    python -m examples.gallery --out docs/images/gallery --page docs/gallery.md

explains both classes of each photograph with EfficientNet-Lite0, measures how much of each map lies on the object of
the class, draws the pictures, and puts the table between the marks of the page. The photographs are scikit-image's, all
of them free of copyright; two are two of them in one frame, so that it is known where each object is.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from examples.zoo.efficientnet_lite0_torch import load
from examples.zoo.photographs import photograph
from fusioncam_core import EXPLAINERS, Contrast, EmptyMapWarning, GradCAM, LayerCAM, overlay
from fusioncam_core.explainers.registry import capabilities
from fusioncam_core.metrics import energy_in_mask

SIDE = 256
CAT, ESPRESSO, MISSILE, HELMET, SHUTTLE = 285, 967, 657, 560, 812
BUDGET = 128

FEWER: dict[str, dict[str, Any]] = {
    "fusion-cam": {"budget": BUDGET},
    "union-cam": {"budget": BUDGET},
    "score-cam": {"budget": BUDGET},
    "ss-cam": {"samples": 2},
    "is-cam": {"steps": 3},
    "rise": {"masks": 400},
    "smooth-grad-cam++": {"samples": 10},
}
"""Fewer masks and samples than the papers take, so that all pictures are made in minutes on two cores.

Those of SS-CAM and IS-CAM are for each channel."""

LAYERS = ("_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15", "_swish")
"""From an early layer (maps of 56 x 56) to the default one (7 x 7)."""

Box = tuple[int, int, int, int]


class Thing(NamedTuple):
    """A class that is explained, and where its object is: left, top, right and bottom in 256 x 256 pixels."""

    target: int
    name: str
    place: Box


class Scene(NamedTuple):
    """A picture (256, 256) and two things in it."""

    name: str
    picture: Image.Image
    things: tuple[Thing, Thing]


class Part(NamedTuple):
    """A piece of a photograph, and where in the composite it goes."""

    thing: Thing
    photograph: str
    piece: Box


UPPER, LOWER = (0, 0, SIDE, SIDE // 2), (0, SIDE // 2, SIDE, SIDE)
LEFT, RIGHT = (0, 0, SIDE // 2, SIDE), (SIDE // 2, 0, SIDE, SIDE)

COMPOSITES: dict[str, tuple[Part, Part]] = {
    "cat_cup": (
        Part(Thing(CAT, "Egyptian cat", UPPER), "chelsea", (20, 30, 430, 235)),
        Part(Thing(ESPRESSO, "espresso", LOWER), "coffee", (40, 70, 600, 350)),
    ),
    "rocket_cup": (
        Part(Thing(MISSILE, "missile", LEFT), "rocket", (223, 0, 436, 427)),
        Part(Thing(ESPRESSO, "espresso", RIGHT), "coffee", (140, 0, 340, 400)),
    ),
}


def scenes() -> Iterator[Scene]:
    """Two composites, each of two photographs, and one photograph whose objects are where their boxes say."""
    for name, parts in COMPOSITES.items():
        picture = Image.new("RGB", (SIDE, SIDE))
        for part in parts:
            left, top, right, bottom = part.thing.place
            piece = Image.open(photograph(part.photograph)).convert("RGB").crop(part.piece)
            picture.paste(piece.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
        yield Scene(name, picture, (parts[0].thing, parts[1].thing))
    whole = Image.open(photograph("astronaut")).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    things = (
        Thing(HELMET, "football helmet", (138, 170, 256, 256)),
        Thing(SHUTTLE, "space shuttle", (174, 14, 234, 130)),
    )
    yield Scene("astronaut", whole, things)


class Measured(NamedTuple):
    """Maps of both classes of a scene by one method, (2, 224, 224), and the share of each on its object."""

    title: str
    maps: np.ndarray
    shares: np.ndarray
    evaluations: int


class Explained(NamedTuple):
    """A scene in the window that the network sees: pixels (224, 224, 3), masks (2, 224, 224), and all maps of it."""

    scene: Scene
    pixels: np.ndarray
    masks: np.ndarray
    probabilities: np.ndarray
    found: list[Measured]


def explained(zoo: Any, scene: Scene) -> Explained:
    """Both classes of a scene by each method, at the default layer, and by Grad-CAM one class against the other."""
    image = zoo.preprocessing(scene.picture)
    targets = [[thing.target for thing in scene.things]]
    masks = np.stack([mask_of(zoo, scene, thing) for thing in scene.things])
    found = []
    for method in capabilities():
        explanation = EXPLAINERS[method.name](zoo.model, **FEWER.get(method.name, {}))(image, targets).numpy()
        found.append(measured(method.title, explanation, masks))
        print(f"{scene.name}, {method.title}: {found[-1].shares.round(2)}, {explanation.evaluations} model evaluations")
    (one, other) = targets[0]
    contrast = GradCAM(zoo.model)(image, [[Contrast(one, other), Contrast(other, one)]]).numpy()
    found.append(measured("Grad-CAM, one class and not the other", contrast, masks))
    print(f"{scene.name}, contrast: {found[-1].shares.round(2)}")
    return Explained(
        scene,
        np.asarray(zoo.preprocessing.window(scene.picture)),
        masks,
        probabilities_of(zoo, image, targets[0]),
        found,
    )


def probabilities_of(zoo: Any, image: Any, targets: Sequence[int]) -> np.ndarray:
    """What the network says of each class."""
    return GradCAM(zoo.model)(image, [list(targets)]).numpy().probabilities[0]


def measured(title: str, explanation: Any, masks: np.ndarray) -> Measured:
    """The maps of one image, and the share of each in the mask of its class."""
    return Measured(title, explanation.maps[0], energy_in_mask(explanation.maps[0], masks), explanation.evaluations)


def mask_of(zoo: Any, scene: Scene, thing: Thing) -> np.ndarray:
    """Where a thing is in the window that the network sees: (224, 224), boolean."""
    left, top, right, bottom = thing.place
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask[top:bottom, left:right] = 255
    return np.asarray(zoo.preprocessing.window(Image.fromarray(mask)))[..., 0] > 127


def layers_row(zoo: Any, scene: Scene) -> list[Measured]:
    """The first thing of a scene by LayerCAM and by Grad-CAM, from an early layer to the last."""
    image, mask = zoo.preprocessing(scene.picture), mask_of(zoo, scene, scene.things[0])
    found = []
    for method in (LayerCAM, GradCAM):
        for layer in LAYERS:
            explanation = method(zoo.model, layer)(image, scene.things[0].target).numpy()
            share = energy_in_mask(explanation.maps, mask)
            found.append(Measured(f"{method.title}, {layer}", explanation.maps, share, explanation.evaluations))
            print(f"{scene.name}, {found[-1].title}: {share.round(2)}")
    return found


COLUMNS = 6


def sheet(all_maps: Explained, place: int) -> Figure:
    """The photograph with a frame around the thing that is explained, and each method's map with its share above."""
    panels = [(each.title, each.maps[place], each.shares[place]) for each in all_maps.found[:-1]]
    drawn = Figure(figsize=(9, 5.4), dpi=110, layout="constrained")
    axes = list(drawn.subplots(-(-(len(panels) + 1) // COLUMNS), COLUMNS).flat)
    for each in axes:
        each.set_axis_off()
    thing = all_maps.scene.things[place]
    axes[0].imshow(all_maps.pixels)
    axes[0].add_patch(frame(all_maps.masks[place]))
    axes[0].set_title(f"{thing.name}\np = {all_maps.probabilities[place]:.2g}", fontsize=7, pad=3)
    for each, (title, saliency, share) in zip(axes[1:], panels, strict=False):
        each.imshow(overlay(all_maps.pixels, saliency))
        each.set_title(f"{title}  {share:.2f}", fontsize=7, pad=3)
    return drawn


def frame(mask: np.ndarray) -> Rectangle:
    """A frame around a mask."""
    down, across = np.nonzero(mask)
    top, left = down.min(), across.min()
    size = across.max() - left, down.max() - top
    return Rectangle((left, top), *size, fill=False, edgecolor="cyan", linewidth=1.5)


def layers_sheet(pixels: np.ndarray, found: Sequence[Measured]) -> Figure:
    """Two rows: a method each, a layer each column."""
    drawn = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    for each, panel in zip(drawn.subplots(2, len(LAYERS)).flat, found, strict=True):
        each.imshow(overlay(pixels, panel.maps[0]))
        each.set_title(f"{panel.title}  {panel.shares[0]:.2f}", fontsize=8, pad=3)
        each.set_axis_off()
    return drawn


def write(figure: Figure, file: Path) -> None:
    """A figure as WebP, which for photographs is a fraction of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").save(file, quality=75, method=6)
    print(f"wrote {file}, {file.stat().st_size // 1024} kB")


def table(scenes: Sequence[Explained]) -> str:
    """Markdown: a row for each method, a column for each class of each scene, and their mean."""
    things = [f"{thing.name}, {each.scene.name}" for each in scenes for thing in each.scene.things]
    lines = [f"| method | {' | '.join(things)} | mean |", f"| --- |{' --- |' * (len(things) + 1)}"]
    chance = np.concatenate([each.masks.mean((1, 2)) for each in scenes])
    rows = [
        (each[0].title, np.concatenate([one.shares for one in each]))
        for each in zip(*(one.found for one in scenes), strict=True)
    ]
    for title, shares in [*rows, ("share of the picture", chance)]:
        lines.append(f"| {title} | {' | '.join(f'{share:.2f}' for share in shares)} | {shares.mean():.2f} |")
    return "\n".join(lines)


def replaced(page: str, name: str, text: str) -> str:
    """The page with what lies between the marks of a name replaced."""
    start, end = f"<!-- {name} -->\n", "\n<!-- end -->"
    before, found, rest = page.partition(start)
    if not found or end not in rest:
        raise ValueError(f"expected {start.strip()} and after it {end.strip()} in the page")
    return before + start + text + end + rest.partition(end)[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain, draw, and put the table into the page."""
    parser = argparse.ArgumentParser(prog="python -m examples.gallery")
    parser.add_argument("--out", default="gallery-out", metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--page", metavar="FILE", help="the page whose table is replaced (default: the table is printed)"
    )
    options = parser.parse_args(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    zoo = load()
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmptyMapWarning)
        everything = [explained(zoo, scene) for scene in scenes()]
        for each in everything:
            for place in range(2):
                write(sheet(each, place), out / f"{each.scene.name}_{place}.webp")
        first = everything[0]
        write(layers_sheet(first.pixels, layers_row(zoo, first.scene)), out / "layers.webp")
    if options.page is None:
        print(table(everything))
    else:
        page = Path(options.page)
        page.write_text(replaced(page.read_text(encoding="utf-8"), "numbers", table(everything)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
