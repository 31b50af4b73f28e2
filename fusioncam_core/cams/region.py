"""Region maps: each channel's activation masks the input, and the masked input's score weighs the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fusioncam_core.arrays import (
    Array,
    Namespace,
    _normalise,
    _resize,
    _softmax,
    array_namespace,
    constant_like,
    indices_like,
    is_constant,
    require_finite,
    require_float,
    to_numpy,
)
from fusioncam_core.cams.gradient import _map_size, channels_first, relu, weighted_sum

Scorer = Callable[[Array, Array], Array]
"""(masks (n, *size) in [0, 1], the image each belongs to (n,)) -> scores (n,) or (n, K)."""

ChannelWeights = Literal["softmax", "probability"]


@dataclass(frozen=True)
class Chunk:
    """What one call of the model is about.

    Attributes:
        images: (n,) the image each mask is for.
        channels: (n,) the channel each mask is of.
        count: how many of them are no padding.
    """

    images: np.ndarray[Any, Any]
    channels: np.ndarray[Any, Any]
    count: int


ScoreMaps = Callable[[Array, Chunk], Array]
"""(activation maps (n, *spatial), what they are) -> scores (n,) or (n, K)."""


def score_cam(
    activations: Array,
    scorer: Scorer,
    *,
    channel_weights: ChannelWeights = "softmax",
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
) -> Array:
    """Score-CAM: `N(relu(U(sum_k softmax(s)_k A_k)))`, `s_k` the logit for the input under mask `N(U(A_k))`.

    Wang et al., Score-CAM (arXiv 1910.01279), equations 6 to 8, in the form of Fusion-CAM (arXiv 2603.05386).
    A constant channel's mask is zeros: all of them are scored once an image, with the black mask.

    With `channel_weights="probability"` it is `N(relu(sum_k p_k M_k))`, `p_k` the probability for the input under
    mask `M_k = U(N(A_k))`: masks are normalised before the resize, and the masks are summed instead of the
    activations. The authors of Fusion-CAM compute it so in their later package, xplaincam.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scorer: called with at most `batch_size` masks (n, *size) and the integer indices (n,) of their images;
            returns the logits (n,), or (n, K) for K targets at once; for "probability" the probabilities.
        channel_weights: "softmax" or "probability".
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.

    Returns:
        (B, *size), or (B, K, *size) if the scores were (n, K), in [0, 1].

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes or the weights' name do not fit, or activations or scores are NaN or infinite.
    """
    activations, extent, xp = check_activations(activations, size, channel_axis)
    maps = _mask_maps(activations, require_channel_weights(channel_weights), xp=xp)

    def score_maps(maps: Array, chunk: Chunk) -> Array:
        masks = _resize(maps, extent, xp=xp)
        masks = masks if channel_weights == "probability" else _normalise(masks, len(extent), xp=xp)
        return scorer(masks, indices_like(chunk.images, maps, xp))

    black = black_scorer(activations, scorer, extent, batch_size, xp=xp)
    scores = channel_scores(maps, score_maps, black, batch_size=batch_size, xp=xp)
    return one_or_several(scores, lambda scores: _score_cam(maps, scores, extent, channel_weights, xp=xp))


def _mask_maps(activations: Array, channel_weights: ChannelWeights, *, xp: Namespace) -> Array:
    """(B, C, *spatial): what is resized to masks, and weighed and summed."""
    if channel_weights == "softmax":
        return activations
    return _normalise(activations, activations.ndim - 2, xp=xp)


def _score_cam(
    maps: Array, scores: Array, size: tuple[int, ...], channel_weights: ChannelWeights = "softmax", *, xp: Namespace
) -> Array:
    """Maps (B, C, *spatial) and channel scores (B, K, C) -> (B, K, *size)."""
    weights = _softmax(scores, -1, xp=xp) if channel_weights == "softmax" else scores
    combined = weighted_sum(weights, maps, xp=xp)
    return _normalise(relu(_resize(combined, size, xp=xp), xp=xp), len(size), xp=xp)


def require_channel_weights(channel_weights: ChannelWeights) -> ChannelWeights:
    """The word itself if it is "softmax" or "probability".

    Raises:
        ValueError: if it is not.
    """
    if channel_weights not in get_args(ChannelWeights):
        raise ValueError(f"channel_weights is 'softmax' or 'probability', and {channel_weights!r} came.")
    return channel_weights


def check_activations(
    activations: Array, size: Sequence[int] | None, channel_axis: int
) -> tuple[Array, tuple[int, ...], Namespace]:
    """The activations of a public function, channels first and finite, the size of its maps, and the namespace."""
    xp = array_namespace(activations)
    activations = channels_first(require_float(activations, "activations", xp), channel_axis, xp=xp)
    return require_finite(activations, "activations", xp), _map_size(size, activations), xp


def black_scorer(
    activations: Array, scorer: Scorer, size: tuple[int, ...], batch_size: int, *, xp: Namespace
) -> Callable[[], Array]:
    """A function of nothing that asks a user's scorer about the black mask of every image."""

    def black_scores() -> Array:
        black = xp.zeros_like(_resize(activations[:, 0, ...], size, xp=xp))
        parts = [
            indices_like(chosen, black, xp) for chosen, _ in chunks(int(activations.shape[0]), batch_size, fixed=False)
        ]
        return xp.concat([scorer(xp.take(black, owners, axis=0), owners) for owners in parts], axis=0)

    return black_scores


