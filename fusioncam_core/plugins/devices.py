"""Devices by the words that people use for them."""

from __future__ import annotations

from collections.abc import Sequence

from fusioncam_core.errors import InvalidValueError

_SAME = {"cuda": ("gpu",), "rocm": ("gpu", "cuda"), "gpu": ("cuda", "rocm", "mps", "xpu", "hpu")}
"""Kinds of devices, and what frameworks call them."""


def chosen_device(wanted: str, there: Sequence[str], framework: str) -> str:
    """The device that is meant, in the framework's words.

    Args:
        wanted: such as "cpu", "cuda:1" or "gpu", which is the first of any kind of accelerator. Capitals do not count,
            and without a number it is the first.
        there: what the framework sees, the first of a kind first, such as ("cpu", "cuda:0", "cuda:1").
        framework: its name, for the message.

    Raises:
        InvalidValueError: there is no such device; it names those there are.
    """
    kind, _, number = wanted.strip().lower().partition(":")
    for device in there:
        its_kind, _, its_number = device.lower().partition(":")
        if its_kind in (kind, *_SAME.get(kind, ())) and number in ("", its_number or "0"):
            return device
    raise InvalidValueError(
        f"{framework} has no device {wanted!r} here: expected one of {', '.join(there)}. If the machine has it, its "
        f"driver is missing, or {framework} was installed without support for it."
    )
