"""Other libraries' Score-CAM and Grad-CAM: the same network, layer and photograph, each at its best batch, in turn."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import Subject
from benchmarks.test_engines import made
from benchmarks.test_speed import settle
from fusioncam_core import FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.metrics import rank_correlation

TARGET = 967
PEERS = {"torch": ("of_torchcam", "of_pytorch_grad_cam"), "tensorflow": ("of_tf_keras_vis",)}
BATCHES = (2, 4, 8, 16, 32)
"""Tried for each peer, on a part of the channels."""

BOUNDS = {"exact": 1.5, "budget=128": 8.0}
ENGINE_BOUNDS: dict[str, dict[tuple[str, int | None], float]] = {
    "torch": {("float32", None): 6.0, ("bfloat16", None): 12.0, ("float32", 128): 25.0, ("bfloat16", 128): 25.0},
    "tensorflow": {("float32", None): 8.0, ("float32", 128): 25.0, ("bfloat16", 128): 25.0},
}
"""So many times as fast as the fastest peer's Score-CAM Fusion-CAM with OpenVINO is to be, by precision and budget."""

PART = 64
"""So many masks tell a peer's best batch."""

Call = Callable[[], object]


def seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peers_of(subject: Subject) -> dict[str, Any]:
    names = PEERS.get(subject.framework)
    if names is None:
        pytest.skip(f"no library computes Score-CAM on {subject.framework}")
    return {name.removeprefix("of_"): importlib.import_module(f"benchmarks.peers.{name}") for name in names}


def score_cams_of_peers(subject: Subject, batch: int) -> dict[str, Call]:
    """By the name of each peer, its Score-CAM of the subject's image."""
    return {
        name: (lambda module=module: module.score_cam(subject.model, subject.layer, subject.image, TARGET, batch))
        for name, module in peers_of(subject).items()
    }


def best_batch(subject: Subject) -> int:
    """The batch at which the network alone is fastest, in the layout that the peers use."""
    return subject.fastest_way(("as given", "contiguous"), BATCHES)[1]


def in_turn(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """The seconds of all calls, one after the other, again and again."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def test_score_cam(benchmark: Any, subject: Subject, rounds: int) -> None:
    batch = best_batch(subject)
    cams = {
        "exact": ScoreCAM(subject.model, subject.layer),
        "budget=128": ScoreCAM(subject.model, subject.layer, budget=128),
    }
    for cam in cams.values():
        settle(cam, subject.image)
    calls = score_cams_of_peers(subject, batch)
    calls["budget=128"] = lambda: cams["budget=128"](subject.image, TARGET)
    times = in_turn(calls, rounds)
    benchmark.pedantic(lambda: cams["exact"](subject.image, TARGET), rounds=rounds)
    times["exact"] = benchmark.stats.stats.data
    medians = {name: statistics.median(each) for name, each in times.items()}
    fastest = min((name for name in medians if name not in cams), key=medians.__getitem__)
    maps = {name: np.asarray(calls[name]()) for name in medians if name not in cams}
    benchmark.extra_info |= {
        "device": subject.device,
        "batch_of_peers": batch,
        "seconds": medians,
        "fastest_peer": fastest,
        "ratios": {name: medians[fastest] / medians[name] for name in cams},
        "bounds": BOUNDS,
        "likeness": {
            name: rank_correlation(each, cams["exact"](subject.image, TARGET).numpy().maps)
            for name, each in maps.items()
        },
    }


def test_fusion_cam_with_an_engine(benchmark: Any, subject: Subject, rounds: int) -> None:
    """Beside the peers' Score-CAM, which is a part of it."""
    batch, bounds = best_batch(subject), ENGINE_BOUNDS.get(subject.framework, {})
    calls = score_cams_of_peers(subject, batch)
    peers = list(calls)
    for precision, budget in bounds:
        cam = made(subject, "openvino", precision, budget=budget)
        settle(cam, subject.image)
        calls[f"{precision}, budget={budget}"] = lambda cam=cam: cam(subject.image, TARGET)
    times = in_turn(calls, rounds)
    medians = {name: statistics.median(each) for name, each in times.items()}
    fastest = min(peers, key=medians.__getitem__)
    exact = FusionCAM(subject.model, subject.layer)(subject.image, TARGET).numpy().maps
    own = [name for name in calls if name not in peers]
    benchmark.pedantic(calls[own[0]], rounds=1)
    benchmark.extra_info |= {
        "device": subject.device,
        "batch_of_peers": batch,
        "seconds": medians,
        "fastest_peer": fastest,
        "ratios": {name: medians[fastest] / medians[name] for name in own},
        "bounds": dict(zip(own, bounds.values(), strict=True)),
        "moved": {name: float(np.abs(calls[name]().numpy().maps - exact).max()) for name in own},  # type: ignore[attr-defined]
    }
    print(benchmark.extra_info, flush=True)


def test_grad_cam(benchmark: Any, subject: Subject) -> None:
    cam = GradCAM(subject.model, subject.layer)
    calls: dict[str, Call] = {
        name: (lambda module=module: module.grad_cam(subject.model, subject.layer, subject.image, TARGET))
        for name, module in peers_of(subject).items()
    }
    cam(subject.image, TARGET)
    in_turn(calls, 2)
    times = in_turn(calls, 15)
    benchmark.pedantic(lambda: cam(subject.image, TARGET), rounds=15, warmup_rounds=2)
    medians = {name: statistics.median(each) for name, each in times.items()}
    own = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info |= {"seconds": {**medians, "fusioncam": own}}
