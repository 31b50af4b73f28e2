"""Masks scored chunk by chunk: what all region methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import require_finite
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, indices_like, to_numpy
from fusioncam_core.arrays.words import (
    _resize,
    is_constant,
    product,
)
from fusioncam_core.models.batch_size import Batching, Span
from fusioncam_core.models.spans import SpanIndices, taken_maps
from fusioncam_core.models.steps import skip

Scorer = Callable[[Array, Array], Array]
"""(masks (n, *size) in [0, 1], the image each belongs to (n,)) -> scores (n,) or (n, K)."""


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


def black_scorer(
    activations: Array, scorer: Scorer, size: tuple[int, ...], batching: Batching, *, xp: Namespace
) -> Callable[[], Array]:
    """A function of nothing that asks a user's scorer about the black mask of every image."""

    def black_scores() -> Array:
        black = xp.zeros_like(_resize(activations[:, 0, ...], size, xp=xp))
        images = indices_like(np.arange(activations.shape[0]), black, xp)

        def work(span: Span) -> Array:
            return scorer(span.of(black), span.of(images))

        return xp.concat([scores for scores, _ in batching.over(int(activations.shape[0]), work)], axis=0)

    return black_scores


def above_black(score_maps: ScoreMaps, black: Array, *, xp: Namespace) -> tuple[ScoreMaps, Callable[[], Array]]:
    """Scores less those of their wholly masked images (B,) or (B, K), and what that leaves for a black mask: 0."""

    def increases(maps: Array, chunk: Chunk) -> Array:
        return score_maps(maps, chunk) - xp.take(black, chunk.owners, axis=0)

    return increases, lambda: xp.zeros_like(black)


def channel_scores(
    activations: Array,
    live: np.ndarray[Any, Any],
    score_maps: ScoreMaps,
    black_scores: Callable[[], Array],
    *,
    batching: Batching,
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
        batching: how many maps are scored at once.
        xp: the namespace.
        advance: told how many channels are done.
    """
    images, channels = np.nonzero(live)
    skip(advance, live.size - len(images))

    def rows() -> Iterator[tuple[Array, int]]:
        yield from scored(activations, images, channels, score_maps, batching=batching, xp=xp, advance=advance)
        if not live.all():
            yield black_scores(), live.shape[0]

    stacked = gathered(rows(), xp=xp)
    require_finite(stacked, "scores of the masked images", array_namespace(stacked))
    return constant_like(_spread(stacked, live), activations, xp)


def live_channels(activations: Array, *, xp: Namespace) -> np.ndarray[Any, Any]:
    """(B, C) booleans on the host: which channels are not constant.

    A namespace that compiles for every number of images would do so for this alone: there the host looks.
    """
    if getattr(xp, "compiled", None) is not None:
        activations = to_numpy(activations)
    return ~to_numpy(is_constant(activations, activations.ndim - 2, xp=array_namespace(activations)))


def scored(
    activations: Array,
    images: np.ndarray[Any, Any],
    channels: np.ndarray[Any, Any],
    score_maps: ScoreMaps,
    *,
    batching: Batching,
    xp: Namespace,
    advance: Callable[[int], object],
) -> Iterator[tuple[Array, int]]:
    """The scores of some channels, chunk by chunk, and how many of each chunk are no padding.

    Nothing is taken to the host, and nothing brought from there but the list of the channels, once.

    Args:
        activations: (B, C, *spatial).
        images: (n,) the image of each channel to score.
        channels: (n,) and its number.
        score_maps, batching, xp, advance: as for `channel_scores`.
    """
    number = int(activations.shape[1])
    on_host = (batching.padded(images), batching.padded(channels))
    rows, owners = (SpanIndices(each, activations, xp) for each in (on_host[0] * number + on_host[1], on_host[0]))

    def work(span: Span) -> Array:
        chunk = Chunk(span.of(on_host[0]), span.of(on_host[1]), owners.of(span), span.count)
        return score_maps(taken_maps(activations, rows.of(span), xp=xp), chunk)

    for scores, count in batching.over(len(images), work):
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
    summed = product(xp.reshape(shares, (batch * several, number)), flat, xp=xp)
    return xp.reshape(summed, (batch, several, *size))
