"""Score-CAM with several masks a channel: noisy ones (SS-CAM), or ones of growing strength (IS-CAM)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.approximation.budget import NO_LIMITS, Limits, Scored, score_channels
from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like
from fusioncam_core.arrays.precision import in_float32
from fusioncam_core.arrays.words import _normalise, _resize
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import Form, finished
from fusioncam_core.methods.score import _score_cam, check_activations, formula, one_or_several, own_map_size
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk, ScoreMaps, Scorer, black_scorer
from fusioncam_core.models.steps import Times

Vary = Callable[[Array, Chunk, int], Array]
"""(masks (n, *size) in [0, 1], what they are of, the number of the sample) -> the masks to score."""


@in_float32("activations", calls="scorer")
def ss_cam(
    activations: Array,
    scorer: Scorer,
    *,
    samples: int = 35,
    std: float = 2.0,
    seed: int = 0,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
    map_size: Sequence[int] | None = None,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """SS-CAM: Score-CAM of the mean logit under `N(U(A_k)) + d_i`, `d_i` normal noise, over `i = 1..samples`.

    Wang et al., SS-CAM (arXiv 2006.14255), smoothing of the activations: `N(relu(U(sum_k softmax(s)_k A_k)))` with
    `s_k = 1/N sum_i y(I (N(U(A_k)) + d_i))`. The noise comes after `N`, as in torch-cam (`SSCAM`), so that its standard
    deviation means the same for every channel; the masks leave [0, 1] by it and are not cut or normalised again, which
    would take much of it out. It depends on the seed, the channel and the sample only, so that an image's map does not
    change with the batch or the framework. A constant channel has its image's black score.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scorer: as for `score_cam`, with masks outside [0, 1].
        samples: masks a channel.
        std: the noise's standard deviation.
        seed: of the noise.
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.
        map_size: the spatial size of the map alone, such as the layer's; None takes `size`.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *map_size), or (B, K, *map_size) if the scores were (n, K), in [0, 1]; without the relu in [-1, 1], each map
        divided by its largest magnitude.

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes or numbers do not fit, or activations or scores are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import ss_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> red = activations[0, 0]
        >>> scorer = lambda masks, images: (masks * red).mean(axis=(1, 2))  # how red the strip is under a mask
        >>> ss_cam(activations, scorer, std=0.1).round(2)
        array([[[1.  , 0.5 , 0.  , 0.58]]])
    """
    vary = add_noise(std, seed)
    count, own_size = require_count(samples, "samples"), own_map_size(map_size, size, activations, channel_axis)
    form = Form(relu, normalised)
    return _varied_cam(activations, scorer, vary, count, size, channel_axis, batch_size, own_size, form)


@in_float32("activations", calls="scorer")
def is_cam(
    activations: Array,
    scorer: Scorer,
    *,
    steps: int = 10,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
    map_size: Sequence[int] | None = None,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """IS-CAM: Score-CAM of the mean logit under masks `M_i` that grow in strength, `i = 0..N`.

    Naidu et al., IS-CAM (arXiv 2010.03023): `N(relu(U(sum_k softmax(s)_k A_k)))` with `s_k = 1/N sum_i y(I M_i)` and
    `M_i = sum_{j<i} j/N N(U(A_k))`. The first two masks are black for every channel and cancel in the softmax: N - 1
    remain, with the factors `i (i + 1) / 2N`, `i = 1..N-1`, which pass 1. torch-cam (`ISCAM`) documents the same sums,
    but runs N masks, whose sums begin with 1/N and end with N/N.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scorer: as for `score_cam`, with masks that pass 1.
        steps: N, at least 2.
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.
        map_size: the spatial size of the map alone, such as the layer's; None takes `size`.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *map_size), or (B, K, *map_size) if the scores were (n, K), in [0, 1]; without the relu in [-1, 1], each map
        divided by its largest magnitude.

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes or the steps do not fit, or activations or scores are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import is_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> red = activations[0, 0]
        >>> scorer = lambda masks, images: (masks * red).mean(axis=(1, 2))  # how red the strip is under a mask
        >>> is_cam(activations, scorer).round(2)
        array([[[1.  , 0.5 , 0.  , 0.25]]])
    """
    vary = grow(require_count(steps, "steps", least=2))
    form, own_size = Form(relu, normalised), own_map_size(map_size, size, activations, channel_axis)
    share = 1 / steps
    return _varied_cam(activations, scorer, vary, steps - 1, size, channel_axis, batch_size, own_size, form, share)


def _varied_cam(
    activations: Array,
    scorer: Scorer,
    vary: Vary,
    samples: int,
    size: Sequence[int] | None,
    channel_axis: int,
    batch_size: int,
    own_size: tuple[int, ...],
    form: Form,
    share: float | None = None,
) -> Array:
    activations, extent, a, xp = check_activations(activations, size, channel_axis)

    def score_masks(masks: Array, chunk: Chunk) -> Array:
        return scorer(masks, chunk.owners)

    batching = Batching(batch_size)
    black = black_scorer(activations, scorer, extent, batching, xp=xp)
    found = varied_scores(activations, score_masks, black, vary, samples, extent, share=share, xp=xp, batching=batching)

    def summed(scores: Array) -> Array:
        combined = _score_cam(activations, scores, xp=xp)._replace(units=(a,))
        return finished(combined, own_size, form, xp=xp).maps

    return one_or_several(found.scores, summed)


def varied_scores(
    activations: Array,
    score_masks: ScoreMaps,
    black_scores: Callable[[], Array],
    vary: Vary,
    samples: int,
    size: tuple[int, ...],
    *,
    xp: Namespace,
    share: float | None = None,
    limits: Limits = NO_LIMITS,
    advance: Callable[[int], object] = lambda masks: None,
    **options: Any,
) -> Scored:
    """The sum over the samples of every channel's score, times `share`.

    Args:
        activations: (B, C, *spatial), finite.
        score_masks: the scores of masks (n, *size).
        black_scores: the scores of the wholly masked images; asked once, if at all.
        vary: makes a sample's mask of the plain one.
        samples: how many.
        size: of the masks.
        xp: the namespace.
        share: of a sample in the result; None for the mean.
        limits: the budget counts every sample.
        advance: told how many samples are done.
        **options: as for `score_channels`.

    Raises:
        ValueError: if the budget does not reach for the samples of one channel.
    """
    share = 1 / samples if share is None else share

    def score_maps(maps: Array, chunk: Chunk) -> Array:
        masks = _normalise(_resize(maps, size, xp=xp), len(size), xp=xp)
        return share * sum(score_masks(vary(masks, chunk, sample), chunk) for sample in range(samples))

    found = score_channels(
        activations,
        score_maps,
        lambda: samples * share * black_scores(),
        limits=_of_channels(limits, samples),
        formula=formula("softmax"),
        xp=xp,
        advance=Times(advance, samples),
        **options,
    )
    return dataclasses.replace(found, masks_run=samples * found.masks_run)


def _of_channels(limits: Limits, samples: int) -> Limits:
    """The limits of channels that take so many passes each."""
    if limits.budget is None:
        return limits
    if limits.budget < samples:
        raise InvalidValueError(
            f"One channel takes {samples} masks: expected a budget of at least as many, got {limits.budget}."
        )
    return limits._replace(budget=limits.budget // samples)


def add_noise(std: float, seed: int) -> Vary:
    """Normal noise of NumPy's PCG64, one field a seed, channel and sample, whatever the framework.

    Raises:
        ValueError: if the standard deviation is not positive or the seed is negative.
    """
    if not std > 0:
        raise InvalidValueError(f"std is a positive number: got {std!r}.")
    require_count(seed, "seed", least=0)

    def vary(masks: Array, chunk: Chunk, sample: int) -> Array:
        distinct, which = np.unique(chunk.channels, return_inverse=True)
        shape = tuple(int(length) for length in masks.shape[1:])
        fields = [
            np.random.default_rng([seed, int(channel), sample]).standard_normal(shape, dtype=np.float32)
            for channel in distinct
        ]
        return masks + constant_like(std * np.stack(fields)[which], masks, array_namespace(masks))

    return vary


def grow(steps: int) -> Vary:
    """Sample `i` times `(1 + 2 + ... + (i + 1)) / steps`."""

    def vary(masks: Array, chunk: Chunk, sample: int) -> Array:
        return masks * ((sample + 1) * (sample + 2) / (2 * steps))

    return vary
