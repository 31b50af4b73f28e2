"""Methods compared on images by metrics: `evaluate`, what it returns, and names for what has no value of its own."""

from fusioncam_core.evaluation.results import Evaluation
from fusioncam_core.evaluation.runner import evaluate
from fusioncam_core.stores.fingerprints import named

__all__ = ["Evaluation", "evaluate", "named"]
