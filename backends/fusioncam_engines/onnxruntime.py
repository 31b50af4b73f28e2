"""ONNX Runtime, on processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.models.engines import Exported, Precision, Run
from fusioncam_engines.names import places
from fusioncam_engines.threads import allowed

PROVIDER = "CPUExecutionProvider"


class ONNXRuntime:
    """Reads ONNX."""

    name = "onnxruntime"
    reads = ("onnx",)

    def __init__(self) -> None:
        self._onnxruntime: Any = require("onnxruntime", "The engine 'onnxruntime'", "onnxruntime")

    def unable(self, precision: Precision) -> str | None:
        if precision == "bfloat16":
            return "ONNX Runtime has few operators in bfloat16 on processors. Take float32, or engine='openvino'"
        return None

    def converted(self, graph: Any, kind: str, exported: Exported, precision: Precision) -> Run:
        settings = self._onnxruntime.SessionOptions()
        settings.intra_op_num_threads = allowed(exported.threads)
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3  # errors alone: it warns of initialisers that it does not need
        session = self._onnxruntime.InferenceSession(graph, settings, providers=[PROVIDER])
        names = [each.name for each in session.get_inputs()]
        order = places([[name] for name in names], len(exported.shapes))

        def run(arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
            given = {name: arguments[place] for name, place in zip(names, order, strict=True)}
            results: list[np.ndarray] = session.run(None, given)
            return results

        return run
