"""The hook of the engines. Their packages are imported once one of them is asked for."""

from __future__ import annotations

import importlib.util
from typing import Any

import pluggy

hookimpl = pluggy.HookimplMarker("fusioncam")

ENGINES = ("openvino", "onnxruntime")
"""The names, each also of its package and of its extra; the first that is installed is what "auto" takes."""


@hookimpl
def fusioncam_engine(name: str) -> Any:
    """OpenVINO and ONNX Runtime, on processors."""
    if name == "auto":
        name = next((each for each in ENGINES if importlib.util.find_spec(each) is not None), "")
    if name == "openvino":
        from fusioncam_engines.openvino import OpenVINO

        return OpenVINO()
    if name == "onnxruntime":
        from fusioncam_engines.onnxruntime import ONNXRuntime

        return ONNXRuntime()
    return None
