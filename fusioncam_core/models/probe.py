"""What is measured of somebody else's layer, where others guess from its shape.

The image that was given runs beside a copy of which a part is replaced by noise of the image's own mean and spread.
What changes in a layer's output says whether it sees the image, which axis holds the batch, along which axes space
lies and which way round, and where in a row of tokens the patches are. A few passes of two images answer that for
many layers at once, and are not repeated for inputs of that shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.arrays.checks import require_scores
from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like, to_numpy
from fusioncam_core.errors import EvidenceWarning, InvalidTypeError, InvalidValueError, warn
from fusioncam_core.models.adapter import LayerInfo, ModelAdapter, call_name
from fusioncam_core.models.axes import spatial_axes
from fusioncam_core.models.inputs import Inputs, Which, leaf, map_rows, with_leaf
from fusioncam_core.models.outputs import unpack

Profiles = tuple[np.ndarray[Any, Any], ...]
"""How much changed along each axis of a layer's output, the batch left out: what changed at each index."""

NOTICEABLE = 2e-6
"""The least change of an output, as a share of its mean size, that is no rounding: equal rows of one batch come out
equal to a few units of float32, and bit for bit in fewer bits."""

SHIFT, CLEAR_SHIFT = 0.02, 0.05
"""How far, as a share of an axis, the centre of change must move to confirm a structure, and to overrule it.

On random weights it moves by .3 to .9 along the right axes of most networks, and by .025 in the worst of 22 networks
with attention or squeeze-and-excitation; along the others by less than half of that.
"""

PLAIN_SHIFT = 0.25
"""How far it must move for an axis that is taken for channels to be one of space, against what the lengths say."""

MANY = 16
"""Along so many channels, and more, the centre of change stays where it is."""

HALVES: Mapping[int, tuple[tuple[int, ...], ...]] = {
    1: ((0,), (1,)),
    2: ((0, 1), (1, 0)),
    3: ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)),
}
"""By the number of axes of space: which half of each is noise, in each pass; for any two axes all four pairs, or two
that tell them apart."""

MEETING = 1e-3
"""By how much of the largest output those of an image may differ beside two other images, for rounding's sake."""

SEED = 26_03_05386
"""Of the noise: none that anyone draws test images from."""

DOMINANT = 1.5
"""How much more the token of a changed corner must change than those of the other corners."""

PATCH_SHARE = 0.75
"""The side of a corner that is noise, as a share of a patch's: it lies in the first patch where patches overlap, and
reaches the last one where they leave a rest of the image out."""


class Patches(NamedTuple):
    """Where the patches are in a row of tokens.

    Attributes:
        before, after: the tokens that are no patches, such as class tokens, registers or queries of a detector.
        grid: the patches along each axis of the input's space.
        order: the axes of the input's space from the slowest to the fastest in the row.
    """

    before: int
    after: int
    grid: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """What was measured of one call of a layer, for inputs of one shape.

    Attributes:
        call: the layer's name and the number of the call, "backbone#1".
        shape: of the output for one image.
        sees: whether the output changes with the explained input.
        batch_axis: the axis of the output that holds the batch; None if none does.
        rows: how many rows of that axis an image has: frames, views or windows that were folded into the batch.
        interleaved: whether the rows of one image lie apart from each other, those of all images side by side.
        changed: those of the rows that change with the explained input.
        shifts: (axes of the input's space, axes of the output behind the batch, the rows being the first of them if
            there are several) how far the centre of change moved, as a share of the axis; None if it was not measured.
        patches: where they are, if the output is a row of tokens and that is clear.
        heard: whether the call was heard at all: inside of some loops and transformations it is not.
        along: of a row of tokens, how much each changed with the first corner, and with the far one of each axis.
        between_tokens: whether two of its axes are both as long as the model's rows of tokens, as an attention's matrix
            has them.
    """

    call: str
    shape: tuple[int, ...]
    sees: bool
    batch_axis: int | None = 0
    rows: int = 1
    interleaved: bool = False
    changed: tuple[int, ...] = ()
    shifts: np.ndarray[Any, Any] | None = field(default=None, compare=False)
    patches: Patches | None = None
    heard: bool = True
    along: tuple[np.ndarray[Any, Any], ...] = field(default=(), compare=False)
    between_tokens: bool = False

    @property
    def inner(self) -> tuple[int, ...]:
        """The lengths behind the batch, with the rows of one image first if there are several."""
        rest = tuple(length for axis, length in enumerate(self.shape) if axis != self.batch_axis)
        return (self.rows, *rest) if self.rows > 1 else rest


