"""torch-cam (the package torchcam), for PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torchcam.methods import GradCAM, ScoreCAM


def grad_cam(model: torch.nn.Module, layer: str, images: np.ndarray, target: int) -> np.ndarray:
    """Grad-CAM's maps (B, H, W) of images (B, C, H, W), in [0, 1]."""
    inputs = torch.from_numpy(images)
    with GradCAM(model, layer) as extractor:
        scores = model(inputs)
        (maps,) = extractor(class_idx=target, scores=scores)
    return _at_input_size(maps, inputs)


def score_cam(model: torch.nn.Module, layer: str, images: np.ndarray, target: int, batch_size: int) -> np.ndarray:
    """Score-CAM's maps (B, H, W) of images (B, C, H, W), in [0, 1]."""
    inputs = torch.from_numpy(images)
    with ScoreCAM(model, layer, batch_size=batch_size) as extractor:
        with torch.inference_mode():
            model(inputs)
        (maps,) = extractor(class_idx=target)
    return _at_input_size(maps, inputs)


def _at_input_size(maps: torch.Tensor, inputs: torch.Tensor) -> np.ndarray:
    """The library returns maps of the layer's size; they grow here the way it grows its own masks."""
    size = tuple(inputs.shape[2:])
    return torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()
