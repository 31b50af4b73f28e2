"""OpenVINO, Intel's engine for processors."""

from __future__ import annotations

import functools
import io
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.models.engines import RESULT, Exported, Keep, Parts, Precision, Run
from fusioncam_core.models.threads import allowed
from fusioncam_engines.names import numbered, places

DEVICE = "CPU"

DESCRIPTION, WEIGHTS = "model.xml", "model.bin"
"""What a graph is kept as."""

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""What it calls our precisions: on processors with bfloat16 it would take that for float32 by itself."""


TELEMETRY = "openvino_telemetry"
"""What tells Google Analytics of every import and conversion, from a fork of the process, unless somebody opted out."""


def _imported() -> Any:
    """OpenVINO, which does without its telemetry where it is first imported here: fusioncam sends nothing anywhere.

    A fork, besides, may stand still for ever where JAX has threads.
    """
    hidden = "openvino" not in sys.modules and TELEMETRY not in sys.modules
    if hidden:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # for which OpenVINO has a stand-in that is silent
    try:
        return require("openvino", "The engine 'openvino'", "openvino")
    finally:
        if hidden:
            del sys.modules[TELEMETRY]


class OpenVINO:
    """Reads PyTorch's exported programs, TensorFlow's concrete functions and ONNX."""

    name = "openvino"
    reads = ("torch", "tensorflow", "onnx")

    def __init__(self) -> None:
        self._openvino: Any = _imported()
        self._core = self._openvino.Core()

    def unable(self, precision: Precision) -> str | None:
        able = self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            return "this processor has no bfloat16 (AMX or AVX512_BF16)"
        return None

    @property
    def version(self) -> str:
        """OpenVINO's."""
        return str(self._openvino.__version__)

    def converted(
        self, graph: Any, kind: str, exported: Exported, precision: Precision, keep: Keep | None = None
    ) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it and PyTorch say there of their own insides
            read = self._core.read_model if kind == "onnx" else self._openvino.convert_model
            model = read(io.BytesIO(graph) if kind == "onnx" else graph)
        order = _order(model, exported)
        shapes = [[-1 if isinstance(length, str) else length for length in exported.shapes[place]] for place in order]
        model.reshape({number: self._openvino.PartialShape(shape) for number, shape in enumerate(shapes)})
        if keep is not None:
            keep(functools.partial(self._parts, model))
        return self._running(model, exported, precision)

    def restored(self, parts: Parts, exported: Exported, precision: Precision) -> Run:
        weights = self._openvino.Tensor(np.frombuffer(parts[WEIGHTS], np.uint8))
        return self._running(self._core.read_model(parts[DESCRIPTION], weights), exported, precision)

    def _parts(self, model: Any) -> Parts:
        """The model in OpenVINO's own format, which it writes into files alone."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in (DESCRIPTION, WEIGHTS)]
            self._openvino.serialize(model, *paths)
            return {path.name: path.read_bytes() for path in paths}

    def _running(self, model: Any, exported: Exported, precision: Precision) -> Run:
        order = _order(model, exported)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": allowed(exported.threads),
            # Threads that may not move wait for whoever else is on their processor.
            "ENABLE_CPU_PINNING": False,
        }
        request = self._core.compile_model(model, DEVICE, settings).create_infer_request()

        results = _results(model)

        def run(arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
            # What is shared is read where it lies; results are copies, which the next run does not write into.
            made = request.infer([arguments[place] for place in order], share_inputs=True, share_outputs=False)
            return [np.asarray(made[number]) for number in results]

        return run


def _order(model: Any, exported: Exported) -> list[int]:
    """Which argument each of a model's inputs is."""
    return places([each.get_names() for each in model.inputs], len(exported.shapes))


def _results(model: Any) -> list[int]:
    """Where a model's outputs are in their order: those with names, beside which others may dangle, or all."""
    found = {numbered(each.get_names(), RESULT): number for number, each in enumerate(model.outputs)}
    found.pop(None, None)
    return [found[place] for place in sorted(found)] if found else list(range(len(model.outputs)))
