"""What `layer=None` means: the last call that sees the image, on which the outputs depend, and that has space.

It is neither a pooling layer, nor a head's output map, nor a part of an attention. In a row of tokens it must be the
patches that the outputs depend on: a head that reads the class token alone cuts them off from everything behind the
keys and values of the last attention. Of the layers before that the last normalisation is taken, which for a vision
transformer is the one that the last attention reads.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like, to_numpy
from fusioncam_core.errors import EvidenceWarning, GradientsUnavailableError, warn
from fusioncam_core.models.adapter import LayerInfo, LayerRun, ModelAdapter, Score, call_name
from fusioncam_core.models.inputs import Inputs
from fusioncam_core.models.layout import Layout, Reshape, is_attention, may_have_space
from fusioncam_core.models.measurements import Measurements
from fusioncam_core.models.outputs import scores_in, unpack
from fusioncam_core.models.probe import HALVES, is_row_shape

LOOKED_AT = 32
"""The most calls of one kind, from the last one back, that are measured at once."""

ROUNDS = 4
"""How often calls are measured at most. Most models take one round; those that have maps and rows of tokens two."""

DIFFERENTIATED, DIFFERENTIATED_ROWS = 6, 12
"""How many calls, maps or rows of tokens, from the last one back, are differentiated first; the others, and all of the
other kind, in one pass if none of these matters."""

MOST_VALUES = 2**26
"""How many values the outputs of calls hold together, from the last one back, that are differentiated for a target
function: 256 MB in float32, with what a graph keeps two to three times that. All of a large network's would take the
memory of training."""

PASSES = 8
"""How many passes of the model the search takes, if it has found a layer within them."""

FEW = 20
"""With fewer calls than these no layer is far from the input."""

EARLY = 1 / 3
"""The share of a model's calls, from its input, within which a layer is called early."""

POOLING = re.compile(r"pool", re.IGNORECASE)
ATTENTION = re.compile(
    r"^(?!.*(block|layer|stage|net|model|encoder|decoder|former)).*(attention|attn|mhsa)", re.IGNORECASE
)
"""Kinds of layers that are an attention and nothing around it."""
NORMALISATION = re.compile(r"norm", re.IGNORECASE)


@dataclass(frozen=True)
class AnyOutput:
    """A score that depends on all that a class could depend on: every value of an output, each with its own weight.

    Attributes:
        output: the position or name of the output, if there are several; None takes all of them, for one image, where
            they are several and none is that of a classifier.
    """

    output: int | str | None = None

    def __call__(self, outputs: Any, targets: Array | None) -> Array:
        """(B, 2) a weighted sum, and the largest value.

        The weights differ because the plain sum of probabilities is a constant. By the largest value alone a map can be
        told of which each channel is one class.
        """
        values = [unpack(outputs, self.output)] if self.output is not None else scores_in(outputs)
        xp = array_namespace(*values)
        rows = values[0].shape[0] if len(values) == 1 else 1
        flat = xp.concat([xp.reshape(xp.astype(each, xp.float32), (rows, -1)) for each in values], axis=1)
        weights = constant_like(np.linspace(1, 2, int(flat.shape[1])), flat, xp)
        return xp.stack([xp.sum(flat * weights, axis=1), xp.max(flat, axis=1)], axis=1)


class Call(NamedTuple):
    """One call of a layer that may be explained."""

    layer: LayerInfo
    run: LayerRun

    @property
    def name(self) -> str:
        """With the number of the call."""
        return call_name(self.layer.name, self.run.number)

    @property
    def short(self) -> str:
        """The layer's name alone for its last call."""
        return self.layer.name if self.run.number == self.layer.calls - 1 else self.name


def default_layer(
    measurements: Measurements, adapter: ModelAdapter, inputs: Inputs, score: Score, *, reshape: Reshape
) -> str | None:
    """The call to explain when no layer is named.

    Args:
        measurements: of the model's layers, for such inputs.
        adapter: of the model.
        inputs: one image, as a batch.
        score: what a layer has to matter for.
        reshape: what the user says of the layer; a grid says which layers are rows of tokens.

    Returns:
        Its name, that of the layer alone for its last call; None if no layer has space.
    """
    key = ("default", score, reshape) if isinstance(score, AnyOutput) and isinstance(reshape, tuple | None) else None
    if key is not None and key in measurements.kept:
        kept: str | None = measurements.kept[key]
        return kept
    search = _Search(measurements, adapter, inputs, score, reshape)
    found = search.found()
    if found is not None:
        search.warn_if_early(found)
    name = None if found is None else found.short
    if key is not None:
        measurements.kept[key] = name
    return name


