"""One small call of every public function of arrays, for what is too slow to run each of their tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fusioncam_core
import fusioncam_core.metrics as metrics

GENERATOR = np.random.default_rng(0)
ACTIVATIONS, GRADIENTS = GENERATOR.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
MAPS, REGION = GENERATOR.random((2, 2, 4, 5)).astype(np.float32)
MASKS = (MAPS > 0.4).astype(np.float32)
SCORES = GENERATOR.random((2, 3)).astype(np.float32)
BOXES = np.array([[1, 0, 3, 2], [0, 1, 4, 4]], dtype=np.float32)

Convert = Callable[[Any], Any]
Call = Callable[[Convert], Any]


def brightness(convert: Convert) -> Callable[..., Any]:
    """A scorer: how much of the image each mask shows."""
    return lambda masks, *images: convert(np.asarray(masks).mean(axis=(1, 2)))


def of_gradients(function: Callable[..., Any], **options: Any) -> Call:
    return lambda convert: function(convert(ACTIVATIONS), convert(GRADIENTS), **options)


def of_scores(function: Callable[..., Any], **options: Any) -> Call:
    return lambda convert: function(convert(ACTIVATIONS), brightness(convert), **options)


def of_both(function: Callable[..., Any], **options: Any) -> Call:
    return lambda convert: function(convert(MAPS), convert(REGION), **options)


def of_contributions(function: Callable[..., Any]) -> Call:
    return lambda convert: function(convert(MAPS), convert(REGION), brightness(convert)).maps


def of_masks(function: Callable[..., Any]) -> Call:
    return lambda convert: function(convert(MAPS), convert(MASKS))


def of_shares(function: Callable[..., Any], count: int) -> Call:
    return lambda convert: function(*(convert(0.5 * SCORES + number / 9) for number in range(count)))


core = fusioncam_core
CALLS: dict[str, Call] = {
    "ablation_cam": lambda convert: core.ablation_cam(
        convert(ACTIVATIONS), convert(SCORES[:, 0]), convert(SCORES - 0.5)
    ),
    "blur": lambda convert: core.blur(convert(MAPS), 1.5),
    "contribution_weights": lambda convert: core.contribution_weights(convert(SCORES[0]), convert(SCORES[1]))[0],
    "denoise": lambda convert: core.denoise(convert(MAPS), 30),
    "denoised_cam": of_gradients(core.denoised_cam),
    "eigen_cam": lambda convert: core.eigen_cam(convert(ACTIVATIONS)),
    "eigengrad_cam": of_gradients(core.eigengrad_cam),
    "fuse": of_both(core.fuse),
    "fusion_cam": of_contributions(core.fusion_cam),
    "grad_cam": of_gradients(core.grad_cam, size=(8, 9)),
    "grad_cam_plus_plus": of_gradients(core.grad_cam_plus_plus),
    "group_cam": lambda convert: core.group_cam(
        convert(ACTIVATIONS), convert(GRADIENTS), brightness(convert), groups=2
    ),
    "hires_cam": of_gradients(core.hires_cam),
    "is_cam": of_scores(core.is_cam, steps=3),
    "layer_cam": of_gradients(core.layer_cam),
    "normalise": lambda convert: core.normalise(convert(MAPS)),
    "percentile": lambda convert: core.percentile(convert(MAPS), 30),
    "resize": lambda convert: core.resize(convert(MAPS), (8, 9)),
    "rise": lambda convert: core.rise(convert(ACTIVATIONS), brightness(convert), masks=6, cells=2),
    "score_cam": of_scores(core.score_cam),
    "similarity": of_both(core.similarity),
    "smooth_grad_cam_plus_plus": lambda convert: core.smooth_grad_cam_plus_plus(
        convert(ACTIVATIONS), [convert(GRADIENTS), convert(GRADIENTS / 2)]
    ),
    "softmax": lambda convert: core.softmax(convert(SCORES)),
    "ss_cam": of_scores(core.ss_cam, samples=2),
    "union_cam": of_contributions(core.union_cam),
    "xgrad_cam": of_gradients(core.xgrad_cam),
    "adcc": of_shares(metrics.adcc, 3),
    "area": lambda convert: metrics.area([0, 0.5, 1], convert(SCORES)),
    "box_masks": lambda convert: metrics.box_masks(convert(BOXES), (4, 5)),
    "coherency": of_both(metrics.coherency),
    "complexity": lambda convert: metrics.complexity(convert(MAPS)),
    "drop": of_shares(metrics.drop, 2),
    "energy_in_mask": of_masks(metrics.energy_in_mask),
    "gain": of_shares(metrics.gain, 2),
    "grid_share": lambda convert: metrics.grid_share(convert(ACTIVATIONS[:, :2]), metrics.cell_masks(2, 1, (4, 5))),
    "impute": lambda convert: metrics.impute(convert(ACTIVATIONS[..., :2, :2]), convert(MASKS[:, :2, :2]), noise=0),
    "increase": of_shares(metrics.increase, 2),
    "infidelity": lambda convert: metrics.infidelity(
        convert(MAPS), convert(np.stack([MAPS, REGION])), convert(SCORES[:, :2])
    ),
    "iou": of_masks(metrics.iou),
    "iou_curve": lambda convert: metrics.iou_curve(convert(MAPS), convert(MASKS), thresholds=[0.25, 0.75]),
    "max_sensitivity": lambda convert: metrics.max_sensitivity(convert(MAPS), convert(np.stack([MAPS, REGION]))),
    "mosaic": lambda convert: metrics.mosaic(convert(ACTIVATIONS), 1, 2),
    "pointing_game": of_masks(metrics.pointing_game),
    "ranks": lambda convert: metrics.ranks(convert(MAPS)),
    "removal_masks": lambda convert: metrics.removal_masks(convert(MAPS), 7),
    "roc_auc": of_masks(metrics.roc_auc),
    "union_masks": lambda convert: metrics.union_masks(convert(MASKS)),
}
OTHERS = {
    "adapt_model",
    "array_namespace",
    "box_iou",
    "cell_masks",
    "evaluate",
    "figure",
    "grid_pointing_game",
    "load_model",
    "max_box_acc",
    "max_box_acc_v2",
    "measure_maps",
    "methods_figure",
    "object_boxes",
    "object_masks",
    "overlay",
    "pixel_average_precision",
    "randomisation_check",
    "rank_correlation",
    "removal_counts",
    "write_report",
}
"""Public functions that take no arrays of a library, or give none back."""
