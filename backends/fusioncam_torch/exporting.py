"""A function of tensors that runs a module, written down by `torch.export` for others to read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.unheard import unheard

OPERATORS = "torch.onnx._internal.exporter._registration"
"""The logger that is told of each of torchvision's operators where that is not installed, whatever the model needs."""


class _Recorded(torch.nn.Module):
    """The function as a module, the model among its parts, so that its weights are parameters of it."""

    def __init__(self, model: torch.nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, *arguments: torch.Tensor) -> Any:
        return self._function(*arguments)


def exported(
    model: torch.nn.Module,
    function: Callable[..., Any],
    arguments: Sequence[torch.Tensor],
    shapes: Sequence[Shape],
    device: torch.device | str,
) -> Exported:
    """The function as an exported program, written when it is asked for.

    Args:
        model: that it runs, in inference.
        function: of tensors.
        arguments: of an example.
        shapes: of them, a name where an axis may have any length.
        device: of the model.

    Raises:
        InvalidValueError: if the model is not on the processor.
    """
    if torch.device(device).type != "cpu":
        raise InvalidValueError(f"It is on {device}, and engines compute on the processor.")
    write = functools.cache(functools.partial(_program, model, function, tuple(arguments), tuple(shapes)))
    return Exported(
        {"torch": write, "onnx": lambda: _onnx(write())},
        tuple(shapes),
        torch.get_num_threads(),
        functools.partial(_identity, function, tuple(arguments)),
    )


def _program(
    model: torch.nn.Module,
    function: Callable[..., Any],
    arguments: Sequence[torch.Tensor],
    shapes: Sequence[Shape],
) -> torch.export.ExportedProgram:
    """The function as an exported program.

    Raises:
        InvalidValueError: if the model makes a constant of the number of images.
        Exception: whatever else `torch.export` raises of a model that it cannot follow.
    """
    free = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, length in enumerate(shape) if isinstance(length, str)}
        for shape in shapes
    )
    recorded = _Recorded(model, function)
    recorded.training = False  # of itself alone: the model's parts are in inference
    with torch.no_grad(), unheard():  # and what PyTorch says once more of the model
        try:
            program = torch.export.export(recorded, tuple(arguments), dynamic_shapes=(free,), strict=False)
        except torch._dynamo.exc.UserError as error:
            if "specialized it to be a constant" not in str(error):
                raise
            raise InvalidValueError(
                f"{type(model).__qualname__} takes the number of images for one that never changes, as by len(images) "
                "or int(images.shape[0]): torch.export needs images.shape[0]."
            ) from error
    return program


def _identity(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> str:
    """A digest of the operations that a run of the function is made of, and of the tensors that it finds.

    A run takes less time to follow than an exported program to write, which has the same operations.
    """
    with torch.no_grad(), unheard():
        followed = make_fx(lambda *given: function(*given))(*arguments)
    found = hashlib.sha256(followed.code.encode())
    for node in followed.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(followed, node.target).detach().contiguous()
            found.update(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    """The program as an ONNX model.

    Raises:
        MissingExtra: if what PyTorch writes ONNX with is not installed.
    """
    require("onnxscript", "Writing ONNX for PyTorch", "torch2onnx")
    with unheard(OPERATORS):
        written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    return written.model_proto.SerializeToString()
