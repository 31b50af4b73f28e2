"""Draws the pictures of the guides, and fills in their numbers: `python docs/guides/figures.py [PART ...]`.

EfficientNet-Lite0 in PyTorch with its published weights, and scikit-image's photograph of a cup of coffee. It takes a
minute on two cores.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from examples.zoo import efficientnet_lite0_torch, resnet8_torch  # noqa: E402
from examples.zoo.photographs import photograph  # noqa: E402
from fusioncam_core import EXPLAINERS, EigenCAM, GradCAM, LayerCAM, LoadedModel, Preprocessing  # noqa: E402
from fusioncam_core.explainers.registry import capabilities  # noqa: E402
from fusioncam_core.metrics import AverageDrop, Deletion, Insertion, measure_maps, randomisation_check  # noqa: E402
from fusioncam_core.results.figures import FigureRow, figure  # noqa: E402

PICTURES = ROOT / "docs" / "images" / "guides"
GUIDES = ROOT / "docs" / "guides"
ESPRESSO = 967
DEPTHS = ("_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15", "_swish")
DRAWN = ("_blocks.0", "_blocks.4", "_blocks.10", "_swish")
"""Of these, those in the picture, which is to be seen on a page's width."""

STEPS = 32

WRONG: dict[str, dict[str, Any]] = {
    "as trained": {},
    "blue before red": {"colours": "bgr"},
    "scaled to [0, 1]": {"mean": 0.0, "std": 255.0},
    "left at 0 to 255": {"mean": 0.0, "std": 1.0},
}
"""What `Preprocessing` has in place of `(x - 127) / 128`."""


def main(parts: Sequence[str]) -> None:
    """Draw and write the parts that are named, or everything."""
    loaded = efficientnet_lite0_torch.load()
    with Image.open(photograph("coffee")) as picture:
        coffee = picture.convert("RGB")
    every = {"passes": passes, "depths": depths, "preprocessing": wrong_preprocessing, "randomised": randomised}
    for name in parts or every:
        every[name](loaded, coffee)


def passes(_: LoadedModel, coffee: Image.Image) -> None:
    """How often each method ran ResNet8, whose last layer has 64 channels, for one and for three classes."""
    small = resnet8_torch.load()
    image = small.preprocessing(coffee)[np.newaxis]
    rows = []
    for each in capabilities():
        explainer = EXPLAINERS[each.name](small.model)
        counts = (explainer(image, targets).numpy().evaluations for targets in ("top1", "top3"))
        needs = [word for word, need in (("gradients", each.needs_gradients), ("a layer", each.needs_layer)) if need]
        rows.append((f"`{each.name}`", each.family, ", ".join(needs) or "outputs alone", *map(str, counts)))
    fill("which_method.md", "passes", table(("method", "family", "needs", "one class", "three classes"), rows))


def depths(loaded: LoadedModel, coffee: Image.Image) -> None:
    """One photograph at layers from the first to the last, and what the metrics say of each map."""
    image = loaded.preprocessing(coffee)[np.newaxis]
    view = np.asarray(loaded.preprocessing.view(coffee))
    drawn, rows = [], []
    for method in (GradCAM, LayerCAM):
        maps = [method(loaded.model, layer)(image, ESPRESSO).numpy() for layer in DEPTHS]
        shown = [each.maps[0] for layer, each in zip(DEPTHS, maps, strict=True) if layer in DRAWN]
        drawn.append(FigureRow(view, shown, method.title))
        rows += [row_of(loaded, image, method.title, layer, each) for layer, each in zip(DEPTHS, maps, strict=True)]
    write(figure(drawn, ["Photograph", *DRAWN], caption="Class espresso."), "depths")
    head = ("method", "layer", "positions", "drop (↓)", "insertion (↑)", "deletion (↓)")
    fill("which_layer.md", "depths", table(head, rows))


def row_of(loaded: LoadedModel, image: Any, title: str, layer: str, explanation: Any) -> Sequence[str]:
    """The metrics of one map."""
    side = loaded_positions(loaded, layer, image)
    values = [
        float(measure_maps(metric, explanation.maps, loaded.model, image, ESPRESSO).values[0])
        for metric in (AverageDrop(), Insertion(steps=STEPS), Deletion(steps=STEPS))
    ]
    return title, f"`{layer}`", side, *(f"{value:.3f}" for value in values)


def loaded_positions(loaded: LoadedModel, layer: str, image: Any) -> str:
    """Height and width of the layer's output."""
    return " x ".join(map(str, GradCAM(loaded.model, layer, size="layer")(image, ESPRESSO).numpy().maps.shape[1:]))


def wrong_preprocessing(loaded: LoadedModel, coffee: Image.Image) -> None:
    """The same photograph as it was prepared in training, and otherwise."""
    view = np.asarray(loaded.preprocessing.view(coffee))
    maps, titles, rows, right = [], ["Photograph"], [], None
    for name, fields in WRONG.items():
        preprocessing: Preprocessing = replace(loaded.preprocessing, **fields)
        found = GradCAM(loaded.model)(preprocessing(coffee)[np.newaxis], ESPRESSO).numpy()
        probabilities = found.class_probabilities[0]
        best = int(np.argmax(probabilities))
        right = found.maps[0] if right is None else right
        correlation = float(np.corrcoef(right.ravel(), found.maps[0].ravel())[0, 1])
        maps.append(found.maps[0])
        titles.append(name)
        first = f"{loaded.class_names[best]} ({probabilities[best]:.4f})"
        rows.append((name, first, f"{probabilities[ESPRESSO]:.4f}", f"{correlation:.2f}"))
    write(figure([FigureRow(view, maps, "Grad-CAM")], titles, caption="Class espresso."), "preprocessing")
    head = ("photograph", "likeliest class", "espresso", "correlation with the first map")
    fill("is_my_map_right.md", "preprocessing", table(head, rows))


def randomised(loaded: LoadedModel, coffee: Image.Image) -> None:
    """How much of two methods' maps is left while the weights are shuffled, from the last layer on."""
    image = loaded.preprocessing(coffee)[np.newaxis]
    checks = {
        each.title: randomisation_check(each(loaded.model), image, ESPRESSO, stages=4) for each in (GradCAM, EigenCAM)
    }
    layers = next(iter(checks.values())).layers
    rows = [
        (f"`{layer}`", *(f"{float(check.similarities[place].mean()):.3f}" for check in checks.values()))
        for place, layer in enumerate(layers)
    ]
    fill("is_my_map_right.md", "randomised", table(("shuffled from the end to", *checks), rows))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(page: Any, name: str) -> None:
    """As JPEG, so that the repository stays small."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.savefig(PICTURES / f"{name}.jpg", dpi=110, pil_kwargs={"quality": 88, "optimize": True})


def fill(page: str, mark: str, text: str) -> None:
    """Replace what stands between a page's marks."""
    path = GUIDES / page
    before = path.read_text(encoding="utf-8")
    after, count = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{text}\n\n{found[2]}", before, flags=re.S
    )
    if count != 1:
        raise ValueError(f"{page} has {count} places called {mark}; expected one.")
    path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
