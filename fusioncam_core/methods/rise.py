"""RISE: random masks over the input, each as much worth as the probability that it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import require_count, require_finite, require_float, require_size_of
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, indices_like
from fusioncam_core.arrays.precision import in_float32
from fusioncam_core.arrays.words import _linear_weights
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import Combined, Form, finished
from fusioncam_core.models.batch_size import Batching, Span
from fusioncam_core.models.scoring import Scorer, weighted_masks


class RandomMasks:
    """Masks of RISE, made when they are asked for.

    Each is a coarse grid of zeros and ones, enlarged linearly to one cell more than the image and cut out at a random
    place (Petsiuk et al., arXiv 1806.07421, section 3.2). They depend on the seed and the size only.

    Args:
        count: how many.
        size: of a mask.
        cells: of the grid, along each axis.
        probability: of a cell to be one.
        seed: of NumPy's PCG64.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, count: int, size: tuple[int, ...], *, cells: int, probability: float, seed: int):
        check_random_masks(count, cells, probability, seed)
        self.count = count
        self.size = size
        self.mean = probability
        generator = np.random.default_rng(seed)
        self._grids = (generator.random((count, *(cells,) * len(size))) < probability).astype(np.float32)
        widths = [math.ceil(length / cells) for length in size]
        self._weights = [_linear_weights(cells, (cells + 1) * width).astype(np.float32) for width in widths]
        self._shifts = [generator.integers(0, width, count) for width in widths]

    def __call__(self, chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n, *size) float32 in [0, 1]: the masks of these numbers."""
        masks: np.ndarray[Any, Any] = self._grids[chosen]
        for axis, length in enumerate(self.size):
            rows = self._shifts[axis][chosen][:, None] + np.arange(length)
            moved = np.moveaxis(masks, 1 + axis, -1)
            flat = moved.reshape(len(chosen), -1, moved.shape[-1])
            enlarged = flat @ np.swapaxes(self._weights[axis][rows], 1, 2)
            masks = np.moveaxis(enlarged.reshape(*moved.shape[:-1], length), -1, 1 + axis)
        return masks


def check_random_masks(count: int, cells: int, probability: float, seed: int) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: naming the first.
    """
    require_count(count, "masks")
    require_count(cells, "cells")
    require_count(seed, "seed", least=0)
    if not 0 < probability < 1:
        raise InvalidValueError(f"probability lies between 0 and 1: got {probability!r}.")


@in_float32("images", calls="scorer")
def rise(
    images: Array,
    scorer: Scorer,
    *,
    masks: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    seed: int = 0,
    channel_axis: int = 1,
    batch_size: int = 32,
    map_size: Sequence[int] | None = None,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """RISE: `N(1 / (n E[M]) sum_i p(I M_i) M_i)` over random masks `M_i`, `i = 1..n`.

    Petsiuk et al., RISE (arXiv 1806.07421), equation 6: before `N` it is the mean probability of the images in which a
    place is seen. All images meet the same masks.

    Args:
        images: (B, C, *size) or, with `channel_axis=-1`, (B, *size, C); they tell the size and the library only.
        scorer: called with at most `batch_size` masks (n, *size) and the integer indices (n,) of their images;
            returns the probabilities (n,), or (n, K) for K targets at once.
        masks: how many an image.
        cells: of a mask's grid, along each axis.
        probability: of a cell to be seen.
        seed: of the masks.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.
        map_size: the map's size; None takes the images'.
        relu: the method has none to leave out, and its values are not negative. False divides each map by its largest
            value, where otherwise its minimum becomes 0.
        normalised: False gives those mean probabilities.

    Returns:
        (B, *map_size), or (B, K, *map_size) if the scores were (n, K), in [0, 1].

    Raises:
        TypeError: if the images are not floating.
        ValueError: if a number is out of range, or scores are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import rise
        >>> images = np.zeros((1, 3, 4, 4))
        >>> left = lambda masks, images: masks[:, :, :2].mean(axis=(1, 2))  # what is seen on the left
        >>> maps = rise(images, left, masks=500, cells=4)
        >>> maps[0].mean(axis=0).round(1)
        array([0.9, 0.7, 0.3, 0.1])
    """
    xp = array_namespace(images)
    require_float(images, "images", xp)
    size = tuple(int(length) for length in (images.shape[2:] if channel_axis == 1 else images.shape[1:-1]))
    one_score = False

    def score_masks(drawn: Array, owners: Array, count: int) -> Array:
        nonlocal one_score
        scores = scorer(drawn, owners)
        one_score = scores.ndim == 1
        return xp.expand_dims(scores, axis=1) if one_score else scores

    form = Form(relu, normalised)
    own_size = size if map_size is None else require_size_of(map_size, len(size))
    random = RandomMasks(masks, size, cells=cells, probability=probability, seed=seed)
    combined = _rise(random, int(images.shape[0]), score_masks, images, batching=Batching(batch_size), xp=xp)
    maps = finished(combined, own_size, form, xp=xp).maps
    return maps[:, 0, ...] if one_score else maps


def _rise(
    masks: RandomMasks,
    batch: int,
    score_masks: Callable[[Array, Array, int], Array],
    like: Array,
    *,
    batching: Batching,
    xp: Namespace,
    advance: Callable[[int], object] = lambda masks: None,
) -> Combined:
    """(B, K, *size), of scores (n, K) of masks (n, *size), their images (n,) and how many are no padding."""
    numbers = batching.padded(np.arange(masks.count * batch))
    images = indices_like(numbers % batch, like, xp)

    def work(span: Span) -> Array:
        # Every image of the batch meets a mask before the next one is made.
        distinct, which = np.unique(span.of(numbers) // batch, return_inverse=True)
        drawn = constant_like(masks(distinct)[which], like, xp)
        scores = score_masks(drawn, span.of(images), span.count)
        return weighted_masks(drawn, scores, span.of(numbers) % batch, span.count, batch, xp=xp)

    total = None
    for summed, count in batching.over(masks.count * batch, work):
        total = summed if total is None else total + summed
        advance(count)
    require_finite(total, "scores of the masked images", xp)
    return Combined(total, (1 / (masks.count * masks.mean),), cut="none")
