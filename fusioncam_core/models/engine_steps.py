"""The masked step of one model as an engine runs it: exported, converted and compared once, and kept with the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, dtype_name, indices_like, to_numpy
from fusioncam_core.arrays.words import _resize
from fusioncam_core.errors import EngineWarning, InvalidValueError, warn
from fusioncam_core.models.adapter import Execution, Exports, ModelAdapter
from fusioncam_core.models.digest import marks
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engine_trust import Values, probes, require_trust
from fusioncam_core.models.engines import Exported, Run
from fusioncam_core.models.function_scores import RawOutputs, Scores
from fusioncam_core.models.inputs import Inputs, Which, leaf, taken
from fusioncam_core.models.masked_program import MaskedProgram, Way
from fusioncam_core.models.outputs import ClassScores, arrays_in, map_outputs
from fusioncam_core.models.structure import Form, Path, split

EXAMPLES = 5
"""Masks in the example that a program is exported by: another number than that of images, so that neither is taken for
the other."""

SMALL = (6, 7, 8, 9)
"""The lengths of its maps, likewise."""

MOST = 8
"""So many programs are kept with a model; the oldest goes."""

Framework = Callable[[bool, Inputs, Array, "Array | None"], Any]
"""(whether masks are normalised, inputs, maps, erased images) -> what the framework's own step gives."""


@dataclass(frozen=True)
class Kept:
    """What is kept with a model of one program.

    Attributes:
        weights: what told the model's weights when it was converted.
        run: the converted program.
        outputs: the model's outputs, with nothing in their arrays; None where the program returns logits.
        form: of the inputs, since its key is only good as long as it is there.
    """

    weights: Any
    run: Run
    outputs: Any
    form: Form


class MaskedEngine:
    """An engine for one explainer's masked images.

    Args:
        adapter: of the model.
        which: the explained one of several inputs.
        choice: of the engine.
    """

    def __init__(self, adapter: ModelAdapter, which: Which, choice: Choice):
        assert choice.conversion is not None
        self.adapter, self.which, self.choice = adapter, which, choice
        self.conversion, self.precision = choice.conversion, choice.precision

    @property
    def xp(self) -> Namespace:
        """The model's array words."""
        return self.adapter.namespace

    @property
    def told(self) -> str:
        """The engine and the model, to begin a sentence with."""
        return f"The engine {self.conversion.name!r} for {self.adapter.model_name}"

    def execution(self, scores: Scores) -> Execution:
        """How the engine likes to work: any number of images costs little, however they lie in memory."""
        own, size = self.adapter.execution, self.conversion.batch_size(in_rows=isinstance(scores, ClassScores))
        return replace(own, batch_size=size, fixed_shapes=False, memory_formats=own.memory_formats[:1], beside=1)

    @property
    def exports(self) -> Exports:
        """The adapter, of a backend that exports.

        Raises:
            InvalidValueError: if it does not, or the engine does not compute in the precision here.
        """
        reason = self.conversion.unable(self.precision)
        if reason is not None:
            raise self.refused(f"cannot compute in {self.precision}: {reason}")
        if not isinstance(self.adapter, Exports):
            raise self.refused("has nothing to read: the model's backend exports no programs")
        return self.adapter

    def refused(self, reason: str) -> InvalidValueError:
        """The error for a reason that ends the sentence."""
        return InvalidValueError(f"{self.told} {reason}. Leave engine= out: the framework computes these maps.")

    def weights(self) -> Any:
        """What tells the model's weights and what else it goes by, to be compared."""
        return *marks(self.adapter), self.adapter.changes