def one_or_several(scores: Array, maps: Callable[[Array], Array]) -> Array:
    """The maps of scores (B, K, C), or of (B, C) without the axis of targets."""
    return maps(scores) if scores.ndim == 3 else maps(scores[:, None, :])[:, 0, ...]


def channel_scores(
    activations: Array,
    score_maps: ScoreMaps,
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
        score_maps: the scores of some channels' maps.
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
        rows.append((score_maps(maps, Chunk(images[chosen], channels[chosen], count)), count))
        advance(count)
    if not live.all():
        rows.append((black_scores(), live.shape[0]))
    # How many channels are constant differs from image to image: on the host that costs no compilation.
    stacked = np.concatenate([to_numpy(scores)[:count] for scores, count in rows])
    require_finite(stacked, "scores of the masked images", np)
    return constant_like(_spread(stacked, live), rows[0][0], xp)


def chunks(total: int, batch_size: int, *, fixed: bool) -> Iterator[tuple[np.ndarray[Any, Any], int]]:
    """The indices of `total` things, at most `batch_size` at a time, and how many of them count.

    With `fixed` a chunk is filled up by repeating itself: to `batch_size`, or, if one chunk holds all, to the
    next power of two. A compiler then sees few shapes, and a single mask does not cost a whole chunk.
    """
    length = batch_size if total > batch_size else min(batch_size, 1 << max(total - 1, 0).bit_length())
    for start in range(0, total, batch_size):
        chosen = np.arange(start, min(start + batch_size, total))
        yield (np.resize(chosen, length) if fixed else chosen), len(chosen)


def _spread(stacked: np.ndarray[Any, Any], live: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(live channels then images, [K]) -> (B, [K,] C): each channel its own score, or its image's black one."""
    rows = int(live.sum()) + np.broadcast_to(np.arange(live.shape[0])[:, None], live.shape)
    rows = np.where(live, np.cumsum(live.ravel()).reshape(live.shape) - 1, rows)
    return stacked[rows] if stacked.ndim == 1 else np.moveaxis(stacked[rows], -1, 1)


def weighted_masks(
    masks: Array, scores: Array, owners: np.ndarray[Any, Any], count: int, batch: int, *, xp: Namespace
) -> Array:
    """`sum_i s_i M_i` over each owner's own masks: (n, *size) and (n, K) -> (batch, K, *size); padding counts 0.

    Args:
        masks: (n, *size).
        scores: (n, K).
        owners: (n,) integers below `batch`.
        count: how many masks are no padding.
        batch: how many owners there are.
        xp: the namespace.
    """
    number, size = int(masks.shape[0]), tuple(masks.shape[1:])
    owned = (owners == np.arange(batch)[:, None]) & (np.arange(number) < count)
    shares = constant_like(owned[:, None, :].astype(np.float32), masks, xp) * xp.matrix_transpose(scores)
    flat = xp.reshape(masks, (number, -1))
    several = int(scores.shape[1])
    summed = xp.matmul(xp.reshape(shares, (batch * several, number)), flat)
    return xp.reshape(summed, (batch, several, *size))


def require_count(value: Any, name: str, least: int = 1) -> int:
    """The value itself if it is a whole number of at least `least`.

    Raises:
        ValueError: naming it otherwise.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, and {value!r} came.")
    return int(value)