@dataclass(frozen=True)
class Change:
    """What the second of two images changes in layers' outputs, in comparison with the first: the view of `observe`.

    Attributes:
        shapes: of the outputs of the calls for one image, by the calls' names.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, call: str, output: Array, xp: Any) -> tuple[Array, list[Array], list[Array]] | None:
        """The mean size of the output, and the change along each axis: with an image's rows together, and apart.

        None for an output that does not have the shape of two images.
        """
        axis = batch_axis(dict(self.shapes).get(call), tuple(output.shape))
        if axis is None:
            return None
        values = xp.moveaxis(xp.astype(output, xp.float32), axis, 0)
        rows, rest = values.shape[0] // 2, tuple(values.shape[1:])
        together = xp.reshape(values, (2, rows, *rest))
        size = xp.mean(xp.abs(values))
        first = _profiles(xp.abs(together[1, ...] - together[0, ...]), xp)
        if rows == 1:
            return size, first, first
        apart = xp.reshape(values, (rows, 2, *rest))
        return size, first, _profiles(xp.abs(apart[:, 1, ...] - apart[:, 0, ...]), xp)


def batch_axis(one: Sequence[int] | None, two: Sequence[int]) -> int | None:
    """The axis of a layer's output that holds the batch, from its shapes for one image and for two."""
    if one is None or len(one) != len(two):
        return None
    different = [axis for axis, (length, other) in enumerate(zip(one, two, strict=True)) if length != other]
    return different[0] if len(different) == 1 and two[different[0]] == 2 * one[different[0]] else None


def _profiles(change: Array, xp: Any) -> list[Array]:
    """Of (rows, *rest), what changed at each index of each axis."""
    axes = range(change.ndim)
    return [xp.sum(change, axis=tuple(each for each in axes if each != axis)) for axis in axes]


