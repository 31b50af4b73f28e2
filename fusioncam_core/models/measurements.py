"""What is known of one model's layers for inputs of one shape: measured when asked for, and kept with the model."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.errors import (
    EvidenceWarning,
    GradientsUnavailableError,
    InvalidTypeError,
    InvalidValueError,
    warn,
)
from fusioncam_core.models.adapter import LayerInfo, LayerRun, ModelAdapter, Score, call_name, split_call
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.inputs import Inputs, Which, leaf
from fusioncam_core.models.layout import (
    Layout,
    Reshape,
    find_layout,
    may_have_space,
    measured_layout,
    structural_layout,
    token_grid,
    unclear,
)
from fusioncam_core.models.probe import Evidence, Probe, follows, is_row_shape, plain_patches
from fusioncam_core.models.structure import split

MOST_SHAPES = 64
"""Of so many shapes of inputs what was measured is kept: photographs may each have their own."""

LISTED, BY_NAME = "listed", "by name"
"""What the list of layers, and the layers by their names, are kept by, beside what was measured of each call."""


class MeasuredCall(NamedTuple):
    """A call of a layer that is explained: the name by which it is captured, and what was measured of it, if it ran."""

    name: str
    evidence: Evidence | None
    kind: str = ""

    def fits(self, activations: Array) -> bool:
        """Whether an output has the lengths that were measured, behind its batch."""
        if self.evidence is None:
            return True
        batch = self.evidence.batch_axis
        lengths = list(activations.shape)
        return len(lengths) == len(self.evidence.shape) and all(
            axis == batch or length == lengths[axis] for axis, length in enumerate(self.evidence.shape)
        )


class Measurements:
    """The layers of a model, as they ran and as they were measured.

    Args:
        adapter: of the model.
        inputs: one image, as a batch.
        which: the explained one of several inputs.
        output: the position or name of the explained one of several outputs.
        channel_axis: of the explained input; None if it has no channels.

    Attributes:
        size: the spatial size of the explained input.
        kept: what was found out so far, with the model.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        inputs: Inputs,
        which: Which,
        output: int | str | None = None,
        *,
        channel_axis: int | None = 1,
    ):
        self._adapter = adapter
        self._inputs = inputs
        self._which = which
        self._output = output
        self._channel_axis = channel_axis
        self.size = spatial_size(leaf(inputs, which), self._channel_axis)
        self.kept: dict[Any, Any] = _kept(adapter, (which, channel_axis, output, _shapes(inputs)))

    @functools.cached_property
    def listed(self) -> list[LayerInfo]:
        """The layers in the order of their last calls on such inputs."""
        return listed_layers(self._adapter, self._inputs)

    def info(self, layer: str) -> LayerInfo | None:
        """The layer of that name, if it ran and returned an array that can be reached."""
        if BY_NAME not in self.kept:
            self.kept[BY_NAME] = {each.name: each for each in reversed(self.listed)}
        found: LayerInfo | None = self.kept[BY_NAME].get(layer)
        return found

    def of(self, calls: Sequence[str]) -> dict[str, Evidence]:
        """What was measured of those calls, and is now of those that were not."""
        missing = [call for call in calls if call not in self.kept]
        rows = self._rows(missing)
        earlier = self._earliest_rows({self._shape(call) for call in rows}) if rows else []
        for group in (list(dict.fromkeys([*rows, *earlier])), [call for call in missing if call not in rows]):
            if group:
                probe = Probe(self._adapter, self._inputs, self._which, self._channel_axis, self._output)
                self.kept.update(map(self._of_matrix, probe.measure(self.listed, group).items()))
        for call in rows:
            self.kept[call] = self._completed(self.kept[call], earlier)
        return {call: self.kept[call] for call in calls}

    def _of_matrix(self, measured: tuple[str, Evidence]) -> tuple[str, Evidence]:
        """What was measured of a call, with whether it holds a number for each pair of tokens."""
        call, evidence = measured
        ends = (evidence.shape[2:], evidence.shape[1:-1])
        matrix = any(len(each) == 2 and self._token_counts.issuperset(each) for each in ends)
        return call, replace(evidence, between_tokens=True) if matrix else evidence

    @functools.cached_property
    def _token_counts(self) -> frozenset[int]:
        """How many tokens the model's rows have, whether the batch comes first in them or second."""
        runs = (run.shape for each in self.listed for run in each.runs)
        return frozenset(count for shape in runs if is_row_shape(shape, self.size) for count in shape[:2] if count > 1)

    def calls(self, layers: Sequence[str]) -> tuple[MeasuredCall, ...]:
        """The calls that layers' names mean: the ones named, or the last ones that see the explained input.

        Warns with `EvidenceWarning` of a layer that does not see it.
        """
        self.of([call_name(split_call(layer)[0], number) for layer in layers for number in self._runs(layer)])
        return tuple(self._call(layer) for layer in layers)

    def _runs(self, layer: str) -> list[int]:
        """The numbers of the calls that a layer's name may mean: the last one alone if it is known to see the input."""
        name, number = split_call(layer)
        info = self.info(name)
        runs = [] if info is None else [run.number for run in info.runs if number in (None, run.number)]
        last = self.kept.get(call_name(name, runs[-1])) if runs else None
        return runs[-1:] if last is not None and last.sees else runs

    def _call(self, layer: str) -> MeasuredCall:
        name, number = split_call(layer)
        info, runs = self.info(name), self._runs(layer)
        if info is None or not runs:
            return MeasuredCall(layer, None)  # whose absence the adapter explains
        evidence = self.of([call_name(name, each) for each in runs])
        seeing = [each for each in runs if evidence[call_name(name, each)].sees]
        if not seeing and any(evidence[call_name(name, each)].heard for each in runs):
            self._warn_of_blindness(layer)
        chosen = (seeing or runs)[-1]
        last = number is None and chosen == info.calls - 1
        return MeasuredCall(name if last else call_name(name, chosen), evidence[call_name(name, chosen)], info.kind)

    def _warn_of_blindness(self, layer: str) -> None:
        of_several = "" if self._which is None else f" {self._which!r}"
        warn(
            f"The output of layer {layer!r} of {self._adapter.model_name} does not change with the explained "
            f"input{of_several}: its map says nothing of that input. Name a layer that sees it: "
            "explainer.layers(images) lists them.",
            EvidenceWarning,
        )

    def described(self, score: Score) -> list[LayerInfo]:
        """The layers with what was measured of them, in words and numbers.

        Args:
            score: of which a gradient says whether it depends on a layer.
        """
        calls = [
            call_name(each.name, run.number)
            for each in self.listed
            for run in each.runs
            if may_have_space(run.shape, self.size)
        ]
        evidence = self.of(calls)
        described = [self._described(each, evidence) for each in self.listed]
        idle = self._idle([each.name for each in described if each.spatial], score)
        return [
            replace(each, finding=f"{each.finding}, without use") if each.name in idle else each for each in described
        ]

    def _idle(self, layers: Sequence[str], score: Score) -> set[str]:
        """The layers on which the score does not depend; none where that cannot be known."""
        try:
            gradients = self._adapter.gradients_once(self._inputs, layers, score) if layers else {}
        except (GradientsUnavailableError, InvalidTypeError):  # a runtime without gradients, outputs without scores
            return set()
        xp = self._adapter.namespace
        return {name for name, each in gradients.items() if each is None or not bool(xp.any(each != 0))}

    def _described(self, layer: LayerInfo, evidence: Mapping[str, Evidence]) -> LayerInfo:
        runs = [evidence[name] for run in layer.runs if (name := call_name(layer.name, run.number)) in evidence]
        seeing = [each for each in runs if each.sees]
        if not runs:
            return replace(layer, spatial=False)
        if not seeing:
            return replace(layer, spatial=False, finding="does not see the image")
        layout = self.layout_or_none(layer, seeing[-1], None)
        return replace(layer, spatial=layout is not None, finding=_words(seeing[-1], layout, len(runs) > 1))

    def _rows(self, calls: Sequence[str]) -> list[str]:
        return [call for call in calls if is_row_shape(self._shape(call), self.size)]

    def _shape(self, call: str) -> tuple[int, ...]:
        name, number = split_call(call)
        info = self.info(name)
        runs = () if info is None else info.runs
        return next(run.shape for run in runs if run.number == number)

    def _earliest_rows(self, shapes: set[tuple[int, ...]]) -> list[str]:
        """Of each shape the first row of tokens that ran: nothing has mixed its tokens yet."""
        runs = sorted((run.place, call_name(each.name, run.number), run) for each in self.listed for run in each.runs)
        first: dict[tuple[int, ...], str] = {}
        for _, call, run in runs:
            if run.shape in shapes:
                first.setdefault(run.shape, call)
        return list(first.values())

    def _completed(self, row: Evidence, earlier: Sequence[str]) -> Evidence:
        """A row in which attention blurs the corners, with the grid of the first row of its shape, or of its shape.

        Both only where its change follows the corners on that grid.
        """
        if not row.sees or row.patches is not None or not row.along:
            return row
        first = (self.kept[call].patches for call in earlier if self.kept[call].shape == row.shape)
        suggested = token_grid(row.shape, self.size)
        guesses = [*first, None if suggested is None else plain_patches(row, *suggested)]
        found = next((each for each in guesses if each is not None and follows(row, each)), None)
        return row if found is None else replace(row, patches=found)

    @property
    def measured(self) -> list[Evidence]:
        """What was measured so far of any call."""
        return [each for each in self.kept.values() if isinstance(each, Evidence)]

    def why_none(self) -> InvalidValueError | None:
        """Why no layer has space, if images are folded into the batch: of the last such layer."""
        folded = [each for each in self.measured if each.sees and each.rows > 1]
        maps = [each for each in folded if may_have_space(each.shape, self.size)]
        return unclear(maps[-1].shape, self.size, split_call(maps[-1].call)[0], maps[-1]) if maps else None

    def layout_or_none(self, layer: LayerInfo, evidence: Evidence, reshape: Reshape) -> Layout | None:
        """The layout of a call that was measured, if it has space; None otherwise."""
        if not evidence.sees or not may_have_space(evidence.shape, self.size):
            return None
        if isinstance(reshape, Sequence):
            holds = is_row_shape(evidence.shape, self.size) and math.prod(reshape) <= max(evidence.shape[:2])
            if not holds or (evidence.patches is None and bool(evidence.along)):
                return None
            return find_layout(evidence.shape, self.size, layer.channel_axis, reshape, layer.name, evidence)
        measured = measured_layout(evidence, self.size, layer.channel_axis)
        return measured or structural_layout(evidence, evidence.shape, self.size, layer.channel_axis, layer.kind)


