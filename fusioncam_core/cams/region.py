"""Region maps: each channel's activation masks the input, and the masked input's score weighs the channel."""

from __future__ import annotations

from collections.abc import Sequence

from fusioncam_core.arrays import Array, _normalise, _resize, require_word
from fusioncam_core.cams.budget import require_limits, score_channels
from fusioncam_core.cams.scoring import (
    ChannelWeights,
    Chunk,
    ScoreMaps,
    Scorer,
    _mask_maps,
    _score_cam,
    above_black,
    black_scorer,
    check_activations,
    one_or_several,
)
from fusioncam_core.pace import Pace


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
    1806.07421) see random masks; here the channels' own are enough. docs/study.md has what it is worth. It needs all of
    its masks: what a place adds is a difference, and a budget leaves much more of it open than of a weighted sum.

    With a budget or a tolerance only the channels that matter most are scored. A Gaussian process from masks to scores
    foretells what the others would score, and how far the map might still move (`fusioncam_core.cams.budget`).

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
            in (0, 1); None for never.

    Returns:
        (B, *size), or (B, K, *size) if the scores were (n, K), in [0, 1].

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if shapes, the weights' name or a limit do not fit, or activations or scores are NaN or infinite.
    """
    limits = require_limits(budget, tolerance)
    activations, extent, xp = check_activations(activations, size, channel_axis)
    maps = _mask_maps(activations, require_word(channel_weights, "channel_weights", ChannelWeights), xp=xp)

    def score_maps(maps: Array, chunk: Chunk) -> Array:
        masks = _resize(maps, extent, xp=xp)
        masks = masks if channel_weights == "probability" else _normalise(masks, len(extent), xp=xp)
        return scorer(masks, chunk.owners)

    pace = Pace(batch_size)
    black = black_scorer(activations, scorer, extent, pace, xp=xp)
    scores: ScoreMaps = score_maps
    if channel_weights == "regression":
        scores, black = above_black(score_maps, black(), xp=xp)
    found = score_channels(maps, scores, black, limits=limits, channel_weights=channel_weights, pace=pace, xp=xp)
    return one_or_several(found.scores, lambda scores: _score_cam(maps, scores, extent, channel_weights, xp=xp))
