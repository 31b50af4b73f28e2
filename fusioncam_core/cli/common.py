"""What the commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, TextIO

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.loading import load_model

SPEC_HELP = "the model: python:package.module:function, keras:FILE.keras, timm:NAME or torchvision:NAME"


def add_common(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """The arguments that every command about a model has."""
    parser.add_argument("--model", required=True, metavar="SPEC", help=SPEC_HELP)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run)


def load(spec: str) -> tuple[LoadedModel, Callable[[Any], Any]]:
    """The model that a spec names, and its preprocessing.

    Raises:
        ValueError: if the spec gives no preprocessing.
    """
    loaded = load_model(spec)
    if loaded.preprocessing is None:
        raise InvalidValueError(
            f"{spec!r} gives a model without its preprocessing. Let it return (model, preprocessing), with a "
            "fusioncam_core.Preprocessing or any function from a Pillow image to an array."
        )
    return loaded, loaded.preprocessing


def complain(message: str) -> None:
    """One line on standard error, whatever the message looks like."""
    say(f"fusioncam: {' '.join(message.split())}", sys.stderr)


def in_words(error: Exception) -> str:
    """An error's message; an operating system's one without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def say(text: str, stream: TextIO) -> None:
    """Write a line; what the stream's encoding lacks is escaped."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
