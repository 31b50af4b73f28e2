"""Whether maps are faithful: formulas as pure functions of arrays, and metrics that ask a model.

The functions take arrays and give one value a map, NaN where there is none. The metrics, `METRICS` by name, do the same
with an explainer's maps and model; `fusioncam_core.evaluate` compares methods by them, and `measure_maps` takes maps of
any library, in one way for all metrics. What is of many images at once stands by itself: `grid_pointing_game`,
`randomisation_check`, `max_box_acc`.
"""

import importlib
import pkgutil

from fusioncam_core.arrays.ranks import rank_correlation
from fusioncam_core.metrics.agreement import adcc, coherency, complexity
from fusioncam_core.metrics.boxes import BoxAccuracy, box_iou, max_box_acc, max_box_acc_v2, pixel_average_precision
from fusioncam_core.metrics.confidence import drop, gain, increase
from fusioncam_core.metrics.explained_batch import ExplainedBatch
from fusioncam_core.metrics.given import measure_maps
from fusioncam_core.metrics.grid import GridGame, grid_pointing_game
from fusioncam_core.metrics.imputation import impute
from fusioncam_core.metrics.localisation import (
    box_masks,
    cell_masks,
    energy_in_mask,
    grid_share,
    iou,
    iou_curve,
    mosaic,
    pointing_game,
    roc_auc,
    union_masks,
)
from fusioncam_core.metrics.measures import (
    ADCC,
    FAITHFULNESS,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    BoxIoU,
    Coherency,
    Complexity,
    EnergyInMask,
    IoU,
    IoUCurve,
    MaskAUC,
    PointingGame,
)
from fusioncam_core.metrics.metric import Measured, Metric
from fusioncam_core.metrics.perturbing import ROAD, Deletion, Infidelity, Insertion, MaxSensitivity
from fusioncam_core.metrics.registry import METRICS
from fusioncam_core.metrics.removal import area, ranks, removal_counts, removal_masks
from fusioncam_core.metrics.robustness import infidelity, max_sensitivity
from fusioncam_core.metrics.sanity import Randomisation, randomisation_check

__all__ = [
    "ADCC",
    "FAITHFULNESS",
    "METRICS",
    "ROAD",
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "BoxAccuracy",
    "BoxIoU",
    "Coherency",
    "Complexity",
    "Deletion",
    "EnergyInMask",
    "ExplainedBatch",
    "GridGame",
    "Infidelity",
    "Insertion",
    "IoU",
    "IoUCurve",
    "MaskAUC",
    "MaxSensitivity",
    "Measured",
    "Metric",
    "PointingGame",
    "Randomisation",
    "adcc",
    "area",
    "box_iou",
    "box_masks",
    "cell_masks",
    "coherency",
    "complexity",
    "drop",
    "energy_in_mask",
    "gain",
    "grid_pointing_game",
    "grid_share",
    "impute",
    "increase",
    "infidelity",
    "iou",
    "iou_curve",
    "max_box_acc",
    "max_box_acc_v2",
    "max_sensitivity",
    "measure_maps",
    "mosaic",
    "pixel_average_precision",
    "pointing_game",
    "randomisation_check",
    "rank_correlation",
    "ranks",
    "removal_counts",
    "removal_masks",
    "roc_auc",
    "union_masks",
]

# Metrics put themselves into the registry: whatever file in this folder has one, it is found.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
