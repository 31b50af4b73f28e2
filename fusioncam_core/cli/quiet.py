"""What others say while a command runs: warnings and log records in one line of ours, chatter left out."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import PurePath
from types import MappingProxyType
from typing import TextIO

from fusioncam_core.cli.common import complain
from fusioncam_core.cli.compiled import without_notes
from fusioncam_core.errors import FusionCamWarning

ENVIRONMENT = MappingProxyType({"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR", "GLOG_minloglevel": "2"})
"""Variables that keep the compiled parts of frameworks from writing more than errors, read when they are imported."""

_ABOUT_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
"""Warnings for those who write code, not for those who run a command."""

_FRAMEWORKS = frozenset({
    "absl", "flax", "h5py", "jax", "jaxlib", "keras", "matplotlib", "numpy", "tensorflow", "tf_keras", "timm", "torch",
    "torchvision",
})  # fmt: skip
"""Packages whose warnings are about how we call them, which a user of a command cannot change."""

_GLYPH = "missing from font"
_NO_GLYPH = "the font of the pictures lacks some characters of the names, which are drawn as boxes"


@contextmanager
def quiet(whole_process: bool) -> Iterator[None]:
    """While it lasts, warnings and log records of others come as `fusioncam: warning: ...`, each once, or not at all.

    Args:
        whole_process: whether the process is the command's, so that its environment may be set; what the user has set
            stays.
    """
    with _quiet_frameworks() if whole_process else nullcontext(), _one_line_each():
        yield


@contextmanager
def _quiet_frameworks() -> Iterator[None]:
    wanted = "TF_CPP_MIN_LOG_LEVEL" in os.environ  # who asks for TensorFlow's notes gets them
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with nullcontext() if wanted else without_notes():
        yield


@contextmanager
def _one_line_each() -> Iterator[None]:
    said = _Once()
    before, handler = warnings.showwarning, _Handler(said)
    warnings.showwarning = said.show
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = before
        logging.getLogger().removeHandler(handler)


class _Once:
    """Says warnings, each text once."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def say(self, text: str) -> None:
        """One line on standard error, unless it stands there already."""
        if text not in self._texts:
            self._texts.add(text)
            complain(f"warning: {text}")

    def show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Takes the place of `warnings.showwarning`."""
        text = in_words(message, category, filename)
        if text is not None:
            self.say(text)


def in_words(message: Warning | str, category: type[Warning], filename: str) -> str | None:
    """What a warning says to somebody who runs a command; None if that is nothing.

    Args:
        message, category, filename: as `warnings.showwarning` gets them.
    """
    if _GLYPH in str(message):
        return _NO_GLYPH
    if _is_chatter(category, filename):
        return None
    own = issubclass(category, FusionCamWarning) or category is UserWarning
    return str(message) if own else f"{category.__name__}: {message}"


def _is_chatter(category: type[Warning], filename: str) -> bool:
    if issubclass(category, FusionCamWarning):
        return False
    return issubclass(category, _ABOUT_CODE) or any(PurePath(filename).is_relative_to(root) for root in _folders())


def _folders() -> Iterator[str]:
    """Where the frameworks lie that are loaded."""
    for name in _FRAMEWORKS & sys.modules.keys():
        yield from getattr(sys.modules[name], "__path__", ())


class _Handler(logging.Handler):
    """Says log records of warnings and errors; of frameworks only errors."""

    def __init__(self, said: _Once):
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """One line, or none."""
        if record.levelno >= logging.ERROR or record.name.partition(".")[0] not in _FRAMEWORKS:
            self._said.say(_text_of(record))


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments of somebody's record need not fit its text
        return str(record.msg)


def occupy_standard_streams() -> None:
    """Open what was closed before we began: the next file to be opened would get its number, and what others write."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free: this one
