"""OpenVINO, Intel's engine for processors."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
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

FEW: dict[Precision, int] = {"float32": 2, "bfloat16": 4}
"""Rows of a part at most, so that activations stay in a processor's cache.

In float32 EfficientNet-Lite0 took 7 % more time in parts of four, EfficientNet-B0 6 and Swin-T 3 %, ResNet-18 1 % less.
In bfloat16 MobileNetV3 took 8 % more in parts of two, EfficientNet-B0 4 %, and ResNet-50 1 % less.
"""

TURNS = 2
"""Parts that are handed over for each thread, one behind the other: 1.5 % less time in float32 for 16 rows."""

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
    apart = 16

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
        def compiled(hint: str) -> Any:
            settings = {
                "PERFORMANCE_HINT": hint,
                "INFERENCE_PRECISION_HINT": HINTS[precision],
                "INFERENCE_NUM_THREADS": allowed(exported.threads),
                # Threads that may not move wait for whoever else is on their processor.
                "ENABLE_CPU_PINNING": False,
            }
            return self._core.compile_model(model, DEVICE, settings)

        order, results = _order(model, exported), _results(model)
        in_rows = [exported.rows is not None and exported.shapes[place][:1] == (exported.rows,) for place in order]
        # Both now: the model, which may hold the framework's, is not kept for later.
        together = self._request(compiled("LATENCY"))
        requests = self._requests(compiled("THROUGHPUT")) if any(in_rows) else []
        running = _Running(together, requests, in_rows, results, FEW[precision])
        return lambda arguments: running([arguments[place] for place in order])

    def _requests(self, compiled: Any) -> list[_Request]:
        """As many as run best at once, and others that wait for their turn."""
        best = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [self._request(compiled) for _ in range(TURNS * best)]

    def _request(self, compiled: Any) -> _Request:
        return _Request(compiled.create_infer_request(), self._openvino.Tensor)


class _Request:
    """A request for one run after the other, which is told only of those arguments that are others than before.

    Images and what resizes stay the same from chunk to chunk: telling of all arguments took .25 ms of the 23 that
    EfficientNet-Lite0 takes for eight images.

    Args:
        request: OpenVINO's.
        tensor: what it makes of arrays.
    """

    def __init__(self, request: Any, tensor: Callable[..., Any]):
        self._request, self._tensor = request, tensor
        self._told: dict[int, np.ndarray] = {}

    def start(self, arguments: Sequence[np.ndarray]) -> None:
        """Begin a run; arrays are read where they lie, but for those that nobody may write into: it wants copies."""
        for place, array in enumerate(arguments):
            if self._told.get(place) is not array:
                self._request.set_input_tensor(place, self._tensor(array, shared_memory=array.flags.writeable))
                self._told[place] = array
        self._request.start_async()

    def wait(self) -> None:
        """Until the run is done, if there is one."""
        self._request.wait()

    def made(self, results: Sequence[int]) -> list[np.ndarray]:
        """Some of the outputs of a run that is done: copies, which the next one does not write into."""
        return [np.array(self._request.get_output_tensor(each).data) for each in results]


class _Running:
    """Runs a graph: a row in all threads, and where there are many, some of them beside others.

    Two threads of which each has its own rows took a fifth less for EfficientNet-Lite0 in bfloat16 than both over the
    same rows, and as long for ResNet-50, ViT-S/16 and ConvNeXt-T; a single row would take twice as long.

    Args:
        together: what runs the graph in all threads.
        requests: what runs it in a part of them each, in `TURNS`.
        in_rows: whether each of the arguments, in the graph's order, has rows that may run apart.
        results: the graph's outputs, by their places.
        few: rows that run in one go at most, where some run beside others.
    """

    def __init__(
        self,
        together: _Request,
        requests: Sequence[_Request],
        in_rows: Sequence[bool],
        results: Sequence[int],
        few: int,
    ):
        self._together, self._requests, self._beside = together, requests, len(requests) // TURNS
        self._in_rows, self._results, self._few = in_rows, results, few

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        rows = [len(each) for each, in_rows in zip(arguments, self._in_rows, strict=True) if in_rows]
        if not rows or rows[0] == 1 or not 1 < self._beside <= rows[0]:
            return self._made([self._together], [arguments])[0]
        parts = [
            [each[part] if in_rows else each for each, in_rows in zip(arguments, self._in_rows, strict=True)]
            for part in _parts(rows[0], self._beside, self._few)
        ]
        made = self._made(self._requests, parts)
        return [np.concatenate(pieces) for pieces in zip(*made, strict=True)]

    def _made(self, requests: Sequence[_Request], parts: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """What comes of each part, of which as many are under way as there are requests."""
        made: list[list[np.ndarray]] = []
        by_turns = [requests[number % len(requests)] for number in range(len(parts))]
        with contextlib.ExitStack() as under_way:
            for number, (request, part) in enumerate(zip(by_turns, parts, strict=True)):
                if number >= len(requests):
                    made.append(self._result(request))
                request.start(part)
                if number < len(requests):
                    under_way.callback(request.wait)  # for all of them, whatever becomes of one
            made += [self._result(request) for request in by_turns[len(made) :]]
        return made

    def _result(self, request: _Request) -> list[np.ndarray]:
        """What a request has made, once it is done."""
        request.wait()
        return request.made(self._results)


def _parts(count: int, beside: int, few: int) -> list[slice]:
    """So many rows in parts of a few at most, as many for each of those beside; none has two rows more than another."""
    rounds = -(-count // (beside * few))
    parts = min(count, rounds * beside)
    ends = [count * number // parts for number in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _order(model: Any, exported: Exported) -> list[int]:
    """Which argument each of a model's inputs is."""
    return places([each.get_names() for each in model.inputs], len(exported.shapes))


def _results(model: Any) -> list[int]:
    """Where a model's outputs are in their order: those with names, beside which others may dangle, or all."""
    found = {numbered(each.get_names(), RESULT): number for number, each in enumerate(model.outputs)}
    found.pop(None, None)
    return [found[place] for place in sorted(found)] if found else list(range(len(model.outputs)))
