"""All metrics by name. The classes put themselves in; plugins bring theirs when they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusioncam_core.plugins.manager import ask_for_metrics
from fusioncam_core.plugins.registry import Registry

if TYPE_CHECKING:
    from fusioncam_core.metrics.metric import Metric

METRICS: Registry[type[Metric]] = Registry(
    "metric", ("better", ("higher", "lower")), ask_for_metrics, "fusioncam_core.metrics.metric.Metric"
)
"""The metrics of single images by name: fusioncam's own, plugins', and those defined meanwhile."""

register = METRICS.register
