"""Passes that run step by step at first, and as a recorded graph once they have come often enough."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.structure import ByForm

STEPS = 4
"""So often a pass runs step by step. To record one takes the time that TensorFlow spends in Python for the steps of two
passes of a small network, of six of EfficientNet-Lite0."""

NOT_RECORDED = (AttributeError, TypeError, ValueError, NotImplementedError, tf.errors.InvalidArgumentError)
"""What is raised where a function looks at values that a graph does not have while it is recorded."""

_log = logging.getLogger(__name__)


class Recorded:
    """A function of structures of tensors: step by step when it is called first, later in a graph.

    A graph leaves out what a network's steps cost one by one, and joins those that the device does at once: it takes
    half to two thirds of their time. What cannot be recorded, such as a layer that looks at values, goes on step by
    step.

    Args:
        function: of the structures; their arrays all begin with the axis of images, if any number of them will do.
        any_number: whether one graph is to do for any number of images.
        steps: how often it runs step by step.
    """

    def __init__(self, function: Callable[..., Any], *, any_number: bool, steps: int = STEPS):
        self._function = function
        self._ways = [ByForm(make, function) for make in ((ForAnyNumber,) if any_number else ()) + (_for_each_shape,)]
        self._steps = steps

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        if self._steps > 0 or not self._ways:
            self._steps -= 1
            return self._function(*arguments)
        try:
            return self._ways[0](*arguments)
        except NOT_RECORDED as error:
            made = self._function(*arguments)  # which says itself if the arguments are wrong
            _log.info("not recorded, because of %s: %s", type(error).__name__, error)
            del self._ways[0]
            return made


class ForAnyNumber:
    """A function of arrays (n, ...) as one graph whatever n is.

    Args:
        function: is recorded. The first axis of its arrays has no length then.

    Raises:
        InvalidValueError: on being called, if it returns an array that has as many axes as n decides, as a `squeeze()`
            gives.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = _for_each_shape(function)
        self._made: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arrays: tf.Tensor) -> Any:
        """What the function returns."""
        key = tuple((each.dtype, tuple(each.shape[1:])) for each in arrays)
        if key not in self._made:
            self._made[key] = self._recorded(arrays)
        return self._made[key](*arrays)

    def _recorded(self, arrays: tuple[tf.Tensor, ...]) -> Callable[..., Any]:
        specs = [tf.TensorSpec((None, *each.shape[1:]), each.dtype) for each in arrays]
        made: Callable[..., Any] = self._function.get_concrete_function(*specs)
        if any(each.shape.rank is None for each in made.outputs):
            raise InvalidValueError("How many axes an output has is not known before the number of images is.")
        return made


_for_each_shape = functools.partial(tf.function, autograph=False)
