"""The explainers: a model, a layer and a method in one object, called with images."""

from fusioncam_core.errors import FusionCamWarning
from fusioncam_core.explainers.base import Explainer, Result
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
from fusioncam_core.explainers.region import ISCAM, RISE, SSCAM, AblationCAM, GroupCAM, ScoreCAM
from fusioncam_core.explainers.registry import EXPLAINERS

__all__ = [
    "EXPLAINERS",
    "ISCAM",
    "RISE",
    "SSCAM",
    "AblationCAM",
    "Batch",
    "EigenCAM",
    "EigenGradCAM",
    "Explainer",
    "FusionCAM",
    "FusionCamWarning",
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
