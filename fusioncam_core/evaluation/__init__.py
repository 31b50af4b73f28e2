"""Methods compared on images by metrics: `evaluate`, and what it returns."""

from fusioncam_core.evaluation.results import Evaluation
from fusioncam_core.evaluation.runner import evaluate

__all__ = ["Evaluation", "evaluate"]
