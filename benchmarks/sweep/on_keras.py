"""Keras's part of the sweep, on each backend: a layer's activations and gradients by the backend's own derivatives.

The network is cut in two at the layer, and its last softmax left out: what is explained are logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

Values = np.ndarray[Any, Any]


_COMPILED: dict[tuple[int, str], Callable[[Values], Any]] = {}
"""By model and layer, what gives the layer's output."""


class UnconnectedLayerError(Exception):
    """No score depends on the layer."""


def seed() -> None:
    """What models draw their weights from."""
    keras.utils.set_random_seed(0)


def settle(model: keras.Model, images: Values) -> keras.Model:
    """The model with weights of one value spread, and running averages of the images, as after some training."""
    _COMPILED.clear()
    generator = np.random.Generator(np.random.PCG64(1))
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight.value)
        if values.dtype == np.float32 and values.size and values.min() == values.max():
            weight.assign(values + 0.05 * generator.standard_normal(values.shape).astype(np.float32))
    _calibrate(model, images)
    return model


def _calibrate(model: keras.Model, images: Values) -> None:
    """Averages of nothing let the signal of a deep network fade away before its last layer."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(keras.ops.convert_to_tensor(images), training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum


def passes(model: Any) -> contextlib.AbstractContextManager[list[int]]:
    """Passes of compiled programs are not counted."""
    return contextlib.nullcontext([])


def parameters(model: keras.Model) -> int:
    return int(model.count_params())


def outputs(model: keras.Model, images: Values) -> None:
    """Whether it takes such images: known without a run.

    Raises:
        ValueError: if it does not.
    """
    expected = model.input_shape[1:]
    if tuple(images.shape[1:]) != tuple(expected):
        raise ValueError(f"it takes inputs of {expected}")


def activations(model: keras.Model, layer: str, images: Values, call: int) -> Values:
    """The output of a layer."""
    key = (id(model), layer)
    if key not in _COMPILED:
        _COMPILED[key] = _compiled(keras.Model(model.inputs, _output_of(model, layer)))
    return _numpy(_COMPILED[key](images))


def capture(
    model: keras.Model, layer: str, images: Values, scores: Callable[[Any], Sequence[Any]]
) -> tuple[Values, list[Values], int]:
    """Activations, gradients of each score, and the call, which is always the only one."""
    logits = _without_ending(model)
    output = _output_of(logits, layer)
    values = _compiled(keras.Model(logits.inputs, output))(images)
    tail = keras.Model(output, logits.output)
    gradients = DERIVATIVES[keras.backend.backend()](tail, values, scores)
    return _numpy(values), gradients, 0


def _output_of(model: keras.Model, name: str) -> Any:
    """The symbolic output of a layer, or of an operation between layers, such as the sum behind a ConvNeXt's block."""
    return next(each for each in model.operations if each.name == name).output


def _without_ending(model: keras.Model) -> keras.Model:
    """The same network with a linear last layer."""
    configuration = model.get_config()
    last = configuration["layers"][-1]["config"]
    if last.get("activation") != "softmax":
        raise ValueError(f"{last['name']} is no softmax")
    last["activation"] = "linear"
    twin = type(model).from_config(configuration)
    twin.set_weights(model.get_weights())
    return twin


def _compiled(model: keras.Model) -> Callable[[Values], Any]:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(lambda values: model(values, training=False))
    return lambda values: model(keras.ops.convert_to_tensor(values), training=False)


def _numpy(values: Any) -> Values:
    return np.asarray(keras.ops.convert_to_numpy(values))


def _on_tensorflow(tail: keras.Model, values: Any, scores: Callable[[Any], Sequence[Any]]) -> list[Values]:
    import tensorflow

    with tensorflow.GradientTape(persistent=True) as tape:
        tape.watch(values)
        found = scores(tail(values, training=False))
    return [tape.gradient(each, values).numpy() for each in found]


def _on_jax(tail: keras.Model, values: Any, scores: Callable[[Any], Sequence[Any]]) -> list[Values]:
    import jax
    import jax.numpy as jnp

    def summed(each: Any) -> Any:
        return jnp.stack([score.sum() for score in scores(tail(each, training=False))])

    rows = jax.jit(jax.jacrev(summed))(values)
    return [np.asarray(row) for row in rows]


def _on_torch(tail: keras.Model, values: Any, scores: Callable[[Any], Sequence[Any]]) -> list[Values]:
    import torch

    leaf = values.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = scores(tail(leaf, training=False))
    rows = [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in found]
    return [row.detach().numpy() for row in rows]


DERIVATIVES = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
