"""The hooks: which models are ONNX models. ONNX Runtime is imported once one of them turns up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pluggy

from fusioncam_core.errors import InvalidTypeError

hookimpl = pluggy.HookimplMarker("fusioncam")


@hookimpl
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> Any:
    """An `OnnxAdapter` for the path of an .onnx file or an `onnx.ModelProto`.

    Raises:
        TypeError: for an `InferenceSession`, which keeps its graph to itself.
    """
    if _is_a(model, "onnxruntime", "InferenceSession"):
        raise InvalidTypeError(
            "An InferenceSession does not give its graph back, so no layer of it can be read. Give the path of the "
            ".onnx file, or the onnx.ModelProto, that it was made of."
        )
    if not _is_path(model) and not _is_a(model, "onnx", "ModelProto"):
        return None
    from fusioncam_onnx.adapter import OnnxAdapter

    return OnnxAdapter(model, options)


@hookimpl
def fusioncam_describe_models() -> str:
    """Files and protos."""
    return "the path of an .onnx file, or an onnx.ModelProto: pip install fusioncam-onnx"


def _is_path(model: Any) -> bool:
    return isinstance(model, str | Path) and Path(model).suffix == ".onnx"


def _is_a(value: Any, module: str, name: str) -> bool:
    """An isinstance that imports nothing: a library that is not loaded cannot have made the value."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
