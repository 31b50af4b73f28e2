"""What passes through a module's layers while the model runs; other threads pass as if nobody listened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from fusioncam_core.errors import GradientsUnavailableError
from fusioncam_core.models.adapter import no_array_in, split_call
from fusioncam_torch.containers import packed, tensor_of, with_tensor


class Tap:
    """Keeps the output of one layer, in the call named, or in its last one.

    Args:
        layer: its name, with the number of a call or without.
        model_name: for messages.
        with_gradient: whether the scores will be differentiated with respect to it.
        alone: whether no other layer is tapped: then nothing before the layer needs a graph.
        begun: called when a graph begins at the layer.
    """

    def __init__(
        self,
        layer: str,
        model_name: str,
        *,
        with_gradient: bool,
        alone: bool,
        begun: Callable[[], object] = lambda: None,
    ):
        self.layer = layer
        self.name, self._call = split_call(layer)
        self.calls = 0
        self.output: torch.Tensor | None = None
        self._model_name = model_name
        self._with_gradient = with_gradient
        self._alone = alone
        self._begun = begun
        self._thread = threading.get_ident()

    @property
    def tensor(self) -> torch.Tensor:
        """The output of a layer that has run."""
        assert self.output is not None
        return self.output

    def hear(self, module: torch.nn.Module, _: Any, output: Any) -> Any:
        """A forward hook: the rest of the model goes on with what it returns."""
        if threading.get_ident() != self._thread:
            return None
        self.calls += 1
        if self._call is not None and self.calls - 1 != self._call:
            return None
        tensor = tensor_of(output)
        if tensor is None:
            raise packed(output, self.layer, self._model_name) or no_array_in(self.layer, self._model_name, output)
        if tensor.is_quantized:
            self.output = self._dequantised(tensor)
            return None
        self.output = self._kept(tensor)
        # The rest of the model gets a copy: an in-place activation must not change what was kept.
        return with_tensor(output, self.output.clone())

    def _dequantised(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._with_gradient:
            raise GradientsUnavailableError(
                f"The layer {self.layer!r} of {self._model_name} returns quantised numbers, which have no gradient. "
                "Take a method that only runs the model, such as ScoreCAM, EigenCAM or RISE, or give the model as it "
                "was before quantisation."
            )
        return tensor.dequantize()

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self._with_gradient:
            return tensor.detach()
        # Behind another tapped layer the graph must go on through this one; the first one is where it begins.
        begins = self._alone or not (torch.is_grad_enabled() and tensor.requires_grad)
        self._begun()
        torch.set_grad_enabled(True)
        return tensor.detach().requires_grad_(True) if begins else tensor


class Replacement:
    """Puts other activations in the place of a layer's output, in one of its calls, counted from 0."""

    def __init__(self, call: int, activations: torch.Tensor):
        self.calls = 0
        self._call = call
        self._activations = activations
        self._thread = threading.get_ident()

    def hear(self, module: torch.nn.Module, _: Any, output: Any) -> Any:
        """A forward hook."""
        if threading.get_ident() != self._thread:
            return None
        self.calls += 1
        return with_tensor(output, self._activations.clone()) if self.calls - 1 == self._call else None
