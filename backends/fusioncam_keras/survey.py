"""One run of one image, to learn which layers run, in which order, and what the model ends in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from fusioncam_core.models.adapter import LayerInfo, mark_default
from fusioncam_core.models.inputs import Inputs, leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_keras.taps import Logits, ending, passing

DATA_FORMATS = {"channels_first": 1, "channels_last": -1}


@dataclass(frozen=True)
class Output:
    """One of the model's outputs: its shape, and the "softmax" or "sigmoid" that makes it, if it is one."""

    shape: tuple[int, ...]
    ending: str | None


@dataclass(frozen=True)
class Survey:
    """How the model ran.

    Attributes:
        layers: those that made an array of their own, by the order of their last calls; the default one marked.
        channel_axes: 1 or -1, by a layer's id: where the channels of its output are.
        calls: how often each layer ran, by its id.
        endings: the layers whose softmax or sigmoid is an output.
        outputs: an `Output` for each array the model returned, in the same containers.
    """

    layers: list[LayerInfo]
    channel_axes: dict[int, int]
    calls: Counter[int]
    endings: list[keras.Operation]
    outputs: Any


@dataclass
class _Recorder:
    """Hears every layer of one run."""

    size: tuple[int, ...]
    tracing: Callable[[], object]
    channel_axis: int
    calls: Counter[int] = field(default_factory=Counter)
    channel_axes: dict[int, int] = field(default_factory=dict)
    ran: dict[str, LayerInfo] = field(default_factory=dict)
    # The arrays themselves are kept, so that no other one can get their id.
    made: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._outside = self.tracing()

    def hear(self, path: str, part: keras.Operation, output: Any) -> Any:
        # A model's own tf.function is run from its record the next time, past every tap: as if nothing ran in it.
        if self.tracing() is not self._outside:
            return output
        self.calls[id(part)] += 1
        self.channel_axis = _declared_axis(part) or self.channel_axis
        self.channel_axes[id(part)] = self.channel_axis
        array = array_of(output)
        # A model returns what its last layer made, and dropout what it got: the map is the maker's.
        if array is not None and id(array) not in self.made:
            self.made[id(array)] = array
            self.ran.pop(path, None)  # a layer that runs again moves to the place of its last call
            self.ran[path] = self._info(path, part, tuple(array.shape))
        return output

    def _info(self, path: str, part: keras.Operation, shape: tuple[int, ...]) -> LayerInfo:
        spatial, calls = has_space(shape, self.size), self.calls[id(part)]
        return LayerInfo(path, type(part).__name__, shape, spatial, channel_axis=self.channel_axis, calls=calls)


def survey(
    parts: list[tuple[str, keras.Operation]],
    run: Callable[[Inputs], Any],
    inputs: Inputs,
    *,
    channel_axis: int,
    input_channel_axis: int | None,
    tracing: Callable[[], object],
) -> Survey:
    """Run the model and hear all its parts.

    Args:
        parts: of the model, with their paths; of several paths of one part the first is its name.
        run: the model as a function of its inputs.
        inputs: of one image.
        channel_axis: of layers that do not say where they have their channels.
        input_channel_axis: of the inputs, or None.
        tracing: says what a compiler is recording, if anything.
    """
    images = max(leaves(inputs), key=lambda each: each.ndim)
    recorder = _Recorder(spatial_size(images, input_channel_axis), tracing, channel_axis)
    distinct = {id(part): (path, part) for path, part in reversed(parts)}
    logits = Logits([part for _, part in distinct.values()])
    with contextlib.ExitStack() as taps:
        taps.enter_context(logits.listening())
        for path, part in distinct.values():
            taps.enter_context(passing(part, _hearer(recorder, path, part)))
        outputs = run(inputs)
    sources = {
        id(source): source for each in keras.tree.flatten(outputs) if (source := logits.source(each)) is not None
    }
    return Survey(
        layers=mark_default(list(recorder.ran.values())),
        channel_axes=recorder.channel_axes,
        calls=recorder.calls,
        endings=list(sources.values()),
        outputs=keras.tree.map_structure(lambda each: _describe(each, logits), outputs),
    )


def _hearer(recorder: _Recorder, path: str, part: keras.Operation) -> Callable[[Any], Any]:
    return lambda output: recorder.hear(path, part, output)


def _describe(output: Any, logits: Logits) -> Any:
    if not hasattr(output, "shape"):
        return output
    source = logits.source(output)
    return Output(tuple(output.shape), None if source is None else ending(source))


def declared_input_axis(parts: list[tuple[str, keras.Operation]]) -> int:
    """Where the first layer that says so has its channels; Keras's own setting if none does."""
    declared = (_declared_axis(part) for _, part in parts)
    return next((axis for axis in declared if axis), DATA_FORMATS[keras.config.image_data_format()])


def _declared_axis(part: keras.Operation) -> int | None:
    if isinstance(part, keras.layers.BatchNormalization):
        return 1 if part.axis == 1 else -1
    return DATA_FORMATS.get(getattr(part, "data_format", None))


def array_of(output: Any) -> Any:
    """The floating array of a layer's output; of a tuple or list, its first entry; None if there is none."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    floating = keras.ops.is_tensor(output) and keras.backend.is_float_dtype(output.dtype)
    return output if floating else None


def with_array(output: Any, array: Any) -> Any:
    """The layer's output with another array in the place of `array_of(output)`."""
    return type(output)([array, *output[1:]]) if isinstance(output, tuple | list) else array
