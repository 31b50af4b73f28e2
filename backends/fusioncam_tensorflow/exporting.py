"""A function of tensors as a concrete function, which others read."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.models.engines import ARGUMENT, RESULT, Exported, Shape
from fusioncam_core.models.unheard import unheard

OPSET = 18
"""The latest version of ONNX's operators that tf2onnx writes."""


def exported(
    function: Callable[..., Any], arguments: Sequence[tf.Tensor], shapes: Sequence[Shape], device: str | None
) -> Exported:
    """The function, recorded for arguments of these shapes.

    Args:
        function: of tensors.
        arguments: of an example, for their dtypes.
        shapes: of them, a name where an axis may have any length.
        device: of the model's variables.

    Raises:
        InvalidValueError: if the model is on a GPU, or TensorFlow takes one by itself.
        Exception: whatever TensorFlow raises of a function that it cannot record so.
    """
    if "GPU" in device if device is not None else bool(tf.config.list_logical_devices("GPU")):
        raise InvalidValueError(f"It runs on {device or 'a GPU'}, and engines compute on the processor.")
    specs = [
        tf.TensorSpec(
            [None if isinstance(length, str) else length for length in shape], each.dtype, name=f"{ARGUMENT}{place}"
        )
        for place, (shape, each) in enumerate(zip(shapes, arguments, strict=True))
    ]

    def named(*given: tf.Tensor) -> list[tf.Tensor]:
        return [tf.identity(each, name=f"{RESULT}{place}") for place, each in enumerate(function(*given))]

    recorded = tf.function(named, autograph=False)
    concrete = recorded.get_concrete_function(*specs)
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
    kinds = {"tensorflow": lambda: concrete, "onnx": functools.partial(_onnx, recorded, specs)}
    return Exported(kinds, tuple(shapes), threads, functools.partial(_identity, concrete))


def _identity(concrete: Any) -> str:
    """A digest of a concrete function's operations, and of the variables and tensors that it has captured.

    Names are left out: TensorFlow numbers them anew in every process.
    """
    found = hashlib.sha256()
    _tell(found.update, concrete.graph)
    held = {id(variable.handle): variable for variable in concrete.graph.variables}
    for captured in concrete.captured_inputs:
        variable = held.get(id(captured))
        values = np.ascontiguousarray((captured if variable is None else variable).numpy())
        found.update(f"{values.shape} {values.dtype}\n".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _tell(tell: Callable[[bytes], Any], graph: Any) -> None:
    """The operations of a graph, each with its attributes and where its inputs come from."""
    operations = graph.get_operations()
    places = {operation.name: place for place, operation in enumerate(operations)}
    for operation in operations:
        inputs = [(places[each.op.name], each.value_index) for each in operation.inputs]
        awaited = sorted(places[each.name] for each in operation.control_inputs)  # a set, without an order
        tell(f"{operation.type} {inputs} {awaited}\n".encode())
        for name, attribute in sorted(operation.node_def.attr.items()):
            called = attribute.func.name
            if called:
                _tell(tell, graph._get_function(called).graph)
            elif not name.startswith("_"):
                tell(name.encode() + attribute.SerializeToString(deterministic=True))


def _onnx(recorded: Any, specs: Sequence[tf.TensorSpec]) -> bytes:
    """The function as an ONNX model.

    Raises:
        MissingExtra: if tf2onnx is not installed.
    """
    writer = require("tf2onnx", "Writing ONNX for TensorFlow", "tf2onnx")
    with unheard():
        model, _ = writer.convert.from_function(recorded, input_signature=specs, opset=OPSET)
    return bytes(model.SerializeToString())
