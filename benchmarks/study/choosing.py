"""The forms of a fusion that are compared on the photographs for choosing: one change at a time, and all pairs."""

from __future__ import annotations

import numpy as np

from benchmarks.study.methods import GRADIENT, REGION, Form, gradient_map, region_map
from benchmarks.study.views import View

ONE_CHANGE: dict[str, Form] = {
    "published": Form(),
    "layer-cam": Form(gradient="layer-cam"),
    "grad-cam++": Form(gradient="grad-cam++"),
    "hires-cam": Form(gradient="hires-cam"),
    "score-cam by regression": Form(region="score-cam by regression"),
    "group-cam": Form(region="group-cam"),
    "equal weights": Form(weights="equal"),
    "no third step": Form(step=False),
    "percentile 0": Form(percentile=0),
    "percentile 30": Form(percentile=30),
}
"""From the published form, by what differs."""

PAIRS: dict[str, Form] = {
    f"{gradient} + {region}": Form(gradient=gradient, region=region, step=False)
    for gradient in GRADIENT
    for region in REGION
}
"""Every gradient method with every region method, united without the third step."""

EQUAL: dict[str, Form] = {
    f"{gradient} + {region}, equal weights": Form(gradient=gradient, region=region, step=False, weights="equal")
    for gradient, region in (
        ("grad-cam", "score-cam by regression"),
        ("grad-cam", "score-cam"),
        ("grad-cam", "group-cam"),
        ("layer-cam", "score-cam by regression"),
    )
}
"""Some pairs once more, half of each."""

CALIBRATED: dict[str, Form] = {
    f"{name}, {calibration}": Form(region=region, step=step, calibration=calibration)
    for name, region, step in (
        ("published", "score-cam", True),
        ("no third step", "score-cam", False),
        ("regression, no third step", "score-cam by regression", False),
    )
    for calibration in ("root", "kept")
}
"""Monotone transforms of three maps: these leave every rank as it is."""


def rank_maps(view: View) -> dict[str, np.ndarray]:
    """The maps (h, w) whose ranks differ, single methods among them."""
    singles = {name: gradient_map(view, name) for name in GRADIENT} | {name: region_map(view, name) for name in REGION}
    forms = {**ONE_CHANGE, **PAIRS, **EQUAL}
    found = {f"{name} alone": maps for name, maps in singles.items()} | {
        name: form(view) for name, form in forms.items()
    }
    return {name: maps[0, 0] for name, maps in found.items()}


def calibrated_maps(view: View) -> dict[str, np.ndarray]:
    """The maps (h, w) that differ in their values alone."""
    return {name: form(view)[0, 0] for name, form in CALIBRATED.items()}
