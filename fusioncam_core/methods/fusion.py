"""Fusion-CAM's three steps (arXiv 2603.05386): denoise, weigh and unite, fuse by similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fusioncam_core.arrays.checks import (
    require_broadcast,
    require_finite,
    require_float,
    require_map,
    require_percentage,
    require_shape,
    require_shares,
    require_word,
)
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, is_traced
from fusioncam_core.arrays.precision import in_float32, tamed, unit
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _normalise, _normalised, _over_space, _percentile
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import range_of

Contributions = Literal["unnormalised", "clipped", "signed"]


Variant = Literal["published", "united", "calibrated"]


SIGNED_EPSILON = 1e-8
"""Added to the sum of two signed contributions by the published code."""


@in_float32("maps")
def denoise(maps: Array, percentile: float = 10, *, spatial_ndim: int = 2) -> Array:
    """Step 1 of Fusion-CAM: values of a map below its `percentile` become 0, and the map is normalised.

    arXiv 2603.05386, the denoising of the gradient map; linear interpolation between sorted values.

    Args:
        maps: (..., *spatial), floating.
        percentile: in [0, 100]; 0 keeps every value.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) in [0, 1]; zeros for a constant map.

    Raises:
        TypeError, ValueError: if `maps` is no finite floating map or the percentile lies outside [0, 100].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import denoise
        >>> denoise(np.array([[0.1, 0.2, 0.6, 1.0]]), percentile=50)  # the median is 0.4
        array([[0. , 0. , 0.6, 1. ]])
    """
    xp = array_namespace(maps)
    require_finite(require_map(maps, "maps", spatial_ndim, xp), "map to denoise", xp)
    return _denoise(tamed(maps, -spatial_ndim, xp=xp), require_percentage(percentile), spatial_ndim, xp=xp)


@as_one_program
def _denoise(maps: Array, percentile: float, spatial_ndim: int, *, xp: Namespace) -> Array:
    threshold = _over_space(_percentile(maps, percentile, spatial_ndim, xp=xp), spatial_ndim, xp=xp)
    return _normalise(xp.where(maps < threshold, xp.zeros_like(maps), maps), spatial_ndim, xp=xp)


@in_float32("first", "second")
def contribution_weights(
    first: Array, second: Array, *, contributions: Contributions = "clipped"
) -> tuple[Array, Array]:
    """Two contributions normalised to sum to one (arXiv 2603.05386, the weights of the union map).

    "clipped" counts a negative contribution as 0; if both are 0, the shares are equal. "signed" is the
    published arithmetic: each divided by `first + second + 1e-8`, whatever the signs; the weights can lie
    far outside [0, 1] when the sum is near 0 (in half precision they end at its largest number), and where it is 0 the
    shares are equal. "unnormalised" leaves the contributions as they are, as the authors' later package, xplaincam,
    does.

    Args:
        first: (...), floating: what each map keeps of the class's probability, above black.
        second: (...), of the same shape.
        contributions: "clipped", "signed" or "unnormalised".

    Returns:
        Two arrays (...); in [0, 1] for "clipped".

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: for another mode, shapes that differ, or NaN or infinity.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import contribution_weights
        >>> contribution_weights(np.array(0.6), np.array(0.2))
        (array(0.75), array(0.25))
        >>> contribution_weights(np.array(0.6), np.array(-0.2))
        (array(1.), array(0.))
        >>> contribution_weights(np.array(0.6), np.array(-0.2), contributions="signed")
        (array(1.49999996), array(-0.49999999))
    """
    xp = array_namespace(first, second)
    require_shape(second, "second contributions", tuple(first.shape), "those of the first contributions")
    for name, values in (("first", first), ("second", second)):
        require_finite(require_float(values, name, xp), f"{name} contributions", xp)
    if require_word(contributions, "contributions", Contributions) == "unnormalised":
        return first, second
    # Their sum, too, is to be a number. Beside ones as large as this the epsilon of "signed" is nothing.
    both = xp.stack([first, second], axis=-1)
    one = unit(both, (both.ndim - 1,), xp=xp)[..., 0]
    one = xp.maximum(one, xp.ones_like(one))
    return _contribution_weights(first / one, second / one, contributions, xp=xp)


@as_one_program
def _contribution_weights(first: Array, second: Array, mode: Contributions, *, xp: Namespace) -> tuple[Array, Array]:
    if mode == "unnormalised":
        return first, second
    if mode == "signed":
        total = first + second + SIGNED_EPSILON
        return _shares(first, second, total, total == 0, xp=xp)
    first, second = (xp.maximum(values, xp.zeros_like(values)) for values in (first, second))
    total = first + second
    return _shares(first, second, total, total < float(xp.finfo(total.dtype).smallest_normal), xp=xp)


def _shares(first: Array, second: Array, total: Array, none: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Both divided by the total; equal shares where that is none."""
    safe = xp.where(none, xp.ones_like(total), total)
    half = xp.full_like(total, 0.5)
    return xp.where(none, half, first / safe), xp.where(none, half, second / safe)


