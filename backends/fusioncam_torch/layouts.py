"""How the inputs of convolutions lie in memory: a matter of speed that no value depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd

from fusioncam_core.models.inputs import Inputs, map_leaves
from fusioncam_core.models.memory import memory_is_full

CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels last"

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The format with the channels last, by the number of axes."""


class Layouts:
    """Lays inputs out before a model runs.

    Convolutions of two and three axes keep the format of their input, so that a model of them need not be changed.

    Args:
        module: whose convolutions tell which formats there are; None for the given one alone.
    """

    def __init__(self, module: torch.nn.Module | None = None):
        parts = [] if module is None else module.modules()
        axes = {len(part.kernel_size) + 2 for part in parts if isinstance(part, _ConvNd)}
        self.names: tuple[str, ...] = (CONTIGUOUS, CHANNELS_LAST) if axes & _FORMATS.keys() else (CONTIGUOUS,)
        self._used = CONTIGUOUS
        self._refused = False

    def reset(self) -> None:
        """Inputs are left as they are given."""
        self._used = CONTIGUOUS

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """A context in which `run` takes this format."""
        before, self._used = self._used, name
        try:
            yield
        finally:
            self._used = before

    def run(self, function: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """The function of the inputs in the format in use; in their own, if it cannot be run in that one.

        A model that calls `view` where channels last make it impossible says so with a RuntimeError, once.
        """
        if self._used == CONTIGUOUS or self._refused:
            return function(inputs)
        try:
            return function(map_leaves(_channels_last, inputs))
        except RuntimeError as error:
            if memory_is_full(error):
                raise
            outputs = function(inputs)
            self._refused = True
            return outputs


def _channels_last(values: torch.Tensor) -> torch.Tensor:
    layout = _FORMATS.get(values.ndim)
    return values if layout is None else values.contiguous(memory_format=layout)
