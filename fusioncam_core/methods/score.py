"""Region maps: each channel's activation masks the input, and the masked input's score weighs the channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from fusioncam_core.approximation.budget import Formula, require_limits, score_channels
from fusioncam_core.approximation.design import softmax_slopes
from fusioncam_core.approximation.gaussian_process import GaussianProcess
from fusioncam_core.approximation.probabilities import ProbabilityProcess
from fusioncam_core.arrays.checks import require_finite, require_float, require_shares, require_word
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, to_numpy
from fusioncam_core.arrays.one_thread import in_one_thread
from fusioncam_core.arrays.precision import in_float32, in_unit
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import (
    _map_size,
    _normalise,
    _resize,
    _softmax,
    channels_first,
    weighted_sum,
)
from fusioncam_core.methods.form import USUAL, Combined, Form, finished
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk, ScoreMaps, Scorer, above_black, black_scorer


@in_float32("activations", calls="scorer")
def score_cam(
    activations: Array,
    scorer: Scorer,
    *,
    channel_weights: ChannelWeights = "softmax",
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
    budget: int | None = None,
    tolerance: float | None = None,
    map_size: Sequence[int] | None = None,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Score-CAM: `N(relu(U(sum_k softmax(s)_k A_k)))`, `s_k` the logit for the input under mask `N(U(A_k))`.

    Wang et al., Score-CAM (arXiv 1910.01279), equations 6 to 8, in the form of Fusion-CAM (arXiv 2603.05386).
    A constant channel's mask is zeros: all of them are scored once an image, with the black mask.

    With `channel_weights="probability"` it is `N(relu(sum_k p_k M_k))`, `p_k` the probability for the input under
    mask `M_k = U(N(A_k))`: masks are normalised before the resize, and the masks are summed instead of the
    activations. The authors of Fusion-CAM compute it so in their later package, xplaincam.

    With `channel_weights="regression"` it is `N(relu(U(b)))`, `b` the ridge regression of `p_k - p_0`, what the masks
    leave of the probability above black's, on the masks `N(A_k)`: what a place adds to the probability, where masks
    that overlap share what they found. So Ribeiro et al., LIME (arXiv 1602.04938) and Petsiuk et al., RISE (arXiv
    1806.07421) see random masks; here the channels' own are enough. docs/study.md has what it is worth. A budget
    leaves more of it open than of a weighted sum, since what a place adds is a difference.

    With a budget or a tolerance only the channels that tell most of the map are scored. A Gaussian process from masks
    to scores predicts what the others would score, and how far the map might still move
    (`fusioncam_core.approximation.budget`).

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scorer: called with at most `batch_size` masks (n, *size) and the integer indices (n,) of their images;
            returns the logits (n,), or (n, K) for K targets at once; for the other words than "softmax", the
            probabilities.
        channel_weights: "softmax", "probability" or "regression".
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.
        budget: the most masks scored of each image, besides the black one; None for all.
        tolerance: an image is done when its map is not expected to move more than this at any position of the layer,
            in (0, 1); None for never. Both are of the map with its relu, normalised, whatever is asked for below.
        map_size: the spatial size of the map alone, such as the layer's; None takes `size`.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *map_size), or (B, K, *map_size) if the scores were (n, K), in [0, 1]; without the relu in [-1, 1], each map
        divided by its largest magnitude.

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes, the weights' name or a limit do not fit, or activations or scores are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import score_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> red = activations[0, 0]
        >>> scorer = lambda masks, images: (masks * red).mean(axis=(1, 2))  # how red the strip is under a mask
        >>> score_cam(activations, scorer).round(4)
        array([[[1.   , 0.5  , 0.   , 0.573]]])
    """
    limits = require_limits(budget, tolerance)
    form, own_size = Form(relu, normalised), own_map_size(map_size, size, activations, channel_axis)
    activations, extent, a, xp = check_activations(activations, size, channel_axis)
    if channel_weights != "softmax":
        scorer = of_probabilities(scorer)
    maps = _mask_maps(activations, require_word(channel_weights, "channel_weights", ChannelWeights), xp=xp)

    def score_maps(maps: Array, chunk: Chunk) -> Array:
        masks = _resize(maps, extent, xp=xp)
        masks = masks if channel_weights == "probability" else _normalise(masks, len(extent), xp=xp)
        return scorer(masks, chunk.owners)

    batching = Batching(batch_size)
    black = black_scorer(activations, scorer, extent, batching, xp=xp)
    scores: ScoreMaps = score_maps
    origin = None
    if channel_weights == "regression":
        origin = black()
        scores, black = above_black(score_maps, origin, xp=xp)
    found = score_channels(
        maps, scores, black, limits=limits, formula=formula(channel_weights), batching=batching, xp=xp, origin=origin
    )

    def summed(scores: Array) -> Array:
        combined = _score_cam(maps, scores, channel_weights, xp=xp)
        combined = combined._replace(units=(a,)) if channel_weights == "softmax" else combined
        return finished(combined, own_size, form, xp=xp).maps

    return one_or_several(found.scores, summed)


