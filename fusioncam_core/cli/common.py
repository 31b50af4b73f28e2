"""What the commands share."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TextIO, get_args

import numpy as np

from fusioncam_core.cli.preprocess import HELP, preprocess_parts, preprocessing_of
from fusioncam_core.data.class_names import read_class_names
from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.data.processors import ProcessorPreprocessing
from fusioncam_core.errors import FusionCamError, InvalidTypeError, InvalidValueError, PreprocessingWarning
from fusioncam_core.models.outputs import OutputKind, Task
from fusioncam_core.plugins.foreign import described, foreign_code
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.loading import load_model, place_model
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.visible import visible

SPEC_HELP = "the model: python:package.module:function, keras:FILE.keras, timm:NAME or torchvision:NAME"

VARIANTS = "Fusion-CAM: published, the paper's form; or united or calibrated, which have no third step"


def add_common(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *, named: bool = True
) -> None:
    """The arguments that every command about a model has; `named` if it says the names of classes."""
    add = parser.add_argument_group("the model").add_argument
    add("--model", required=True, metavar="SPEC", help=SPEC_HELP)
    devices = "where it runs: cpu, cuda:1, gpu for the first of any kind (default: where its loader puts it)"
    add("--device", metavar="NAME", help=devices)
    add("--task", choices=list(get_args(Task)), help="of the model (default: as its loader says)")
    kinds = "what the model returns (default: as its loader says)"
    add("--outputs", choices=list(get_args(OutputKind)), help=kinds)
    parser.set_defaults(run=run, class_names=None)
    names = "a text with a name of a class in each line, or JSON with names by number (default: the loader's)"
    if named:
        add("--class-names", type=_class_names, metavar="FILE", help=names)
    add("--preprocess", type=preprocess_parts, metavar="P[,P...]", help=HELP)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")


def _class_names(path: str) -> tuple[str, ...]:
    try:
        return read_class_names(path)
    except InvalidValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def load(arguments: argparse.Namespace) -> tuple[LoadedModel, Callable[[Any], Any]]:
    """The model that the arguments name, and its preprocessing, whose answers are checked.

    `--device` says where the model runs. What `--task`, `--outputs`, `--class-names` and `--preprocess` say takes the
    place of what the loader says.

    Raises:
        InvalidValueError: neither the spec nor `--preprocess` gives a preprocessing.
        InvalidTypeError: if its preprocessing cannot be called, or its class names are no texts.
    """
    spec = arguments.model
    loaded = _loaded(arguments)
    preprocessing, names = loaded.preprocessing, loaded.class_names
    if preprocessing is None:
        raise InvalidValueError(
            f"{spec!r} gives a model without its preprocessing. Say it with --preprocess, such as --preprocess "
            "imagenet,size=224, or let the loader return (model, preprocessing), with a fusioncam_core.Preprocessing "
            "or any function from a Pillow image to an array."
        )
    if not callable(preprocessing):
        raise InvalidTypeError(
            f"{spec!r}: expected a preprocessing that is called with a Pillow image, got {_kind(preprocessing)}."
        )
    if names is not None and not _are_texts(names):
        raise InvalidTypeError(f"{spec!r}: expected class names as a sequence of texts, got {_kind(names)}.")
    own = isinstance(preprocessing, Preprocessing)
    return loaded, preprocessing if own else _CheckedPreprocessing(spec, preprocessing)


def _loaded(arguments: argparse.Namespace) -> LoadedModel:
    """What the loader gives, with what the arguments say in its place."""
    said = arguments.preprocess is not None
    announce(f"loading {arguments.model}")
    with warnings.catch_warnings():
        if said:  # the loader's guess of it is not taken
            warnings.simplefilter("ignore", PreprocessingWarning)
        loaded = load_model(arguments.model)
    given = {"task": arguments.task, "output_kind": arguments.outputs, "class_names": arguments.class_names}
    if arguments.device is not None:
        loaded = _placed(loaded, arguments.device)
    loaded = replace(loaded, **{name: value for name, value in given.items() if value is not None})
    if not said:
        return loaded
    own = loaded.preprocessing
    if own is not None and (isinstance(own, ProcessorPreprocessing) or not isinstance(own, Preprocessing)):
        complain(f"warning: --preprocess takes the place of the preprocessing that {arguments.model!r} brings")
    axis = None if isinstance(own, Preprocessing) else adapt_model(loaded.model).input_channel_axis
    return replace(loaded, preprocessing=preprocessing_of(arguments.preprocess, own, axis))


def _placed(loaded: LoadedModel, device: str) -> LoadedModel:
    try:
        return place_model(loaded, device)
    except FusionCamError as error:
        raise InvalidValueError(f"--device {device}: {error}") from error


def announce(what: str) -> None:
    """Say on standard error what is being done now, where somebody watches a terminal and may wait for it."""
    if sys.stderr is not None and sys.stderr.isatty():
        complain(f"{visible(what)} ...")


class _CheckedPreprocessing:
    """A preprocessing of the model's loader: what goes wrong in it is said with the spec that brought it.

    Args:
        spec: of the model.
        function: from a Pillow image to one input, without a batch axis.
    """

    def __init__(self, spec: str, function: Callable[[Any], Any]):
        self._spec = spec
        self._function = function

    def __call__(self, photograph: Any) -> Any:
        """One input of the model.

        Raises:
            InvalidValueError: if the function raises, or returns no array of numbers with an axis or more.
        """
        with foreign_code(f"the preprocessing of {self._spec!r}"):
            values = self._function(photograph)
            if not _is_input(values):
                raise InvalidValueError(
                    f"the preprocessing of {self._spec!r}: expected an array of one input, such as one of shape "
                    f"(channels, height, width), got {_kind(values)}."
                )
        return values


def _is_input(values: Any) -> bool:
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    if shape is None or dtype is None or not tuple(shape) or 0 in tuple(shape):
        return False
    return not isinstance(values, np.ndarray | np.generic) or dtype.kind in "biuf"


def _are_texts(names: Any) -> bool:
    if isinstance(names, str):
        return False
    try:
        return all(isinstance(names[number], str) for number in range(len(names)))
    except (TypeError, LookupError):
        return False


def _kind(value: Any) -> str:
    """What came, in a word or two: its type, and the shape and dtype of an array."""
    shape = getattr(value, "shape", None)
    name = type(value).__qualname__
    return name if shape is None else f"{name} of shape {tuple(shape)} and dtype {getattr(value, 'dtype', None)}"


def complain(message: str) -> None:
    """One line on standard error, whatever the message looks like; where it cannot be written, the status must do."""
    with suppress(OSError, ClosedOutputError):
        say(f"fusioncam: {' '.join(message.split())}", sys.stderr)


def in_words(error: BaseException) -> str:
    """An error in one sentence: an operating system's one with its file, and without its number.

    Errors that are not ours are said with their type: their messages alone may be no more than a key.
    """
    if isinstance(error, FusionCamError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{visible(os.fsdecode(_name(error.filename)))}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return described(error)


def is_foreign(error: BaseException) -> bool:
    """Whether an error says nothing but its type and message: it is neither ours nor the operating system's."""
    return not isinstance(error, FusionCamError) and not (isinstance(error, OSError) and error.strerror)


