"""Region maps: each channel's activation masks the input, and the masked input's score weighs the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays import (
    Array,
    Namespace,
    _normalise,
    _resize,
    _softmax,
    array_namespace,
    indices_like,
    is_constant,
    require_finite,
    require_float,
    to_numpy,
)
from fusioncam_core.cams.gradient import _map_size, channels_first, relu, weighted_sum

Scorer = Callable[[Array, Array], Array]
"""(masks (n, *size) in [0, 1], the image each belongs to (n,)) -> scores (n,) or (n, K)."""


def score_cam(
    activations: Array,
    scorer: Scorer,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
) -> Array:
    """Score-CAM: `N(relu(U(sum_k softmax(s)_k A_k)))`, `s_k` the logit for the input under mask `N(U(A_k))`.

    Wang et al., Score-CAM (arXiv 1910.01279), equations 6 to 8, in the form of Fusion-CAM (arXiv 2603.05386).
    A constant channel's mask is zeros: all of them are scored once an image, with the black mask.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scorer: called with at most `batch_size` masks (n, *size) and the integer indices (n,) of their images;
            returns the logits (n,), or (n, K) for K targets at once.
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.

    Returns:
        (B, *size), or (B, K, *size) if the scores were (n, K), in [0, 1].

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes do not fit, or activations or scores are NaN or infinite.
    """
    xp = array_namespace(activations)
    activations = channels_first(require_float(activations, "activations", xp), channel_axis, xp=xp)
    require_finite(activations, "activations", xp)
    extent = _map_size(size, activations)

    def score_maps(maps: Array, owners: Array, count: int) -> Array:
        return scorer(_normalise(_resize(maps, extent, xp=xp), len(extent), xp=xp), owners)

    def black_scores() -> Array:
        batch = int(activations.shape[0])
        black = xp.zeros_like(_resize(activations[:, 0, ...], extent, xp=xp))
        parts = [indices_like(chosen, black, xp) for chosen, _ in chunks(batch, batch_size, fixed=False)]
        return xp.concat([scorer(xp.take(black, owners, axis=0), owners) for owners in parts], axis=0)

    scores = channel_scores(activations, score_maps, black_scores, batch_size=batch_size, xp=xp)
    maps = _score_cam(activations, scores if scores.ndim == 3 else scores[:, None, :], extent, xp=xp)
    return maps if scores.ndim == 3 else maps[:, 0, ...]


def _score_cam(activations: Array, scores: Array, size: tuple[int, ...], *, xp: Namespace) -> Array:
    """(B, C, *spatial) and channel scores (B, K, C) -> (B, K, *size)."""
    combined = weighted_sum(_softmax(scores, -1, xp=xp), activations, xp=xp)
    return _normalise(relu(_resize(combined, size, xp=xp), xp=xp), len(size), xp=xp)


def channel_scores(
    activations: Array,
    score_maps: Callable[[Array, Array, int], Array],
    black_scores: Callable[[], Array],
    *,
    batch_size: int,
    xp: Namespace,
    fixed_chunks: bool = False,
    advance: Callable[[int], object] = lambda masks: None,
) -> Array:
    """Every channel's score, at most `batch_size` masks at a time: (B, C), or (B, K, C) for K targets.

    A constant channel has a black mask and its image's black score, which is asked for once, if at all.

    Args:
        activations: (B, C, *spatial), finite.
        score_maps: (activation maps (n, *spatial), their images (n,), how many are no padding) -> (n,) or (n, K).
        black_scores: the scores (B,) or (B, K) of the wholly masked images.
        batch_size: the most maps scored at once.
        xp: the namespace.
        fixed_chunks: whether to pad the last chunk.
        advance: told how many channels are done.
    """
    live = to_numpy(xp.logical_not(is_constant(activations, activations.ndim - 2, xp=xp)))
    images, channels = np.nonzero(live)
    advance(live.size - len(images))
    flat = xp.reshape(activations, (live.size, *activations.shape[2:]))
    rows = []
    for chosen, count in chunks(len(images), batch_size, fixed=fixed_chunks):
        maps = xp.take(flat, indices_like((images * live.shape[1] + channels)[chosen], flat, xp), axis=0)
        rows.append(score_maps(maps, indices_like(images[chosen], flat, xp), count)[:count, ...])
        advance(count)
    if not live.all():
        rows.append(black_scores())
    scores = require_finite(xp.concat(rows, axis=0), "scores of the masked images", xp)
    return _spread(scores, live, xp)


def chunks(total: int, batch_size: int, *, fixed: bool) -> Iterator[tuple[np.ndarray[Any, Any], int]]:
    """The indices of `total` things, at most `batch_size` at a time, and how many of them count.

    With `fixed` a chunk is filled up by repeating itself: to `batch_size`, or, if one chunk holds all, to the
    next power of two. A compiler then sees few shapes, and a single mask does not cost a whole chunk.
    """
    length = batch_size if total > batch_size else min(batch_size, 1 << max(total - 1, 0).bit_length())
    for start in range(0, total, batch_size):
        chosen = np.arange(start, min(start + batch_size, total))
        yield (np.resize(chosen, length) if fixed else chosen), len(chosen)


def _spread(stacked: Array, live: np.ndarray[Any, Any], xp: Namespace) -> Array:
    """(live channels then images, [K]) -> (B, [K,] C): each channel its own score, or its image's black one."""
    images, channels = live.shape
    rows = int(live.sum()) + np.broadcast_to(np.arange(images)[:, None], live.shape)
    rows = np.where(live, np.cumsum(live.ravel()).reshape(live.shape) - 1, rows)
    spread = xp.take(stacked, indices_like(rows.ravel(), stacked, xp), axis=0)
    if stacked.ndim == 1:
        return xp.reshape(spread, (images, channels))
    return xp.moveaxis(xp.reshape(spread, (images, channels, stacked.shape[1])), -1, 1)
