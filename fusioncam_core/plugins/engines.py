"""The engines that plugins have, and what goes wrong inside of them said in words of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusioncam_core.errors import CannotRunError, InvalidValueError
from fusioncam_core.models.engines import Engine, Exported, Precision, Run
from fusioncam_core.plugins.foreign import foreign_code
from fusioncam_core.plugins.guarded import OWN_ANSWERS
from fusioncam_core.plugins.manager import left_out, plugin_manager

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

    def unable(self, precision: Precision) -> str | None:
        """Why it cannot compute in that precision on this machine; None if it can."""
        with foreign_code(f"The engine {self.name!r}"):
            return self.engine.unable(precision)

    def converted(self, export: Callable[[], Exported], precision: Precision, told: str) -> Run:
        """What runs a function that a backend exports.

        Raises:
            InvalidValueError: if it cannot be exported or converted.
        """
        what = f"{told}: what it would run cannot be written down"
        try:
            with foreign_code(what):
                exported = export()
        except CannotRunError as error:  # which would be taken for one about the number of images
            raise InvalidValueError(f"{what}: {error}") from error
        kind = next((each for each in self.engine.reads if each in exported.kinds), None)
        if kind is None:
            raise InvalidValueError(
                f"{told} reads {_listed(self.engine.reads)}, and the model's backend writes {_listed(exported.kinds)}. "
                "Take another engine, or leave engine= out."
            )
        with foreign_code(f"{told} cannot be converted"):
            return self.engine.converted(exported.kinds[kind](), kind, exported, precision)


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