@in_float32("first", "second")
def similarity(first: Array, second: Array) -> Array:
    """`clip(1 - |a - b|, 0, 1)` pixel by pixel, of two weighted maps (arXiv 2603.05386, step 3).

    Args:
        first: floating, any shape.
        second: floating, of a shape that broadcasts with it.

    Returns:
        In [0, 1]: 1 where the maps agree.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not broadcast, or values are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import similarity
        >>> similarity(np.array([0.9, 0.5, 0.0]), np.array([0.9, 0.25, 1.0]))
        array([1.  , 0.75, 0.  ])
    """
    xp = array_namespace(first, second)
    require_broadcast(first=first, second=second)
    for name, maps in (("first", first), ("second", second)):
        require_finite(require_float(maps, name, xp), f"{name} map", xp)
    return _similarity(first, second, xp=xp)


def _similarity(a: Array, b: Array, *, xp: Namespace) -> Array:
    # In halves, because a difference may be larger than any number. minimum: clip with Python bounds breaks a dynamic
    # torch.compile.
    apart = xp.abs(a * 0.5 - b * 0.5)
    return 1 - 2 * xp.minimum(apart, xp.full_like(apart, 0.5))


@in_float32("first", "second", "weights")
def fuse(first: Array, second: Array, *, weights: tuple[Array, Array] | None = None, spatial_ndim: int = 2) -> Array:
    """Similarity-based fusion: `N(s max(a, b) + (1 - s) (a + b) / 2)`, `s = similarity(a, b)`.

    arXiv 2603.05386, step 3. `a` and `b` are the maps times their weights: where they agree, the stronger
    one counts; where they differ, their mean.

    Args:
        first: (..., *spatial), floating; in the paper the union map.
        second: the same shape; in the paper the region map.
        weights: one factor a map, two arrays of the leading axes (...); None leaves the maps as they are.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (..., *spatial) in [0, 1].

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if shapes differ, values are NaN or infinite, or too large to be weighted.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import fuse
        >>> first, second = np.array([[1.0, 0.5, 0.0]]), np.array([[1.0, 0.5, 0.5]])  # alike on the left
        >>> fuse(first, second)
        array([[1. , 0.2, 0. ]])
        >>> fuse(first, second, weights=(np.array(0.75), np.array(0.25))).round(4)
        array([[1.    , 0.4462, 0.    ]])
    """
    xp = array_namespace(first, second)
    for name, maps in (("first", first), ("second", second)):
        require_finite(require_map(maps, name, spatial_ndim, xp), f"{name} map to fuse", xp)
    if tuple(first.shape) != tuple(second.shape):
        raise InvalidValueError(
            f"The maps to fuse have shapes {tuple(first.shape)} and {tuple(second.shape)}: resize one to the other's."
        )
    if weights is not None:
        first, second = (
            _weighted(maps, weight, spatial_ndim, xp=xp) for maps, weight in zip((first, second), weights, strict=True)
        )
    fused = _fused(first, second, _similarity(first, second, xp=xp), xp=xp)
    return _normalise(tamed(fused, -spatial_ndim, xp=xp), spatial_ndim, xp=xp)


