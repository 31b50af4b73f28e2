"""A function of JAX's arrays as an ONNX model, written by jax2onnx."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.models.engines import ARGUMENT, RESULT, Exported, Shape
from fusioncam_core.models.unheard import unheard

EXAMPLES = "jax2onnx.plugins.plugin_system"
"""The logger that is told, with a traceback, of each of jax2onnx's own examples whose packages are not installed."""


def exported(function: Callable[..., Any], arguments: Sequence[jax.Array], shapes: Sequence[Shape]) -> Exported:
    """The function, as jax2onnx writes it.

    Args:
        function: of arrays.
        arguments: of an example, for their dtypes and their device.
        shapes: of them, a name where an axis may have any length.

    Raises:
        InvalidValueError: if the arguments are not on the processor.
    """
    elsewhere = {device.platform for each in arguments for device in each.devices()} - {"cpu"}
    if elsewhere:
        raise InvalidValueError(f"It runs on {', '.join(sorted(elsewhere))}, and engines compute on the processor.")
    dtypes = [each.dtype for each in arguments]
    write = functools.partial(_onnx, function, dtypes, tuple(shapes))
    identity = functools.partial(_identity, function, dtypes, tuple(shapes))
    return Exported({"onnx": write}, tuple(shapes), os.cpu_count() or 1, identity)


def _onnx(function: Callable[..., Any], dtypes: Sequence[Any], shapes: Sequence[Shape]) -> bytes:
    jax2onnx = require("jax2onnx", "Writing ONNX for JAX", "jax2onnx")
    results = len(jax.eval_shape(function, *_specs(shapes, dtypes)))
    with unheard(EXAMPLES):
        model = jax2onnx.to_onnx(
            function,
            _specs(shapes, dtypes),
            input_names=[f"{ARGUMENT}{place}" for place in range(len(shapes))],
            output_names=[f"{RESULT}{place}" for place in range(results)],
        )
    return bytes(model.SerializeToString())


def _identity(function: Callable[..., Any], dtypes: Sequence[Any], shapes: Sequence[Shape]) -> str:
    """A digest of the function's jaxpr, as JAX prints it, and of the arrays in it, which it prints in part."""
    closed = jax.make_jaxpr(function)(*_specs(shapes, dtypes))
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(closed)).encode())  # of functions behind custom rules
    for array in _arrays(closed):
        found.update(f"{array.shape} {array.dtype}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The constants of a jaxpr, and of those in it, in their order."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)
    elif hasattr(value, "eqns"):
        yield from map(np.asarray, getattr(value, "consts", ()))
        for equation in value.eqns:
            yield from (np.asarray(each.val) for each in equation.invars if hasattr(each, "val"))
            for _, each in sorted(equation.params.items()):
                yield from _arrays(each)


def _specs(shapes: Sequence[Shape], dtypes: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    """What stands for the arguments: free lengths of one name are one symbol."""
    scope = jax.export.SymbolicScope()
    return [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(", ".join(map(str, shape)), scope=scope) if shape else (), dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