class BatchEngine:
    """What an engine makes of one batch of images under masks.

    Args:
        engine: of the explainer.
        scores: what the outputs mean, or that they are left as they are.
        channel_axis: of the explained input.
        size: its lengths in space.
        inputs: (B, ...).
        erased: what is seen where masks are 0; None for zero.
        framework: the step that it stands for.
    """

    def __init__(
        self,
        engine: MaskedEngine,
        scores: Scores | RawOutputs,
        channel_axis: int | None,
        size: tuple[int, ...],
        inputs: Inputs,
        erased: Array | None,
        framework: Framework,
    ):
        self.engine, self._scores, self._framework = engine, scores, framework
        self._channel_axis, self._size = channel_axis, size
        self._inputs, self._erased = inputs, erased
        self._arrays, self._form = split(inputs)
        self._ready: dict[Way, tuple[MaskedProgram, Kept]] = {}

    @functools.cached_property
    def _weights(self) -> Any:
        """Of now: in the time of one batch nobody else can change them."""
        return self.engine.weights()

    @functools.cached_property
    def _given(self) -> list[np.ndarray[Any, Any]]:
        return [_contiguous(each) for each in self._arrays]

    @functools.cached_property
    def _given_erased(self) -> np.ndarray[Any, Any] | None:
        return None if self._erased is None else _contiguous(self._erased)

    @functools.cached_property
    def _indices(self) -> Any:
        """What the framework's integers are, for which the program was written down."""
        return to_numpy(indices_like([0], leaf(self._inputs, self.engine.which), self.engine.xp)).dtype

    def __call__(self, maps: Array, owners: Array, *, normalised: bool) -> Any:
        """What the framework's step would give for the images `owners` (n,) under the maps (n, *spatial).

        Of maps on the host the logits of classes stay there.
        """
        small = tuple(int(length) for length in maps.shape[1:])
        program, kept = self._of(Way(normalised, normalised or small != self._size, self._erased is not None))
        found = self._run(program, kept.run, maps, owners)
        on_host = isinstance(maps, np.ndarray) and kept.outputs is None
        return found[0] if on_host else self._read(found, kept.outputs)

    def _of(self, way: Way) -> tuple[MaskedProgram, Kept]:
        """The program of a way and what is kept of it: found with the model, or made now.

        Raises:
            InvalidValueError: if the engine cannot run it, or not as the framework does.
        """
        if way not in self._ready:
            scores = self._scores if isinstance(self._scores, ClassScores) else RawOutputs()
            program = MaskedProgram(
                self.engine.adapter, scores, self.engine.which, self._channel_axis, self._size, self._form, way
            )
            self._ready[way] = program, self._kept(program)
        return self._ready[way]

    def _kept(self, program: MaskedProgram) -> Kept:
        engine, of_model = self.engine, self.engine.adapter.converted
        kinds = tuple((dtype_name(each.dtype), tuple(each.shape[1:])) for each in self._arrays)
        whole = tuple(tuple(each.shape) for each, shared in zip(self._arrays, self._form.slots, strict=True) if shared)
        key: tuple[Any, ...] = (engine.conversion.name, engine.precision, program.way, program.scores, engine.which)
        key = (*key, self._channel_axis, self._form.key, kinds, whole)
        kept: Kept | None = of_model.get(key)
        if kept is None or kept.weights != self._weights:
            of_model.pop(key, None)
            while len(of_model) >= MOST:
                del of_model[next(iter(of_model))]
            kept = of_model[key] = self._converted(program)
        return kept

    def _converted(self, program: MaskedProgram) -> Kept:
        engine, exports = self.engine, self.engine.exports
        images = leaf(self._inputs, engine.which)
        if dtype_name(images.dtype) != "float32":
            raise engine.refused(f"takes images in float32, and the model's are in {dtype_name(images.dtype)}")
        examples = self._examples(program)

        def export() -> Exported:
            return replace(exports.exported(program, examples, program.shapes(self._arrays)), rows=program.rows)

        made = engine.conversion.converted(export, engine.precision, engine.told)
        if made.anew is None:
            return self._trusted(program, made.run)
        try:
            return self._trusted(program, made.run)
        except InvalidValueError as error:
            warn(f"{engine.told} is converted anew, since what was kept on disk does not hold: {error}", EngineWarning)
        return self._trusted(program, made.anew())

    def _examples(self, program: MaskedProgram) -> list[Any]:
        """Arguments of the framework: two images, and more masks."""
        xp, like = self.engine.xp, leaf(self._inputs, self.engine.which)
        two = indices_like([0, 0], like, xp)
        arrays, _ = split(self._rows(two))
        small = SMALL[: len(self._size)] if program.way.resized else self._size
        maps = constant_like(np.zeros((EXAMPLES, *small)), like, xp)
        erased = None if self._erased is None else xp.take(self._erased, two, axis=0)
        owners = indices_like(np.arange(EXAMPLES) % 2, like, xp)
        matrices = [constant_like(each, like, xp) for each in program.matrices(small)]
        return program.arguments(owners, maps, matrices, erased, arrays)

    def _rows(self, owners: Array) -> Inputs:
        return taken(self._inputs, owners, self.engine.xp)

    def _trusted(self, program: MaskedProgram, run: Run) -> Kept:
        """The program as it is kept, once its outputs are seen to be those of the framework."""
        engine, xp = self.engine, self.engine.xp
        like = leaf(self._inputs, engine.which)
        maps = constant_like(probes(len(self._size), engine.precision), like, xp)
        if not program.way.resized:
            maps = _resize(maps, self._size, xp=xp)
        owners = indices_like(np.zeros(len(maps)), like, xp)
        erased = None if self._erased is None else xp.take(self._erased, owners, axis=0)
        made = self._framework(program.way.normalised, self._rows(owners), maps, erased)
        logits = isinstance(program.scores, ClassScores)
        expected = [to_numpy(each) for each in ([made] if logits else (each for _, each in arrays_in(made)))]

        on_host = to_numpy(maps)

        def of(places: np.ndarray[Any, Any]) -> Values:
            return self._run(program, run, on_host[places], np.zeros(len(places), np.int64))

        together = engine.conversion.batch_size(in_rows=logits)
        require_trust(of, expected, engine.precision, engine.told, together)
        return Kept(self._weights, run, None if logits else map_outputs(_nothing, made), self._form)

    def _run(self, program: MaskedProgram, run: Run, maps: Array, owners: Array) -> Values:
        given, places = _contiguous(maps), _contiguous(owners).astype(self._indices, copy=False)
        matrices = program.matrices(given.shape[1:])
        return run(program.arguments(places, given, matrices, self._given_erased, self._given))

    def _read(self, found: Values, outputs: Any) -> Any:
        """What the framework's step gives, of the engine's arrays."""
        arrays = [self.engine.adapter.as_array(each) for each in found]
        if outputs is None:
            return arrays[0]
        left = iter(arrays)
        return self._scores.logits(map_outputs(lambda path, _: next(left), outputs))


def _nothing(path: Path, array: Array) -> Any:
    return np.empty(0, np.float32)


def _contiguous(array: Array) -> np.ndarray[Any, Any]:
    """Its values on the host, one after the other, where that is possible without a copy."""
    return np.ascontiguousarray(to_numpy(array))
