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
from fusioncam_core.arrays.namespaces import to_numpy

MODULES = {"torch": "torch", "tensorflow": "keras", "jax": "flax"}

GIVEN = (16, 64, 256)
"""Batches to compare with."""

MOST_TRIES = 20
"""How often a data set is explained at most before the batch is found."""

BOUND_DEFAULT = 1.10
"""So much longer than with the best of them it may take by default."""

BOUND_NETWORK = 0.6
"""The least share of the network's own throughput, at its best batch, that Grad-CAM has."""

CASES = {
    "Grad-CAM of ResNet8": (GradCAM, {}, 4096, "resnet8"),
    "Fusion-CAM of ResNet8": (FusionCAM, {}, 64, "resnet8"),
    "Grad-CAM of EfficientNet-Lite0": (GradCAM, {}, 64, "efficientnet_lite0"),
    "Fusion-CAM of EfficientNet-Lite0, budget=256": (FusionCAM, {"budget": 256}, 1, "efficientnet_lite0"),
}


@pytest.mark.parametrize("case", CASES)
def test_data_set(benchmark: Any, subject: Subject, case: str, rounds: int) -> None:
    method, options, count, network = CASES[case]
    model = importlib.import_module(f"examples.zoo.{network}_{MODULES[subject.framework]}").load().model
    channels, size = (1, (28, 28)) if network == "resnet8" else (3, (224, 224))
    first = method(model).adapter.input_channel_axis == 1
    shape = (count, channels, *size) if first else (count, *size, channels)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    given = [each for each in GIVEN if method is FusionCAM or each <= count]
    explainers = {
        "default": method(model, **options),
        **{str(size): method(model, batch_size=size, **options) for size in given},
    }

    def timed(explainer: Any) -> float:
        start = time.perf_counter()
        for _ in explainer.explain_many(images, progress=False):
            pass
        return time.perf_counter() - start

    def timed_alone(size: int) -> float:
        adapter = explainers["default"].adapter
        with adapter.session():
            run = adapter.compile(adapter.forward)
            start = time.perf_counter()
            for begin in range(0, count, size):
                made = run(adapter.as_array(images[begin : begin + size]))
            to_numpy(made)
            return time.perf_counter() - start

    default = explainers["default"]
    tries = 0
    while tries < MOST_TRIES and not (default._steps.searched is not None and default._steps.searched.settled):
        timed(default)
        tries += 1
    seconds: dict[str, list[float]] = {name: [] for name in explainers}
    for each in explainers.values():
        timed(each)  # what is compiled is compiled
    alone: dict[int, list[float]] = {} if method is FusionCAM else {size: [] for size in given}
    for size in alone:
        timed_alone(size)

    def all_of_them() -> None:
        for name, each in explainers.items():
            seconds[name].append(timed(each))
        for size, taken in alone.items():
            taken.append(timed_alone(size))

    benchmark.pedantic(all_of_them, rounds=rounds)
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
        "of_network": min(map(statistics.median, alone.values())) / medians["default"] if alone else None,
        "bound": BOUND_DEFAULT,
    }