def listed_layers(adapter: ModelAdapter, inputs: Inputs) -> list[LayerInfo]:
    """A model's layers in the order of their last calls on one image, listed once for inputs of that shape."""
    kept = _kept(adapter, _shapes(inputs))
    if LISTED not in kept:
        kept[LISTED] = [_with_runs(each, place) for place, each in enumerate(adapter.layers(inputs))]
    found: list[LayerInfo] = kept[LISTED]
    return found


def _shapes(inputs: Inputs) -> tuple[Any, ...]:
    """Of all arrays, the shared ones among them, and what is no array: a word or a flag may switch layers."""
    arrays, form = split(inputs)
    return (form.key, tuple((tuple(each.shape), str(each.dtype)) for each in arrays))


def _kept(adapter: ModelAdapter, key: Any) -> dict[Any, Any]:
    """What is kept of the adapter's model by the key; the oldest goes where there is too much."""
    measured = adapter.measured
    while len(measured) >= MOST_SHAPES and key not in measured:
        del measured[next(iter(measured))]
    kept: dict[Any, Any] = measured.setdefault(key, {})
    return kept


def _with_runs(layer: LayerInfo, place: int) -> LayerInfo:
    """A layer of an adapter that tells of its last call only."""
    return layer if layer.runs else replace(layer, runs=(LayerRun(layer.calls - 1, place, layer.shape),))


