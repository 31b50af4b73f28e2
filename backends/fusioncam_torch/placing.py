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
    if not hasattr(torch, "accelerator"):  # before PyTorch 2.6
        return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = 0 if found is None else torch.accelerator.device_count()
    return ["cpu", *(f"{found.type}:{number}" for number in range(count) if found is not None)]
