"""Puts a module into inference, and everything back as it was."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

import torch


class _Buffer(NamedTuple):
    owner: torch.nn.Module
    name: str
    tensor: torch.Tensor
    copy: torch.Tensor


class InferenceState:
    """A context in which the module is in eval mode; modes and buffers are as before outside.

    It can be entered again inside itself; the outermost exit restores, also after an exception. Modes are
    set as attributes because a model may override `train`, for example to keep some layers frozen.
    """

    def __init__(self, module: torch.nn.Module):
        self._module = module
        self._depth = 0
        self._training: list[torch.nn.Module] = []
        self._buffers: list[_Buffer] = []

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._buffers = [
            _Buffer(owner, name, buffer, buffer.detach().clone())
            for owner in self._module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self._training = [module for module in self._module.modules() if module.training]
        for module in self._training:
            module.training = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        for module in self._training:
            module.training = True
        for buffer in self._buffers:
            _put_back(buffer)
        self._training, self._buffers = [], []


def _put_back(buffer: _Buffer) -> None:
    """The same tensor object with the same values; untouched if they never changed."""
    buffer.owner._buffers[buffer.name] = buffer.tensor
    if not torch.equal(buffer.tensor, buffer.copy):
        with torch.no_grad():
            buffer.tensor.copy_(buffer.copy)
