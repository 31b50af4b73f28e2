"""An ONNX model, seen through fusioncam's narrow waist: forward only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, RuntimeException

from fusioncam_core import Capture, GradientsUnavailableError, LayerInfo, ModelAdapter
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.adapter import (
    LayerCapture,
    call_number,
    channel_axis,
    layer_axis,
    mark_default,
    reject_options,
    split_call,
    unknown_layer,
)
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.inputs import batch_length, leaves, taken
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.structure import bare

FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}


class OnnxAdapter(ModelAdapter):
    """Runs copies of the graph: one with the layer as a further output, one with the layer as a further input.

    A layer is a tensor of the graph, by its name. A graph that was exported for batches of one size is run in
    batches of that size.

    Args:
        model: the path of a file, or a proto; neither is changed.
        options: `channels`, "first" (the default) or "last", of the model's inputs and of its layers; `providers`, of
            ONNX Runtime, by default those it has been built with.

    Raises:
        InvalidValueError: if `channels` is another word.
        InvalidTypeError: for another option.
    """

    namespace = array_api_compat.numpy
    frameworks = ("onnxruntime",)

    def __init__(self, model: str | Path | onnx.ModelProto, options: Mapping[str, Any]):
        reject_options(options, ("channels", "providers"), "ONNX")
        self.input_channel_axis = channel_axis(options.get("channels"), 1)
        self._proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
        self._providers = options.get("providers", onnxruntime.get_available_providers())
        self.model_name = self._proto.graph.name or "ONNX model"
        self._kinds = {name: node.op_type for node in self._proto.graph.node for name in node.output if name}
        self._runtime = self._start(self._proto)
        self._outputs = [output.name for output in self._runtime.get_outputs()]
        # Copies of the graph by the layers that they give, or take.
        self._tapped: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}
        self._replaced: dict[str, onnxruntime.InferenceSession] = {}

    # --- what the core asks about

    def find(self, layer: Any) -> str:
        """The name of a tensor that a node makes; it is made once, so that `#0` is all there is."""
        if not isinstance(layer, str) or split_call(layer)[0] not in self._kinds:
            raise unknown_layer(layer, self._kinds, self.model_name)
        call_number(layer, 1, self.model_name)
        return layer

    def as_array(self, values: Any) -> np.ndarray:
        """A copy in the floating-point dtype of the graph's inputs; integers as they are."""
        if not isinstance(values, np.ndarray):
            kind = type(values)
            raise InvalidTypeError(f"Images are a NumPy array: got a {kind.__module__}.{kind.__qualname__}.")
        return values.astype(self._dtype()) if values.dtype.kind == "f" else values.copy()

    def input_ndim(self, which: int | str | None) -> int | None:
        """The graph says how many axes its inputs have."""
        inputs = self._runtime.get_inputs()
        return len(inputs[0].shape) if which is None and len(inputs) == 1 else None

    # --- what the core asks for

    @property
    def _layer_axis(self) -> int:
        return layer_axis(self.input_channel_axis, 1)

    def layers(self, inputs: Any) -> list[LayerInfo]:
        """Every floating-point tensor that a node makes, in the order of the graph."""
        session = self._start(_with_outputs(self._proto, self._kinds))
        values = self._run(session, inputs, list(self._kinds))
        size = spatial_size(max(leaves(inputs), key=np.ndim), self.input_channel_axis)
        listed = [
            LayerInfo(name, kind, value.shape, has_space(value.shape, size), channel_axis=self._layer_axis)
            for (name, kind), value in zip(self._kinds.items(), values, strict=True)
            if value.dtype.kind == "f"
        ]
        return mark_default(listed)

    def capture(self, inputs: Any, layers: Sequence[str], score: Callable[..., Any] | None, targets: Any) -> Capture:
        """The outputs and the layers' activations; with a score, GradientsUnavailableError."""
        if score is not None:
            raise GradientsUnavailableError(
                f"{self.model_name} runs on ONNX Runtime, forward only: there are no gradients in it. Take a method "
                "that needs none, such as ScoreCAM, or explain the model in the framework it was exported from."
            )
        names = tuple(split_call(layer)[0] for layer in layers)
        if names not in self._tapped:
            self._tapped[names] = self._start(_with_outputs(self._proto, names))
        values = self._run(self._tapped[names], inputs, [*self._outputs, *names])
        outputs, activations = values[: len(self._outputs)], values[len(self._outputs) :]
        axis = self._layer_axis
        captured = {name: LayerCapture(each, None, axis) for name, each in zip(layers, activations, strict=True)}
        return Capture(self._packed(outputs), captured)

    def forward(self, inputs: Any) -> Any:
        """The graph's only output, or all of them by name."""
        return self._packed(self._run(self._runtime, inputs, self._outputs))

    def forward_with(self, inputs: Any, layer: str, activations: np.ndarray) -> Any:
        """The same when all that reads the layer reads the activations instead."""
        layer, _ = split_call(layer)
        name = f"{layer} (replaced)"
        if layer not in self._replaced:
            self._replaced[layer] = self._start(_with_replaced(self._proto, layer, name, self._dtype()))
        named = {**self._named(inputs), name: activations}
        return self._packed(self._run(self._replaced[layer], named, self._outputs))

    # --- how

    def _start(self, proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(proto.SerializeToString(), providers=self._providers)

    def _dtype(self) -> np.dtype:
        """Of the floating-point inputs, and so of the layers, but in graphs of mixed precision."""
        kinds = (FLOATS[each.type] for each in self._runtime.get_inputs() if each.type in FLOATS)
        return np.dtype(next(kinds, np.float32))

    def _named(self, inputs: Any) -> dict[str, np.ndarray]:
        """The inputs by the names of the graph."""
        if isinstance(inputs, Mapping):
            return dict(inputs)
        arrays = inputs if isinstance(inputs, tuple | list) else (inputs,)
        return {declared.name: array for declared, array in zip(self._runtime.get_inputs(), arrays, strict=True)}

    def _run(self, session: onnxruntime.InferenceSession, inputs: Any, names: list[str]) -> list[np.ndarray]:
        named = self._named(inputs)
        total = batch_length(list(named.values()))
        fixed = self._runtime.get_inputs()[0].shape[0]
        size = fixed if isinstance(fixed, int) else total
        parts = []
        for start in range(0, total, size):
            rows = np.arange(start, start + size) % total  # the last batch is filled up by the first images
            chunk = bare(taken(named, rows, self.namespace))  # but what all images share
            parts.append(self._run_batch(session, chunk, names))
        return [np.concatenate(each)[:total] for each in zip(*parts, strict=True)]

    def _run_batch(
        self, session: onnxruntime.InferenceSession, named: dict[str, np.ndarray], names: list[str]
    ) -> list[np.ndarray]:
        try:
            return session.run(names, named)
        except (InvalidArgument, RuntimeException) as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in named.items())
            raise InvalidValueError(f"{self.model_name} cannot run on inputs of shape {shapes}: {error}") from error

    def _packed(self, outputs: list[np.ndarray]) -> Any:
        """The only output, or all of them by name."""
        return outputs[0] if len(outputs) == 1 else dict(zip(self._outputs, outputs, strict=True))


def _with_outputs(proto: onnx.ModelProto, names: Any) -> onnx.ModelProto:
    """A copy whose further outputs are the tensors of these names; ONNX Runtime infers their types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return copy


def _with_replaced(proto: onnx.ModelProto, layer: str, name: str, dtype: np.dtype) -> onnx.ModelProto:
    """A copy in which all that reads the layer reads a further input of the given name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for node in copy.graph.node:
        node.input[:] = [name if each == layer else each for each in node.input]
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    copy.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return copy
