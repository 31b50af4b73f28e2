"""A model that runs so many images at once and no other number, seen as one that takes any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, indices_like
from fusioncam_core.errors import CannotRunError
from fusioncam_core.models.adapter import (
    Capture,
    Ending,
    HasState,
    HasWeights,
    LayerCapture,
    LayerInfo,
    ModelAdapter,
    Score,
    View,
)
from fusioncam_core.models.function_scores import OwnFunctionScores
from fusioncam_core.models.inputs import Inputs, Which, batch_length, leaves, taken
from fusioncam_core.models.outputs import arrays_in, map_outputs
from fusioncam_core.models.session import Opened

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64)
"""What models are exported with, as far as it is looked for."""


@dataclass(frozen=True)
class AsItIs:
    """The view of a layer's output that keeps it whole."""

    def __call__(self, call: str, output: Array, xp: Namespace) -> Array:
        """The output."""
        return output


class FixedBatch(ModelAdapter):
    """Runs images in chunks of exactly that size, the last one filled up with its last image, and cuts that off again.

    Args:
        adapter: of the model.
        size: how many images it runs at once.
    """

    def __init__(self, adapter: ModelAdapter, size: int):
        self._inner = adapter
        self._size = size
        adapter.rows = size
        self.namespace = adapter.namespace
        self.model_name = adapter.model_name
        self.input_channel_axis = adapter.input_channel_axis
        self.input_ndim_is_declared = adapter.input_ndim_is_declared
        self.frameworks = adapter.frameworks
        self.execution = replace(adapter.execution, batch_size=size, only=True, beside=1)

    # --- the model as a whole

    @property
    def anchor(self) -> Any:
        """The model's own."""
        return self._inner.anchor

    def session(self) -> Opened:
        """The model's own."""
        return self._inner.session()

    def begin(self) -> None:
        """As the model begins."""
        self._inner.begin()

    def as_array(self, values: Any) -> Array:
        """As for the model."""
        return self._inner.as_array(values)

    def input_ndim(self, which: Which) -> int | None:
        """As for the model."""
        return self._inner.input_ndim(which)

    def memory_format(self, name: str) -> AbstractContextManager[None]:
        """As for the model."""
        return self._inner.memory_format(name)

    def ran_out_of_memory(self, error: Exception) -> bool:
        """As for the model."""
        return self._inner.ran_out_of_memory(error)

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """As for the model."""
        return self._inner.ending(self._first(inputs), output)

    # --- its layers

    def find(self, layer: Any) -> str:
        """As for the model."""
        return self._inner.find(layer)

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        """As for the model, with the shapes of one image."""
        return [self._of_one_image(each) for each in self._inner.layers(self._first(inputs))]

    def _of_one_image(self, layer: LayerInfo) -> LayerInfo:
        runs = tuple(run._replace(shape=self._one(run.shape)) for run in layer.runs)
        return replace(layer, shape=self._one(layer.shape), runs=runs)

    def _one(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, rest = divmod(shape[0], self._size) if shape else (0, 1)
        return shape if rest else (rows, *shape[1:])

    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        """As of the model; the view is of all chunks at once."""
        found = [(*self._inner.observe(chunk, layers, AsItIs()), count) for chunk, _, count in self._chunks(inputs)]
        counts = [count for _, _, count in found]
        seen = {
            call: view(call, self._folded_rows([each[call] for _, each, _ in found], counts), self.namespace)
            for call in found[0][1]
        }
        return self._joined([outputs for outputs, _, _ in found], counts), seen

    def _folded_rows(self, parts: Sequence[Array], counts: Sequence[int]) -> Array:
        """The rows that are no padding, of outputs in which an image may have several."""
        each = int(parts[0].shape[0]) // self._size
        return self._rows(parts, [count * each for count in counts])

    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        """As for the model."""
        return self._inner.no_default_layer(self._first(inputs), gradients)

    # --- running it

    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: Array | None) -> Capture:
        """As of the model, chunk by chunk."""
        parts: list[Capture] = []
        counts: list[int] = []
        for chunk, rows, count in self._chunks(inputs):
            own = None if targets is None else rows(targets)
            scored = score
            if isinstance(score, OwnFunctionScores):
                start = sum(counts)
                scored = score.of_rows([min(start + row, start + count - 1) for row in range(self._size)])
            parts.append(self._inner.capture(chunk, layers, scored, own))
            counts.append(count)
        captured = {name: self._joined_layer([each.layers[name] for each in parts], counts) for name in layers}
        return Capture(self._joined([each.outputs for each in parts], counts), captured)

    def forward(self, inputs: Inputs) -> Any:
        """As of the model, chunk by chunk."""
        found = [(self._inner.forward(chunk), count) for chunk, _, count in self._chunks(inputs)]
        return self._joined([outputs for outputs, _ in found], [count for _, count in found])

    def forward_with(self, inputs: Inputs, layer: str, activations: Array) -> Any:
        """As of the model, chunk by chunk."""
        found = [
            (self._inner.forward_with(chunk, layer, rows(activations)), count)
            for chunk, rows, count in self._chunks(inputs)
        ]
        return self._joined([outputs for outputs, _ in found], [count for _, count in found])

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As of the model."""
        return self._inner.compile(function)

    # --- chunks

    def _chunks(self, inputs: Inputs) -> Iterator[tuple[Inputs, Callable[[Array], Array], int]]:
        """The inputs of each chunk, what takes its rows out of another array, and how many are no padding."""
        total, size = batch_length(inputs), self._size
        if total == size:
            yield inputs, _whole, size
            return
        xp, like = self.namespace, leaves(inputs)[0]
        for start in range(0, total, size):
            rows = indices_like(np.minimum(np.arange(start, start + size), total - 1), like, xp)
            yield taken(inputs, rows, xp), self._take(rows), min(size, total - start)

    def _take(self, rows: Array) -> Callable[[Array], Array]:
        return lambda array: self.namespace.take(array, rows, axis=0)

    def _first(self, inputs: Inputs) -> Inputs:
        """The first chunk."""
        return next(self._chunks(inputs))[0]

    def _joined(self, parts: Sequence[Any], counts: Sequence[int]) -> Any:
        """The outputs of all chunks as one: of arrays without a row an image the first chunk's."""
        if len(parts) == 1 and counts[0] == self._size:
            return parts[0]
        arrays = [dict(arrays_in(part)) for part in parts]

        def join(path: Any, first: Array) -> Array:
            if tuple(first.shape[:1]) != (self._size,):
                return first
            return self._rows([each[path] for each in arrays], counts)

        return map_outputs(join, parts[0])

    def _rows(self, parts: Sequence[Array], counts: Sequence[int]) -> Array:
        cut = [part[:count, ...] for part, count in zip(parts, counts, strict=True)]
        return cut[0] if len(cut) == 1 else self.namespace.concat(cut, axis=0)

    def _joined_layer(self, parts: Sequence[LayerCapture], counts: Sequence[int]) -> LayerCapture:
        activations = self._folded_rows([part.activations for part in parts], counts)
        gradients = [part.gradients for part in parts if part.gradients is not None]
        if not gradients:
            return replace(parts[0], activations=activations)
        rows = int(gradients[0].shape[1]) // self._size
        each = [gradient[:, : count * rows, ...] for gradient, count in zip(gradients, counts, strict=True)]
        joined = each[0] if len(each) == 1 else self.namespace.concat(each, axis=1)
        return replace(parts[0], activations=activations, gradients=joined)


