"""A module on a device."""

from __future__ import annotations

import torch

from fusioncam_core.plugins.devices import chosen_device
from fusioncam_core.plugins.foreign import foreign_code


def place(model: torch.nn.Module, device: str) -> torch.nn.Module:
    """The module with its parameters and buffers on the device, where inputs follow them.

    Raises:
        InvalidValueError: there is no such device, or the module does not go there.
    """
    wanted = chosen_device(device, there(), "PyTorch")
    with foreign_code(f"{type(model).__name__} does not go to {wanted}"):
        return model.to(wanted)


def there() -> list[str]:
    """The devices that PyTorch computes on: the meta device has no values to explain."""
    accelerators = []
    if torch.accelerator.is_available():
        found = torch.accelerator.current_accelerator()
        kind = "" if found is None else found.type
        accelerators = [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]
    return ["cpu", *accelerators]
