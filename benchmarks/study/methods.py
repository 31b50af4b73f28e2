"""Maps of a view: single methods, forms of the fusion by what is changed, and maps that ask no network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.study.views import View
from fusioncam_core import (
    contribution_weights,
    denoise,
    denoised_cam,
    eigen_cam,
    fuse,
    grad_cam,
    grad_cam_plus_plus,
    group_cam,
    hires_cam,
    layer_cam,
    normalise,
    union_cam,
)
from fusioncam_core.methods.form import USUAL, finished
from fusioncam_core.methods.score import ChannelWeights, _mask_maps, _score_cam
from fusioncam_core.models.baselines import blurred_images

GRADIENT: Mapping[str, Callable[..., Any]] = {
    "grad-cam": grad_cam,
    "layer-cam": layer_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
}

GROUP_BLUR, GROUP_RADIUS = 25.0, 25
"""Of Group-CAM's erased image, as the published code of Fusion-CAM has it."""

POWERS = (1.0, 0.75, 0.5, 0.35, 0.25)
"""To which a map may be raised where a power is chosen for each image."""


def gradient_map(view: View, name: str) -> np.ndarray:
    """A gradient method's map (1, K, h, w)."""
    return view.map(name, lambda: GRADIENT[name](view.activations, view.gradients, size=view.size))


def _by_scores(view: View, channel_weights: ChannelWeights) -> np.ndarray:
    maps = _mask_maps(view.activations, channel_weights, xp=np)
    if channel_weights == "softmax":
        scores = view.scores.logits
    else:
        scores = view.scores.probabilities - view.black_probability[0][:, None]
    combined = _score_cam(maps, scores[None].astype(maps.dtype), channel_weights, xp=np)
    return np.asarray(finished(combined, view.size, USUAL, xp=np).maps)


def _by_groups(view: View) -> np.ndarray:
    erased = np.asarray(blurred_images(view.image[None], GROUP_BLUR, GROUP_RADIUS, 1, np))[0]
    black = view.of_targets(view.answers(erased[None]))

    def scorer(masks: np.ndarray, _: np.ndarray) -> np.ndarray:
        return view.of_targets(view.under(np.asarray(masks), erased)) - black

    return np.asarray(group_cam(view.activations, view.gradients, scorer, percentile=0, size=view.size))


REGION: Mapping[str, Callable[[View], np.ndarray]] = {
    "score-cam": functools.partial(_by_scores, channel_weights="softmax"),
    "score-cam by regression": functools.partial(_by_scores, channel_weights="regression"),
    "group-cam": _by_groups,
}


def region_map(view: View, name: str) -> np.ndarray:
    """A region method's map (1, K, h, w)."""
    return view.map(name, lambda: REGION[name](view))


@dataclass(frozen=True)
class Form:
    """A fusion of a gradient map and a region map, by what may be changed about it; as it stands, the published one.

    Attributes:
        gradient, region: the two methods.
        weights: of the union: what each map contributes, or equal ones.
        step: whether the union is fused with the region map by their similarity, the paper's third step.
        percentile: of the gradient map, below which it is noise.
        calibration: "none", "root", or "kept": the power at which an image keeps most under the least of a map.
    """

    gradient: str = "grad-cam"
    region: str = "score-cam"
    weights: Literal["contributions", "equal"] = "contributions"
    step: bool = True
    percentile: float = 10
    calibration: Literal["none", "root", "kept"] = "none"

    def __call__(self, view: View) -> np.ndarray:
        """The map (1, K, h, w)."""
        return view.map(self, lambda: self.of(view, gradient_map(view, self.gradient)))

    def of(self, view: View, gradient: np.ndarray) -> np.ndarray:
        """The map (1, K, h, w) of another first map than a gradient method's."""
        return calibrated(view, self._fused(view, gradient), self.calibration)

    def _fused(self, view: View, gradient: np.ndarray) -> np.ndarray:
        region, black = region_map(view, self.region), view.black_probability
        denoised = np.asarray(denoise(gradient, self.percentile))
        first = second = np.full_like(black, 0.5)
        if self.weights == "contributions":
            first, second = contribution_weights(view.probability(denoised) - black, view.probability(region) - black)
        union = np.asarray(normalise(_over(first) * denoised + _over(second) * region))
        if not self.step:
            return union
        weights = contribution_weights(view.probability(union) - black, np.asarray(second))
        return np.asarray(fuse(union, region, weights=weights))


def _over(weights: Any) -> np.ndarray:
    return np.asarray(weights)[..., None, None]


def calibrated(view: View, maps: np.ndarray, calibration: str) -> np.ndarray:
    """The maps (1, K, h, w) after a monotone transform of their values."""
    if calibration == "none":
        return maps
    if calibration == "root":
        return np.sqrt(maps)
    raised = [maps**power for power in POWERS]
    worth = np.stack([kept_for_area(view, each) for each in raised])
    return np.take_along_axis(np.stack(raised), worth.argmax(axis=0)[None, ..., None, None], axis=0)[0]


def kept_for_area(view: View, maps: np.ndarray) -> np.ndarray:
    """(1, K): the harmonic mean of what is kept of the probability and what is hidden of the image, as shares."""
    plain = view.of_targets(view.plain[None])
    kept = np.minimum(view.probability(maps) / np.maximum(plain, np.finfo(np.float32).tiny), 1)
    hidden = 1 - maps.mean(axis=(-2, -1))
    return np.where(kept + hidden > 0, 2 * kept * hidden / np.maximum(kept + hidden, np.finfo(np.float32).tiny), 0)


def _union(view: View) -> np.ndarray:
    denoised = denoised_cam(view.activations, view.gradients, size=view.size)
    region = region_map(view, "score-cam")
    return np.asarray(union_cam(denoised, region, view.probability, baseline=view.black_probability).maps)


def _eigen(view: View) -> np.ndarray:
    found = np.asarray(eigen_cam(view.activations, size=view.size))
    return np.broadcast_to(found[:, None], (1, len(view.targets), *view.size)).copy()


def _everywhere(view: View) -> np.ndarray:
    return np.ones((1, len(view.targets), *view.size), dtype=np.float32)


def _at_the_centre(view: View) -> np.ndarray:
    """A Gaussian with a quarter of the side for its standard deviation, scaled to [0, 1]."""
    axes = [np.linspace(-0.5, 0.5, length, dtype=np.float32) for length in view.size]
    bell = np.exp(-8 * (axes[0][:, None] ** 2 + axes[1] ** 2))
    return np.broadcast_to(np.asarray(normalise(bell)), (1, len(view.targets), *view.size)).copy()


PUBLISHED = Form()
CALIBRATED = Form(region="score-cam by regression", step=False, calibration="root")
UNITED = Form(region="score-cam by regression", step=False)

METHODS: dict[str, Callable[[View], np.ndarray]] = {
    **{name: functools.partial(gradient_map, name=name) for name in ("grad-cam", "grad-cam++", "layer-cam")},
    "eigen-cam": _eigen,
    **{name: functools.partial(region_map, name=name) for name in REGION},
    "union-cam": _union,
    "fusion-cam": PUBLISHED,
    "fusion-cam calibrated": CALIBRATED,
    "fusion-cam united": UNITED,
    "ones": _everywhere,
    "centre": _at_the_centre,
}
"""What is reported on photographs."""

CENTRAL = (
    "grad-cam",
    "layer-cam",
    "score-cam",
    "group-cam",
    "fusion-cam",
    "fusion-cam calibrated",
    "fusion-cam united",
    "centre",
)
"""What is reported where a run of the network takes long: the chosen form, those that it is held against, a control."""
