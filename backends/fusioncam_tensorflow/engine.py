"""What TensorFlow does for the adapters, here and for Keras: placing, differentiating, compiling."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fusioncam_core.models.adapter import GRADIENT_SCALES, Execution, Score, not_an_array
from fusioncam_core.models.structure import ByForm
from fusioncam_tensorflow.state import Touch

CPU_BATCH, GPU_BATCH = 8, 64
"""How many images at once suit a device. MobileNetV2 takes half as long per image at 8 as at 1 or 32 on two cores."""

RUN_ERRORS = (tf.errors.InvalidArgumentError,)
"""What TensorFlow raises, besides ValueError, for inputs that do not fit."""


MEMORY_ERRORS = (tf.errors.OpError,)
"""What it raises when the device's memory is full, or a library of CUDA's finds none, and for much else."""


def device_of(variables: Iterable[tf.Variable]) -> str | None:
    """The device of the variables, if all of them are on one."""
    devices = {variable.device for variable in variables}
    return devices.pop() if len(devices) == 1 else None


def on(device: str | None) -> contextlib.AbstractContextManager[Any]:
    """A context in which operations run there. By itself TensorFlow takes the first GPU, wherever the model is."""
    return contextlib.nullcontext() if device is None else tf.device(device)


def work_on(device: str | None, touch: Touch) -> None:
    """The thread's operations run there from now on, until what `touch` is told is done."""
    placed = contextlib.ExitStack()
    touch(placed.close)
    placed.enter_context(on(device))


def execution(device: str | None) -> Execution:
    """How the device likes to work, or the one that TensorFlow takes by itself."""
    on_cpu = not tf.config.list_logical_devices("GPU") if device is None else "CPU" in device
    return Execution(CPU_BATCH if on_cpu else GPU_BATCH, fixed_shapes=True, memory_errors=MEMORY_ERRORS)


def floating(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """The trained variables of a floating dtype."""
    return [variable for variable in variables if variable.trainable and variable.dtype.is_floating]


def as_tensor(values: Any, dtype: Any, device: str | None) -> tf.Tensor:
    """The values on the device; floating ones of that dtype.

    Raises:
        TypeError: for anything but an array of NumPy or a tensor.
    """
    if not isinstance(values, np.ndarray | tf.Tensor | tf.Variable):
        raise not_an_array(values, "a TensorFlow tensor")
    with on(device):
        tensor = tf.convert_to_tensor(values)
        return tf.cast(tensor, dtype) if tensor.dtype.is_floating else tensor


def recording(targets: tf.Tensor | None, *, half: bool = False) -> tf.GradientTape:
    """A tape that records nothing before a tensor is watched: the trunk below the layer costs no memory.

    Of a model that computes in float16 (`half`) it can be asked for a gradient more than once.
    """
    several = targets is None or targets.shape[1] > 1
    return tf.GradientTape(persistent=several or half, watch_accessed_variables=False)


def gradients(
    tape: tf.GradientTape,
    score: Score,
    outputs: Any,
    targets: tf.Tensor | None,
    activations: Sequence[tf.Tensor],
    *,
    half: bool = False,
) -> list[tf.Tensor | None]:
    """(K, *shape) of each target's score for each layer's activations, by one backward pass a target.

    None for a layer on which no score depends. With a head of ordinary size that loop takes as long as
    `tape.jacobian`, which would trace anew in every call. With `half` the passes are scaled.
    """
    with tape:
        # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
        scores = tf.unstack(tf.reduce_sum(score(outputs, targets), axis=0))
    gradient = _scaled_gradient if half else tf.GradientTape.gradient
    rows = [gradient(tape, value, list(activations)) for value in scores]
    return [_stacked(each, like) for each, like in zip(zip(*rows, strict=True), activations, strict=True)]


def _scaled_gradient(tape: tf.GradientTape, score: tf.Tensor, sources: list[tf.Tensor]) -> list[tf.Tensor | None]:
    """The float32 gradients of a score, through a backward pass in float16."""
    found: list[tf.Tensor | None] = []
    for scale in GRADIENT_SCALES:
        scaled = tape.gradient(score, sources, output_gradients=tf.constant(scale, score.dtype))
        found = [None if each is None else tf.cast(tf.convert_to_tensor(each), tf.float32) / scale for each in scaled]
        if all(bool(tf.reduce_all(tf.math.is_finite(each))) for each in found if each is not None):
            break
    return found


def _stacked(gradients: Sequence[tf.Tensor | None], like: tf.Tensor) -> tf.Tensor | None:
    if all(each is None for each in gradients):
        return None
    dtype = next(each.dtype for each in gradients if each is not None)
    zeros = tf.zeros(tf.shape(like), dtype)
    return tf.stack([zeros if each is None else tf.convert_to_tensor(each) for each in gradients])


def compiled(function: Callable[..., Any], *, jit_compile: bool) -> Callable[..., Any]:
    """The function as a `tf.function`: one trace for each shape of its arguments' arrays, whatever their values."""
    return ByForm(functools.partial(tf.function, autograph=False, jit_compile=jit_compile), function)
