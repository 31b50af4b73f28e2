"""When an engine runs an explainer's masked images: always, never, or as soon as enough of them lie ahead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from fusioncam_core.errors import EngineWarning, InvalidValueError, warn
from fusioncam_core.models.engines import Conversion, Precision

WORTH = 60.0
"""Seconds of the framework's work ahead for which "auto" has a model converted.

A conversion of EfficientNet-Lite0 took 4 to 9 seconds, and the engine then a third to three quarters less time a map;
in JAX 41 seconds, and six sevenths less (docs/engines.md): of a minute it saves more than its conversion takes.
"""


class Choice:
    """Whether an engine runs, and which.

    With "auto" the framework begins. Among many images, once as many lie ahead as take it a minute, the engine goes on;
    after a group in which it was converted, and one that is timed, it stays if that was faster.

    Args:
        conversion: the engine; None for the framework alone.
        precision: of the engine.
        auto: whether it is to be found out.

    Attributes:
        on: whether the engine runs now.
    """

    def __init__(self, conversion: Conversion | None = None, precision: Precision = "float32", *, auto: bool = False):
        self.conversion, self.precision = conversion, precision
        self.on = conversion is not None and not auto
        self._auto = conversion is not None and auto
        self.decided = not self._auto
        self._many = False
        self._left: int | None = None
        self._spent = 0.0
        self._fastest = float("inf")
        self._converted = False

    @property
    def name(self) -> str | None:
        """Of the engine that runs now; None for the framework."""
        return self.conversion.name if self.on and self.conversion is not None else None

    @contextlib.contextmanager
    def many(self, total: int | None) -> Iterator[None]:
        """A context in which many images are explained: so many, if that is known."""
        before, self._many, self._left = self._many, True, total
        try:
            yield
        finally:
            self._many = before

    @contextlib.contextmanager
    def watched(self, images: int) -> Iterator[None]:
        """A context in which so many images are explained, once."""
        if self.decided or not self._many:
            yield
            return
        engine, began = self.on, time.perf_counter()
        yield
        self._tell(images, time.perf_counter() - began, engine=engine)

    def _tell(self, images: int, seconds: float, *, engine: bool) -> None:
        """A group of images took so long."""
        if self._left is not None:
            self._left -= images
        if self.decided:  # given up meanwhile
            return
        if not engine:
            self._spent += seconds
            self._fastest = min(self._fastest, seconds / images)
            # Of a source that does not say how much it holds, as much is expected as it has given.
            ahead = self._spent if self._left is None else self._left * self._fastest
            self.on = ahead >= WORTH
        elif not self._converted:
            self._converted = True
        else:
            self.fix(seconds / images < self._fastest)

    def fix(self, on: bool) -> None:
        """From now on the engine runs, or it does not."""
        self.on, self.decided = on, True

    def give_up(self, error: Exception) -> None:
        """Go on without the engine, which "auto" chose.

        Raises:
            Exception: the error itself, if the user chose it.
        """
        if not self._auto:
            raise error
        self.fix(False)
        warn(f"The framework goes on: {error}", EngineWarning)

    def keep_to(self, name: str | None) -> None:
        """Run the engine of that name, by which something was begun, or none.

        Raises:
            InvalidValueError: if it is another one.
        """
        own = None if self.conversion is None else self.conversion.name
        known = (own, None) if self._auto else (self.name,)
        if name not in known:
            raise InvalidValueError(f"The job was begun with engine={name!r}, and the explainer has {own!r} now.")
        if self._auto:
            self.fix(name is not None)