class _WithWeights(FixedBatch):
    """The same of a model whose weights can be looked at and exchanged."""

    def weights(self) -> Mapping[str, Array]:
        """The model's."""
        weights: Mapping[str, Array] = self._inner.weights()  # type: ignore[attr-defined]
        return weights

    def with_weights(self, weights: Mapping[str, Array]) -> AbstractContextManager[None]:
        """As for the model."""
        exchanged: AbstractContextManager[None] = self._inner.with_weights(weights)  # type: ignore[attr-defined]
        return exchanged

    def state(self) -> Mapping[str, Any]:
        """The model's, if its adapter tells."""
        return self._inner.state() if isinstance(self._inner, HasState) else {}


def _whole(array: Array) -> Array:
    return array


def fixed_batch(adapter: ModelAdapter, size: int) -> FixedBatch:
    """The adapter of a model that runs exactly so many images at once."""
    return _WithWeights(adapter, size) if isinstance(adapter, HasWeights) else FixedBatch(adapter, size)


def with_fixed_batch(adapter: ModelAdapter, inputs: Inputs, error: CannotRunError) -> FixedBatch:
    """The adapter of a model that did not run, if it runs another number of images and not one more.

    Args:
        adapter: of the model.
        inputs: on which it did not run, or not on copies of their rows.
        error: what came of it.

    Raises:
        CannotRunError: the error, if the number of images is not the reason.
    """
    if isinstance(adapter, FixedBatch):
        raise error
    for size in (*SIZES, batch_length(inputs)):
        if _runs(adapter, inputs, size):
            if _runs(adapter, inputs, size + 1):
                break
            return fixed_batch(adapter, size)
    raise error


def _runs(adapter: ModelAdapter, inputs: Inputs, size: int) -> bool:
    """Whether the model gives outputs for the first image so many times."""
    xp = adapter.namespace
    rows = indices_like(np.zeros(size, dtype=np.int64), leaves(inputs)[0], xp)
    try:
        shapes = adapter.output_shapes(taken(inputs, rows, xp))
    except CannotRunError:
        return False
    except adapter.memory_errors as error:
        if not adapter.ran_out_of_memory(error):
            raise
        return False
    return any(shape[:1] == (size,) for shape in shapes.values())
