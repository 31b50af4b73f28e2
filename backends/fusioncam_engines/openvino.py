"""OpenVINO, Intel's engine for processors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.models.engines import Exported, Precision, Run
from fusioncam_engines.threads import allowed

DEVICE = "CPU"

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""What it calls our precisions: on processors with bfloat16 it would take that for float32 by itself."""


class OpenVINO:
    """Reads PyTorch's exported programs, TensorFlow's concrete functions and ONNX."""

    name = "openvino"
    reads = ("torch", "tensorflow", "onnx")

    def __init__(self) -> None:
        self._openvino: Any = require("openvino", "The engine 'openvino'", "openvino")
        self._core = self._openvino.Core()

    def unable(self, precision: Precision) -> str | None:
        able = self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            return "this processor has no bfloat16 (AMX or AVX512_BF16)"
        return None

    def converted(self, graph: Any, kind: str, exported: Exported, precision: Precision) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it and PyTorch say there of their own insides
            model = self._openvino.convert_model(graph)
        if len(model.inputs) != len(exported.shapes):
            raise ValueError(f"of {len(exported.shapes)} arguments {len(model.inputs)} are left")
        shapes = [[-1 if length is None else length for length in shape] for shape in exported.shapes]
        model.reshape({place: self._openvino.PartialShape(shape) for place, shape in enumerate(shapes)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": allowed(exported.threads),
            # Threads that may not move wait for whoever else is on their processor.
            "ENABLE_CPU_PINNING": False,
        }
        request = self._core.compile_model(model, DEVICE, settings).create_infer_request()

        def run(arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
            # What is shared is read where it lies; results are copies, which the next run does not write into.
            results = request.infer(list(arguments), share_inputs=True, share_outputs=False)
            return [np.asarray(results[place]) for place in range(len(results))]

        return run
