"""What the options of the PyTorch backend gain, and what they cost in accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import Subject
from benchmarks.test_speed import settle
from fusioncam_core import ScoreCAM

OPTIONS: dict[str, dict[str, Any]] = {
    "compile=True": {"backend_options": {"compile": True}},
    "autocast='bfloat16'": {"backend_options": {"autocast": "bfloat16"}},
}


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize("name", list(OPTIONS))
def test_option(benchmark: Any, subject: Subject, rounds: int, name: str) -> None:
    if subject.framework != "torch":
        pytest.skip("options of the PyTorch backend")
    plain, other = (ScoreCAM(subject.model, subject.layer, budget=128, **more) for more in ({}, OPTIONS[name]))
    settle(plain, subject.image)
    first, _ = settle(other, subject.image)
    beside: list[float] = []
    benchmark.pedantic(
        lambda: other(subject.image),
        setup=lambda: beside.append(timed(lambda: plain(subject.image))),
        rounds=rounds,
    )
    exact = ScoreCAM(subject.model, subject.layer, budget=128, batch_size=8)(subject.image).numpy().maps
    changed = ScoreCAM(subject.model, subject.layer, budget=128, batch_size=8, **OPTIONS[name])(subject.image)
    difference = np.abs(changed.numpy().maps - exact)
    benchmark.extra_info |= {
        "first_call": first,
        "ratio": statistics.median(t / b for t, b in zip(benchmark.stats.stats.data, beside, strict=True)),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }


def test_inference_mode(benchmark: Any, subject: Subject) -> None:
    """Whether `inference_mode` is faster than the `no_grad` that the backend uses: runs of four images in turn."""
    if subject.framework != "torch":
        pytest.skip("a question about PyTorch")
    import torch

    inputs = torch.from_numpy(np.concatenate([subject.image] * 4)).to(next(subject.model.parameters()).device)

    def run(context: Callable[[], Any]) -> None:
        with context():
            subject.model(inputs)[0, 0].item()

    run(torch.no_grad)
    beside: list[float] = []
    benchmark.pedantic(
        lambda: run(torch.inference_mode),
        setup=lambda: beside.append(timed(lambda: run(torch.no_grad))),
        rounds=40,
    )
    ratios = [t / b for t, b in zip(benchmark.stats.stats.data, beside, strict=True)]
    benchmark.extra_info |= {"ratio": statistics.median(ratios)}
