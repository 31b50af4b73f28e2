"""pytorch-grad-cam (the package grad-cam), for PyTorch."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import tqdm

from benchmarks.peers.torchvision_standin import standing_in

with standing_in():
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

# Score-CAM draws a bar per image and has no switch for it: its module gets tqdm's own, and the loop stays what it was.
pytorch_grad_cam.score_cam.tqdm = SimpleNamespace(tqdm=partial(tqdm.tqdm, disable=True))


def grad_cam(model: torch.nn.Module, layer: str, images: np.ndarray, target: int) -> np.ndarray:
    """Grad-CAM's maps (B, H, W) of images (B, C, H, W), in [0, 1].

    The layer must run once in a run of the model: of several runs, the library explains the first. What gradients the
    parameters had are lost.
    """
    with pytorch_grad_cam.GradCAM(model=model, target_layers=[model.get_submodule(layer)]) as cam:
        return _maps(cam, images, target)


def score_cam(model: torch.nn.Module, layer: str, images: np.ndarray, target: int, batch_size: int) -> np.ndarray:
    """Score-CAM's maps (B, H, W) of images (B, C, H, W), in [0, 1]. The layer must run once, as for `grad_cam`."""
    with pytorch_grad_cam.ScoreCAM(model=model, target_layers=[model.get_submodule(layer)]) as cam:
        cam.batch_size = batch_size
        return _maps(cam, images, target)


def _maps(cam: pytorch_grad_cam.base_cam.BaseCAM, images: np.ndarray, target: int) -> np.ndarray:
    targets = [ClassifierOutputTarget(target)] * len(images)
    return cam(input_tensor=torch.from_numpy(images), targets=targets)
