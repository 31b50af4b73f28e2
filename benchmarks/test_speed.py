"""Times beside the fastest that the network itself can be run, in the same minutes.

Every round times the network alone, before and after what is measured: on a machine that others use, only what was
measured side by side compares.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import Subject, Way, counted_traces
from fusioncam_core import FusionCAM, GradCAM, ScoreCAM

BOUND_EXACT, BOUND_FIVE, BOUND_GRADIENT = 1.10, 1.15, 1.3
SEARCHES = 8
"""Calls before the times count, in which the fastest batch is looked for."""


def interleaved(
    benchmark: Any, function: Callable[[], object], beside: Callable[[], float], rounds: int
) -> list[float]:
    """Times of the function, each divided by the mean of what `beside` gave before and after it."""
    before: list[float] = []
    benchmark.pedantic(function, setup=lambda: before.append(beside()), rounds=rounds)
    before.append(beside())
    return shares(benchmark.stats.stats.data, before)


def beside_network(benchmark: Any, subject: Subject, function: Callable[[], object], rounds: int) -> list[float]:
    """Times of the function over the network's for an image, in the way that is its fastest over all rounds."""
    before: list[dict[Way, float]] = []
    benchmark.pedantic(function, setup=lambda: before.append(subject.measure()), rounds=rounds)
    before.append(subject.measure())
    always = set(before[0]).intersection(*before)
    fastest = min(always, key=lambda way: statistics.median(each[way] for each in before))
    benchmark.extra_info["network_alone"] = list(fastest)
    return shares(benchmark.stats.stats.data, [each[fastest] for each in before])


def shares(times: list[float], before: list[float]) -> list[float]:
    """Each time over the mean of what was measured before and after it."""
    return [seconds / (before[i] + before[i + 1]) * 2 for i, seconds in enumerate(times)]


def settle(cam: Any, image: Any) -> tuple[float, int]:
    """The seconds of the first call; and how many calls it took to find the fastest batch."""
    start = time.perf_counter()
    cam(image)
    first = time.perf_counter() - start
    for calls in range(1, SEARCHES):
        if all(pace.settled for steps in cam._steps.values() for pace in steps._paces.values()):
            return first, calls
        cam(image)
    return first, SEARCHES


@pytest.mark.parametrize("method", [ScoreCAM, FusionCAM], ids=["score-cam", "fusion-cam"])
def test_exact(benchmark: Any, subject: Subject, rounds: int, method: Any) -> None:
    cam = method(subject.model, subject.layer)
    with counted_traces(cam.adapter) as traces:
        first, calls = settle(cam, subject.image)
        searched = len(traces)
        evaluations = cam(subject.image).evaluations
        times = beside_network(benchmark, subject, lambda: cam(subject.image), 2 * rounds)
        later = len(traces) - searched
    live = int(cam(subject.image).passes[0])
    assert evaluations <= live + 5
    (steps,) = cam._steps.values()
    (pace,) = steps._paces.values()
    benchmark.extra_info |= {
        "device": subject.device,
        "evaluations": evaluations,
        "live": live,
        "first_call": first,
        "calls_to_settle": calls,
        "batch": list(pace.way),
        "compilations": [searched, later] if subject.compiled else None,
        "ratio": statistics.median(times) / evaluations,
        "bound": BOUND_EXACT,
    }


def test_given_batch(benchmark: Any, subject: Subject, rounds: int) -> None:
    """Score-CAM with the batch and memory format in which the network alone is fastest: what the loop itself costs."""
    memory_format, size = subject.fastest_way()
    cam = ScoreCAM(subject.model, subject.layer, batch_size=size)

    def call() -> Any:
        with cam.adapter.memory_format(memory_format):
            return cam(subject.image)

    evaluations = call().evaluations
    times = beside_network(benchmark, subject, call, rounds)
    benchmark.extra_info |= {
        "batch": [memory_format, size],
        "evaluations": evaluations,
        "ratio": statistics.median(times) / evaluations,
        "bound": BOUND_EXACT,
    }


def test_five_classes(benchmark: Any, subject: Subject, rounds: int) -> None:
    cam = FusionCAM(subject.model, subject.layer)
    settle(cam, subject.image)
    top = np.argsort(-np.asarray(cam(subject.image).numpy().outputs[0]))[None, :5]

    def one() -> float:
        start = time.perf_counter()
        cam(subject.image, top[:, :1])
        return time.perf_counter() - start

    cam(subject.image, top)
    ratios = interleaved(benchmark, lambda: cam(subject.image, top), one, rounds)
    benchmark.extra_info |= {"ratio": statistics.median(ratios), "bound": BOUND_FIVE}


def test_gradient(benchmark: Any, subject: Subject) -> None:
    """Grad-CAM beside one forward pass and one backward pass to the layer, written by hand."""
    if subject.framework != "torch":
        pytest.skip("the bare passes are written for PyTorch")
    cam = GradCAM(subject.model, subject.layer)
    cam(subject.image)
    bare = bare_passes(subject)
    ratios = interleaved(benchmark, lambda: cam(subject.image), lambda: statistics.median(bare() for _ in range(5)), 40)
    benchmark.extra_info |= {"ratio": statistics.median(ratios), "bound": BOUND_GRADIENT}


def bare_passes(subject: Subject) -> Callable[[], float]:
    """One forward pass, and one backward pass from the top class to the layer: the seconds it takes."""
    import torch

    inputs = torch.from_numpy(subject.image).to(next(subject.model.parameters()).device)
    layer = subject.model.get_submodule(subject.layer)

    def run() -> float:
        start = time.perf_counter()
        kept = []

        def tap(module: Any, given: Any, output: Any) -> Any:
            torch.set_grad_enabled(True)
            kept.append(output.detach().requires_grad_(True))
            return kept[-1]

        handle = layer.register_forward_hook(tap)
        with torch.no_grad():
            outputs = subject.model(inputs)
        handle.remove()
        torch.autograd.grad(outputs.max(), kept[0])[0].mean().item()
        return time.perf_counter() - start

    return run
