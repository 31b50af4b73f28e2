"""How channels are scored, chunk by chunk, and what becomes of the scores: shared by all region methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from fusioncam_core.pace import Pace, Span

Scorer = Callable[[Array, Array], Array]
"""(masks (n, *size) in [0, 1], the image each belongs to (n,)) -> scores (n,) or (n, K)."""

ChannelWeights = Literal["softmax", "probability", "regression"]

RIDGE = 1.0
"""What holds the regression of scores on masks back: so many times the masks' mean variance, for each mask."""

LEAST_SPREAD = 1e-6
"""The variance of masks that do not differ."""


@dataclass(frozen=True)
class Chunk:
    """What one call of the model is about.

    Attributes:
        images: (n,) the image each mask is for.
        channels: (n,) the channel each mask is of.
        owners: (n,) the images again, as integers on the device.
        count: how many of them are no padding.
    """

    images: np.ndarray[Any, Any]
    channels: np.ndarray[Any, Any]
    owners: Array
    count: int


ScoreMaps = Callable[[Array, Chunk], Array]
"""(activation maps (n, *spatial), what they are) -> scores (n,) or (n, K)."""


def _mask_maps(activations: Array, channel_weights: ChannelWeights, *, xp: Namespace) -> Array:
    """(B, C, *spatial): what is resized to masks, and weighed and summed."""
    if channel_weights == "softmax":
        return activations
    return _normalise(activations, activations.ndim - 2, xp=xp)


def _score_cam(
    maps: Array, scores: Array, size: tuple[int, ...], channel_weights: ChannelWeights = "softmax", *, xp: Namespace
) -> Array:
    """Maps (B, C, *spatial) and channel scores (B, K, C) -> (B, K, *size)."""
    if channel_weights == "regression":
        combined = constant_like(_regression(to_numpy(maps), to_numpy(scores)), maps, xp)
    else:
        combined = weighted_sum(channel_shares(scores, channel_weights, xp=xp), maps, xp=xp)
    return _normalise(relu(_resize(combined, size, xp=xp), xp=xp), len(size), xp=xp)


