"""ONNX Runtime, on processors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.models.engines import Exported, Keep, Parts, Precision, Run
from fusioncam_core.models.threads import allowed
from fusioncam_engines.names import places

PROVIDER = "CPUExecutionProvider"

FILE = "model.onnx"
"""What a graph is kept as."""


SILENT = "ORT_DISABLE_TELEMETRY"
"""Read as ONNX Runtime begins, which otherwise tells Microsoft of the process and of its sessions."""


def _imported() -> Any:
    """ONNX Runtime, which does without its telemetry where it is first imported here: fusioncam sends nothing."""
    told = SILENT in os.environ or "onnxruntime" in sys.modules
    if not told:
        os.environ[SILENT] = "1"
    try:
        return require("onnxruntime", "The engine 'onnxruntime'", "onnxruntime")
    finally:
        if not told:
            del os.environ[SILENT]


class ONNXRuntime:
    """Reads ONNX."""

    name = "onnxruntime"
    reads = ("onnx",)

    def __init__(self) -> None:
        self._onnxruntime: Any = _imported()

    def unable(self, precision: Precision) -> str | None:
        if precision == "bfloat16":
            return "ONNX Runtime has few operators in bfloat16 on processors. Take float32, or engine='openvino'"
        return None

    @property
    def version(self) -> str:
        """ONNX Runtime's."""
        return str(self._onnxruntime.__version__)

    def converted(
        self, graph: Any, kind: str, exported: Exported, precision: Precision, keep: Keep | None = None
    ) -> Run:
        if keep is not None:
            keep(lambda: {FILE: graph})
        return self._running(graph, exported)

    def restored(self, parts: Parts, exported: Exported, precision: Precision) -> Run:
        return self._running(parts[FILE], exported)

    def _running(self, graph: bytes, exported: Exported) -> Run:
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
