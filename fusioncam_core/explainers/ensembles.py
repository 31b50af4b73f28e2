"""Explainers that make one map of a gradient map and a region map."""

from __future__ import annotations

from typing import Any

from fusioncam_core.arrays import require_percentage
from fusioncam_core.cams.fusion import Contributions, _fusion_cam, require_mode
from fusioncam_core.explainers.base import Explainer, Result
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.gradient import GradCAM
from fusioncam_core.explainers.region import ScoreCAM


class FusionCAM(Explainer):
    """Fusion-CAM (arXiv 2603.05386): Grad-CAM, denoised, and Score-CAM, fused pixel by pixel by their similarity.

    Args:
        model, layer, and every keyword of `Explainer`.
        percentile: values of the gradient map below it are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0) or "signed" (the published arithmetic).

    Raises:
        TypeError, ValueError: as `Explainer`.
    """

    name = "fusion-cam"
    title = "Fusion-CAM"
    needs_gradients = True
    needs_masks = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        percentile: float = 10,
        contributions: Contributions = "clipped",
        **keywords: Any,
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_mode(contributions)
        super().__init__(model, layer, **keywords)
        self.gradient = GradCAM(self.adapter)
        self.region = ScoreCAM(self.adapter)

    def explain(self, batch: Batch) -> Result:
        """Steps 1 to 3 of the paper, with every stage in the parts."""
        fusion = _fusion_cam(
            self.gradient.explain(batch).maps,
            self.region.explain(batch).maps,
            batch.masked.probabilities,
            batch.masked.black_probabilities(),
            self.percentile,
            self.contributions,
            len(batch.size),
            xp=batch.xp,
        )
        return Result(fusion.maps, fusion.parts, fusion.weights)
