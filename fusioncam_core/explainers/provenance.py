"""What an explanation says of how it came to be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import array_api_compat

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.explainers.arguments import Value
from fusioncam_core.results.provenance import Provenance, plain

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

WITHOUT_EFFECT = ("model", "layer", "progress", "weights_digest")
"""Arguments that are no options of a map: those that nothing in it depends on, and those that are told in other words.
"""


def provenance_of(explainer: Explainer, layers: Sequence[str], images: Array) -> Provenance:
    """How an explanation comes to be, without the digest of the weights, which takes time.

    Args:
        explainer: makes it.
        layers: the explained ones, as they were captured.
        images: as the model got them.
    """
    adapter = explainer.adapter
    return Provenance(
        version=version_of("fusioncam_core"),
        method=explainer.name,
        options=_options(explainer),
        layers=() if explainer.layer_names == () else tuple(layers),
        model=adapter.model_name,
        frameworks={name: version_of(name) for name in adapter.frameworks},
        device=str(array_api_compat.device(images)),
    )


def _options(explainer: Value) -> dict[str, Any]:
    """All arguments, and in place of a part's name the part itself."""
    parts = {name.lstrip("_"): _part(each) for name, each in vars(explainer).items() if isinstance(each, Value)}
    given = {
        name: plain(each)
        for name, each in explainer.get_params().items()
        if name not in WITHOUT_EFFECT and name not in parts
    }
    return {**given, **parts}


def _part(part: Any) -> dict[str, Any]:
    described = {"method": part.name, "options": _options(part)}
    return {**described, "layers": list(part.layer_names)} if part.layer_names else described


def version_of(module: str) -> str:
    """Of a module that is imported; "unknown" of others."""
    return str(getattr(sys.modules.get(module), "__version__", "unknown"))
