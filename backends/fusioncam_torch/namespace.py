"""The array words over PyTorch: array-api-compat's namespace and what tensors on a device need besides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from array_api_compat.torch import *  # noqa: F403


def constant_like(values: Any, like: torch.Tensor) -> torch.Tensor:
    """NumPy values as a tensor of `like`'s dtype on its device."""
    return torch.from_numpy(np.array(values)).to(device=like.device, dtype=like.dtype)


def indices_like(values: Any, like: torch.Tensor) -> torch.Tensor:
    """NumPy integers as int64 indices on `like`'s device."""
    return torch.from_numpy(np.array(values, dtype=np.int64)).to(like.device)


def kept(scores: torch.Tensor) -> Any:
    """The scores of a chunk as they are kept until all are there: a copy for NumPy, if they are on the host.

    Small tensors that outlive the large ones around them leave the C library's heap in pieces: with 512 chunks of 16
    images they cost 200 MB, and copies in NumPy's own memory 11 MB.
    """
    return scores.numpy().copy() if scores.device.type == "cpu" else scores
