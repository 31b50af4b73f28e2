"""Whether a model is on a device: TensorFlow's variables stay where they were made."""

from __future__ import annotations

import tensorflow as tf

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.devices import chosen_device


def require_on(device: str | None, wanted: str, name: str) -> None:
    """Refuse a device that the model is not on.

    Args:
        device: of its variables, as TensorFlow writes it; None if there are none, or several.
        wanted: as the user says it.
        name: of the model, for the message.

    Raises:
        InvalidValueError: there is no such device, or the model is on another.
    """
    there = [_short(each.name) for each in tf.config.list_logical_devices()]
    target = chosen_device(wanted, there, "TensorFlow")
    by_default = next((each for each in there if not each.startswith("cpu")), "cpu:0")
    is_on = by_default if device is None else _short(device)
    if is_on != target:
        raise InvalidValueError(
            f"{name} is on {is_on}, and TensorFlow does not move variables: load it inside `with tf.device("
            f"{target.upper()!r}):` in the function after python:, or let TensorFlow see that device alone, with the "
            f"environment variable CUDA_VISIBLE_DEVICES={_visible(target)}."
        )


def _short(device: str) -> str:
    """ "cpu:0" of "/job:localhost/replica:0/task:0/device:CPU:0"."""
    return device.rpartition("device:")[2].lower()


def _visible(target: str) -> str:
    kind, _, number = target.partition(":")
    return "-1" if kind == "cpu" else number
