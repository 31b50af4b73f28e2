"""The explainers: a model, a layer and a method in one object, called with images."""

import importlib
import pkgutil

from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.ensembles import FusionCAM, UnionCAM
from fusioncam_core.explainers.gradient import (
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from fusioncam_core.explainers.region import AblationCAM, GroupCAM, ScoreCAM
from fusioncam_core.explainers.region_sampled import ISCAM, RISE, SSCAM
from fusioncam_core.explainers.registry import EXPLAINERS
from fusioncam_core.explainers.result import Result
from fusioncam_core.methods.form import Combined

__all__ = [
    "EXPLAINERS",
    "ISCAM",
    "RISE",
    "SSCAM",
    "AblationCAM",
    "Batch",
    "Combined",
    "EigenCAM",
    "EigenGradCAM",
    "Explainer",
    "FusionCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GroupCAM",
    "HiResCAM",
    "LayerCAM",
    "Result",
    "ScoreCAM",
    "SmoothGradCAMPlusPlus",
    "UnionCAM",
    "XGradCAM",
]

# Methods put themselves into the registry: whatever file in this folder has one, it is found.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
