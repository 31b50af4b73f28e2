"""Keras on PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import torch

from fusioncam_core.models.adapter import Score
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, map_leaves
from fusioncam_keras.engine import Captured, Engine, Run
from fusioncam_torch import dtypes, namespace
from fusioncam_torch.adapter import as_tensor, execution, freed_memory
from fusioncam_torch.buffers import Buffers
from fusioncam_torch.exporting import exported
from fusioncam_torch.state import begin_inference

OPTIONS = ()


class TorchEngine(Engine):
    """Autograd from the layer on. PyTorch modules inside the model are put into inference and back."""

    namespace = namespace
    run_errors = (RuntimeError,)

    def __init__(self, model: keras.Layer, options: Mapping[str, Any]):
        super().__init__(model, options)
        # Keras keeps its layers in lists of its own, in which PyTorch does not look for modules.
        self._modules = list(torch.nn.ModuleList(model._flatten_layers()).modules())
        self._buffers = Buffers()
        self._like = next((variable.value for variable in model.variables), torch.empty(0))
        self.execution = execution(self._like.device.type)

    def as_array(self, values: Any) -> torch.Tensor:
        return as_tensor(values, self._like.device, getattr(torch, self.dtype))

    def begin(self, touch: Callable[[Callable[[], object]], None]) -> None:
        begin_inference(self._modules, self._buffers, touch)

    def ran_out_of_memory(self, error: Exception) -> bool:
        return super().ran_out_of_memory(error) and freed_memory(self._like.device.type)

    def without_gradients(self) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad()

    def exported(
        self, function: Callable[..., Any], arguments: Sequence[torch.Tensor], shapes: Sequence[Shape]
    ) -> Exported:
        return exported(self.model, function, arguments, shapes, self._like.device)

    def capture(
        self, run: Run, layers: tuple[str, ...], inputs: Inputs, score: Score | None, targets: torch.Tensor | None
    ) -> Captured:
        # A user's inference_mode would forbid the graph from the layer on; its tensors are cloned into ordinary ones.
        with torch.inference_mode(False), torch.no_grad():
            inputs = map_leaves(lambda each: each.clone() if each.is_inference() else each, inputs)
            if score is None:
                return Captured(*run(inputs, lambda place, activations: activations.clone()), None)
            outputs, activations = run(inputs, _with_gradient)
            with torch.enable_grad():
                # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
                scores = score(outputs, targets).sum(dim=0)
            gradients = _gradients(scores, activations)
        detached = [each.detach() for each in activations]
        return Captured(keras.tree.map_structure(torch.Tensor.detach, outputs), detached, gradients)


def _with_gradient(place: int, activations: torch.Tensor) -> torch.Tensor:
    # Behind another tapped layer the graph must go on through this one; the first one is where it begins.
    begins = not (torch.is_grad_enabled() and activations.requires_grad)
    torch.set_grad_enabled(True)
    return activations.detach().clone().requires_grad_(True) if begins else activations.clone()


def _gradients(scores: torch.Tensor, activations: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """For each layer (K, *activations.shape) of K scores; None if none of them depends on the activations."""
    tried = dtypes.scales(activations, scores.device.type)
    rows = [dtypes.gradients(score, activations, tried) for score in scores.unbind() if score.requires_grad]
    if not rows:
        return [None] * len(activations)
    return [_stacked(each, like) for each, like in zip(zip(*rows, strict=True), activations, strict=True)]


def _stacked(gradients: Sequence[torch.Tensor | None], like: torch.Tensor) -> torch.Tensor | None:
    if all(each is None for each in gradients):
        return None
    return torch.stack([torch.zeros_like(like) if each is None else each for each in gradients])


make_engine = TorchEngine
