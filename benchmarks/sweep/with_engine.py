"""One model explained with an inference engine and without: a row that says whether the map is the framework's.

python -m benchmarks.sweep.run --engine openvino --packages torchvision timm transformers smp --workers 1
"""

from __future__ import annotations

import time
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.sweep.judge import built, target_of
from benchmarks.sweep.subject import NotBuiltError, Subject
from fusioncam_core import FusionCamError, ScoreCAM

TOLERANCE = 1e-4
"""What docs/engines.md promises of float32."""

MASKS = 16
"""Of each map: enough of them that a wrong one shows."""

SMALL = {
    "torchvision": ("mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"),
    "timm": (
        "byobnet",
        "cait",
        "coat",
        "convnext",
        "efficientnet",
        "mambaout",
        "maxxvit",
        "pit",
        "pvt_v2",
        "resnet",
        "vision_transformer",
        "xcit",
    ),
    "transformers": (
        "classification convnext",
        "classification deit",
        "classification dinov2_with_registers",
        "classification pvt",
        "classification swin",
        "classification vit",
    ),
    "smp": ("Unet resnet18", "FPN resnet18"),
}
"""Models of as many families as run in some seconds each: the set for which engines are tried."""


def judge_with_engine(subject: Subject, framework: ModuleType, engine: str) -> dict[str, Any]:
    """The row of a model. A model that its package does not build is a row as well.

    Args:
        subject: what is known of it.
        framework: one of `benchmarks.sweep.on_*`.
        engine: its name.
    """
    began = time.monotonic()
    row: dict[str, Any] = {"package": subject.package, "model": subject.name, "kind": subject.kind, "engine": engine}
    try:
        model, size, images = built(subject, framework)
    except NotBuiltError as error:
        return {**row, "status": "not built", "sentence": str(error)}
    row |= {"parameters": framework.parameters(model), "size": list(size)}
    row |= _compared(subject, model, images, engine)
    return {**row, "seconds": round(time.monotonic() - began, 1)}


def _compared(subject: Subject, model: Any, images: Any, engine: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that nobody trained
        try:
            expected = _maps(subject, model, images, None)
        except FusionCamError as error:
            return {"status": "not judged", "sentence": f"without an engine: {error}"}
        try:
            found = _maps(subject, model, images, engine)
        except FusionCamError as error:
            return {"status": "refused", "sentence": str(error)}
        except Exception as error:  # noqa: BLE001 - an error that is not the library's own is what the row reports
            return {"status": "raw error", "sentence": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    difference = float(np.abs(found - expected).max())
    same = difference <= TOLERANCE and bool(expected.any())
    return {"difference": difference, "status": "right" if same else "wrong"}


def _maps(subject: Subject, model: Any, images: Any, engine: str | None) -> np.ndarray[Any, Any]:
    explainer = ScoreCAM(model, budget=MASKS, engine=engine, **subject.options)
    found: np.ndarray[Any, Any] = explainer(images, target_of(subject, 0)).numpy().maps
    return found
