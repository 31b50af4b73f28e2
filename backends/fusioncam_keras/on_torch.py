"""Keras on PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import torch

from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.adapter import Score
from fusioncam_core.models.inputs import Inputs, map_leaves
from fusioncam_keras.engine import Engine, Run
from fusioncam_torch import namespace
from fusioncam_torch.adapter import TorchAdapter
from fusioncam_torch.state import InferenceState

OPTIONS = ()


class TorchEngine(Engine):
    """Autograd from the layer on. PyTorch modules inside the model are put into inference and back."""

    namespace = namespace
    run_errors = (RuntimeError,)
    other_errors = memory_errors = (torch.OutOfMemoryError,)

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
        super().__init__(model, options)
        # Keras keeps its layers in lists of its own, in which PyTorch does not look for modules.
        self._state = InferenceState(torch.nn.ModuleList(model._flatten_layers()))
        self._like = next((variable.value for variable in model.variables), torch.empty(0))
        on_cpu = self._like.device.type == "cpu"
        self.batch_size = TorchAdapter.CPU_BATCH if on_cpu else TorchAdapter.GPU_BATCH

    def as_array(self, values: Any) -> torch.Tensor:
        if not isinstance(values, np.ndarray | torch.Tensor):
            raise InvalidTypeError(
                f"Images are a NumPy array or a PyTorch tensor, and a {type(values).__module__}."
                f"{type(values).__qualname__} came."
            )
        tensor = torch.from_numpy(np.array(values)) if isinstance(values, np.ndarray) else values.detach()
        return tensor.to(self._like.device, getattr(torch, self.dtype) if tensor.is_floating_point() else None)

    def session(self) -> contextlib.AbstractContextManager[Any]:
        return self._state

    def ran_out_of_memory(self, error: Exception) -> bool:
        if self._like.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def without_gradients(self) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad()

    def capture(
        self, run: Run, inputs: Inputs, score: Score | None, targets: torch.Tensor | None
    ) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        # A user's inference_mode would forbid the graph from the layer on; its tensors are cloned into ordinary ones.
        with torch.inference_mode(False), torch.no_grad():
            inputs = map_leaves(lambda each: each.clone() if each.is_inference() else each, inputs)
            if score is None:
                return *run(inputs, lambda activations: activations.clone()), None
            outputs, activations = run(inputs, _with_gradient)
            with torch.enable_grad():
                # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
                scores = score(outputs, targets).sum(dim=0)
            gradients = _gradients(scores, activations)
        return keras.tree.map_structure(torch.Tensor.detach, outputs), activations.detach(), gradients


def _with_gradient(activations: torch.Tensor) -> torch.Tensor:
    torch.set_grad_enabled(True)
    return activations.detach().clone().requires_grad_(True)


def _gradients(scores: torch.Tensor, activations: torch.Tensor) -> torch.Tensor | None:
    """(K, *activations.shape) of K scores; None if none of them depends on the activations."""
    each = [
        torch.autograd.grad(score, activations, retain_graph=True, allow_unused=True)[0]
        for score in scores.unbind()
        if score.requires_grad
    ]
    if all(gradient is None for gradient in each):
        return None
    return torch.stack([torch.zeros_like(activations) if one is None else one for one in each])


make_engine = TorchEngine
