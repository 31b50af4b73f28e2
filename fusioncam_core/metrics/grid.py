"""The grid pointing game: photographs of different classes in one mosaic, which needs no annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array, Namespace, indices_like, to_numpy
from fusioncam_core.arrays.words import _resize
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.metrics.localisation import cell_masks, grid_share, mosaic
from fusioncam_core.models.axes import spatial_size, with_channels_back, with_channels_first
from fusioncam_core.models.inputs import prepare

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer


@dataclass(frozen=True)
class GridGame:
    """What was found in mosaics.

    Attributes:
        members: (M, cells) the images in each, in reading order.
        values: (M, cells) of the map of each image's class, the share that lies in its own cell; NaN for a map that
            is zero everywhere. One over the cells is chance.
    """

    members: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


def grid_pointing_game(
    explainer: Explainer, images: Any, targets: Any, *, rows: int = 2, columns: int = 2, shrink: bool = True
) -> GridGame:
    """Explain mosaics of images for the class of each of their cells: how much of a map lies where its class is?

    Böhle et al., Convolutional Dynamic Alignment Networks (arXiv 2104.00032), the localisation metric.

    Args:
        explainer: of a model of images.
        images: (N, ...) one batch, as for a call.
        targets: (N,) their classes.
        rows, columns: of a mosaic.
        shrink: whether mosaics are as large as one image, as models for one size need it; else the images keep their
            size, as in the paper.

    Returns:
        Mosaics of images of different classes, taken in the images' order; images that are left are in none.

    Raises:
        TypeError, ValueError: as a call does; if the images do not make one mosaic of different classes, their size
            is no multiple of the grid's, or the explainer's maps are not in [0, 1] at the input's size.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> from fusioncam_core.metrics import grid_pointing_game
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.zeros(2, 2, 4, 4)
        >>> images[0, 0], images[1, 1] = 4.0, 4.0  # a red image and a green one
        >>> game = grid_pointing_game(GradCAM(model, "0"), images, [0, 1], rows=1, columns=2, shrink=False)
        >>> game.members, game.values
        (array([[0, 1]]), array([[1., 1.]]))
    """
    explainer.require_usual("The grid pointing game measures")
    adapter, xp = explainer.adapter, explainer.adapter.namespace
    cells = require_count(rows, "rows") * require_count(columns, "columns")
    batch = prepare(adapter, images, None, channel_axis=adapter.input_channel_axis)
    axis = explainer.channel_axis_of(batch)
    classes = np.asarray(to_numpy(targets) if hasattr(targets, "shape") else targets)
    if classes.shape != (int(batch.shape[0]),):
        raise InvalidValueError(f"Expected one class for each of {int(batch.shape[0])} images, got {classes.shape}.")
    members = _members(classes, cells)
    chosen = xp.take(batch, indices_like(members.ravel(), batch, xp), axis=0)
    mosaics = mosaic(with_channels_first(chosen, axis, xp=xp), rows, columns)
    if shrink:
        mosaics = _shrunk(mosaics, rows, columns, xp=xp)
    size = spatial_size(mosaics, 1)
    mosaics = with_channels_back(mosaics, axis, xp=xp)
    maps = explainer(mosaics, classes[members]).maps
    shares = grid_share(maps, cell_masks(rows, columns, (size[0], size[1])))
    return GridGame(members, to_numpy(shares).astype(np.float64))


def _members(classes: npt.NDArray[Any], cells: int) -> npt.NDArray[np.int64]:
    """(M, cells) images: the first ones of different classes, again and again."""
    left, found = list(range(len(classes))), []
    while True:
        chosen: dict[int, int] = {}
        for number in left:
            if len(chosen) < cells:
                chosen.setdefault(int(classes[number]), number)
        if len(chosen) < cells:
            break
        found.append(list(chosen.values()))
        left = [number for number in left if number not in found[-1]]
    if not found:
        raise InvalidValueError(
            f"{cells} images of different classes make a mosaic, and there are {len(set(classes.tolist()))}."
        )
    return np.asarray(found, dtype=np.int64)


def _shrunk(mosaics: Array, rows: int, columns: int, *, xp: Namespace) -> Array:
    """A mosaic in the size of one of its images: by means of pixels, or linearly where the size is no multiple."""
    batch, channels, height, width = (int(length) for length in mosaics.shape)
    size = (height // rows, width // columns)
    pooled = xp.mean(xp.reshape(mosaics, (batch, channels, size[0], rows, size[1], columns)), axis=(3, 5))
    if size[0] % rows or size[1] % columns:
        pooled = _resize(pooled, (size[0] // rows * rows, size[1] // columns * columns), xp=xp)
    return pooled
