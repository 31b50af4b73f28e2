"""What goes wrong, and what is worth a warning: one base class for each, so that either can be caught as a whole."""

from __future__ import annotations

import sys
import warnings


class FusionCamError(Exception):
    """The base of all errors that fusioncam raises itself. What a model raises on its own comes through as it is."""


class InvalidValueError(FusionCamError, ValueError):
    """An argument of the right type that does not fit: a shape, a layer's name, a number out of range."""


class InvalidTypeError(FusionCamError, TypeError):
    """An argument of a wrong type, an unknown option, or something asked of a model that its kind cannot do."""


class UnknownNameError(FusionCamError, KeyError):
    """Nothing goes by that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidIndexError(FusionCamError, IndexError):
    """A place behind the last image of an explanation, or before the first."""


class MissingExtra(FusionCamError, ImportError):
    """A package of one of fusioncam's extras is not installed; the message says what to install."""


class GradientsUnavailableError(InvalidTypeError):
    """A method asked for gradients of a model that has none to give."""


class CannotRunError(InvalidValueError):
    """A model does not run on inputs of a shape."""


class NotRunError(InvalidValueError):
    """A layer did not run, or not as often as its name says."""


class UnconnectedError(InvalidValueError):
    """The scores do not depend on a layer's output."""


class FolderInUseError(FusionCamError, TimeoutError):
    """Another process fills the folder that a result was to be kept in, and did not finish while it was waited for."""


class CannotWriteError(FusionCamError, OSError):
    """A file could not be written: `filename` says which, `strerror` why. What belongs with it is not there either."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class WorkerError(FusionCamError, RuntimeError):
    """Work on other machines failed for a reason that is none of ours; its notes have the traceback from there."""


class PhotographError(InvalidValueError):
    """Something is wrong with one photograph, and with no other."""


class FusionCamWarning(UserWarning):
    """The base of all warnings that fusioncam gives."""


class EmptyMapWarning(FusionCamWarning):
    """A map that is right, and says nothing: an empty gradient, an empty map, probabilities taken for logits."""


class EvidenceWarning(FusionCamWarning):
    """What was measured of a model speaks against what was said of it, or leaves only a layer near its input."""


class MemoryWarning(FusionCamWarning):
    """The device's memory did not hold a batch, and the work went on with a smaller one."""


class EngineWarning(FusionCamWarning):
    """An engine that "auto" chose cannot run the model: the framework goes on; or graphs cannot be kept on disk."""


class PreprocessingWarning(FusionCamWarning):
    """How a model's inputs were prepared in training is not known, and was guessed."""


class PluginWarning(FusionCamWarning):
    """A plugin that does not work: it is left out, and everything else goes on."""


class SkippedImageWarning(FusionCamWarning):
    """An image among many that could not be explained: it is left out."""


class UnreadableImageWarning(SkippedImageWarning):
    """A file among many that is no photograph, or that preprocessing could not cope with: it is left out."""


_PASSED_OVER = ("fusioncam_", "contextlib", "functools")
"""Modules whose lines say nothing to a user: ours, and those through which we call ourselves."""


def warn(message: str, category: type[FusionCamWarning]) -> None:
    """Warn, with the place in the user's code that called us."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PASSED_OVER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
