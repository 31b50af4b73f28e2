"""Puts the variables that a run has changed back as they were."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import tensorflow as tf


class VariableState:
    """A context after which the variables have the values they had before, also after an exception.

    It can be entered again inside itself; the outermost exit restores. Only variables that are not trained need
    it, such as running averages: nothing assigns to the others at inference. Reading a variable shares its
    buffer, so what is kept costs memory only where a value was changed.
    """

    def __init__(self, variables: Iterable[tf.Variable]):
        self._variables = [variable for variable in variables if not variable.trainable]
        self._depth = 0
        self._kept: list[tf.Tensor] = []

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._kept = [variable.read_value() for variable in self._variables]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        for variable, value in zip(self._variables, self._kept, strict=True):
            variable.assign(value)
        self._kept = []
