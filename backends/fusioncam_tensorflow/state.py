"""Puts the variables that a run has changed back as they were."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


def keep_values(variables: Iterable[tf.Variable], touch: Touch) -> None:
    """The variables have their present values again once what `touch` is told is done.

    Only variables that are not trained need it, such as running averages: nothing assigns to the others at inference.
    Reading a variable shares its buffer, so what is kept costs memory only where a value was changed.
    """
    kept = {variable.ref(): variable.read_value() for variable in variables if not variable.trainable}
    touch(functools.partial(assign, kept))


def assign(values: Mapping[Any, tf.Tensor]) -> None:
    """Give variables, by their references, these values."""
    for reference, value in values.items():
        reference.deref().assign(value)
