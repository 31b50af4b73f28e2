"""The form that was chosen: the calibrated one without its root, the union of both maps as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusioncam_core import FusionCAM
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.result import Result


class UnitedCAM(FusionCAM):
    """Fusion-CAM's union of the gradient map and Score-CAM by regression: `parts["union"]` of the calibrated form.

    Args:
        model, layer, **options: as for `FusionCAM`.
    """

    takes_form = True

    def __init__(self, model: Any, layer: Any = None, **options: Any):
        super().__init__(model, layer, variant="calibrated", **options)

    def explain(self, batch: Batch) -> Result:
        """The union, in the place of its root."""
        found = super().explain(batch)
        return replace(found, maps=found.parts["union"])
