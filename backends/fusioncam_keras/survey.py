"""One run of one image, to learn which layers run, in which order, and what the model ends in."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from fusioncam_core.models.adapter import LayerInfo, LayerRun, mark_default
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.inputs import Inputs, leaves, map_leaves
from fusioncam_core.models.layout import has_space
from fusioncam_keras.endings import (
    Listener,
    Source,
    ending,
    find_source,
    is_informative,
    length,
    may_hide,
    possible_sources,
)
from fusioncam_keras.taps import loops, passing

DATA_FORMATS = {"channels_first": 1, "channels_last": -1}


@dataclass(frozen=True)
class Output:
    """One of the model's outputs: its shape, and the "softmax" or "sigmoid" that makes it, if it is one."""

    shape: tuple[int, ...]
    ending: str | None


class Call(NamedTuple):
    """One call of a layer; inside a `TimeDistributed`, those for all frames of one call of that.

    Attributes:
        numbers: of the layer's calls, counted from 0, the frames' in their order.
        frames: how many frames there are, for each `TimeDistributed` around the layer, the outermost first.
    """

    numbers: tuple[int, ...]
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """How the model ran.

    Attributes:
        layers: those that made an array of their own, by the order of their last calls; the default one marked.
        channel_axes: 1 or -1, by a layer's id: where the channels of its output are.
        calls: of each layer, by its id.
        sources: for each thing the model returned, in their order, where its logits are; None for one that no softmax
            or sigmoid makes.
        outputs: what the model returned, with an `Output` in the place of each array.
    """

    layers: list[LayerInfo]
    channel_axes: dict[int, int]
    calls: dict[int, list[Call]]
    sources: list[Source | None]
    outputs: Any

    @property
    def has_frames(self) -> bool:
        """Whether a layer runs once for each of some frames."""
        return any(call.frames for calls in self.calls.values() for call in calls)


@dataclass
class _Frames:
    """One call of a `TimeDistributed` while it lasts: how many frames, and the calls of what is in it."""

    count: int
    calls: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))

    def stacked(self) -> dict[int, list[Call]]:
        """The calls for each frame, as calls for all of them; a layer may run several times for a frame."""
        return {key: list(self._stack(calls)) for key, calls in self.calls.items()}

    def _stack(self, calls: list[Call]) -> list[Call]:
        each, rest = divmod(len(calls), self.count)
        if rest:  # it runs for some frames and not for others: nothing that could be stacked
            return calls
        stacks = (calls[place::each] for place in range(each))
        return [
            Call(tuple(number for call in stack for number in call.numbers), (self.count, *stack[0].frames))
            for stack in stacks
        ]


@dataclass
class _Recorder:
    """Hears every layer of one run."""

    size: tuple[int, ...]
    tracing: Callable[[], object]
    channel_axis: int
    ran: dict[str, tuple[keras.Operation, tuple[int, ...]]] = field(default_factory=dict)
    calls: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    channel_axes: dict[int, int] = field(default_factory=dict)
    # The arrays themselves are kept, so that no other one can get their id.
    made: dict[int, tuple[Any, keras.Operation]] = field(default_factory=dict)
    shapes: dict[int, tuple[keras.Operation, tuple[int, ...]]] = field(default_factory=dict)
    # By a layer's id and the number of a call: its place among all, and the shape of the array that it made.
    runs: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._outside = self.tracing()
        self._numbers: dict[int, int] = defaultdict(int)
        self._open: list[_Frames] = []

    def enter(self, inputs: Any, *arguments: Any, **keywords: Any) -> None:
        """A `TimeDistributed` is called."""
        if self.tracing() is self._outside:
            self._open.append(_Frames(int(inputs.shape[1])))

    def leave(self) -> None:
        if self.tracing() is self._outside:
            for key, calls in self._open.pop().stacked().items():
                self._calls_now()[key].extend(calls)

    def _calls_now(self) -> dict[int, list[Call]]:
        return self._open[-1].calls if self._open else self.calls

    def hear(self, path: str, part: keras.Operation, output: Any) -> Any:
        # A model's own tf.function is run from its record the next time, past every tap: as if nothing ran in it.
        if self.tracing() is not self._outside:
            return output
        self._calls_now()[id(part)].append(Call((self._numbers[id(part)],)))
        self._numbers[id(part)] += 1
        self.channel_axis = _declared_axis(part) or self.channel_axis
        self.channel_axes[id(part)] = self.channel_axis
        array = array_of(output)
        if array is not None:
            self.shapes[id(part)] = part, tuple(array.shape)
        # A model returns what its last layer made, and dropout what it got: the map is the maker's.
        if array is not None and id(array) not in self.made:
            self.made[id(array)] = array, part
            self.ran.pop(path, None)  # a layer that runs again moves to the place of its last call
            self.ran[path] = part, tuple(array.shape)
            self.runs[id(part), self._numbers[id(part)] - 1] = len(self.runs), tuple(array.shape)
        return output

    def listed(self) -> list[LayerInfo]:
        return [self._info(path, part, shape) for path, (part, shape) in self.ran.items()]

    def possible_sources(self) -> Iterator[tuple[Source, int]]:
        """Where logits could be, and how many numbers there are."""
        for key, (part, shape) in self.shapes.items():
            for call in self.calls[key]:
                count = length((*call.frames, *shape))
                yield from ((source, count) for source in possible_sources(part, call.numbers, shape))

    def paths(self, parts: Iterable[keras.Operation]) -> set[str]:
        keys = {id(part) for part in parts}
        return {path for path, (part, _) in self.ran.items() if id(part) in keys}

    def _info(self, path: str, part: keras.Operation, shape: tuple[int, ...]) -> LayerInfo:
        calls = self.calls[id(part)]
        shape = (shape[0], *calls[-1].frames, *shape[1:])
        spatial = has_space(shape, self.size) and not runs_backwards(part)
        axis = self.channel_axes[id(part)]
        return LayerInfo(
            path,
            type(part).__name__,
            shape,
            spatial,
            channel_axis=axis,
            calls=len(calls),
            runs=tuple(self._runs(part, calls)),
        )

    def _runs(self, part: keras.Operation, calls: list[Call]) -> Iterator[LayerRun]:
        for number, call in enumerate(calls):
            made = self.runs.get((id(part), call.numbers[-1]))
            if made is not None:
                place, shape = made
                yield LayerRun(number, place, (shape[0], *call.frames, *shape[1:]))


