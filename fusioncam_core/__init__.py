"""Class activation maps, Fusion-CAM first, for models of any framework.

`FusionCAM(model)(images)` explains, and so does every other explainer; each method is also a function for arrays of
one's own: `grad_cam`, `score_cam`, `fusion_cam` and so on. Importing this package imports no framework, and what
compares methods, `evaluate`, only when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.arrays.words import blur, normalise, percentile, resize, softmax
from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import (
    CannotWriteError,
    EmptyMapWarning,
    EngineWarning,
    FolderInUseError,
    FusionCamError,
    FusionCamWarning,
    GradientsUnavailableError,
    InvalidIndexError,
    InvalidTypeError,
    InvalidValueError,
    MemoryWarning,
    MissingExtra,
    PluginWarning,
    PreprocessingWarning,
    SkippedImageWarning,
    UnconnectedError,
    UnknownNameError,
    UnreadableImageWarning,
)
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
from fusioncam_core.methods.ablation import ablation_cam
from fusioncam_core.methods.eigen import eigen_cam, eigengrad_cam
from fusioncam_core.methods.fusion import Fusion, contribution_weights, denoise, fuse, fusion_cam, similarity
from fusioncam_core.methods.gradient import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from fusioncam_core.methods.groups import group_cam
from fusioncam_core.methods.rise import rise
from fusioncam_core.methods.sampled import is_cam, ss_cam
from fusioncam_core.methods.score import score_cam
from fusioncam_core.methods.smooth import smooth_grad_cam_plus_plus
from fusioncam_core.methods.union import denoised_cam, union_cam
from fusioncam_core.models.adapter import Capture, LayerInfo, ModelAdapter
from fusioncam_core.models.black_box import BlackBox
from fusioncam_core.models.detection_targets import BoxSimilarity, Candidates, DetectionScore, YOLOCandidates
from fusioncam_core.models.target_functions import (
    BinaryLogit,
    ClassLogit,
    ClassProbability,
    Contrast,
    EmbeddingSimilarity,
    Finer,
    Regression,
    ResidualSoftmax,
    SegmentationLogit,
)
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.loading import load_model
from fusioncam_core.plugins.manager import adapt_model, plugin_manager
from fusioncam_core.results.comparison import methods_figure
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.figures import FigureRow, figure
from fusioncam_core.results.objects import Box, object_boxes, object_masks
from fusioncam_core.results.overlay import overlay
from fusioncam_core.results.provenance import Provenance
from fusioncam_core.results.report import write_report

if TYPE_CHECKING:
    from fusioncam_core import metrics as metrics
    from fusioncam_core.evaluation import Evaluation, evaluate
    from fusioncam_core.jobs import Estimate, JobResult

__version__ = "0.1.0"

__all__ = [
    "EXPLAINERS",
    "ISCAM",
    "RISE",
    "SSCAM",
    "AblationCAM",
    "BinaryLogit",
    "BlackBox",
    "Box",
    "BoxSimilarity",
    "Candidates",
    "CannotWriteError",
    "Capture",
    "ClassLogit",
    "ClassProbability",
    "Contrast",
    "DetectionScore",
    "EigenCAM",
    "EigenGradCAM",
    "EmbeddingSimilarity",
    "EmptyMapWarning",
    "EngineWarning",
    "Estimate",
    "Evaluation",
    "Explainer",
    "Explanation",
    "FigureRow",
    "Finer",
    "FolderInUseError",
    "Fusion",
    "FusionCAM",
    "FusionCamError",
    "FusionCamWarning",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientsUnavailableError",
    "GroupCAM",
    "HiResCAM",
    "InvalidIndexError",
    "InvalidTypeError",
    "InvalidValueError",
    "JobResult",
    "LayerCAM",
    "LayerInfo",
    "LoadedModel",
    "MemoryWarning",
    "MissingExtra",
    "ModelAdapter",
    "PluginWarning",
    "Preprocessing",
    "PreprocessingWarning",
    "Provenance",
    "Regression",
    "ResidualSoftmax",
    "ScoreCAM",
    "SegmentationLogit",
    "SkippedImageWarning",
    "SmoothGradCAMPlusPlus",
    "UnconnectedError",
    "UnionCAM",
    "UnknownNameError",
    "UnreadableImageWarning",
    "XGradCAM",
    "YOLOCandidates",
    "__version__",
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
    "figure",
    "fuse",
    "fusion_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "group_cam",
    "hires_cam",
    "is_cam",
    "layer_cam",
    "load_model",
    "methods_figure",
    "normalise",
    "object_boxes",
    "object_masks",
    "overlay",
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
    "write_report",
    "xgrad_cam",
]

_LATER = {
    "Estimate": "fusioncam_core.jobs",
    "Evaluation": "fusioncam_core.evaluation",
    "JobResult": "fusioncam_core.jobs",
    "evaluate": "fusioncam_core.evaluation",
}
"""Public names that bring metrics, files and locks with them: a seventh of the time that the import would take."""


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("fusioncam_core.metrics")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "metrics"})
