"""Class activation maps, Fusion-CAM first, for models of any framework.

`FusionCAM(model)(images)` explains; `grad_cam`, `score_cam`, `denoise`, `contribution_weights`, `similarity`,
`fuse` and `fusion_cam` do the same for arrays of one's own. Importing this package imports no framework.
"""

from fusioncam_core.adapter import Capture, LayerInfo, ModelAdapter
from fusioncam_core.arrays import array_namespace, blur, normalise, percentile, resize, softmax
from fusioncam_core.cams.fusion import Fusion, contribution_weights, denoise, fuse, fusion_cam, similarity
from fusioncam_core.cams.gradient import grad_cam
from fusioncam_core.cams.region import score_cam
from fusioncam_core.explainers import EXPLAINERS, Explainer, FusionCAM, FusionCamWarning, GradCAM, ScoreCAM
from fusioncam_core.explanation import Explanation
from fusioncam_core.extras import MissingExtra
from fusioncam_core.loading import LoadedModel, load_model
from fusioncam_core.plugins import adapt_model, plugin_manager
from fusioncam_core.preprocessing import Preprocessing

__all__ = [
    "EXPLAINERS",
    "Capture",
    "Explainer",
    "Explanation",
    "Fusion",
    "FusionCAM",
    "FusionCamWarning",
    "GradCAM",
    "LayerInfo",
    "LoadedModel",
    "MissingExtra",
    "ModelAdapter",
    "Preprocessing",
    "ScoreCAM",
    "adapt_model",
    "array_namespace",
    "blur",
    "contribution_weights",
    "denoise",
    "fuse",
    "fusion_cam",
    "grad_cam",
    "load_model",
    "normalise",
    "percentile",
    "plugin_manager",
    "resize",
    "score_cam",
    "similarity",
    "softmax",
]