class _Search:
    """Looks for the default layer from the outputs back."""

    def __init__(
        self, measurements: Measurements, adapter: ModelAdapter, inputs: Inputs, score: Score, reshape: Reshape
    ):
        listed = self._listed = measurements.listed
        self._adapter = adapter
        self._inputs = inputs
        self._score = score
        self._measurements = measurements
        self._reshape = reshape
        self._kinds = {layer.name: layer.kind for layer in listed}
        self._known: dict[str, Array | None] = {}  # gradients of calls
        calls = [Call(layer, run) for layer in listed for run in layer.runs]
        self._calls = sorted(calls, key=lambda call: call.run.place)

    def found(self) -> Call | None:
        """Of the kind that ran last, maps or rows of tokens; the other one where that has none, or ran later."""
        left = [call for call in self._calls if self._may_be(call)]
        passes = 1  # in which the layers were listed
        unknown: list[Call] = []
        if self._asks_first and not self._adapter.execution.fixed_shapes:
            (left, unknown), passes = self._on_which_it_depends(left), 2
        best: Call | None = None
        fallback: Call | None = None
        waiting: list[tuple[Call, Layout]] = []  # to be differentiated with those of the other kind
        rows = False
        for turn in range(ROUNDS):
            if not left and best is None:
                left, unknown = unknown, []
            if not left:
                break
            rows = not rows if turn == 1 and self._of_kind(not rows, left) else self._is_row(left[-1])
            passes += self._passes_for(rows)
            if best is not None and passes > PASSES:
                break
            tried = self._tried(left, rows)
            seen = {call.name for call in tried}
            usable = self._with_layouts(tried)
            fallback = fallback or (usable[-1][0] if usable else None)
            left = [call for call in left if call.name not in seen]
            first = DIFFERENTIATED_ROWS if rows else DIFFERENTIATED
            now, waiting = (usable[-first:], usable[:-first]) if turn == 0 else ([*waiting, *usable], [])
            best = self._later(best, self._that_matters(now))
            if best is None and self._asks_first and not self._known:
                both = sorted([*left, *(call for call, _ in waiting)], key=lambda call: call.run.place)
                (some, unknown), passes = self._on_which_it_depends(both), passes + 1
                left = [call for call in left if call in some]
                waiting = [each for each in waiting if each[0] in some]
            if best is None and not self._of_kind(not rows, left):
                best, waiting = self._that_matters(waiting), []
            if best is not None:
                place = best.run.place
                left = [call for call in self._of_kind(not rows, left) if call.run.place > place]
                waiting = [each for each in waiting if each[0].run.place > place]
        return best or fallback or self._where_nothing_changes()

    @property
    def _asks_first(self) -> bool:
        """Whether it is asked on which layers the score depends before they are measured.

        Where each set of layers is a program to compile, only once the last layers have turned out to be none of them.
        """
        return not isinstance(self._score, AnyOutput) and not callable(self._reshape)

    def _on_which_it_depends(self, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
        """The calls at which a target function has a gradient, and those before them of which that is not known.

        All where it has none: the last of those that see the image is as good as any then.

        It may look at one box of a detector, to which most of the last layers are nothing: one pass back tells that of
        all, where measuring each kind and part of them first would take many.
        """
        together = itertools.accumulate(math.prod(call.run.shape) for call in reversed(calls))
        last = calls[-max(sum(values <= MOST_VALUES for values in together), DIFFERENTIATED) :]
        try:
            self._known = dict(self._adapter.dependence(self._inputs, [call.name for call in last], self._score))
        except GradientsUnavailableError:
            return list(calls), []
        xp = self._adapter.namespace
        gradients = [(call, self._known[call.name]) for call in last]
        some = [call for call, each in gradients if each is not None and bool(xp.any(each != 0))]
        return (some, list(calls[: -len(last)])) if some else (list(calls), [])

    def _of_kind(self, rows: bool, calls: Sequence[Call]) -> list[Call]:
        """Those that return rows of tokens, or those that return maps."""
        return [call for call in calls if self._is_row(call) == rows]

    def _passes_for(self, rows: bool) -> int:
        """How many passes it takes to measure calls of a kind, and to differentiate them if that is to be done yet."""
        axes = len(self._measurements.size)
        return (axes + 1 if rows else len(HALVES.get(axes, ()))) + (not self._known)

    @staticmethod
    def _later(one: Call | None, other: Call | None) -> Call | None:
        """The one that ran later, of those that there are."""
        return max(filter(None, (one, other)), key=lambda call: call.run.place, default=None)

    def _where_nothing_changes(self) -> Call | None:
        """The last layer whose shape has space, of a model in which the image changes nothing by more than rounding."""
        if any(seen.sees for seen in self._measurements.measured):
            return None
        by_shape = [call for call in self._calls if call.layer.default]
        if by_shape:
            warn(
                f"The image changes no layer of {self._adapter.model_name} by more than rounding: its layers cannot be "
                f"measured, and {by_shape[-1].short!r} is taken for its shape. Is the model trained, or the image's "
                "range the one it was trained with?",
                EvidenceWarning,
            )
        return by_shape[-1] if by_shape else None

    def _tried(self, calls: Sequence[Call], rows: bool) -> list[Call]:
        """Of maps or rows of tokens the last ones."""
        group = self._of_kind(rows, calls)
        return (_last_rows(group) if rows else group)[-LOOKED_AT:]

    def _may_be(self, call: Call) -> bool:
        layer, shape, size = call.layer, call.run.shape, self._measurements.size
        if layer.made_by and "dropout" in layer.kind.lower():  # which passes on what it got
            return False
        if layer.named_outputs or not may_have_space(shape, size) or POOLING.search(f"{layer.kind} {layer.made_by}"):
            return False
        if isinstance(self._reshape, Sequence) and not is_row_shape(shape, size):
            return False
        return not self._inside_attention(layer.name)

    def _is_row(self, call: Call) -> bool:
        return is_row_shape(call.run.shape, self._measurements.size)

    def _inside_attention(self, name: str) -> bool:
        """Whether the layer is a part of an attention, such as its projections."""
        around = [name[: found.start()] for found in re.finditer(r"[./\[]", name)]
        return any(ATTENTION.search(self._kinds.get(each, "")) for each in around)

    def _with_layouts(self, calls: Sequence[Call]) -> list[tuple[Call, Layout]]:
        """Those that see the image and have space, with where it is."""
        evidence = self._measurements.of([call.name for call in calls])
        if callable(self._reshape):
            seeing = [call for call in calls if evidence[call.name].sees]
            return [(call, Layout(1, function=self._reshape)) for call in seeing]
        tokens = {call.run.shape[1] for call in self._calls if self._is_row(call)}
        usable = []
        for call in calls:
            seen = evidence[call.name]
            if not seen.sees:
                continue
            layout = self._measurements.layout_or_none(call.layer, seen, self._reshape)
            if layout is None or _along_one_axis(layout):
                continue
            by_shape_alone = layout.axes is None and layout.grid is None
            if by_shape_alone and is_attention(call.run.shape, self._measurements.size, tokens):
                continue
            usable.append((call, layout))
        return usable

    def _that_matters(self, usable: Sequence[tuple[Call, Layout]]) -> Call | None:
        """The last one at whose positions the score has a gradient, and that is no map of a head's outputs."""
        in_order = sorted(usable, key=lambda each: each[0].run.place)
        if not in_order or callable(self._reshape):  # which of the layers it is made for is the user's to say
            return in_order[-1][0] if in_order else None
        calls = [call for call, _ in in_order]
        try:
            gradients = self._known if {call.name for call in calls} <= self._known.keys() else self._gradients(calls)
        except GradientsUnavailableError:
            return in_order[-1][0]
        for call, layout in reversed(in_order):
            if gradients[call.name] is not None and self._matters(gradients[call.name], layout):
                return call
        return None

    def _gradients(self, calls: Sequence[Call]) -> dict[str, Array | None]:
        return self._adapter.gradients_once(self._inputs, [call.name for call in calls], self._score)

    def _matters(self, gradients: Array, layout: Layout) -> bool:
        """Whether there is a gradient at any position, and for each score in more than one channel."""
        rows = to_numpy(gradients)
        placed = [layout.channels_first(each, xp=array_namespace(rows)) for each in rows]
        channels = [np.flatnonzero(np.abs(each).sum(axis=(0, *range(2, each.ndim)))) for each in placed]
        if not any(len(each) for each in channels):
            return False
        # Where one channel alone makes one class, or what a target function looks at, the map is the head's output.
        return not any(len(each) == 1 for each in channels)

    def warn_if_early(self, call: Call) -> None:
        """Of a layer so near the input that its map shows edges rather than evidence."""
        places = [run.place for layer in self._listed for run in layer.runs]
        if len(places) >= FEW and call.run.place < max(places) * EARLY:
            warn(
                f"The last layer of {self._adapter.model_name} that sees the image, has space and matters to the "
                f"outputs is {call.short!r}, number {call.run.place + 1} of {max(places) + 1} that ran: its map shows "
                "what the model sees first, not what it decides by. Name another layer, or say with reshape= where in "
                "one the image's patches are.",
                EvidenceWarning,
            )


def _along_one_axis(layout: Layout) -> bool:
    """Whether a row of tokens of a volume or clip is pooled over all of its axes but one."""
    grid = () if layout.grid is None else layout.grid
    return len(grid) > 2 and sum(length > 1 for length in grid) < 2


def _last_rows(rows: Sequence[Call]) -> list[Call]:
    """The last row of tokens, and before it the normalisations: others there are parts of blocks."""
    before = [call for call in rows[:-1] if NORMALISATION.search(call.layer.kind)]
    return [*(before or rows[:-1]), rows[-1]]
