"""The grid pointing game: four photographs of different classes in one mosaic, each class explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.study.networks import Network
from benchmarks.study.photographs import Photograph
from fusioncam_core import softmax
from fusioncam_core.metrics import cell_masks, grid_share, mosaic

SURE = 0.5
"""The least probability of a photograph's own class, for it to be in a mosaic: the authors take the surest images."""

CELLS = 4


def members(photographs: Sequence[Photograph], network: Network) -> Iterator[list[Photograph]]:
    """Photographs by fours: those that the network is sure of, in their order."""
    group: list[Photograph] = []
    for each in photographs:
        probability = np.asarray(softmax(network.run(each.prepared(network)[None])))[0, each.label]
        if probability >= SURE:
            group.append(each)
        if len(group) == CELLS:
            yield group
            group = []


def put_together(group: Sequence[Photograph], network: Network) -> np.ndarray:
    """(C, h, w): a mosaic of 2 x 2, as large as one image."""
    images = np.stack([each.prepared(network) for each in group])
    channels, height, width = network.shape
    halves = images.reshape(CELLS, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return np.asarray(mosaic(halves, 2, 2))[0]


def shares(maps: np.ndarray) -> list[float]:
    """Of each class's map (4, h, w), the share in its own cell."""
    cells = cell_masks(2, 2, maps.shape[-2:])
    return [float(each) for each in np.asarray(grid_share(maps, cells))]