def survey(
    parts: list[tuple[str, keras.Operation]],
    run: Callable[[Inputs], Any],
    inputs: Inputs,
    *,
    channel_axis: int,
    input_channel_axis: int | None,
    tracing: Callable[[], object],
) -> tuple[Survey, list[Candidate]]:
    """Run the model and hear all its parts.

    Args:
        parts: of the model, with their paths; of several paths of one part the first is its name.
        run: the model as a function of its inputs.
        inputs: of one image.
        channel_axis: of layers that do not say where they have their channels.
        input_channel_axis: of the inputs, or None.
        tracing: says what a compiler is recording, if anything.

    Returns:
        The survey, and the outputs that a softmax or sigmoid may have made of which no layer tells, for `reveal`.
    """
    images = max(leaves(inputs), key=lambda each: each.ndim)
    recorder = _Recorder(spatial_size(images, input_channel_axis), tracing, channel_axis)
    distinct = {id(part): (path, part) for path, part in reversed(parts)}
    for key in loops(parts):  # once for each step, perhaps on a compiler's record: no map comes from there
        distinct.pop(key, None)
    listener = Listener((part, True) for _, part in distinct.values() if ending(part) is not None)
    with contextlib.ExitStack() as taps:
        taps.enter_context(listener.listening())
        for path, part in distinct.values():
            taps.enter_context(_heard(recorder, path, part))
        outputs = run(inputs)
    flat = keras.tree.flatten(outputs)
    made = {id(result): Source(str(ending(part)), part, (call,), True) for result, part, call in listener.made()}
    sources = [made.get(id(each)) for each in flat]
    learned = Survey(
        layers=mark_default(
            recorder.listed(), besides=recorder.paths(each.part for each in sources if each is not None)
        ),
        channel_axes=recorder.channel_axes,
        calls=recorder.calls,
        sources=sources,
        outputs=_described(outputs, sources),
    )
    return learned, list(_candidates(recorder, flat, sources))


def _heard(recorder: _Recorder, path: str, part: keras.Operation) -> contextlib.AbstractContextManager[None]:
    if not isinstance(part, keras.layers.TimeDistributed):
        return passing(part, lambda output: recorder.hear(path, part, output))

    def hear(output: Any) -> Any:
        recorder.leave()
        return recorder.hear(path, part, output)

    return passing(part, hear, recorder.enter)


def _described(outputs: Any, sources: list[Source | None]) -> Any:
    """The outputs, with an `Output` in the place of each array."""
    described = [
        Output(tuple(each.shape), None if source is None else source.kind) if hasattr(each, "shape") else each
        for each, source in zip(keras.tree.flatten(outputs), sources, strict=True)
    ]
    return keras.tree.pack_sequence_as(outputs, described)


