"""Class activation maps, Fusion-CAM first, for models of any framework.

`FusionCAM(model)(images)` explains, and so does every other explainer; each method is also a function for arrays of
one's own: `grad_cam`, `score_cam`, `fusion_cam` and so on. Importing this package imports no framework.
"""

from fusioncam_core.adapter import Capture, GradientsUnavailableError, LayerInfo, ModelAdapter
from fusioncam_core.arrays import array_namespace, blur, normalise, percentile, resize, softmax
from fusioncam_core.blackbox import BlackBox
from fusioncam_core.cams.ablation import ablation_cam
from fusioncam_core.cams.eigen import eigen_cam, eigengrad_cam
from fusioncam_core.cams.fusion import Fusion, contribution_weights, denoise, fuse, fusion_cam, similarity
from fusioncam_core.cams.gradient import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from fusioncam_core.cams.groups import group_cam
from fusioncam_core.cams.random_masks import rise
from fusioncam_core.cams.region import score_cam
from fusioncam_core.cams.sampled import is_cam, ss_cam
from fusioncam_core.cams.smooth import smooth_grad_cam_plus_plus
from fusioncam_core.cams.union import denoised_cam, union_cam
from fusioncam_core.evaluation import Evaluation, evaluate
from fusioncam_core.explainers import (
    EXPLAINERS,
    ISCAM,
    RISE,
    SSCAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    Explainer,
    FusionCAM,
    FusionCamWarning,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    UnionCAM,
    XGradCAM,
)
from fusioncam_core.explanation import Explanation
from fusioncam_core.extras import MissingExtra
from fusioncam_core.loading import LoadedModel, load_model
from fusioncam_core.many import UnreadableImageWarning
from fusioncam_core.pace import MemoryWarning
from fusioncam_core.plugins import adapt_model, plugin_manager
from fusioncam_core.preprocessing import Preprocessing

__all__ = [
    "EXPLAINERS",
    "ISCAM",
    "RISE",
    "SSCAM",
    "AblationCAM",
    "BlackBox",
    "Capture",
    "EigenCAM",
    "EigenGradCAM",
    "Evaluation",
    "Explainer",
    "Explanation",
    "Fusion",
    "FusionCAM",
    "FusionCamWarning",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientsUnavailableError",
    "GroupCAM",
    "HiResCAM",
    "LayerCAM",
    "LayerInfo",
    "LoadedModel",
    "MemoryWarning",
    "MissingExtra",
    "ModelAdapter",
    "Preprocessing",
    "ScoreCAM",
    "SmoothGradCAMPlusPlus",
    "UnionCAM",
    "UnreadableImageWarning",
    "XGradCAM",
    "ablation_cam",
    "adapt_model",
    "array_namespace",
    "blur",
    "contribution_weights",
    "denoise",
    "denoised_cam",
    "eigen_cam",
    "eigengrad_cam",
    "evaluate",
    "fuse",
    "fusion_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "group_cam",
    "hires_cam",
    "is_cam",
    "layer_cam",
    "load_model",
    "normalise",
    "percentile",
    "plugin_manager",
    "resize",
    "rise",
    "score_cam",
    "similarity",
    "smooth_grad_cam_plus_plus",
    "softmax",
    "ss_cam",
    "union_cam",
    "xgrad_cam",
]