def _weighted(maps: Array, weight: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """The maps times one factor each, if there are as many and no product leaves the dtype's range.

    Raises:
        ValueError: otherwise.
    """
    array_namespace(maps, weight)
    require_shape(weight, "weights", maps.shape[: maps.ndim - spatial_ndim], "one factor a map")
    require_finite(require_float(weight, "weights", xp), "weights", xp)
    most = float(xp.finfo(maps.dtype).smallest_normal) ** -0.5
    for name, values in (("maps", maps), ("weights", weight)):
        if not is_traced(values, xp) and bool(xp.any(xp.abs(values) > most)):
            raise InvalidValueError(
                f"{name} to fuse have values up to {float(xp.max(xp.abs(values))):.3g}: weighted ones were expected "
                f"below {most:.3g}. Normalise them first."
            )
    return maps * _over_space(weight, spatial_ndim, xp=xp)


def _fused(a: Array, b: Array, s: Array, *, xp: Namespace) -> Array:
    return s * xp.maximum(a, b) + (1 - s) * (a * 0.5 + b * 0.5)


@dataclass(frozen=True)
class Fusion:
    """The map of Fusion-CAM or Union-CAM and everything on the way to it.

    Attributes:
        maps: (..., *spatial) in [0, 1].
        parts: the stages, each like `maps`: "gradient" (Fusion-CAM), "denoised", "region", "union" and "similarity"
            (Fusion-CAM as published).
        weights: (...) each: "probability_*" under the black, denoised, region and union mask;
            "contribution_*", what each keeps above black; "weight_*" of the union; "fusion_weight_*" (Fusion-CAM as
            published).
        raw_range: (..., 2) the lowest and highest value of each map before it was last normalised, in weighted units of
            maps in [0, 1]; None of the variants "united" and "calibrated".

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import Fusion, fusion_cam
        >>> gradient, region = np.array([[1.0, 0.5, 0, 0]]), np.array([[1.0, 0.5, 0, 0.6]])
        >>> fusion = fusion_cam(gradient, region, lambda masks: masks[..., 0, 0])
        >>> isinstance(fusion, Fusion), fusion.parts["union"]
        (True, array([[1. , 0.5, 0. , 0.3]]))
    """

    maps: Array
    parts: dict[str, Array]
    weights: dict[str, Array]
    raw_range: Array | None = None


@in_float32("gradient", "region", "baseline", calls="probability")
def fusion_cam(
    gradient: Array,
    region: Array,
    probability: Callable[[Array], Array],
    *,
    baseline: Array | None = None,
    percentile: float = 10,
    contributions: Contributions = "clipped",
    variant: Variant = "published",
    spatial_ndim: int = 2,
) -> Fusion:
    """Fusion-CAM of a gradient map and a region map (arXiv 2603.05386, steps 1 to 3).

    In the variants "united" and "calibrated" step 3 is left out: the map is that of the union, or its square root. The
    root changes no pixel's rank; it lets a mask show more of what matters less.

    Args:
        gradient: (..., *spatial) in [0, 1], such as `grad_cam` gives.
        region: the same shape, such as `score_cam` gives.
        probability: called with masks shaped like the maps; returns the probability (...) of each map's
            target for its image times the mask.
        baseline: (...) the probabilities of the black image; None calls `probability` with zeros.
        percentile: of the gradient map, below which it is noise; in [0, 100].
        contributions: "clipped", "signed" or "unnormalised", see `contribution_weights`.
        variant: "published", "united" or "calibrated".
        spatial_ndim: how many of the last axes are space.

    Returns:
        The map, its stages and weights.

    Raises:
        TypeError: if the maps are not floating or of different libraries.
        ValueError: if shapes differ, values are NaN or infinite, maps or probabilities lie outside [0, 1], or an
            option is wrong.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import fusion_cam
        >>> gradient, region = np.array([[1.0, 0.5, 0, 0]]), np.array([[1.0, 0.5, 0, 0.6]])
        >>> probability = lambda masks: masks[..., :2].sum(axis=(-2, -1)) / 2  # of what the masks show on the left
        >>> fusion = fusion_cam(gradient, region, probability)
        >>> fusion.maps.round(4)
        array([[1.    , 0.5086, 0.    , 0.4107]])
        >>> sorted(fusion.parts)
        ['denoised', 'gradient', 'region', 'similarity', 'union']
        >>> float(fusion.weights["contribution_region"])
        0.75
    """
    xp = check_maps(spatial_ndim, gradient=gradient, region=region)
    require_percentage(percentile)
    require_word(contributions, "contributions", Contributions)
    require_word(variant, "variant", Variant)
    probability, baseline = checked_probability(probability, baseline, gradient, spatial_ndim, xp=xp)
    return _fusion_cam(gradient, region, probability, baseline, percentile, contributions, variant, spatial_ndim, xp=xp)


def check_maps(spatial_ndim: int, **maps: Array) -> Namespace:
    """The namespace of two maps of the same shape.

    Raises:
        TypeError: if they are not floating or of different libraries.
        ValueError: if shapes differ, or values are NaN, infinite or outside [0, 1].
    """
    (first, one), (second, other) = maps.items()
    xp = array_namespace(one, other)
    for name, each in maps.items():
        require_finite(require_map(each, name, spatial_ndim, xp), f"{name} map", xp)
        require_shares(each, f"The {name} map", xp)
    if tuple(one.shape) != tuple(other.shape):
        raise InvalidValueError(
            f"The {first} map has shape {tuple(one.shape)} and the {second} map {tuple(other.shape)}: "
            "they must be equal."
        )
    return xp


def checked_probability(
    probability: Callable[[Array], Array], baseline: Array | None, maps: Array, spatial_ndim: int, *, xp: Namespace
) -> tuple[Callable[[Array], Array], Array]:
    """A user's function of masks whose answers are looked at, and the probabilities of the black image.

    Raises:
        TypeError: if an answer is no floating array of the maps' library.
        ValueError: if it has not one value a map, or a value is NaN, infinite or outside [0, 1].
    """
    lead = tuple(maps.shape[: maps.ndim - spatial_ndim])

    def checked(values: Array) -> Array:
        array_namespace(maps, values)
        require_shape(values, "probabilities", lead, "one for each map")
        require_finite(require_float(values, "probabilities", xp), "probabilities of the masked images", xp)
        return require_shares(values, "probability", xp)

    def answered(masks: Array) -> Array:
        return checked(probability(masks))

    return answered, answered(xp.zeros_like(maps)) if baseline is None else checked(baseline)


def _fusion_cam(
    g: Array,
    r: Array,
    p: Callable[[Array], Array],
    p_0: Array,
    percentile: float,
    mode: Contributions,
    variant: Variant,
    spatial_ndim: int,
    *,
    xp: Namespace,
) -> Fusion:
    """Steps 1 to 3 in the paper's symbols; `p` gives the probabilities of the image times a mask, `p_0` of black."""
    d = _denoise(g, percentile, spatial_ndim, xp=xp)
    p_d, p_r = p(d), p(r)
    beta_d, beta_r, w_d, w_r, u = _union(d, r, p_d, p_r, p_0, mode, spatial_ndim, xp=xp)
    if variant != "published":
        ended = xp.sqrt(u) if variant == "calibrated" else u
        return _Symbols(g, r, p_0, d, p_d, p_r, beta_d, beta_r, w_d, w_r, u, fusion=ended).named()
    p_u = p(u)
    beta_u, v_u, v_r, s, fusion, raw_range = _fusion(u, r, p_u, p_0, w_r, mode, spatial_ndim, xp=xp)
    named = _Symbols(g, r, p_0, d, p_d, p_r, beta_d, beta_r, w_d, w_r, u, p_u, beta_u, v_u, v_r, s, fusion).named()
    return replace(named, raw_range=raw_range)


@as_one_program
def _union(
    d: Array, r: Array, p_d: Array, p_r: Array, p_0: Array, mode: Contributions, spatial_ndim: int, *, xp: Namespace
) -> tuple[Array, Array, Array, Array, Array]:
    """Step 2: what both maps contribute, their weights, and the union `N(w_d d + w_r r)`."""
    beta_d, beta_r = p_d - p_0, p_r - p_0
    w_d, w_r = _contribution_weights(beta_d, beta_r, mode, xp=xp)
    a, b = (_over_space(weight, spatial_ndim, xp=xp) * maps for weight, maps in ((w_d, d), (w_r, r)))
    return beta_d, beta_r, w_d, w_r, _normalise(a + b, spatial_ndim, xp=xp)


@as_one_program
def _fusion(
    u: Array, r: Array, p_u: Array, p_0: Array, w_r: Array, mode: Contributions, spatial_ndim: int, *, xp: Namespace
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Step 3: what the union contributes, the weights, the similarity, the fused map and what its range was."""
    beta_u = p_u - p_0
    # The published second step weighs the union's contribution against the region's *normalised* weight.
    v_u, v_r = _contribution_weights(beta_u, w_r, mode, xp=xp)
    a, b = (_over_space(weight, spatial_ndim, xp=xp) * maps for weight, maps in ((v_u, u), (v_r, r)))
    s = _similarity(a, b, xp=xp)
    fusion, low, high = _normalised(_fused(a, b, s, xp=xp), spatial_ndim, xp=xp)
    return beta_u, v_u, v_r, s, fusion, range_of(low, high, spatial_ndim, xp=xp)


class _Symbols(NamedTuple):
    """What Fusion-CAM works out, in that order and in the paper's symbols; None for what its variant leaves out.

    `g`, `d`, `r`, `u`, the similarity `s` and `fusion` are maps (..., *spatial). Of each map there is a probability
    (...) under it, a contribution `beta`, a weight `w` in the union and `v` in the fusion; `p_0` is the black image's.
    """

    g: Array
    r: Array
    p_0: Array
    d: Array
    p_d: Array
    p_r: Array
    beta_d: Array
    beta_r: Array
    w_d: Array
    w_r: Array
    u: Array
    p_u: Array = None
    beta_u: Array = None
    v_u: Array = None
    v_r: Array = None
    s: Array = None
    fusion: Array = None

    def named(self) -> Fusion:
        parts = {"gradient": self.g, "denoised": self.d, "region": self.r, "union": self.u, "similarity": self.s}
        weights = {
            "probability_baseline": self.p_0,
            "probability_denoised": self.p_d,
            "probability_region": self.p_r,
            "contribution_denoised": self.beta_d,
            "contribution_region": self.beta_r,
            "weight_denoised": self.w_d,
            "weight_region": self.w_r,
            "probability_union": self.p_u,
            "contribution_union": self.beta_u,
            "fusion_weight_union": self.v_u,
            "fusion_weight_region": self.v_r,
        }
        return Fusion(self.fusion, _worked_out(parts), _worked_out(weights))


def _worked_out(values: dict[str, Array]) -> dict[str, Array]:
    return {name: each for name, each in values.items() if each is not None}
