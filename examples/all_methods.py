"""Every method on one photograph, at the default layer of EfficientNet-Lite0: the figure of the README.

    python -m examples.all_methods --out methods-out

Methods that draw random masks take fewer than their papers do, so that the figure is made in minutes.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.zoo.efficientnet_lite0_torch import load
from examples.zoo.photographs import photograph
from fusioncam_core import EXPLAINERS, EmptyMapWarning, overlay
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.explainers.registry import capabilities
from fusioncam_core.results.figures import png

TARGET = 967  # espresso
FEWER: dict[str, dict[str, Any]] = {
    "ss-cam": {"samples": 2},
    "is-cam": {"steps": 3},
    "rise": {"masks": 400},
    "smooth-grad-cam++": {"samples": 10},
}
"""Fewer samples than the defaults, for a figure in minutes on two cores."""

COLUMNS = 6


def maps() -> tuple[Any, dict[str, np.ndarray]]:
    """The window of the photograph that the network sees, and each method's map of it by title."""
    zoo = load()
    picture = read_photograph(photograph("coffee"))
    image = zoo.preprocessing(picture)
    found = {}
    for method in capabilities():
        explainer = EXPLAINERS[method.name](zoo.model, **FEWER.get(method.name, {}))
        explanation = explainer(image, TARGET).numpy()
        found[method.title] = explanation.maps[0]
        print(f"{method.title}: {explanation.evaluations} model evaluations")
    return zoo.preprocessing.window(picture), found


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain by every method and draw."""
    parser = argparse.ArgumentParser(prog="python -m examples.all_methods")
    parser.add_argument("--out", default="methods-out", metavar="DIR", help="where the picture goes")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmptyMapWarning)
        window, found = maps()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    file = Path(options.out) / "methods.png"
    file.write_bytes(png(figure_of(window, found)))
    print(f"wrote {file}")
    return 0


def figure_of(window: Any, found: dict[str, np.ndarray]) -> Figure:
    """The photograph and the maps over it, six in a row, each under its own title."""
    pixels = np.asarray(window.resize((448, 448)))
    panels = {"Photograph": pixels, **{title: overlay(pixels, each) for title, each in found.items()}}
    rows = -(-len(panels) // COLUMNS)
    drawn = Figure(figsize=(1.7 * COLUMNS, 1.9 * rows), dpi=130, layout="constrained")
    for index, (title, panel) in enumerate(panels.items()):
        axes = drawn.add_subplot(rows, COLUMNS, index + 1)
        axes.imshow(panel)
        axes.set_title(title, fontsize=9, pad=3)
        axes.set_axis_off()
    return drawn


if __name__ == "__main__":
    sys.exit(main())
