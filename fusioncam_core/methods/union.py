"""Union-CAM: a gradient map of denoised channels, united with a region map, unless the region map alone does better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusioncam_core.arrays.checks import require_percentage, require_word, spatial_axes
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.precision import in_float32, tamed
from fusioncam_core.arrays.words import (
    _map_size,
    _normalise,
    _normalised,
    _over_space,
    _percentile,
    _resize,
    relu,
)
from fusioncam_core.methods.form import range_of
from fusioncam_core.methods.fusion import (
    Contributions,
    Fusion,
    _contribution_weights,
    check_maps,
    checked_probability,
)
from fusioncam_core.methods.gradient import _check_pair


@in_float32("activations", "gradients")
def denoised_cam(
    activations: Array,
    gradients: Array,
    percentile: float = 10,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
) -> Array:
    """Union-CAM's gradient map: `N(U(sum_k W_k / sum_ij(W_k) A_k))`, `W_k` the denoised gradients of channel `k`.

    Hu et al., UnionCAM (Frontiers in Neurorobotics 18, 2024, doi 10.3389/fnbot.2024.1490198): of a channel's
    gradients those below its `percentile` count as 0, and so do negative ones. Every channel with a positive gradient
    thus has the same weight, spread over the places where its gradient is large.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        gradients: of the targets' logits, shaped like the activations, or (B, K, ...) for K targets an image.
        percentile: in [0, 100], of each channel's gradients.
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.

    Returns:
        (B, *size) or (B, K, *size) in [0, 1].

    Raises:
        TypeError: if an array is not floating, or the two are of different libraries.
        ValueError: if the shapes do not fit, values are NaN or infinite, or the percentile lies outside [0, 100].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import denoised_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> denoised_cam(activations, gradients)
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    xp = array_namespace(activations, gradients)
    activations, gradients, several = _check_pair(activations, gradients, channel_axis, xp)
    extent = _map_size(size, activations)
    maps = _denoised_cam(activations, gradients, require_percentage(percentile), extent, xp=xp)
    return maps if several else maps[:, 0, ...]


def _denoised_cam(
    activations: Array, gradients: Array, percentile: float, size: tuple[int, ...], *, xp: Namespace
) -> Array:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *size)."""
    ndim = len(size)
    space = tuple(range(-ndim, 0))
    activations, gradients = tamed(activations, 1, xp=xp), tamed(gradients, 2, xp=xp)
    threshold = _over_space(_percentile(gradients, percentile, ndim, xp=xp), ndim, xp=xp)
    # A gradient that is the same everywhere, as before a global mean, is no noise for differing in its last bit.
    threshold = threshold - 8 * float(xp.finfo(gradients.dtype).eps) * xp.abs(threshold)
    kept = relu(xp.where(gradients < threshold, xp.zeros_like(gradients), gradients), xp=xp)
    total = xp.sum(kept, axis=space, keepdims=True)
    shares = kept / xp.where(total > 0, total, xp.ones_like(total))
    return _normalise(_resize(xp.sum(shares * xp.expand_dims(activations, axis=1), axis=2), size, xp=xp), ndim, xp=xp)


@in_float32("denoised", "region", "baseline", calls="probability")
def union_cam(
    denoised: Array,
    region: Array,
    probability: Callable[[Array], Array],
    *,
    baseline: Array | None = None,
    contributions: Contributions = "clipped",
    spatial_ndim: int = 2,
) -> Fusion:
    """Union-CAM: the union `N(w_d d + w_r r)` of two maps, or the region map where that contributes as much.

    Hu et al., UnionCAM (Frontiers in Neurorobotics 18, 2024, doi 10.3389/fnbot.2024.1490198). A map's contribution
    is what the masked image keeps of the class's probability above black: the weights are the contributions of the
    two, and the map with the larger one, union or region, is the result.

    Args:
        denoised: (..., *spatial) in [0, 1], such as `denoised_cam` gives.
        region: the same shape, such as `score_cam` gives.
        probability: called with masks shaped like the maps; returns the probability (...) of each map's target for
            its image times the mask.
        baseline: (...) the probabilities of the black image; None calls `probability` with zeros.
        contributions: "clipped": a negative contribution weighs 0, and two of them weigh the same. "unnormalised":
            they weigh what they are, as in the later package, xplaincam. "signed": the published code, which besides
            multiplies the result by its contribution before it is normalised, and so inverts it if that is negative.
        spatial_ndim: how many of the last axes are space.

    Returns:
        The map, the parts "denoised", "region" and "union", and the weights "probability_*", "contribution_*" and
        "weight_*".

    Raises:
        TypeError: if the maps are not floating or of different libraries.
        ValueError: if shapes differ, values are NaN or infinite, maps or probabilities lie outside [0, 1], or an
            option is wrong.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import union_cam
        >>> denoised, region = np.array([[1.0, 0.5, 0, 0]]), np.array([[1.0, 0.5, 0, 0.6]])
        >>> probability = lambda masks: (masks * [0.5, 0.5, -0.25, -0.25]).sum(axis=(-2, -1))  # of the masked image
        >>> union = union_cam(denoised, region, probability, baseline=np.array(0.0))
        >>> union.maps
        array([[1.        , 0.5       , 0.        , 0.26666667]])
        >>> {name: round(float(union.weights[name]), 4) for name in ("weight_denoised", "weight_region")}
        {'weight_denoised': 0.5556, 'weight_region': 0.4444}
    """
    xp = check_maps(spatial_ndim, denoised=denoised, region=region)
    require_word(contributions, "contributions", Contributions)
    probability, baseline = checked_probability(probability, baseline, denoised, spatial_ndim, xp=xp)
    return _union_cam(denoised, region, probability, baseline, contributions, spatial_ndim, xp=xp)


def _union_cam(
    d: Array,
    r: Array,
    p: Callable[[Array], Array],
    p_0: Array,
    mode: Contributions,
    spatial_ndim: int,
    *,
    xp: Namespace,
) -> Fusion:
    """The paper's formulas in the symbols of Fusion-CAM's."""

    def over(values: Array) -> Array:
        return _over_space(values, spatial_ndim, xp=xp)

    p_d, p_r = p(d), p(r)
    beta_d, beta_r = p_d - p_0, p_r - p_0
    w_d, w_r = _contribution_weights(beta_d, beta_r, "clipped" if mode == "clipped" else "unnormalised", xp=xp)
    u, low, high = _normalised(over(w_d) * d + over(w_r) * r, spatial_ndim, xp=xp)
    p_u = p(u)
    united = p_u > p_r
    maps = xp.where(over(united), u, r)
    if mode == "signed":
        maps, low, high = _normalised(over(xp.where(united, p_u, p_r) - p_0) * maps, spatial_ndim, xp=xp)
    else:
        # The region map is taken as it is.
        space = spatial_axes(spatial_ndim)
        low = xp.where(over(united), low, xp.min(r, axis=space, keepdims=True))
        high = xp.where(over(united), high, xp.max(r, axis=space, keepdims=True))
    weights = {
        "probability_baseline": p_0,
        "probability_denoised": p_d,
        "probability_region": p_r,
        "probability_union": p_u,
        "contribution_denoised": beta_d,
        "contribution_region": beta_r,
        "contribution_union": p_u - p_0,
        "weight_denoised": w_d,
        "weight_region": w_r,
    }
    parts = {"denoised": d, "region": r, "union": u}
    return Fusion(maps, parts, weights, range_of(low, high, spatial_ndim, xp=xp))