ChannelWeights = Literal["softmax", "probability", "regression"]


RIDGE = 1.0
"""What holds the regression of scores on masks back: so many times the masks' mean variance, for each mask."""


LEAST_SPREAD = 1e-6
"""The variance of masks that do not differ."""


def _mask_maps(activations: Array, channel_weights: ChannelWeights, *, xp: Namespace) -> Array:
    """(B, C, *spatial): what is resized to masks, and weighed and summed."""
    if channel_weights == "softmax":
        return activations
    return _normalise(activations, activations.ndim - 2, xp=xp)


def _score_cam(maps: Array, scores: Array, channel_weights: ChannelWeights = "softmax", *, xp: Namespace) -> Combined:
    """Maps (B, C, *spatial) and channel scores (B, K, C) -> (B, K, *spatial)."""
    if channel_weights == "regression":
        combined = constant_like(_regression(to_numpy(maps), to_numpy(scores)), maps, xp)
    else:
        combined = _weighed_by_scores(maps, scores, channel_weights, xp=xp)
    return Combined(combined, cut="after")


@as_one_program
def _weighed_by_scores(maps: Array, scores: Array, channel_weights: ChannelWeights, *, xp: Namespace) -> Array:
    return weighted_sum(channel_shares(scores, channel_weights, xp=xp), maps, xp=xp)


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


@in_one_thread()
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
    return _softmax(scores, axis=-1, xp=xp) if channel_weights == "softmax" else scores


def formula(channel_weights: ChannelWeights, *, in_unit: bool = True) -> Formula:
    """What Score-CAM makes of scores, as budgets need to know it.

    Args:
        channel_weights: as for `score_cam`.
        in_unit: whether scores that are called probabilities lie in [0, 1]. The values of a user's function do not.
    """

    def shares(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(channel_shares(scores, channel_weights, xp=array_namespace(scores)))

    def maps(channels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        xp = array_namespace(scores)
        combined = _score_cam(channels, scores, channel_weights, xp=xp)
        return np.asarray(finished(combined, channels.shape[2:], USUAL, xp=xp).maps)

    def slopes(channels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if channel_weights == "softmax":
            return softmax_slopes(channels, scores)
        each = _ridge(channels, np.eye(len(channels))) if channel_weights == "regression" else channels
        return np.broadcast_to(each, (len(scores), *each.shape))

    def process(masks: np.ndarray[Any, Any], origin: np.ndarray[Any, Any] | None) -> GaussianProcess:
        probabilities = channel_weights != "softmax" and in_unit
        return ProbabilityProcess(masks, origin) if probabilities else GaussianProcess(masks)

    return Formula(shares, maps, slopes, process)


def check_activations(
    activations: Array, size: Sequence[int] | None, channel_axis: int
) -> tuple[Array, tuple[int, ...], Array, Namespace]:
    """The activations of a public function, channels first and finite, the maps' size, the unit, and the namespace."""
    xp = array_namespace(activations)
    activations = channels_first(require_float(activations, "activations", xp), channel_axis, xp=xp)
    extent = _map_size(size, activations)
    tamed, unit = in_unit(require_finite(activations, "activations", xp), 1, xp=xp)
    return tamed, extent, unit, xp


def own_map_size(
    map_size: Sequence[int] | None, size: Sequence[int] | None, activations: Array, channel_axis: int
) -> tuple[int, ...]:
    """The size of the map where it may be another one than the masks'.

    Raises:
        ValueError: if it does not fit the activations' axes of space.
    """
    xp = array_namespace(activations)
    return _map_size(size if map_size is None else map_size, channels_first(activations, channel_axis, xp=xp))


def of_probabilities(scorer: Scorer) -> Scorer:
    """A user's scorer whose answers are refused where they are no probabilities."""

    def probabilities(masks: Array, images: Array) -> Array:
        scores = scorer(masks, images)
        return require_shares(scores, "probability", array_namespace(scores))

    return probabilities


def one_or_several(scores: Array, maps: Callable[[Array], Array]) -> Array:
    """The maps of scores (B, K, C), or of (B, C) without the axis of targets."""
    return maps(scores) if scores.ndim == 3 else maps(scores[:, None, :])[:, 0, ...]
