"""Puts a module into inference, and everything back as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


class _Buffer(NamedTuple):
    owner: torch.nn.Module
    name: str
    tensor: torch.Tensor
    copy: torch.Tensor


def begin_inference(modules: list[torch.nn.Module], touch: Touch) -> None:
    """The modules are in eval mode from now on; modes and buffers are put back by what `touch` is told.

    Modes are set as attributes because a model may override `train`, for example to keep some layers frozen. The
    thread's own modes come back as well, should an interrupt keep a context from doing so.
    """
    touch(functools.partial(torch.set_grad_enabled, torch.is_grad_enabled()))
    touch(functools.partial(_put_back_buffers, _buffers(modules)))
    training = [module for module in modules if module.training]
    touch(functools.partial(_set_training, training, True))
    _set_training(training, False)


def _set_training(modules: list[torch.nn.Module], training: bool) -> None:
    for module in modules:
        module.training = training


def _buffers(modules: list[torch.nn.Module]) -> list[_Buffer]:
    return [
        _Buffer(owner, name, buffer, buffer.detach().clone())
        for owner in modules
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]


def _put_back_buffers(buffers: list[_Buffer]) -> None:
    """The same tensor objects with the same values; untouched if they never changed."""
    for buffer in buffers:
        buffer.owner._buffers[buffer.name] = buffer.tensor
        if not torch.equal(buffer.tensor, buffer.copy):
            with torch.no_grad():
                buffer.tensor.copy_(buffer.copy)


def exchange(parameters: dict[str, torch.nn.Parameter], values: dict[str, Any]) -> None:
    """Other tensors in the parameters' place, which are never written to.

    What autocast keeps of them is of no use then.
    """
    for name, value in values.items():
        parameters[name].data = value
    torch.clear_autocast_cache()
