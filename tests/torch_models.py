"""Small PyTorch models for tests."""

from __future__ import annotations

import torch
from torch import nn

from fusioncam_core.testing import BrokenModelError


class Breaks(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        raise BrokenModelError


class Shapes(nn.Module):
    """The network of the golden vectors, with an in-place ReLU as its last one."""

    def __init__(self, weights: dict, *, broken: bool = False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.between = Breaks() if broken else nn.Identity()
        self.fc = nn.Linear(48, 5)
        layers = {"conv1": self.features[0], "conv2": self.features[3], "conv3": self.features[6]}
        for name, layer in {**layers, "conv4": self.features[8], "fc": self.fc}.items():
            layer.load_state_dict({key: torch.from_numpy(weights[f"{name}.{key}"]) for key in ("weight", "bias")})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.between(self.features(images).mean(dim=(2, 3))))


def module_state(model: nn.Module) -> dict:
    """All that an explanation must leave as it was."""
    state: dict = {}
    for name, module in model.named_modules():
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks") and value is not None}
        state[f"{name} module"] = (id(module), module.training, hooks)
    for name, parameter in model.named_parameters():
        state[f"{name} value"] = parameter.detach().numpy().copy()
        state[f"{name} flags"] = (id(parameter), parameter.requires_grad, id(parameter.grad))
        if parameter.grad is not None:
            state[f"{name} grad"] = parameter.grad.numpy().copy()
    for name, buffer in model.named_buffers():
        state[f"{name} buffer"] = buffer.numpy().copy()
        state[f"{name} identity"] = id(buffer)
    return state
