"""Calls and explainers by the hundred leave nothing behind: no memory, no tensors, no hooks."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fusioncam_core import GradCAM, ScoreCAM
from libraries import EVERYTHING, framework

CALLS, EXPLAINERS = (500, 200) if EVERYTHING else (20, 2)

FIRST_CALLS, FIRST_EXPLAINERS = (50, 20) if EVERYTHING else (6, 1)
"""So many before, until what a framework compiles and keeps is there."""

MEGABYTE = 1 << 20


class Stack(NamedTuple):
    """A tiny model of one framework.

    Attributes:
        model: with a layer "features".
        layer: its name.
        images: (2, ...).
        tensors: how many of the framework's tensors are alive.
        hooks: how many hooks hang on the model.
    """

    model: Any
    layer: str
    images: np.ndarray
    tensors: Callable[[], int]
    hooks: Callable[[], int]


def alive(kind: type) -> Callable[[], int]:
    return lambda: sum(issubclass(type(each), kind) for each in gc.get_objects())


def torch_tensors() -> Callable[[], int]:
    """Of the Python objects; what is inside of a graph is held by one of them."""
    return alive(framework("torch").Tensor)


def on_torch() -> Stack:
    torch = framework("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("features", torch.nn.Conv2d(3, 4, 3))
    model.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", torch.nn.Flatten())
    model.add_module("fc", torch.nn.Linear(4, 3))

    def hooks() -> int:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)

    return Stack(model.eval(), "features", images(channels_last=False), torch_tensors(), hooks)


def on_keras() -> Stack:
    keras = framework("keras")
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((12, 12, 3)),
        keras.layers.Conv2D(4, 3, name="features"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)

    def hooks() -> int:
        """What of a layer's methods is its own object's, in place of its class's."""
        return sum("call" in vars(layer) or "__call__" in vars(layer) for layer in model._flatten_layers())

    tensors = {"tensorflow": tensorflow_tensors, "torch": torch_tensors, "jax": jax_arrays}
    return Stack(model, "features", images(), tensors[keras.config.backend()](), hooks)


def tensorflow_tensors() -> Callable[[], int]:
    return alive(framework("tensorflow").Tensor)


def jax_arrays() -> Callable[[], int]:
    jax = framework("jax")
    return lambda: len(jax.live_arrays())


def on_flax() -> Stack:
    framework("flax")
    from flax import nnx

    class Tiny(nnx.Module):
        def __init__(self) -> None:
            self.features = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
            self.fc = nnx.Linear(4, 3, rngs=nnx.Rngs(1))

        def __call__(self, values: Any) -> Any:
            return self.fc(self.features(values).mean(axis=(1, 2)))

    model = Tiny()
    classes = {path: type(module) for path, module in nnx.iter_modules(model)}

    def hooks() -> int:
        return sum(type(module) is not classes[path] for path, module in nnx.iter_modules(model))

    return Stack(model, "features", images(), jax_arrays(), hooks)


def images(*, channels_last: bool = True) -> np.ndarray:
    drawn = np.random.default_rng(0).random((2, 12, 12, 3), dtype=np.float32)
    return drawn if channels_last else np.ascontiguousarray(np.moveaxis(drawn, -1, 1))


def resident() -> int:
    """Bytes of the process, without what its C library keeps for the next allocation."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(MEMORY.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


MEMORY = Path("/proc/self/statm")
"""Of Linux: the pages of this process."""

STACKS = {"torch": on_torch, "keras": on_keras, "flax": on_flax}

# With weights as they were drawn there may be nothing to see.
pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning")


class Left(NamedTuple):
    """What many repetitions left behind.

    Attributes:
        what: was repeated, and how often.
        grown: megabytes that the process has grown by.
        tensors: that are alive since.
        hooks: that are left on the model.
    """

    what: str
    grown: float
    tensors: int
    hooks: int


def left_by(name: str) -> list[Left]:
    """Calls of one explainer, and explainers that are made and dropped."""
    stack = STACKS[name]()
    cam = GradCAM(stack.model, stack.layer)

    def call() -> None:
        cam(stack.images, 1)

    def explainer() -> None:
        GradCAM(stack.model, stack.layer)(stack.images, 1)

    found = []
    for work, first, times in ((call, FIRST_CALLS, CALLS), (explainer, FIRST_EXPLAINERS, EXPLAINERS)):
        for _ in range(first):
            work()
        before, tensors = resident(), stack.tensors()
        for _ in range(times):
            work()
        grown = (resident() - before) / MEGABYTE
        found.append(Left(f"{times} times {work.__name__}", grown, stack.tensors() - tensors, stack.hooks()))
    return found


def left_alone(name: str) -> list[Left]:
    """The same in a process of its own: of several frameworks in one, each moves what the others have freed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(left_by, name).result()


@pytest.mark.skipif(not MEMORY.exists(), reason="asks Linux how much memory a process has")
@pytest.mark.parametrize("name", STACKS)
def test_nothing_is_left(name: str, record_property: Callable[[str, object], None]) -> None:
    framework(name)  # a process of its own could not say that it is not there
    for what, grown, tensors, hooks in (left_alone if EVERYTHING else left_by)(name):
        record_property(f"{what}, MB", round(grown, 2))
        assert grown < 10, f"{what}: {grown:.1f} MB more"
        assert tensors == 0
        assert hooks == 0


@pytest.mark.parametrize("name", STACKS)
def test_an_explainer_goes_with_the_last_that_knows_it(name: str) -> None:
    """Not once Python looks for circles: what it compiled and captured is as large as the model."""
    stack = STACKS[name]()
    gc.collect()
    gc.disable()
    try:
        for method in (GradCAM, ScoreCAM):
            cam = method(stack.model, stack.layer)
            cam(stack.images, 1)
            gone = weakref.ref(cam.adapter)
            del cam
            assert gone() is None, method.__name__
    finally:
        gc.enable()