def _name(filename: Any) -> str | bytes:
    """What an error has for the file: a path, or the number of an open file."""
    return filename if isinstance(filename, str | bytes) else str(filename)


@contextmanager
def foreign_exit() -> Iterator[None]:
    """Makes an error of an exit in foreign code, which would pass for the command's own.

    Raises:
        InvalidValueError: a model or what belongs to it called `sys.exit`.
    """
    try:
        yield
    except SystemExit as error:
        raise InvalidValueError(f"{described(error)} by the model or what belongs to it, before the end.") from error


class ClosedOutputError(Exception):
    """Nobody reads what a command writes any more, as when `head` has seen enough."""


def say(text: str, stream: TextIO | None) -> None:
    """Write lines; what is not to be seen in one is escaped, and so is what the stream's encoding lacks.

    Args:
        text: of one line or more. Names in it that may hold line breaks have gone through `visible`.
        stream: to write to; None is one that was closed before we began.

    Raises:
        ClosedOutputError: if the other end of a pipe is closed.
        OSError: if it cannot be written.
    """
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lines = "\n".join(map(visible, text.split("\n")))
    try:
        stream.write(lines.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        _abandon(stream)
        raise ClosedOutputError from None
    except OSError:
        _abandon(stream)
        raise


def _abandon(stream: TextIO) -> None:
    """Lead a stream nowhere, so that Python does not complain of it once more when it ends."""
    with suppress(OSError, ValueError):  # a stream without a file needs no leading
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def sides_in(text: str) -> tuple[int, int] | None:
    """The height and the width in a text such as 56x56, or 56 for both; None if it is none."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        return None
    return int(sides[0]), int(sides[-1])
