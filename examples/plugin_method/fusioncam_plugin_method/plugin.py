"""The hooks: what this package brings. They are asked once somebody looks a method or a metric up by name."""

from __future__ import annotations

from typing import Any

import pluggy

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_methods() -> list[type[Any]]:
    """The methods of this package."""
    from fusioncam_plugin_method.method import NormGrad

    return [NormGrad]


@hookimpl
def fusioncam_metrics() -> list[type[Any]]:
    """The metrics of this package."""
    from fusioncam_plugin_method.metric import Sparseness

    return [Sparseness]
