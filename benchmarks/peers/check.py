"""Whether the peers run, how often they run the model, and how much their maps resemble ours.

    python -m benchmarks.peers.check
    python -m benchmarks.peers.check --frameworks keras --batch-size 8

One photograph, one class, the 1280 maps of EfficientNet-Lite0's head. Every Grad-CAM runs twice and the second run
counts, which leaves out what a first call compiles; every Score-CAM runs once. The times are those of one run, beside
whatever else the machine does: look for orders of magnitude in them. The exit status is 1 if a map resembles ours too
little.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.peers.layers import HEAD_MAPS, KERAS_HEAD, TORCH_HEAD, separate_activations
from examples.zoo.architecture import IMAGE_SIZE
from examples.zoo.photographs import photograph
from fusioncam_core import GradCAM, LoadedModel, ScoreCAM
from fusioncam_core.data.preprocessing import read_photograph

TARGET = 967  # espresso
OURS = "fusioncam"
ADAPTERS = {
    "torch": {"pytorch-grad-cam": "of_pytorch_grad_cam", "torch-cam": "of_torchcam"},
    "keras": {"tf-keras-vis": "of_tf_keras_vis"},
}
"""The peers of each framework, and their adapters in this folder."""

LEAST_LIKENESS = 0.95
"""Rank correlation. The libraries enlarge maps in two ways, corner to corner or pixel to pixel, and between the two it
is 0.97 on this photograph; the maps of a wrong layer come to less than 0.5."""

Explain = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A network to explain: where its maps are, an image of it, and how many images it has seen so far."""

    model: Any
    layer: str
    images: np.ndarray
    seen: Callable[[], int]


@dataclass(frozen=True)
class Run:
    """One explanation: its map (H, W), how long it took, all cores' work on it, and the images the model saw."""

    map: np.ndarray
    seconds: float
    cpu_seconds: float
    images: int

    def __str__(self) -> str:
        return f"{self.seconds:9.2f}{self.cpu_seconds:9.2f}{self.images:8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.check")
    parser.add_argument("--frameworks", nargs="+", choices=sorted(ADAPTERS), default=list(ADAPTERS))
    parser.add_argument("--batch-size", type=int, default=32, help="of every Score-CAM (%(default)s)")
    options = parser.parse_args(arguments)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(f"{'framework':10}{'method':11}{'library':18}{'seconds':>9}{'of CPU':>9}{'images':>8}{'Spearman':>10}")
    likenesses = [each for framework in options.frameworks for each in _compare(framework, options.batch_size)]
    return 0 if min(likenesses) >= LEAST_LIKENESS else 1


def _compare(framework: str, batch_size: int) -> Iterator[float]:
    """Prints a line for each run; the values are how much its map resembles ours."""
    subject = SUBJECTS[framework]()
    for method, explain in _explanations(framework, subject, batch_size).items():
        ours = None
        for library, call in explain.items():
            if method == "Grad-CAM":
                call()
            run = _measured(call, subject)
            ours = run if ours is None else ours
            likeness = float(spearmanr(run.map.ravel(), ours.map.ravel()).statistic)
            print(f"{framework:10}{method:11}{library:18}{run}{likeness:10.4f}", flush=True)
            yield likeness


def _explanations(framework: str, subject: Subject, batch_size: int) -> dict[str, dict[str, Explain]]:
    """Per method and library, ours first, a call that returns the map (1, H, W)."""
    given = (subject.model, subject.layer, subject.images, TARGET)
    grad_cams: dict[str, Explain] = {OURS: partial(_ours, GradCAM, *given)}
    score_cams: dict[str, Explain] = {OURS: partial(_ours, ScoreCAM, *given, batch_size=batch_size)}
    for library, adapter in ADAPTERS[framework].items():
        module = importlib.import_module(f"benchmarks.peers.{adapter}")
        grad_cams[library] = partial(module.grad_cam, *given)
        score_cams[library] = partial(module.score_cam, *given, batch_size)
    return {"Grad-CAM": grad_cams, "Score-CAM": score_cams}


def _ours(
    explainer: Callable[..., Any], model: Any, layer: str, images: np.ndarray, target: int, **options: Any
) -> np.ndarray:
    return explainer(model, layer, **options)(images, target).numpy().maps


def _measured(call: Explain, subject: Subject) -> Run:
    seen, cpu, start = subject.seen(), time.process_time(), time.perf_counter()
    maps = call()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    expected = (1, IMAGE_SIZE, IMAGE_SIZE)
    if maps.shape != expected or not 0 <= maps.min() <= maps.max() <= 1:
        raise ValueError(f"expected maps {expected} in [0, 1]; got {maps.shape} in [{maps.min()}, {maps.max()}]")
    return Run(maps[0], seconds, cpu_seconds, subject.seen() - seen)


def _torch_subject() -> Subject:
    from examples.zoo.efficientnet_lite0_torch import load

    zoo = load()
    model, images = separate_activations(zoo.model), _coffee(zoo)
    _require_same_network(zoo.model, model, images)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return Subject(model, TORCH_HEAD, images, lambda: sum(sizes))


def _require_same_network(network: Any, separated: Any, images: np.ndarray) -> None:
    """The same logits bit for bit, and the head's maps from the one run of one module."""
    import torch

    shapes: list[tuple[int, ...]] = []
    layer = separated.get_submodule(TORCH_HEAD)
    handle = layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        inputs = torch.from_numpy(images)
        same = torch.equal(network(inputs), separated(inputs))
    handle.remove()
    if not same or shapes != [HEAD_MAPS]:
        raise ValueError(f"expected equal logits and one output {HEAD_MAPS} at {TORCH_HEAD}; got {same} and {shapes}")


def _keras_subject() -> Subject:
    import tensorflow as tf

    from examples.zoo.efficientnet_lite0_keras import load

    zoo = load()
    first = zoo.model.get_layer("stem_conv")
    seen, convolve = tf.Variable(0, dtype=tf.int64), first.call

    def counted(inputs: Any) -> Any:
        seen.assign_add(tf.shape(inputs, out_type=tf.int64)[0])
        return convolve(inputs)

    first.call = counted
    return Subject(zoo.model, KERAS_HEAD, _coffee(zoo), lambda: int(seen))


SUBJECTS = {"torch": _torch_subject, "keras": _keras_subject}


def _coffee(zoo: LoadedModel) -> np.ndarray:
    return zoo.preprocessing(read_photograph(photograph("coffee")))[None]


if __name__ == "__main__":
    sys.exit(main())