def _words(evidence: Evidence, layout: Layout | None, several: bool) -> str:
    """What was measured of a call that sees the image."""
    which = f"#{split_call(evidence.call)[1]} " if several else ""
    if layout is None:
        return f"{which}sees the image, no space found"
    if layout.grid is not None:
        around = "".join(
            f", {count} token{'s' * (count != 1)} {where}"
            for count, where in ((layout.prefix, "before"), (_after(evidence, layout), "behind"))
            if count
        )
        return f"{which}tokens {' × '.join(map(str, layout.grid))}{around}"
    axes = ", ".join(map(str, _own_axes(evidence, layout)))
    moved = evidence.shifts
    if moved is None or layout.axes is None:
        return f"{which}space along axes {axes} by its shape"
    strength = ", ".join(f"{moved[a, b]:.2f}" for a, b in enumerate(_inner_axes(evidence, layout)))
    return f"{which}space along axes {axes} (moved {strength})"


def _after(evidence: Evidence, layout: Layout) -> int:
    assert layout.grid is not None
    tokens = next(length for axis, length in enumerate(evidence.shape) if axis != layout.batch_axis)
    return int(tokens - layout.prefix - math.prod(layout.grid))


def _inner_axes(evidence: Evidence, layout: Layout) -> tuple[int, ...]:
    """The axes of space behind the batch, the rows of an image being the first if it has several."""
    assert layout.axes is not None
    return tuple(axis + 1 for axis in layout.axes) if layout.row is not None else layout.axes


def _own_axes(evidence: Evidence, layout: Layout) -> tuple[int, ...]:
    """The axes of space in the layer's own output; those of frames that were folded into the batch are the batch's."""
    rest = [axis for axis in range(len(evidence.shape)) if axis != layout.batch_axis]
    if layout.axes is None:
        return tuple(range(2, len(evidence.shape)) if layout.channel_axis == 1 else range(1, len(evidence.shape) - 1))
    behind = [layout.batch_axis, *rest] if evidence.rows > 1 else rest
    return tuple(behind[axis] for axis in _inner_axes(evidence, layout))
