"""EfficientNet-Lite0 in every framework, photographs for it, and the fastest that each framework runs it."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.peers.layers import KERAS_HEAD, TORCH_HEAD, separate_activations
from examples.zoo.photographs import photograph
from fusioncam_core import LoadedModel
from fusioncam_core.data.preprocessing import read_photograph

FLAX_HEAD = None
"""Flax's default layer is the head's activation."""

SIZES = (1, 2, 4, 8, 16, 32)
"""Batches at which the network alone is run to find out how fast it can be."""

GPU_SIZES = (16, 32, 64, 128, 256, 512)
"""The same on a GPU."""

NEAR = 1.3
"""Ways this much slower than the fastest are not measured again."""

SECONDS = 2.0
"""How long a way is run each time it is measured."""

Setting = tuple[str, int]


@dataclass
class Subject:
    """A network to explain.

    Attributes:
        framework: "torch", "tensorflow" or "jax".
        device: in words.
        model, layer: what explainers take; the layer is the last with space, 1280 maps of 7 x 7.
        image: (1, ...) one photograph, preprocessed.
        ways: in which the network alone can be run, by names of memory formats: batches to functions that run one.
        compiled: whether another batch size costs a compilation, so that fewer are tried.
        sizes: the batches to try; by default those that suit a processor.
    """

    framework: str
    device: str
    model: Any
    layer: Any
    image: np.ndarray
    ways: dict[str, Callable[[np.ndarray], Callable[[], object]]]
    compiled: bool = False
    sizes: Sequence[int] = ()
    _seconds: dict[Setting, list[float]] = field(default_factory=dict)

    def measure(self) -> dict[Setting, float]:
        """The seconds that the network alone takes for an image, in every way that is near the fastest one, now."""
        medians = {way: statistics.median(seconds) for way, seconds in self._seconds.items()}
        near = NEAR * min(medians.values(), default=float("inf"))
        now = {way: _seconds(run) / way[1] for way, run in self._functions.items() if medians.get(way, 0) <= near}
        for way, seconds in now.items():
            self._seconds.setdefault(way, []).append(seconds)
        return now

    def fastest_way(self, memory_formats: Collection[str] = (), sizes: Collection[int] = ()) -> Setting:
        """The way, of those named if any are, with the lowest median of all measurements, at least one.

        Not of the latest: where times vary, the least of several is no time that any of them would keep to.
        """
        if not self._seconds:
            self.measure()
        medians = {
            way: statistics.median(seconds)
            for way, seconds in self._seconds.items()
            if (not memory_formats or way[0] in memory_formats) and (not sizes or way[1] in sizes)
        }
        return min(medians, key=medians.__getitem__)

    def runner(self, way: Setting) -> Callable[[], object]:
        """What runs a batch that way, and waits for it."""
        return self._functions[way]

    @functools.cached_property
    def _functions(self) -> dict[Setting, Callable[[], object]]:
        sizes = self.sizes or ((4, 8, 16) if self.compiled else SIZES)
        return {
            (name, size): make(np.concatenate([self.image] * size))
            for name, make in self.ways.items()
            for size in sizes
        }


def _seconds(function: Callable[[], object]) -> float:
    """The mean time of a call, over some seconds of them after one that does not count.

    The mean, since what is compared with it is a sum, disturbances included.
    """
    function()
    start, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - start < SECONDS:
        function()
        calls += 1
    return (time.perf_counter() - start) / calls


def coffee(zoo: LoadedModel) -> np.ndarray:
    """(1, ...) the photograph that all times are of: 541 of its 1280 maps are not constant."""
    return zoo.preprocessing(read_photograph(photograph("coffee")))[None]


def torch_subject() -> Subject:
    """On the first CUDA device, if there is one."""
    import torch

    from examples.zoo.efficientnet_lite0_torch import load

    zoo = load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = separate_activations(zoo.model).to(device)

    def runner(layout: Any) -> Callable[[np.ndarray], Callable[[], object]]:
        def make(images: np.ndarray) -> Callable[[], object]:
            inputs = torch.from_numpy(images).to(device).contiguous(memory_format=layout)

            def run() -> None:
                with torch.inference_mode():
                    model(inputs)
                if device == "cuda":
                    torch.cuda.synchronize()

            return run

        return make

    ways = {"contiguous": runner(torch.contiguous_format), "channels last": runner(torch.channels_last)}
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    sizes = GPU_SIZES if device == "cuda" else ()
    return Subject("torch", name, model, TORCH_HEAD, coffee(zoo), ways, sizes=sizes)


def tensorflow_subject() -> Subject:
    """Keras on TensorFlow, inside a `tf.function`."""
    import tensorflow as tf

    from examples.zoo.efficientnet_lite0_keras import load

    zoo = load()
    forward = tf.function(lambda images: zoo.model(images, training=False))

    def make(images: np.ndarray) -> Callable[[], object]:
        inputs = tf.constant(images)
        return lambda: forward(inputs).numpy()

    gpus = tf.config.list_physical_devices("GPU")
    name = gpus[0].name if gpus else "CPU"
    return Subject("tensorflow", name, zoo.model, KERAS_HEAD, coffee(zoo), {"as given": make}, compiled=True)


def jax_subject() -> Subject:
    """Flax NNX, inside `jax.jit`."""
    import jax
    from flax import nnx

    from examples.zoo.efficientnet_lite0_flax import load

    zoo = load()
    graph, state = nnx.split(zoo.model)
    forward = jax.jit(lambda state, images: nnx.merge(graph, state)(images))

    def make(images: np.ndarray) -> Callable[[], object]:
        inputs = jax.numpy.asarray(images)
        return lambda: forward(state, inputs).block_until_ready()

    name = jax.devices()[0].device_kind
    sizes = (32, 64, 128, 256) if jax.default_backend() == "gpu" else ()
    return Subject("jax", name, zoo.model, FLAX_HEAD, coffee(zoo), {"as given": make}, compiled=True, sizes=sizes)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "torch": torch_subject,
    "tensorflow": tensorflow_subject,
    "jax": jax_subject,
}


@contextmanager
def counted_traces(adapter: Any) -> Iterator[list[int]]:
    """The batches for which the adapter's `forward` ran as Python: of a compiled step, once a compilation."""
    sizes: list[int] = []
    forward = adapter.forward

    def counting(inputs: Any) -> Any:
        sizes.append(int(inputs.shape[0]))
        return forward(inputs)

    adapter.forward = counting
    try:
        yield sizes
    finally:
        del adapter.forward
