"""Grad-CAM written by hand for PyTorch, as a reference that shares nothing with the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def grad_cam(
    model: torch.nn.Module,
    layer: torch.nn.Module,
    call: Callable[[torch.nn.Module], Any],
    score: Callable[[Any], torch.Tensor],
    size: tuple[int, ...],
    *,
    to_maps: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
    which: int = -1,
) -> torch.Tensor:
    """(B, *size) of `score(call(model))` at a call of the layer, whose output `to_maps` makes (B, C, *space)."""
    kept: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        kept.append(output if torch.is_tensor(output) else output[0])

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            value = score(call(model.eval())).sum()
            (gradient,) = torch.autograd.grad(value, kept[which])
    finally:
        handle.remove()
    activations, gradients = to_maps(kept[which].detach()), to_maps(gradient)
    weights = gradients.flatten(2).mean(-1)
    cam = torch.einsum("bc,bc...->b...", weights, activations).relu()
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    cam = F.interpolate(cam[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    low, high = cam.flatten(1).amin(1), cam.flatten(1).amax(1)
    shape = (-1, *(1,) * (cam.ndim - 1))
    return (cam - low.view(shape)) / (high - low).clamp_min(1e-37).view(shape)
