"""The engines that plugins have, and what goes wrong inside of them said in words of ours."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fusioncam_core.errors import CannotRunError, EngineWarning, InvalidValueError, warn
from fusioncam_core.models.engines import BATCH, Converted, Engine, Exported, Parts, Precision, Restores, Run, RunsApart
from fusioncam_core.models.memory import memory_is_full
from fusioncam_core.plugins.engine_cache import Entry, asked_folder
from fusioncam_core.plugins.foreign import described, foreign_code
from fusioncam_core.plugins.guarded import OWN_ANSWERS
from fusioncam_core.plugins.manager import left_out, plugin_manager

Written = TypeVar("Written")

_CONVERTING = threading.RLock()
"""Held by whoever converts: what PyTorch and jax2onnx put into their own modules meanwhile, all threads would see."""

WORDS = ("name", "reads", "unable", "converted")
"""What an engine must have."""


@dataclass(frozen=True)
class GuardedEngine:
    """An engine of a plugin, as the core uses it.

    Attributes:
        engine: the plugin's.
    """

    engine: Engine

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.engine.name

    def batch_size(self, *, in_rows: bool) -> int:
        """Images at once to begin with, where rows of results may run apart or not."""
        return self.engine.apart if in_rows and isinstance(self.engine, RunsApart) else BATCH

    def unable(self, precision: Precision) -> str | None:
        """Why it cannot compute in that precision on this machine; None if it can."""
        with foreign_code(f"The engine {self.name!r}"):
            return self.engine.unable(precision)

    def converted(self, export: Callable[[], Exported], precision: Precision, told: str) -> Converted:
        """What runs a function that a backend exports: kept on disk, if that is asked for, or made now.

        Raises:
            InvalidValueError: if it cannot be exported or converted.
        """
        with _CONVERTING:
            return self._converted(export, precision, told)

    def _converted(self, export: Callable[[], Exported], precision: Precision, told: str) -> Converted:
        exported = _written_down(export, told)
        kind = next((each for each in self.engine.reads if each in exported.kinds), None)
        if kind is None:
            raise InvalidValueError(
                f"{told} reads {_listed(self.engine.reads)}, and the model's backend writes {_listed(exported.kinds)}. "
                "Take another engine, or leave engine= out."
            )
        entry = self._entry(exported, kind, precision, told)
        make = functools.partial(self._made, exported, kind, precision, told, entry)
        restored = None if entry is None else self._restored(entry, exported, precision, told)
        return Converted(make()) if restored is None else Converted(restored, make)

    def _made(self, exported: Exported, kind: str, precision: Precision, told: str, entry: Entry | None) -> Run:
        with _CONVERTING, foreign_code(f"{told} cannot be converted"):
            graph = _written_down(exported.kinds[kind], told)
            if entry is None:
                run = self.engine.converted(graph, kind, exported, precision)
            else:
                keep = functools.partial(_keep, entry, told)
                run = self.engine.converted(graph, kind, exported, precision, keep=keep)  # type: ignore[call-arg]
        return _guarded(run, told)

    def _entry(self, exported: Exported, kind: str, precision: Precision, told: str) -> Entry | None:
        """Where the graph is on disk, or goes; None if that is not asked for, or cannot be."""
        folder = asked_folder()
        if folder is None:
            return None
        if exported.identity is None or not isinstance(self.engine, Restores):
            who = self.name if exported.identity is not None else "the model's backend"
            warn(f"{told} is not kept on disk: {who} has no way to do so.", EngineWarning)
            return None
        try:
            identity = _written_down(exported.identity, told)
        except InvalidValueError as error:
            warn(f"{told} is not kept on disk: {error}", EngineWarning)
            return None
        return Entry(folder, (self.name, self.engine.version, kind, precision, repr(exported.shapes), identity))

    def _restored(self, entry: Entry, exported: Exported, precision: Precision, told: str) -> Run | None:
        """What runs a graph that is kept on disk; None if there is none, or it is broken."""
        assert isinstance(self.engine, Restores)
        try:
            parts = entry.read()
            if parts is None:
                return None
            with foreign_code(f"{entry.path} cannot be read"):
                return _guarded(self.engine.restored(parts, exported, precision), told)
        except (InvalidValueError, OSError) as error:
            warn(f"{told} is converted anew: {error}", EngineWarning)
            return None


def _keep(entry: Entry, told: str, parts: Callable[[], Parts]) -> None:
    """Write a graph to the disk; a disk that is full or read-only costs the next conversion and no more."""
    try:
        with foreign_code(f"{told} cannot be written"):
            found = parts()
        entry.write(found)
    except (InvalidValueError, OSError) as error:
        warn(f"{told} is not kept on disk: {error}", EngineWarning)


def _written_down(write: Callable[[], Written], told: str) -> Written:
    """What the model's framework gives, where what goes wrong is about the program and not the number of images."""
    what = f"{told}: what it would run cannot be written down"
    try:
        with foreign_code(what):
            return write()
    except CannotRunError as error:
        raise InvalidValueError(f"{what}: {error}") from error


def _guarded(run: Run, told: str) -> Run:
    def guarded(arguments: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        try:
            return run(arguments)
        except Exception as error:  # foreign code
            if memory_is_full(error):  # which fewer images at once may help
                raise
            raise InvalidValueError(
                f"{told} does not run: {described(error)}. Leave engine= out: the framework computes these maps."
            ) from error

    return guarded


def _listed(kinds: Any) -> str:
    return ", ".join(map(repr, kinds)) or "nothing"


def find_engine(name: str) -> GuardedEngine | None:
    """The engine of that name; for "auto" the first one that can be had, or None.

    Raises:
        InvalidValueError: if no plugin has an engine of that name.
        MissingExtra: if a package is not installed that it needs.
    """
    answers = plugin_manager().answers("fusioncam_engine", _check, own=OWN_ANSWERS, name=name)
    found = next((GuardedEngine(engine) for _, engine in answers), None)
    if found is None and name != "auto":
        raise InvalidValueError(
            f"No plugin has an engine called {name!r}{left_out()}. fusioncam's own are 'openvino' and 'onnxruntime'."
        )
    return found


def _check(engine: Any) -> str | None:
    missing = [word for word in WORDS if not hasattr(engine, word)]
    return f"expected an engine, got {type(engine).__qualname__} without {', '.join(missing)}" if missing else None
