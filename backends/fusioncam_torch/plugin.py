"""The hooks of the PyTorch backend. PyTorch itself is imported once a model of it turns up, or is to be loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fusioncam_core.plugins.loaded_model import LoadedModel

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """A `TorchAdapter` for any `torch.nn.Module`, and for the one that a pipeline of transformers classifies with."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    from fusioncam_torch.held import in_pipeline
    from fusioncam_torch.reach import holds_a_model

    model = in_pipeline(model)
    if error := holds_a_model(model):
        raise error
    if not isinstance(model, torch.nn.Module):
        return None
    from fusioncam_torch.adapter import TorchAdapter

    return TorchAdapter(model, options)


@hookimpl
def fusioncam_array_namespace(array: Any) -> Any:
    """array-api-compat's namespace of PyTorch."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return None
    from fusioncam_torch import namespace

    return namespace


@hookimpl
def fusioncam_load_model(spec: str) -> LoadedModel | None:
    """A pretrained model of timm or torchvision, as in `timm:resnet18` or `torchvision:resnet50`."""
    library, _, name = spec.partition(":")
    if library not in ("timm", "torchvision"):
        return None
    from fusioncam_torch.loading import load

    return load(library, name)


@hookimpl
def fusioncam_complete_model(loaded: LoadedModel) -> LoadedModel | None:
    """Of a pipeline or an image processor of transformers, or a model of timm."""
    if "torch" not in sys.modules:
        return None
    from fusioncam_torch.held import complete

    return complete(loaded)


@hookimpl
def fusioncam_place_model(model: Any, device: str) -> Any:
    """By the module's own `to`."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return None
    from fusioncam_torch.placing import place

    return place(model, device)


@hookimpl
def fusioncam_describe_models() -> str:
    """PyTorch modules."""
    return 'torch.nn.Module: pip install "fusioncam[torch]"'