class Probe:
    """Measures the layers of a model for inputs of one shape.

    Args:
        adapter: of the model.
        inputs: one image, as a batch.
        which: the explained one of several inputs.
        channel_axis: of the explained input; None if it has none.
        output: the position or name of the explained one of several outputs.

    Raises:
        InvalidValueError: if the model answers once for a whole batch.

    Warns with `EvidenceWarning` if an image's outputs depend on another image.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        inputs: Inputs,
        which: Which,
        channel_axis: int | None,
        output: int | str | None = None,
    ):
        self._adapter = adapter
        self._inputs = inputs
        self._which = which
        self._output = output
        image = to_numpy(leaf(inputs, which)).astype(np.float64)
        self._image = image
        self._space = spatial_axes(image.ndim, channel_axis)
        self.size = tuple(image.shape[axis] for axis in self._space)
        self._first: np.ndarray[Any, Any] | None = None
        self._heard: set[str] = set()

    def measure(self, listed: Sequence[LayerInfo], calls: Sequence[str]) -> dict[str, Evidence]:
        """What is measured of those calls of layers, which all are of one kind: maps, or rows of tokens.

        Args:
            listed: the model's layers, as they ran on one image.
            calls: their names, "backbone#1".
        """
        shapes = {call_name(each.name, run.number): run.shape for each in listed for run in each.runs}
        wanted = {call: shapes[call] for call in calls}
        if all(is_row_shape(shape, self.size) for shape in wanted.values()):
            return self._measure_rows(wanted)
        return self._measure_maps(wanted)

    def moves(self, calls: Mapping[str, tuple[int, ...]], axes: tuple[int, ...]) -> list[tuple[bool, ...]]:
        """For each call, along which axes of the input changes in one half and in the other lie apart in its output.

        They do along axes of space, and not along the channels once a layer has mixed them.

        Args:
            calls: names of calls of layers, and the shapes of their outputs for one image.
            axes: one or two, of the batch.
        """
        self._space = axes
        self.size = tuple(self._image.shape[axis] for axis in axes)
        passes = self._passes(calls, [self._half(code) for code in HALVES[len(axes)]])
        seen = [[each[call] for each in passes] for call in calls if all(call in each for each in passes)]
        steps = [_steps(*pair) for pair in seen]
        # Of two axes the halves change places in turn: what follows one goes forward where the other goes back.
        forward = [max(step, default=0.0) > PLAIN_SHIFT for step in steps]
        back = [min(step, default=0.0) < -PLAIN_SHIFT for step in steps]
        return [each[: len(axes)] for each in zip(forward, back, strict=True)]

    # --- maps

    def _measure_maps(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Evidence]:
        codes = HALVES.get(len(self.size), ())
        found = self._passes(shapes, [self._half(code) for code in codes])
        return {
            call: self._of_maps(call, shape, codes, [each.get(call) for each in found])
            for call, shape in shapes.items()
        }

    def _of_maps(
        self, call: str, shape: tuple[int, ...], codes: Sequence[tuple[int, ...]], seen: Sequence[_Seen | None]
    ) -> Evidence:
        if not seen or any(each is None for each in seen):
            return Evidence(call, shape, sees=False, batch_axis=None, heard=call in self._heard)
        passes = [each for each in seen if each is not None]
        general = _general(call, shape, passes)
        if not general.sees:
            return general
        interleaved = general.interleaved
        centres = np.array(
            [[_centre(profile) for profile in each.profiles(interleaved, general.rows)] for each in passes]
        )
        marks = np.array(codes)
        shifts = np.array(
            [
                centres[marks[:, axis] == 1].mean(axis=0) - centres[marks[:, axis] == 0].mean(axis=0)
                for axis in range(marks.shape[1])
            ]
        )
        return replace(general, shifts=shifts)

    # --- rows of tokens

    def _measure_rows(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Evidence]:
        count = len(self.size)
        far = [tuple(int(axis == each) for axis in range(count)) for each in range(count)]
        codes = [(0,) * count, *far]
        tokens = max(shape[1] for shape in shapes.values())
        found = self._passes(shapes, [self._corner(code, tokens) for code in codes])
        return {call: self._of_row(call, shape, [each.get(call) for each in found]) for call, shape in shapes.items()}

    def _of_row(self, call: str, shape: tuple[int, ...], seen: Sequence[_Seen | None]) -> Evidence:
        if any(each is None for each in seen):
            return Evidence(call, shape, sees=False, batch_axis=None, heard=call in self._heard)
        passes = [each for each in seen if each is not None]
        general = _general(call, shape, passes)
        if not general.sees or general.rows > 1:
            return general
        along = tuple(each.profiles(interleaved=False, rows=1)[0] for each in passes)
        corners = [int(np.argmax(each)) for each in along]
        clear = all(_stands_out(each, own, corners) for each, own in zip(along, corners, strict=True))
        found = _patches(corners, len(along[0])) if clear else None
        return replace(general, patches=found, along=along)

    # --- passes

    def _passes(
        self, shapes: Mapping[str, tuple[int, ...]], changed: Sequence[np.ndarray[Any, Any]]
    ) -> list[dict[str, _Seen]]:
        """What each changed image changes in the outputs of the calls.

        All are started before the first is read: where a framework returns at once, they run beside each other.
        """
        return [self._read(shapes, *each) for each in [self._started(shapes, image) for image in changed]]

    def _started(
        self, shapes: Mapping[str, tuple[int, ...]], changed: np.ndarray[Any, Any]
    ) -> tuple[Inputs, Any, dict[str, Any]]:
        """The image beside a changed one, the model's outputs for both, and what is seen of the calls."""
        adapter, xp = self._adapter, self._adapter.namespace
        own = leaf(self._inputs, self._which)
        both = constant_like(np.concatenate([self._image, changed]), own, xp)
        others = with_leaf(self._inputs, self._which, both)
        inputs = map_rows(lambda each: each if each is both else xp.concat([each, each], axis=0), others)
        names = tuple(dict.fromkeys(call.rpartition("#")[0] for call in shapes))
        return inputs, *adapter.observe(inputs, names, Change(tuple(shapes.items())))

    def _read(
        self, shapes: Mapping[str, tuple[int, ...]], inputs: Inputs, outputs: Any, seen: Mapping[str, Any]
    ) -> dict[str, _Seen]:
        self._heard.update(seen)
        self._check_outputs(outputs, inputs)
        return {call: _Seen.of(values) for call, values in seen.items() if values is not None and call in shapes}

    def _check_outputs(self, outputs: Any, inputs: Inputs) -> None:
        """Refuse a model that makes one answer of two images, and warn where they change each other's."""
        own = self._first_row(outputs)
        if own is None:
            return
        if self._first is None:
            self._first = own
        elif _differ(own, self._first) and not self._is_random(own, inputs):
            warn(
                f"The outputs of {self._adapter.model_name} for an image change with the other images of its batch: "
                "its map depends on which images are explained together. Explain one image at a time with "
                "batch_size=1, or wrap the model so that it treats each image by itself.",
                EvidenceWarning,
            )

    def _first_row(self, outputs: Any) -> np.ndarray[Any, Any] | None:
        """The first image's outputs; None where what the outputs are is a target function's to know."""
        try:
            values = unpack(outputs, self._output)
        except (InvalidTypeError, InvalidValueError):
            return None
        if values.ndim == 0 or int(values.shape[0]) not in (1, 2):
            return None
        if int(values.shape[0]) == 1:
            raise InvalidValueError(
                f"{self._adapter.model_name} makes one output of two images, of shape {tuple(values.shape)}: its first "
                "axis is no batch, but a bag or a sequence that it takes as a whole. Wrap the model so that it takes a "
                "batch of bags, (batch, members, ...), and returns a row of outputs for each."
            )
        scores = to_numpy(values)
        scores = require_scores(scores, "model's outputs", array_namespace(scores))[0, ...].astype(np.float64)
        return np.where(np.isneginf(scores), 0, scores)  # of a class that is ruled out

    def _is_random(self, own: np.ndarray[Any, Any], inputs: Inputs) -> bool:
        """Whether the model answers otherwise when it is asked the same again."""
        again = self._first_row(self._adapter.forward(inputs))
        return again is None or _differ(own, again)

    def _half(self, code: Sequence[int]) -> np.ndarray[Any, Any]:
        """The image with noise in one half of each axis of space."""
        region = [
            slice(length // 2, None) if far else slice(0, math.ceil(length / 2))
            for far, length in zip(code, self.size, strict=True)
        ]
        return self._noisy(region)

    def _corner(self, code: Sequence[int], tokens: int) -> np.ndarray[Any, Any]:
        """The image with noise in a corner that is smaller than a patch."""
        region = []
        for far, length, patch in zip(code, self.size, self._likely_patch(tokens), strict=True):
            side = min(max(int(PATCH_SHARE * patch), 1), math.ceil(length / 2))
            region.append(slice(length - side, None) if far else slice(0, side))
        return self._noisy(region)

    def _likely_patch(self, tokens: int) -> tuple[float, ...]:
        """The sides of patches that cut the image into so many: squares in a plane, in proportion in a clip."""
        share = (1 / max(tokens, 1)) ** (1 / len(self.size))
        if len(self.size) == 2:
            return (math.prod(self.size) ** 0.5 * share,) * 2
        return tuple(length * share for length in self.size)

    def _noisy(self, region: Sequence[slice]) -> np.ndarray[Any, Any]:
        place: list[slice] = [slice(None)] * self._image.ndim
        for axis, part in zip(self._space, region, strict=True):
            place[axis] = part
        noise = np.random.Generator(np.random.PCG64(SEED)).standard_normal(self._image.shape)
        spread = float(self._image.std()) or 1.0
        changed = self._image.copy()
        changed[tuple(place)] = (self._image.mean() + spread * noise)[tuple(place)]
        return changed


class _Seen(NamedTuple):
    """What one pass showed of a call: the size of the output, and the change along each axis, read in two ways."""

    size: float
    together: Profiles
    apart: Profiles

    @classmethod
    def of(cls, values: tuple[Array, list[Array], list[Array]]) -> _Seen:
        size, together, apart = values
        return cls(
            float(to_numpy(size)), *(tuple(to_numpy(p).astype(np.float64) for p in each) for each in (together, apart))
        )

    def profiles(self, interleaved: bool, rows: int) -> Profiles:
        """Along the axes behind the batch, the rows of an image first if there are several."""
        found = self.apart if interleaved else self.together
        return found if rows > 1 else found[1:]

    def change(self, interleaved: bool) -> float:
        """The mean change, as a share of the output's mean size."""
        found = self.apart if interleaved else self.together
        count = math.prod(len(each) for each in found)
        return float(found[0].sum()) / count / self.size if self.size > 0 else float(found[0].sum())


def _general(call: str, shape: tuple[int, ...], passes: Sequence[_Seen]) -> Evidence:
    """Whether the call sees the input, and how the batch lies in its output."""
    rows = len(passes[0].together[0])
    axis = _axis_of_batch(shape, passes[0])
    changes = {way: sum(each.change(way) for each in passes) for way in (False, True)}
    interleaved = rows > 1 and changes[True] < changes[False] * (1 - 1e-3)
    # What is not finite is for others to complain of.
    sees = not np.isfinite(changes[interleaved]) or any(each.change(interleaved) > NOTICEABLE for each in passes)
    along = np.sum([(each.apart if interleaved else each.together)[0] for each in passes], axis=0)
    changed = tuple(int(row) for row in np.flatnonzero(along > 1e-3 * along.max())) if sees else ()
    return Evidence(call, shape, sees, axis, rows, interleaved, changed)


def _axis_of_batch(shape: tuple[int, ...], seen: _Seen) -> int:
    """The first axis that the profiles may leave out: they have an image's rows first, then the others in order."""
    rows, *rest = (len(each) for each in seen.together)
    return next(
        axis for axis, length in enumerate(shape) if length == rows and [*shape[:axis], *shape[axis + 1 :]] == rest
    )


def _stands_out(along: np.ndarray[Any, Any], own: int, corners: Sequence[int]) -> bool:
    """Whether the token of the changed corner changes clearly more than those of the other corners."""
    return all(along[own] > DOMINANT * along[other] for other in corners if other != own)


def _differ(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two rows of outputs differ by more than rounding."""
    return bool(np.abs(one - other).max() > MEETING * max(np.abs(one).max(), 1e-6))


def _steps(before: _Seen, after: _Seen) -> list[float]:
    """How far the centre of change moves along each axis of an output."""
    rows = len(before.together[0])
    pair = ([_centre(each) for each in seen.profiles(interleaved=False, rows=rows)] for seen in (before, after))
    return [there - here for here, there in zip(*pair, strict=True)]


def _centre(profile: np.ndarray[Any, Any]) -> float:
    """The centre of change along an axis, in [0, 1]; the middle if nothing changed."""
    total = profile.sum()
    if not np.isfinite(total) or total <= 0:
        return 0.5
    return float((profile * (np.arange(len(profile)) + 0.5)).sum() / total / len(profile))


def _patches(corners: Sequence[int], tokens: int) -> Patches | None:
    """The grid from the tokens that moved most: for the first corner, and for the far corner of each axis.

    None if they do not lie as those of a grid do, or not within the row.
    """
    first, *far = corners
    steps = [each - first for each in far]
    last = first + sum(steps)
    # Fewer patches than others are more likely queries that happen to follow the corners.
    if min(steps) < 0 or last == first or last >= tokens or 2 * (last - first + 1) < tokens:
        return None
    order = sorted(range(len(steps)), key=lambda axis: -steps[axis])
    grid, stride = [1] * len(steps), 1
    for axis in reversed(order):  # the fastest first
        if steps[axis] % stride:
            return None
        grid[axis] = steps[axis] // stride + 1
        stride *= grid[axis]
    return Patches(first, tokens - 1 - last, tuple(grid), tuple(order))


def plain_patches(row: Evidence, before: int, grid: tuple[int, ...]) -> Patches:
    """The patches of a grid in the order of the axes, behind so many other tokens."""
    return Patches(before, len(row.along[0]) - before - math.prod(grid), grid, tuple(range(len(grid))))


def follows(evidence: Evidence, patches: Patches) -> bool:
    """Whether a row of tokens, in which the corners cannot be told, follows them on the grid of another one."""
    first, *far = (_grid_centres(each, patches) for each in evidence.along)
    moved = [there[axis] - first[axis] for axis, there in enumerate(far)]
    return all(step > CLEAR_SHIFT for step, length in zip(moved, patches.grid, strict=True) if length > 1)


def _grid_centres(along: np.ndarray[Any, Any], patches: Patches) -> list[float]:
    """The centre of change along each axis of the grid."""
    own = along[patches.before : len(along) - patches.after].reshape([patches.grid[axis] for axis in patches.order])
    grid = own.transpose([patches.order.index(axis) for axis in range(own.ndim)])
    return [_centre(grid.sum(axis=tuple(set(range(grid.ndim)) - {axis}))) for axis in range(grid.ndim)]


def is_row_shape(shape: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether an output of this shape, with fewer axes than a map has, can be a row of tokens (B, N, C)."""
    return len(shape) == 3 and len(size) > 1


def readings(evidence: Evidence, count: int) -> list[tuple[int, ...]]:
    """All ways in which the axes of space may lie in an output, the plainest first."""
    return list(itertools.permutations(range(len(evidence.inner)), count))


def measured_axes(
    evidence: Evidence, expected: tuple[int, ...] | None, in_proportion: Callable[[tuple[int, ...]], bool]
) -> tuple[int, ...] | None:
    """The axes of the output along which those of the input lie, as far as the measurement is clear.

    Args:
        evidence: of the call.
        expected: what its structure suggests: confirmed where the centre of change moves along it, and overruled where
            that moves clearly along others; far more clearly where the lengths of these do not follow the input's.
        in_proportion: whether the lengths of these axes follow the input's.
    """
    shifts = evidence.shifts
    if shifts is None or len(evidence.inner) < len(shifts):
        return None
    strength = {each: _strength(evidence, shifts, each, expected or each) for each in readings(evidence, len(shifts))}
    best = max(strength, key=lambda each: strength[each])
    if expected is not None and strength[expected] >= max(SHIFT, strength[best] / 2):
        return expected
    odd = expected is not None and in_proportion(expected) and not in_proportion(best)
    others = [value for each, value in strength.items() if each != best]
    clear = strength[best] >= (PLAIN_SHIFT if odd else CLEAR_SHIFT) and strength[best] >= 2 * max([0.0, *others])
    return best if clear else None


def _strength(
    evidence: Evidence, shifts: np.ndarray[Any, Any], axes: tuple[int, ...], expected: tuple[int, ...]
) -> float:
    """The least that the centre of change moves along the axes.

    Among few channels it moves by chance: what each of them sees of a change is not averaged over many.
    """
    return float(
        min(
            shifts[of_input, axis] * (1 if axis in expected else min(1, math.sqrt(evidence.inner[axis] / MANY)))
            for of_input, axis in enumerate(axes)
        )
    )