# --- outputs of which no layer tells that they are probabilities


class Candidate(NamedTuple):
    """An output, by its place, and where its logits could be."""

    place: int
    sources: list[Source]


def _candidates(recorder: _Recorder, outputs: list[Any], sources: list[Source | None]) -> Iterator[Candidate]:
    for place, (output, source) in enumerate(zip(outputs, sources, strict=True)):
        _, maker = recorder.made.get(id(output), (None, None))
        if source is None and array_of(output) is not None and may_hide(maker):
            possible = [each for each, count in recorder.possible_sources() if count == length(output.shape)]
            if possible:
                yield Candidate(place, possible)


ValuesOf = Callable[[Callable[[Inputs], list[Any]], Inputs], "list[np.ndarray] | None"]
"""The values of the arrays that a function of the inputs returns; None if they cannot be had."""

DIMMED = (1.0, 0.125, 0.0)
"""Shares of an image's brightness: where its probabilities are rounded to 0 and 1, those of a darker one may not be."""


def reveal(
    learned: Survey,
    candidates: list[Candidate],
    run: Callable[[Inputs], Any],
    values_of: ValuesOf,
    inputs: Inputs,
) -> Survey:
    """The survey with the sources that another run shows: values that a softmax or sigmoid makes the outputs of.

    Args:
        learned, candidates: as `survey` gave them.
        run: the model as a function of its inputs.
        values_of: of the engine.
        inputs: of one image.
    """
    sources, left = list(learned.sources), candidates
    for share in DIMMED:
        seen = _seen(left, run, values_of, map_leaves(lambda each, share=share: _dimmed(each, share), inputs))
        for each, (output, found) in zip(left, seen, strict=bool(seen)):
            sources[each.place] = find_source(output, found)
        left = [each for each, (output, _) in zip(left, seen, strict=False) if not is_informative(output)]
        if not left:
            break
    return replace(learned, sources=sources, outputs=_described(learned.outputs, sources))


def _dimmed(array: Any, share: float) -> Any:
    return array * share if keras.backend.is_float_dtype(keras.backend.standardize_dtype(array.dtype)) else array


def _seen(
    candidates: list[Candidate], run: Callable[[Inputs], Any], values_of: ValuesOf, inputs: Inputs
) -> list[tuple[np.ndarray, list[tuple[Source, np.ndarray, bool]]]]:
    """Of each candidate the output's values, and its sources' with whether both are precise; none if hidden in a loop.

    JAX compiles `look`: what is no array is told besides.
    """
    listener = Listener((source.part, source.inside) for each in candidates for source in each.sources)
    heard: list[list[tuple[Source, bool]]] = []

    def look(inputs: Inputs) -> list[Any]:
        with listener.listening():
            outputs = keras.tree.flatten(run(inputs))
        arrays = []
        for each in candidates:
            output = outputs[each.place]
            found = [(source, values) for source in each.sources if (values := listener.logits(source)) is not None]
            heard.append([(source, _is_precise(output) and _is_precise(values)) for source, values in found])
            arrays += [keras.ops.cast(array, "float32") for array in (output, *(values for _, values in found))]
        return arrays

    arrays = values_of(look, inputs)
    left = iter(arrays or ())
    return [(next(left), [(source, next(left), precise) for source, precise in each]) for each in heard if arrays]


def _is_precise(array: Any) -> bool:
    return keras.backend.standardize_dtype(array.dtype) in ("float32", "float64")


def declared_input_axis(parts: list[tuple[str, keras.Operation]]) -> int:
    """Where the first layer that says so has its channels; Keras's own setting if none does."""
    declared = (_declared_axis(part) for _, part in parts)
    return next((axis for axis in declared if axis), DATA_FORMATS[keras.config.image_data_format()])


def _declared_axis(part: keras.Operation) -> int | None:
    if isinstance(part, keras.layers.BatchNormalization):
        return 1 if part.axis == 1 else -1
    return DATA_FORMATS.get(getattr(part, "data_format", None))


def runs_backwards(part: keras.Operation) -> bool:
    """Whether the layer's outputs are a row of steps with the last one first."""
    return isinstance(part, keras.layers.RNN) and part.go_backwards and part.return_sequences


def array_of(output: Any) -> Any:
    """The floating array of a layer's output; of a tuple or list, its first entry; None if there is none."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    floating = keras.ops.is_tensor(output) and keras.backend.is_float_dtype(output.dtype)
    return output if floating else None


def with_array(output: Any, array: Any) -> Any:
    """The layer's output with another array in the place of `array_of(output)`."""
    return type(output)([array, *output[1:]]) if isinstance(output, tuple | list) else array
