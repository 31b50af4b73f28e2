"""Data sets: the batch that is found by default beside batches that are given, and the network alone.

pytest benchmarks/test_many.py --framework torch --benchmark-disable-gc
"""

from __future__ import annotations

import importlib
import statistics
import time
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import Subject
from fusioncam_core import FusionCAM, GradCAM

MODULES = {"torch": "torch", "tensorflow": "keras", "jax": "flax"}

GIVEN = (16, 64, 256)
"""Batches to compare with."""

BOUND_DEFAULT = 1.10
"""So much longer than with the best of them it may take by default."""


ROUNDS = 5

CASES = {
    "Grad-CAM of ResNet8": (GradCAM, 4096, "resnet8"),
    "Fusion-CAM of ResNet8": (FusionCAM, 64, "resnet8"),
    "Grad-CAM of EfficientNet-Lite0": (GradCAM, 96, "efficientnet_lite0"),
}


@pytest.mark.parametrize("case", CASES)
def test_data_set(benchmark: Any, subject: Subject, case: str) -> None:
    method, count, network = CASES[case]
    model = importlib.import_module(f"examples.zoo.{network}_{MODULES[subject.framework]}").load().model
    channels, size = (1, (28, 28)) if network == "resnet8" else (3, (224, 224))
    first = method(model).adapter.input_channel_axis == 1
    shape = (count, channels, *size) if first else (count, *size, channels)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    given = [each for each in GIVEN if each <= count]
    explainers = {"default": method(model), **{str(size): method(model, batch_size=size) for size in given}}

    def timed(explainer: Any) -> float:
        start = time.perf_counter()
        for _ in explainer.explain_many(images, progress=False):
            pass
        return time.perf_counter() - start

    default = explainers["default"]
    tries = 0
    while tries < 20 and not (default._steps.searched is not None and default._steps.searched.settled):
        timed(default)
        tries += 1
    seconds: dict[str, list[float]] = {name: [] for name in explainers}
    for each in explainers.values():
        timed(each)  # what is compiled is compiled

    def all_of_them() -> None:
        for name, each in explainers.items():
            seconds[name].append(timed(each))

    benchmark.pedantic(all_of_them, rounds=ROUNDS)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min(given, key=lambda size: medians[str(size)])
    ratios = [own / other for own, other in zip(seconds["default"], seconds[str(best)], strict=True)]
    way = default._steps.searched.way
    benchmark.extra_info |= {
        "case": case,
        "images": count,
        "found": list(way),
        "tries": tries,
        "images_a_second": {name: count / median for name, median in medians.items()},
        "best": best,
        "ratio": statistics.median(ratios),
        "bound": BOUND_DEFAULT,
    }
