"""Explainers that weigh a layer's channels by gradients: one forward pass, one backward pass to the layer."""

from __future__ import annotations

from fusioncam_core.cams.gradient import _grad_cam
from fusioncam_core.explainers.base import Explainer, Result
from fusioncam_core.explainers.batch import Batch


class GradCAM(Explainer):
    """Grad-CAM (arXiv 1610.02391): channels weighed by the mean of their gradients."""

    name = "grad-cam"
    title = "Grad-CAM"
    needs_gradients = True

    def explain(self, batch: Batch) -> Result:
        """`N(U(relu(sum_k mean_ij(dy_c/dA_k) A_k)))`."""
        return Result(_grad_cam(batch.activations, batch.required_gradients, batch.size, xp=batch.xp))
