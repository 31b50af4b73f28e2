"""Data sets: the batch that is found by default beside batches that are given, and the network alone.

pytest benchmarks/test_many.py --framework torch --benchmark-disable-gc
"""

from __future__ import annotations

import functools
import importlib
import statistics
import time
from collections.abc import Callable
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

ALONE = "alone"

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
    default = method(model, **options)
    images = _images(default, count, network)
    given = [each for each in GIVEN if method is FusionCAM or each <= count]
    tries = _until_settled(default, images)
    alone = default.adapter.compile(default.adapter.forward)
    seconds: dict[str, list[float]] = {}
    timed: dict[str, Callable[[], float]] = {"default": functools.partial(_explained, default, images)}
    for size in given:
        timed[str(size)] = functools.partial(_explained, method(model, batch_size=size, **options), images)
        if method is GradCAM:
            timed[f"{ALONE} {size}"] = functools.partial(_alone, default.adapter, alone, images, size)
    for each in timed.values():
        each()  # what is compiled is compiled

    def all_of_them() -> None:
        for name, each in timed.items():
            seconds.setdefault(name, []).append(each())

    benchmark.pedantic(all_of_them, rounds=rounds)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min(given, key=lambda size: medians[str(size)])
    ratios = [own / other for own, other in zip(seconds["default"], seconds[str(best)], strict=True)]
    network_alone = [each for name, each in medians.items() if name.startswith(ALONE)]
    benchmark.extra_info |= {
        "case": case,
        "images": count,
        "found": list(default._steps.searched.way),
        "tries": tries,
        "images_a_second": {name: count / median for name, median in medians.items()},
        "best": best,
        "ratio": statistics.median(ratios),
        "of_network": min(network_alone) / medians["default"] if network_alone else None,
        "bound": BOUND_DEFAULT,
    }


def _images(explainer: Any, count: int, network: str) -> np.ndarray:
    channels, size = (1, (28, 28)) if network == "resnet8" else (3, (224, 224))
    first = explainer.adapter.input_channel_axis == 1
    shape = (count, channels, *size) if first else (count, *size, channels)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _until_settled(explainer: Any, images: np.ndarray) -> int:
    """Explain the images until it is known how many at once are fastest: how often that was."""
    for tries in range(MOST_TRIES):
        searched = explainer._steps.searched
        if searched is not None and searched.settled:
            return tries
        _explained(explainer, images)
    return MOST_TRIES


def _explained(explainer: Any, images: np.ndarray) -> float:
    start = time.perf_counter()
    for _ in explainer.explain_many(images, progress=False):
        pass
    return time.perf_counter() - start


def _alone(adapter: Any, run: Callable[[Any], Any], images: np.ndarray, size: int) -> float:
    """The network without an explanation, in the framework's fastest way: compiled where it compiles."""
    with adapter.session():
        start = time.perf_counter()
        for begin in range(0, len(images), size):
            made = run(adapter.as_array(images[begin : begin + size]))
        to_numpy(made)
        return time.perf_counter() - start
