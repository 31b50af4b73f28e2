"""Group-CAM: the channels, weighed by their gradients, mask the input in groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from fusioncam_core.approximation.gaussian_process import squared_distances
from fusioncam_core.arrays.checks import require_count, require_finite, require_percentage, require_word
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, to_numpy
from fusioncam_core.arrays.precision import in_float32, tamed
from fusioncam_core.arrays.words import _map_size, _normalise, _percentile, _resize, product, relu
from fusioncam_core.methods.form import Combined, Form, finished
from fusioncam_core.methods.gradient import _check_pair
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk, ScoreMaps, Scorer, live_channels, scored, weighted_masks
from fusioncam_core.models.steps import skip

Grouping = Literal["order", "k-means"]

PERCENTILE = 70
"""As in the authors' code, `cam/groupcam.py` of github.com/wofmanaf/Group-CAM."""

ROUNDS = 100
"""The most rounds of k-means; it stops when no channel changes its group."""


@in_float32("activations", "gradients", calls="scorer")
def group_cam(
    activations: Array,
    gradients: Array,
    scorer: Scorer,
    *,
    groups: int = 32,
    grouping: Grouping = "order",
    percentile: float = PERCENTILE,
    seed: int = 0,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    batch_size: int = 32,
    map_size: Sequence[int] | None = None,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Group-CAM: `N(sum_g relu(p_g - p_0) M_g)`, with masks `M_g = N(U(relu(sum_{k in g} mean_ij(dy_c/dA_k) A_k)))`.

    Zhang et al., Group-CAM (arXiv 2103.13859), with the denoising of their code (github.com/wofmanaf/Group-CAM). `p_g`
    is the probability for `I M_g + E (1 - M_g)` and `p_0` the one for `E`, a strongly blurred image: in their code by a
    Gaussian of standard deviation 50 in a window of 51 pixels. A group that lowers the probability adds nothing, as in
    the published Fusion-CAM code; theirs lets it take away from the others before their sum is cut at 0. Groups whose
    mask is constant are not scored: they cannot matter.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        gradients: of the targets' logits, shaped like the activations, or (B, K, ...) for K targets an image.
        scorer: called with at most `batch_size` masks (n, *size) and the integer indices (n,) of their images;
            returns the increases `p_g - p_0`, (n,) or (n, K) for K targets, of which the mask's own is taken.
        groups: how many; all channels on their own if there are fewer.
        grouping: "order" (neighbouring channels, groups of equal size or one less) or "k-means" (of the weighed
            channels' maps, each image and target by itself).
        percentile: values of a group's map not above it are 0, before the resize; 0 leaves the step out, as the
            published Fusion-CAM code does.
        seed: of k-means.
        size: the spatial size of masks and map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1.
        batch_size: the most masks scored at once.
        map_size: the spatial size of the map alone, such as the layer's: of the groups' maps before they are summed.
            None takes `size`.
        relu: False lets a group that lowers the probability take away from the sum.
        normalised: False gives the sum itself.

    Returns:
        (B, *map_size), or (B, K, *map_size) if the gradients came with K, in [0, 1]; without the relu in [-1, 1], each
        map divided by its largest magnitude.

    Raises:
        TypeError: if an array is not floating, or they are of different libraries.
        ValueError: if shapes or options do not fit, or activations, gradients or scores are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import group_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> red = activations[0, 0]
        >>> scorer = lambda masks, images: (masks * red).mean(axis=(1, 2))
        >>> group_cam(activations, gradients, scorer, percentile=0)
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    check_groups(groups, grouping, percentile, seed)
    form = Form(relu, normalised)
    xp = array_namespace(activations, gradients)
    activations, gradients, several = _check_pair(activations, gradients, channel_axis, xp)
    extent = _map_size(size, activations)

    def score_maps(maps: Array, chunk: Chunk) -> Array:
        masks = _normalise(_resize(maps, extent, xp=xp), len(extent), xp=xp)
        increases = scorer(masks, chunk.owners)
        return increases if increases.ndim == 2 else xp.expand_dims(increases, axis=1)

    maps = group_maps(activations, gradients, groups, grouping, percentile, seed, xp=xp)
    own_size = extent if map_size is None else _map_size(map_size, activations)
    combined = _group_cam(maps, score_maps, own_size, form, batching=Batching(batch_size), xp=xp)
    result = finished(combined, own_size, form, xp=xp).maps
    return result if several else result[:, 0, ...]


def check_groups(groups: int, grouping: Grouping, percentile: float, seed: int) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: naming the first.
    """
    require_count(groups, "groups")
    require_count(seed, "seed", least=0)
    require_percentage(percentile)
    require_word(grouping, "grouping", Grouping)


def group_maps(
    activations: Array,
    gradients: Array,
    groups: int,
    grouping: Grouping,
    percentile: float,
    seed: int,
    *,
    xp: Namespace,
) -> Array:
    """The groups' `relu(sum_{k in g} w_k A_k)`: (B, C, *spatial), (B, K, C, *spatial) -> (B, K, G, *spatial)."""
    activations, gradients = tamed(activations, 1, xp=xp), tamed(gradients, 2, xp=xp)
    batch, several, channels, *space = gradients.shape
    axes = tuple(range(-len(space), 0))
    weighted = xp.mean(gradients, axis=axes, keepdims=True) * xp.expand_dims(activations, axis=1)
    weighted = xp.reshape(weighted, (batch, several, channels, -1))
    members = _members(weighted, min(groups, channels), grouping, seed)
    maps = relu(product(constant_like(members, weighted, xp), weighted, xp=xp), xp=xp)
    if percentile:
        threshold = xp.expand_dims(_percentile(maps, percentile, 1, xp=xp), axis=-1)
        maps = xp.where(maps > threshold, maps, xp.zeros_like(maps))
    return xp.reshape(maps, (batch, several, -1, *space))


def _members(weighted: Array, groups: int, grouping: Grouping, seed: int) -> np.ndarray[Any, Any]:
    """(B, K, G, C) ones where a channel is in a group, of weighed channels (B, K, C, pixels)."""
    batch, several, channels, pixels = weighted.shape
    labels: np.ndarray[Any, Any]
    if grouping == "order":
        labels = np.concatenate([np.full(len(p), g) for g, p in enumerate(np.array_split(np.arange(channels), groups))])
        labels = np.broadcast_to(labels, (batch, several, channels))
    else:
        points = to_numpy(weighted).astype(np.float64).reshape(-1, channels, pixels)
        labels = np.stack([k_means(each, groups, seed) for each in points]).reshape(batch, several, channels)
    members: np.ndarray[Any, Any] = labels[:, :, None, :] == np.arange(groups)[:, None]
    return members.astype(np.float32)


def k_means(points: np.ndarray[Any, Any], groups: int, seed: int) -> np.ndarray[Any, Any]:
    """The group (n,) of each point (n, d): Lloyd's algorithm from a k-means++ start, repeatable by its seed.

    A group that loses all its points keeps its centre.
    """
    centres = _spread_centres(points, groups, np.random.default_rng(seed))
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        nearest = squared_distances(points, centres).argmin(axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        for group in np.unique(labels):
            centres[group] = points[labels == group].mean(axis=0)
    return labels


def _spread_centres(points: np.ndarray[Any, Any], groups: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Points drawn one by one with a probability that grows with the squared distance to those drawn (k-means++)."""
    chosen = [int(generator.integers(len(points)))]
    while len(chosen) < groups:
        distances = squared_distances(points, points[chosen]).min(axis=1)
        total = distances.sum()
        draw = generator.random()
        chosen.append(int(np.searchsorted(np.cumsum(distances), draw * total)) if total > 0 else chosen[0])
    centres: np.ndarray[Any, Any] = points[chosen]
    return centres


def _group_cam(
    maps: Array,
    score_maps: ScoreMaps,
    size: tuple[int, ...],
    form: Form,
    *,
    batching: Batching,
    xp: Namespace,
    advance: Callable[[int], object] = lambda masks: None,
) -> Combined:
    """Groups' maps (B, K, G, *spatial) and their increases (n, K) -> (B, K, *size); the relu is each group's."""
    batch, several, groups, *space = maps.shape
    flat = xp.reshape(maps, (batch * several, groups, *space))
    live = live_channels(flat, xp=xp)
    skip(advance, int((~live).sum()))
    rows, groups_of = np.nonzero(live)
    total = xp.zeros_like(_resize(flat[:, 0, ...], size, xp=xp))

    def score_groups(chosen: Array, chunk: Chunk) -> Array:
        """What some groups, of the rows that the chunk calls images, add to the maps of all rows."""
        own = dataclasses.replace(chunk, images=chunk.images // several, owners=chunk.owners // several)
        increases = score_maps(chosen, own)
        if several > 1:
            increases = xp.take_along_axis(increases, xp.expand_dims(chunk.owners % several, axis=1), axis=1)
        masks = _normalise(_resize(chosen, size, xp=xp), len(size), xp=xp)
        weights = relu(increases, xp=xp) if form.relu else increases
        summed = weighted_masks(masks, weights, chunk.images, chunk.count, batch * several, xp=xp)
        return summed[:, 0, ...]

    for added, _ in scored(flat, rows, groups_of, score_groups, batching=batching, xp=xp, advance=advance):
        total = total + added
    require_finite(total, "scores of the masked images", xp)
    return Combined(xp.reshape(total, (batch, several, *size)), cut="none")