def _regression(maps: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(B, K, *spatial): the ridge regression of an image's scores (B, K, C) on its masks (B, C, *spatial).

    What a place adds to the score, where overlapping masks share what they found between them. There is no constant
    term: the scores are those above black, and the black mask is 0 everywhere.
    """
    batch, channels, *size = maps.shape
    found = [
        _ridge(np.reshape(masks, (channels, -1)).astype(np.float64), increases.T.astype(np.float64))
        for masks, increases in zip(maps, scores, strict=True)
    ]
    return np.asarray(np.stack(found).reshape(batch, len(found[0]), *size), dtype=maps.dtype)


def _ridge(masks: np.ndarray[Any, Any], increases: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(K, pixels) coefficients of increases (n, K) on masks (n, pixels), solved on the shorter side."""
    live = masks.any(axis=1)
    masks, increases = masks[live], increases[live]
    spread = masks.var(axis=0).mean() if len(masks) else 0.0
    held = RIDGE * len(masks) * max(spread, LEAST_SPREAD)
    if len(masks) < masks.shape[1]:
        coefficients = np.linalg.solve(masks @ masks.T + held * np.eye(len(masks)), increases).T @ masks
    else:
        coefficients = np.linalg.solve(masks.T @ masks + held * np.eye(masks.shape[1]), masks.T @ increases).T
    return np.asarray(coefficients)


def channel_shares(scores: Array, channel_weights: ChannelWeights, *, xp: Namespace) -> Array:
    """What each map is weighed with, (..., C) of its scores (..., C)."""
    return _softmax(scores, -1, xp=xp) if channel_weights == "softmax" else scores


def check_activations(
    activations: Array, size: Sequence[int] | None, channel_axis: int
) -> tuple[Array, tuple[int, ...], Namespace]:
    """The activations of a public function, channels first and finite, the size of its maps, and the namespace."""
    xp = array_namespace(activations)
    activations = channels_first(require_float(activations, "activations", xp), channel_axis, xp=xp)
    return require_finite(activations, "activations", xp), _map_size(size, activations), xp


def black_scorer(
    activations: Array, scorer: Scorer, size: tuple[int, ...], pace: Pace, *, xp: Namespace
) -> Callable[[], Array]:
    """A function of nothing that asks a user's scorer about the black mask of every image."""

    def black_scores() -> Array:
        black = xp.zeros_like(_resize(activations[:, 0, ...], size, xp=xp))
        images = indices_like(np.arange(activations.shape[0]), black, xp)

        def work(span: Span) -> Array:
            return scorer(span.of(black), span.of(images))

        return xp.concat([scores for scores, _ in pace.over(int(activations.shape[0]), work)], axis=0)

    return black_scores


def above_black(score_maps: ScoreMaps, black: Array, *, xp: Namespace) -> tuple[ScoreMaps, Callable[[], Array]]:
    """Scores less those of their wholly masked images (B,) or (B, K), and what that leaves for a black mask: 0."""

    def increases(maps: Array, chunk: Chunk) -> Array:
        return score_maps(maps, chunk) - xp.take(black, chunk.owners, axis=0)

    return increases, lambda: xp.zeros_like(black)


def one_or_several(scores: Array, maps: Callable[[Array], Array]) -> Array:
    """The maps of scores (B, K, C), or of (B, C) without the axis of targets."""
    return maps(scores) if scores.ndim == 3 else maps(scores[:, None, :])[:, 0, ...]


def channel_scores(
    activations: Array,
    live: np.ndarray[Any, Any],
    score_maps: ScoreMaps,
    black_scores: Callable[[], Array],
    *,
    pace: Pace,
    xp: Namespace,
    advance: Callable[[int], object],
) -> Array:
    """Every channel's score: (B, C), or (B, K, C) for K targets.

    A constant channel has a black mask and its image's black score, which is asked for once, if at all.

    Args:
        activations: (B, C, *spatial), finite.
        live: (B, C) which of them are not constant.
        score_maps: the scores of some channels' maps.
        black_scores: the scores (B,) or (B, K) of the wholly masked images.
        pace: how many maps are scored at once.
        xp: the namespace.
        advance: told how many channels are done.
    """
    images, channels = np.nonzero(live)
    advance(live.size - len(images))

    def rows() -> Iterator[tuple[Array, int]]:
        yield from scored(activations, images, channels, score_maps, pace=pace, xp=xp, advance=advance)
        if not live.all():
            yield black_scores(), live.shape[0]

    stacked = gathered(rows(), xp=xp)
    require_finite(stacked, "scores of the masked images", np)
    return constant_like(_spread(stacked, live), activations, xp)


def live_channels(activations: Array, *, xp: Namespace) -> np.ndarray[Any, Any]:
    """(B, C) booleans on the host: which channels are not constant."""
    return to_numpy(xp.logical_not(is_constant(activations, activations.ndim - 2, xp=xp)))


def scored(
    activations: Array,
    images: np.ndarray[Any, Any],
    channels: np.ndarray[Any, Any],
    score_maps: ScoreMaps,
    *,
    pace: Pace,
    xp: Namespace,
    advance: Callable[[int], object],
) -> Iterator[tuple[Array, int]]:
    """The scores of some channels, chunk by chunk, and how many of each chunk are no padding.

    Nothing is taken to the host, and nothing brought from there but the list of the channels, once.

    Args:
        activations: (B, C, *spatial).
        images: (n,) the image of each channel to score.
        channels: (n,) and its number.
        score_maps, pace, xp, advance: as for `channel_scores`.
    """
    number = int(activations.shape[1])
    flat = xp.reshape(activations, (-1, *activations.shape[2:]))
    on_host = (pace.padded(images), pace.padded(channels))
    rows, owners = (indices_like(each, flat, xp) for each in (on_host[0] * number + on_host[1], on_host[0]))

    def work(span: Span) -> Array:
        chunk = Chunk(span.of(on_host[0]), span.of(on_host[1]), span.of(owners), span.count)
        return score_maps(xp.take(flat, span.of(rows), axis=0), chunk)

    for scores, count in pace.over(len(images), work):
        yield scores, count
        advance(count)


def gathered(rows: Iterable[tuple[Array, int]], *, xp: Namespace) -> np.ndarray[Any, Any]:
    """The rows of all chunks that are no padding, on the host: one transfer, where the namespace can join them.

    How many chunks there are differs from image to image; where every number costs a compilation, or where they are
    better kept in another way until all are there, the namespace has its own `to_host` and `kept`.
    """
    keep, own = getattr(xp, "kept", None), getattr(xp, "to_host", None)
    kept = [(scores if keep is None else keep(scores), count) for scores, count in rows]
    if own is None and not any(isinstance(scores, np.ndarray) for scores, _ in kept):
        return to_numpy(xp.concat([scores[:count, ...] for scores, count in kept], axis=0))
    arrays = [scores for scores, _ in kept]
    fetched = [to_numpy(each) for each in arrays] if own is None else own(arrays)
    return np.concatenate([values[:count] for values, (_, count) in zip(fetched, kept, strict=True)])


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
