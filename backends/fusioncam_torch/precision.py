"""The options by which masked images run faster than the model would by itself: compiled, or in half precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from fusioncam_core.errors import InvalidValueError

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype(name: object) -> torch.dtype | None:
    """The dtype of that name; None for None.

    Raises:
        ValueError: for another name.
    """
    if name is None:
        return None
    if name not in PRECISIONS:
        raise InvalidValueError(f"autocast is {' or '.join(map(repr, PRECISIONS))}: got {name!r}.")
    return PRECISIONS[str(name)]


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    """A context in which the operations that bear it run in this precision."""
    # Without the cache of cast weights, which would outlive a change of them.
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype)


def compiled(model: torch.nn.Module, mode: object) -> Any:
    """The model through `torch.compile`, with a program for each shape; it is compiled when it first runs.

    Args:
        model: is not changed.
        mode: True, or a mode of `torch.compile`, such as "max-autotune".

    Raises:
        ValueError: for a mode that PyTorch does not have.
    """
    modes = torch._inductor.list_mode_options() if isinstance(mode, str) else {}
    if mode is not True and mode not in modes:
        raise InvalidValueError(f"compile is True or one of {', '.join(map(repr, modes))}: got {mode!r}.")
    return torch.compile(model, dynamic=False, mode=None if mode is True else str(mode))
