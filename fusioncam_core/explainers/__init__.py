"""The explainers: a model, a layer and a method in one object, called with images."""

from fusioncam_core.explainers.base import Explainer, FusionCamWarning, Result
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.ensembles import FusionCAM
from fusioncam_core.explainers.gradient import GradCAM
from fusioncam_core.explainers.region import ScoreCAM

EXPLAINERS: dict[str, type[Explainer]] = {each.name: each for each in (FusionCAM, GradCAM, ScoreCAM)}
"""The explainers by name."""

__all__ = ["EXPLAINERS", "Batch", "Explainer", "FusionCAM", "FusionCamWarning", "GradCAM", "Result", "ScoreCAM"]
