"""OpenVINO, Intel's engine for processors."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusioncam_core.extras import require
from fusioncam_core.models.engines import RESULT, Exported, Keep, Parts, Precision, Run
from fusioncam_core.models.threads import allowed
from fusioncam_core.models.unheard import unheard
from fusioncam_engines.names import numbered, places

DEVICE = "CPU"

DESCRIPTION, WEIGHTS = "model.xml", "model.bin"
"""What a graph is kept as."""

FEW: dict[Precision, int] = {"float32": 2, "bfloat16": 4}
"""Rows of a part, so that activations stay in a processor's cache.

In float32 parts of four took 6 to 10 % more time for EfficientNet-Lite0, 7 for EfficientNet-B0, 5 for DenseNet-121 and
3 % for Swin-T. In bfloat16 parts of two took 2 % more for EfficientNet-Lite0 and -B0, 4 for MobileNetV3, and as much
for ResNet-50, ConvNeXt-T and DenseNet-121.
"""

MANY = 16
"""Images at once to begin with: they fill the threads of as many processors, on which parts are smaller if need be."""

TURNS = 2
"""Parts that are handed over for each thread, one behind the other: 1.5 % less time in float32 for 16 rows."""

SHARED = 0.7
"""n threads do one row in a time that one of them would need, divided by n to the power of this.

With two threads that was 1.6 for EfficientNets, MobileNetV3 and ConvNeXt-T, and up to 1.95 for ResNets.
"""

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
    apart = MANY

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
        with unheard():  # it and PyTorch
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
        order, results = _order(model, exported), _results(model)
        in_rows = [exported.rows is not None and exported.shapes[place][:1] == (exported.rows,) for place in order]
        compiled = functools.partial(self._compiled, model, precision, exported.threads)
        # All now: the model, which may hold the framework's, is not kept for later.
        if not any(in_rows):
            whole = _Whole(self._request(compiled("LATENCY")), results)
            return lambda arguments: whole([arguments[place] for place in order])
        self._fix_rows(model, in_rows, 1)
        alone = self._request(compiled("LATENCY"))
        few = min(FEW[precision], max(1, MANY // allowed(exported.threads)))
        self._fix_rows(model, in_rows, few)
        rows = _Rows(alone, self._requests(compiled("THROUGHPUT")), in_rows, results, few)
        return lambda arguments: rows([arguments[place] for place in order])

    def _fix_rows(self, model: Any, in_rows: Sequence[bool], count: int) -> None:
        """Let what has rows have so many: a graph of fixed rows takes less time, by up to a tenth for many of them and
        a third for one.
        """
        shapes = {number: model.input(number).get_partial_shape() for number, yes in enumerate(in_rows) if yes}
        for shape in shapes.values():
            shape[0] = count
        model.reshape(shapes)

    def _compiled(self, model: Any, precision: Precision, threads: int, hint: str) -> Any:
        settings = {
            "PERFORMANCE_HINT": hint,
            "PERFORMANCE_HINT_NUM_REQUESTS": MANY,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": allowed(threads),
            # Threads that may not move wait for whoever else is on their processor.
            "ENABLE_CPU_PINNING": False,
        }
        return self._core.compile_model(model, DEVICE, settings)

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


class _Whole:
    """Runs a graph over all that comes.

    Args:
        request: what runs it.
        results: the graph's outputs, by their places.
    """

    def __init__(self, request: _Request, results: Sequence[int]):
        self._request, self._results = request, results

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._request.start(arguments)
        self._request.wait()
        return self._request.made(self._results)


class _Rows:
    """Runs a graph whose rows do not meet: a few of them in each thread, and what does not fill those one by one.

    Two threads of which each has its own rows took a fifth less for EfficientNet-Lite0 in bfloat16 than both over the
    same rows, and as long for ResNet-50, ViT-S/16 and ConvNeXt-T; a single row would take twice as long.

    Args:
        alone: what runs one row in all threads.
        requests: what runs a few rows in a part of the threads each, in `TURNS`.
        in_rows: whether each of the arguments, in the graph's order, has rows.
        results: the graph's outputs, by their places.
        few: how many rows the requests take.
    """

    def __init__(
        self, alone: _Request, requests: Sequence[_Request], in_rows: Sequence[bool], results: Sequence[int], few: int
    ):
        self._alone, self._requests, self._beside = alone, requests, len(requests) // TURNS
        self._in_rows, self._results, self._few = in_rows, results, few

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        rows = next(len(each) for each, in_rows in zip(arguments, self._in_rows, strict=True) if in_rows)
        apart = _apart(rows, self._beside, self._few)
        parts = [slice(start, min(start + self._few, rows)) for start in range(0, apart, self._few)]
        made = self._made(self._requests, [self._taken(arguments, part, self._few) for part in parts])
        ones = [slice(row, row + 1) for row in range(apart, rows)]
        made += self._made([self._alone], [self._taken(arguments, one, 1) for one in ones])
        return [np.concatenate(pieces)[:rows] for pieces in zip(*made, strict=True)]

    def _taken(self, arguments: Sequence[np.ndarray], part: slice, count: int) -> list[np.ndarray]:
        """The arguments with the rows of a part: so many, of which the last one may come several times."""
        return [
            _filled(each[part], count) if in_rows else each
            for each, in_rows in zip(arguments, self._in_rows, strict=True)
        ]

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


def _apart(rows: int, beside: int, few: int) -> int:
    """How many of the rows run in parts, so many of which run beside each other; the others one by one.

    What is left over makes parts of its own, filled up, where one by one it would take longer.
    """
    left = rows % (beside * few)
    return rows if left > few * beside**SHARED else rows - left


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """So many rows: the last one again for those that are missing."""
    return rows if len(rows) == count else np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def _order(model: Any, exported: Exported) -> list[int]:
    """Which argument each of a model's inputs is."""
    return places([each.get_names() for each in model.inputs], len(exported.shapes))


def _results(model: Any) -> list[int]:
    """Where a model's outputs are in their order: those with names, beside which others may dangle, or all."""
    found = {numbered(each.get_names(), RESULT): number for number, each in enumerate(model.outputs)}
    found.pop(None, None)
    return [found[place] for place in sorted(found)] if found else list(range(len(model.outputs)))
