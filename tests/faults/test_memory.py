"""A device whose memory is full, in the words of every library: the batch is halved, and what was learnt is kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import RISE, BlackBox, FusionCAM, GradCAM, MemoryWarning
from fusioncam_core.models.memory import memory_is_full
from libraries import framework

MOST = 3
"""Images that the memory holds."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


FULL = [
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("Failed to allocate memory for requested buffer of size 1024"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    MemoryError("Unable to allocate 1.00 TiB for an array with shape (1, 2) and data type float32"),
    ResourceExhaustedError("OOM when allocating tensor with shape[64,3]"),
]

OTHER = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x48 and 49x5)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("the memory of this model is shared"),
    ValueError("ran out of classes"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_words_of_a_full_memory(error: Exception) -> None:
    assert memory_is_full(error)
    wrapped = RuntimeError("Exception encountered when calling layer 'conv'.")
    wrapped.__cause__ = error
    assert memory_is_full(wrapped)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_words_of_something_else(error: Exception) -> None:
    assert not memory_is_full(error)


def raised(make: Callable[[], Exception], count: int, seen: list[int]) -> None:
    """Note how many images came, and raise if the memory does not hold them."""
    seen.append(count)
    if count > MOST:
        raise make()


def on_numpy(make: Callable[[], Exception], seen: list[int], shapes: Any, weights: Any) -> tuple[Any, ...]:
    def model(images: Any) -> Any:
        raised(make, len(images), seen)
        return np.stack([images.mean(axis=(1, 2, 3)), images[:, 0].max(axis=(1, 2))], axis=1)

    return RISE(BlackBox(model), masks=16, batch_size=8), RISE(BlackBox(model), masks=16, batch_size=2), shapes


def on_torch(make: Callable[[], Exception], seen: list[int], shapes: Any, weights: Any) -> tuple[Any, ...]:
    framework("torch")
    from torch_models import Shapes

    model = Shapes(weights).eval()
    model.register_forward_pre_hook(lambda module, inputs: raised(make, len(inputs[0]), seen))
    return (*(FusionCAM(model, "features", batch_size=size) for size in (8, 2)), shapes)


def on_flax(make: Callable[[], Exception], seen: list[int], shapes: Any, weights: Any) -> tuple[Any, ...]:
    framework("flax")
    from nnx_models import Shapes

    class Limited(Shapes):
        def __call__(self, images: Any) -> Any:
            raised(make, len(images), seen)
            return super().__call__(images)

    return (*(FusionCAM(Limited(weights), "blocks.3", batch_size=size) for size in (8, 2)), np.moveaxis(shapes, 1, -1))


def on_keras(make: Callable[[], Exception], seen: list[int], shapes: Any, weights: Any) -> tuple[Any, ...]:
    keras = framework("keras")
    from keras_models import Subclassed, load_shapes

    class Limited(Subclassed):
        def call(self, images: Any) -> Any:
            if images.shape[0] is not None and not isinstance(images, keras.KerasTensor):
                raised(make, int(images.shape[0]), seen)
            return super().call(images)

    model = Limited()
    model(np.zeros((1, 48, 48, 3), dtype="float32"))
    load_shapes(model, weights)
    return (*(FusionCAM(model, "relu4", batch_size=size) for size in (8, 2)), np.moveaxis(shapes, 1, -1))


def tensorflows() -> Exception:
    return framework("tensorflow").errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def jaxs() -> Exception:
    return framework("jax").errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 16 bytes.")


def torchs() -> Exception:
    return framework("torch").OutOfMemoryError("CUDA out of memory.")


STACKS = [
    *((on_torch, lambda error=error: type(error)(*error.args)) for error in FULL if type(error) is RuntimeError),
    (on_torch, torchs),
    (on_torch, MemoryError),
    (on_numpy, MemoryError),
    (on_numpy, lambda: RuntimeError("CUDA error: out of memory")),
    (on_flax, jaxs),
    (on_keras, tensorflows),
]


@pytest.mark.parametrize(("stack", "make"), STACKS, ids=lambda each: getattr(each, "__name__", "error"))
def test_the_batch_is_halved_once_and_for_all(
    stack: Any, make: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]
) -> None:
    seen: list[int] = []
    cam, small, images = stack(make, seen, shapes["images"][:2], shapes_weights)
    with pytest.warns(MemoryWarning, match="does not hold 8 images at once"):
        found = cam(images, 1).numpy()
    np.testing.assert_allclose(found.maps, small(images, 1).numpy().maps, atol=1e-4)
    assert max(seen) > MOST
    seen.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cam(images, 1)
    assert all(count <= MOST for count in seen), "the next call begins with what was learnt"


@pytest.mark.parametrize("stack", [on_torch, on_numpy])
def test_another_error_comes_as_it_is(stack: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
    cam, _, images = stack(lambda: OSError("something else"), [], shapes["images"], shapes_weights)
    with pytest.raises(OSError, match="something else"):
        cam(images, 1)


class TestImagesSeenTogether:
    """The pass that captures activations and gradients."""

    def limited(self, weights: Any, most: int, seen: list[int]) -> Any:
        framework("torch")
        from torch_models import Shapes

        def check(module: Any, inputs: Any) -> None:
            seen.append(len(inputs[0]))
            if len(inputs[0]) > most:
                raise RuntimeError("CUDA error: out of memory")

        model = Shapes(weights).eval()
        model.register_forward_pre_hook(check)
        return model

    def test_fewer_are_seen_from_then_on(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        seen: list[int] = []
        cam = GradCAM(self.limited(shapes_weights, 2, seen), "features", batch_size=8)
        with pytest.warns(MemoryWarning, match="does not hold 8 images at once in Shapes: going on with 4") as said:
            cam(shapes["images"], 1)
        assert len(said) == 1
        seen.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cam(shapes["images"], 1)
        assert seen == [2, 2, 2, 2]

    def test_a_smaller_batch_is_not_tried_in_vain(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        seen: list[int] = []
        cam = GradCAM(self.limited(shapes_weights, 2, seen), "features", batch_size=1024)
        cam(shapes["images"][:1], 1)  # the layer is looked at once
        seen.clear()
        with pytest.warns(MemoryWarning, match="does not hold 8 images"):
            cam(shapes["images"], 1)
        assert seen == [8, 4, 2, 2, 2, 2], "not 512 images, which are these eight again"

    def test_one_image_that_does_not_fit_is_named(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        cam = GradCAM(self.limited(shapes_weights, 0, []), "features", batch_size=8)
        with pytest.raises(RuntimeError, match="out of memory") as raised:
            cam(shapes["images"][:1], 1)
        assert "does not hold a single image of this size in Shapes" in "".join(raised.value.__notes__)
