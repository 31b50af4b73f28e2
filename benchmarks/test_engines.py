"""What an engine gains for masked images, what its conversion costs, and how far it moves maps.

python -m pytest benchmarks/test_engines.py -s --framework torch -o filterwarnings=default
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import Subject
from benchmarks.test_options import timed
from benchmarks.test_speed import interrupted
from fusioncam_core import FusionCAM, Preprocessing
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.models.batch_size import ModelBatching

ENGINES = [("openvino", "float32"), ("openvino", "bfloat16"), ("onnxruntime", "float32")]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "motorcycle_right")
"""Of scikit-image, whose maps are compared."""


def made(subject: Subject, engine: str, precision: Any, **options: Any) -> FusionCAM:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    if precision == "bfloat16":
        from fusioncam_core.plugins.engines import find_engine

        found = find_engine(engine)
        assert found is not None
        if found.unable("bfloat16") is not None:
            pytest.skip("a processor without bfloat16")
    return FusionCAM(subject.model, subject.layer, engine=engine, engine_precision=precision, **options)


@pytest.fixture(scope="session")
def plain(subject: Subject, masks: int | None) -> FusionCAM:
    """By the framework, in the batch that proved fastest."""
    cam = FusionCAM(subject.model, subject.layer, budget=masks)
    cam(subject.image)
    return cam


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_exact(
    benchmark: Any, subject: Subject, plain: FusionCAM, masks: int | None, rounds: int, engine: str, precision: str
) -> None:
    """Fusion-CAM, exact unless there is a budget, in turn with the framework's; and over the engine's own passes."""
    other = made(subject, engine, precision, budget=masks)
    first = timed(lambda: other(subject.image))
    other(subject.image)
    beside: list[float] = []
    benchmark.pedantic(
        lambda: other(subject.image),
        setup=lambda: beside.append(timed(lambda: plain(subject.image))),
        rounds=rounds,
    )
    times = benchmark.stats.stats.data
    expected, found = plain(subject.image), other(subject.image)
    benchmark.extra_info |= {
        "device": subject.device,
        "framework_batch": list(way_of(plain)),
        "evaluations": found.evaluations,
        "batch": list(way_of(other)),
        "first_call_more": first - statistics.median(times),
        "framework": statistics.median(beside),
        "call": statistics.median(times),
        "gain": statistics.median(b / t for t, b in zip(times, beside, strict=True)),
        "over_passes": statistics.median(over_passes(other, subject.image) for _ in range(3)),
        "largest_difference": float(np.abs(found.numpy().maps - expected.numpy().maps).max()),
    }
    print(engine, precision, benchmark.extra_info, flush=True)


def way_of(cam: FusionCAM) -> Any:
    """How the engine's images run."""
    return batching_of(cam).way


def batching_of(cam: FusionCAM) -> ModelBatching:
    batching = cam._steps.searched
    assert batching is not None
    return batching


def over_passes(cam: FusionCAM, image: Any) -> float:
    """A call over (evaluations x the engine's time an image in runs of its own batch, taken between its batches)."""
    batching = batching_of(cam)
    key, size = key_of(cam), batching.way.size
    kept = cam.adapter.converted[key]
    arguments = recorded(cam, image, size)
    with interrupted(batching, lambda: kept.run(arguments)) as alone:
        start = time.perf_counter()
        evaluations = cam(image).evaluations
        seconds = time.perf_counter() - start - sum(alone)
    return seconds / evaluations / (statistics.mean(alone) / size)


def key_of(cam: FusionCAM) -> Any:
    """By what the engine's one program is kept with the model."""
    (key,) = (key for key in cam.adapter.converted if key[:2] == (cam.engine.name, cam.engine.precision))
    return key


def recorded(cam: FusionCAM, image: Any, size: int) -> list[np.ndarray]:
    """What the engine is given for a full batch."""
    key = key_of(cam)
    kept = cam.adapter.converted[key]
    seen: list[list[np.ndarray]] = []

    def listening(arguments: Any) -> list[np.ndarray]:
        seen.append(list(arguments))
        return kept.run(arguments)

    cam.adapter.converted[key] = type(kept)(kept.weights, listening, kept.outputs, kept.form)
    cam(image)
    cam.adapter.converted[key] = kept
    return next(arguments for arguments in seen if len(arguments[0]) == size)


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_photographs(subject: Subject, plain: FusionCAM, masks: int | None, engine: str, precision: str) -> None:
    """How far exact maps move, of all photographs, whatever the noise of the machine."""
    from examples.zoo.photographs import photograph

    preprocessing = zoo_preprocessing(subject)
    other = made(subject, engine, precision, budget=masks)
    moved = []
    for name in PHOTOGRAPHS:
        image = preprocessing(read_photograph(photograph(name)))[None]
        moved.append(float(np.abs(other(image).numpy().maps - plain(image).numpy().maps).max()))
    print(engine, precision, len(moved), "photographs, mean and largest", np.mean(moved), max(moved), moved, flush=True)
    assert max(moved) <= (1e-4 if precision == "float32" else 0.1)


def zoo_preprocessing(subject: Subject) -> Preprocessing:
    """Of the network of this framework."""
    from importlib import import_module

    name = {"torch": "torch", "tensorflow": "keras", "jax": "flax"}[subject.framework]
    return import_module(f"examples.zoo.efficientnet_lite0_{name}").load().preprocessing
