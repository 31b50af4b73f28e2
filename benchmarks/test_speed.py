"""Times beside the fastest that the network itself can be run.

On a machine that others use, only what was measured side by side compares: a second of one thing and then a second of
another differ by a fifth there. So between the batches of an exact map the network alone runs one of its own, and other
things are timed in turns.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks.subjects import Subject, counted_traces
from fusioncam_core import FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.arrays import one_thread
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.models.batch_search import AutoBatching
from fusioncam_core.models.batch_size import ModelBatching

BOUND_EXACT, BOUND_FIVE, BOUND_GRADIENT = 1.10, 1.15, 1.3
BOUND_PROBING = 0.03
METHODS = pytest.mark.parametrize("method", [ScoreCAM, FusionCAM], ids=["score-cam", "fusion-cam"])
SEARCHES = 8
"""Calls before the times count, in which the fastest batch is looked for."""


def interleaved(
    benchmark: Any, function: Callable[[], object], beside: Callable[[], float], rounds: int
) -> list[float]:
    """Times of the function, each divided by the mean of what `beside` gave before and after it."""
    before: list[float] = []
    benchmark.pedantic(function, setup=lambda: before.append(beside()), rounds=rounds)
    before.append(beside())
    times = benchmark.stats.stats.data
    return [seconds / (before[i] + before[i + 1]) * 2 for i, seconds in enumerate(times)]


def beside_network(benchmark: Any, subject: Subject, cam: Any, call: Callable[[], Any], rounds: int) -> None:
    """Times exact maps, the network alone running between their batches, in the way that is its fastest."""
    for _ in range(2):
        subject.measure()
    way = subject.fastest_way()
    evaluations = call().evaluations
    (batching,) = cam._steps._batchings.values()
    calls: list[float] = []
    ratios: list[float] = []

    def both() -> None:
        with interrupted(batching, subject.runner(way)) as alone:
            start = time.perf_counter()
            call()
            calls.append(time.perf_counter() - start - sum(alone))
        ratios.append(calls[-1] / evaluations / (statistics.mean(alone) / way[1]))

    benchmark.pedantic(both, rounds=rounds)
    benchmark.extra_info |= {
        "device": subject.device,
        "evaluations": evaluations,
        "batch": list(batching.way) if isinstance(batching, AutoBatching) else None,
        "network_alone": list(way),
        "call": statistics.median(calls),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "bound": BOUND_EXACT,
    }


@contextmanager
def interrupted(batching: ModelBatching, run: Callable[[], object]) -> Iterator[list[float]]:
    """A context in which something else runs after each batch of the batching: the seconds that it took, each time."""
    seconds: list[float] = []
    over = batching.over

    def with_breaks(*arguments: Any, **options: Any) -> Iterator[Any]:
        for result, count in over(*arguments, **options):
            to_numpy(result)
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            yield result, count

    batching.over = with_breaks  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        del batching.over


def settle(cam: Any, image: Any) -> tuple[float, int]:
    """The seconds of the first call; and how many calls it took to find the fastest batch."""
    start = time.perf_counter()
    cam(image)
    first = time.perf_counter() - start
    for calls in range(1, SEARCHES):
        if all(batching.settled for batching in cam._steps._batchings.values()):
            return first, calls
        cam(image)
    return first, SEARCHES


@METHODS
def test_exact(benchmark: Any, subject: Subject, rounds: int, method: Any) -> None:
    cam = method(subject.model, subject.layer)
    with counted_traces(cam.adapter) as traces:
        first, calls = settle(cam, subject.image)
        searched = len(traces)
        beside_network(benchmark, subject, cam, lambda: cam(subject.image), rounds)
        later = len(traces) - searched
    live = int(cam(subject.image).masks_run[0])
    assert benchmark.extra_info["evaluations"] <= live + 5
    benchmark.extra_info |= {
        "live": live,
        "first_call": first,
        "calls_to_settle": calls,
        "compilations": [searched, later] if subject.compiled else None,
    }


@METHODS
def test_given_batch(benchmark: Any, subject: Subject, rounds: int, method: Any) -> None:
    """With the batch and memory format in which the network alone is fastest: what the loop itself costs."""
    memory_format, size = subject.fastest_way()
    cam = method(subject.model, subject.layer, batch_size=size)

    def call() -> Any:
        with cam.adapter.memory_format(memory_format):
            return cam(subject.image)

    beside_network(benchmark, subject, cam, call, rounds)
    benchmark.extra_info["batch"] = [memory_format, size]


@pytest.mark.parametrize("budget", [None, 128])
def test_beside_each_other(benchmark: Any, subject: Subject, rounds: int, budget: int | None) -> None:
    """What JAX gains on a processor by programs that run beside each other: the same calls without, in turn."""
    if subject.framework != "jax":
        pytest.skip("other frameworks share each run out among all cores by themselves")
    from fusioncam_jax import lanes

    _, size = subject.fastest_way()
    cam = FusionCAM(subject.model, subject.layer, batch_size=size, budget=budget)
    several, alone = [lanes._lanes()], []

    def one_by_one() -> float:
        lanes._OF_PROCESS[:] = [None]
        try:
            start = time.perf_counter()
            cam(subject.image)
            return time.perf_counter() - start
        finally:
            lanes._OF_PROCESS[:] = several

    for _ in range(2):
        cam(subject.image)
    benchmark.pedantic(lambda: cam(subject.image), setup=lambda: alone.append(one_by_one()), rounds=rounds)
    times = benchmark.stats.stats.data
    benchmark.extra_info |= {
        "device": subject.device,
        "batch": size,
        "evaluations": cam(subject.image).evaluations,
        "lanes": None if several[0] is None else several[0].count,
        "call": statistics.median(times),
        "one_by_one": statistics.median(alone),
        "gain": statistics.median(other / own for own, other in zip(times, alone, strict=True)),
    }
    print(benchmark.extra_info, flush=True)


@pytest.mark.parametrize("budget", [32, 128])
def test_numpys_threads_at_rest(benchmark: Any, subject: Subject, rounds: int, budget: int) -> None:
    """What a map within a budget gains by it: the same calls without, in turn."""
    _, size = subject.fastest_way()
    cam, awake = FusionCAM(subject.model, subject.layer, batch_size=size, budget=budget), []

    def with_threads() -> float:
        with mock.patch.object(one_thread, "_libraries", return_value=()):
            start = time.perf_counter()
            cam(subject.image)
            return time.perf_counter() - start

    for _ in range(2):
        cam(subject.image)
    benchmark.pedantic(lambda: cam(subject.image), setup=lambda: awake.append(with_threads()), rounds=rounds)
    times = benchmark.stats.stats.data
    benchmark.extra_info |= {
        "budget": budget,
        "batch": size,
        "call": statistics.median(times),
        "awake": statistics.median(awake),
        "gain": statistics.median(other / own for own, other in zip(times, awake, strict=True)),
    }
    print(benchmark.extra_info, flush=True)


def test_five_classes(benchmark: Any, subject: Subject, rounds: int) -> None:
    cam = FusionCAM(subject.model, subject.layer)
    settle(cam, subject.image)
    top = np.argsort(-np.asarray(cam(subject.image).numpy().class_probabilities[0]))[None, :5]

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


def test_probing(benchmark: Any, subject: Subject) -> None:
    """What measuring the layers adds to the first explanation, as a share of exact Fusion-CAM of one image.

    The first call of an explainer without a layer lists the layers, measures them and explains; a later explainer of
    the model only explains. A list was needed before anything was measured, to take the last layer with space.
    """
    if subject.framework != "torch":
        pytest.skip("a copy of the model that was never explained is made of a PyTorch module")
    extra: list[float] = []

    def first() -> None:
        model = copy.deepcopy(subject.model)
        start = time.perf_counter()
        GradCAM(model)(subject.image)
        whole = time.perf_counter() - start
        adapter = GradCAM(model).adapter
        start = time.perf_counter()
        adapter.layers(adapter.as_array(subject.image))
        listing = time.perf_counter() - start
        start = time.perf_counter()
        GradCAM(model)(subject.image)
        extra.append(whole - listing - (time.perf_counter() - start))

    benchmark.pedantic(first, rounds=15, warmup_rounds=2)
    cam = FusionCAM(subject.model)
    settle(cam, subject.image)
    start = time.perf_counter()
    cam(subject.image)
    whole = time.perf_counter() - start
    share = statistics.median(extra) / whole
    benchmark.extra_info |= {"extra": statistics.median(extra), "call": whole, "share": share, "bound": BOUND_PROBING}


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
