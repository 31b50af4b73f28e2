"""Maps computed by plain autograd, without this library, for PyTorch models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def tapped(model: nn.Module, layer: nn.Module, images: torch.Tensor, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output in its last call, and the gradient of the target's logit with respect to it, in float32."""
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            score = model(images.clone().requires_grad_(True))[:, target].sum()
            (gradient,) = torch.autograd.grad(score, kept[-1])
    finally:
        handle.remove()
    return kept[-1].detach().float(), gradient.float()


def resized(maps: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """(B, *spatial) -> (B, *size), each from 0 to 1."""
    maps = nn.functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def grad_cam(model: nn.Module, layer: nn.Module, images: torch.Tensor, target: int) -> torch.Tensor:
    activations, gradients = tapped(model.eval(), layer, images, target)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return resized((weights * activations).sum(dim=1).relu(), tuple(images.shape[2:]))


def layer_cam(model: nn.Module, layer: nn.Module, images: torch.Tensor, target: int) -> torch.Tensor:
    activations, gradients = tapped(model.eval(), layer, images, target)
    return resized((gradients.relu() * activations).sum(dim=1).relu(), tuple(images.shape[2:]))


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


def head(inputs: int, classes: int) -> nn.Linear:
    """A linear layer of positive weights, so that no map is empty."""
    linear = nn.Linear(inputs, classes)
    with torch.no_grad():
        linear.weight.abs_()
    return linear


def seeded(make: Callable[[], Any]) -> Any:
    """What is made, with the same random weights every time, at inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
