"""Code that is not ours, and what comes out of it: plugins, loaders, models, what reads their files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fusioncam_core.errors import FusionCamError, InvalidValueError

_LONGEST = 300
"""Characters of a message: frameworks put whole configurations into theirs."""


def described(error: BaseException, message: str | None = None) -> str:
    """An error's type and message on one line, as in `KeyError: 'weights'`; of a long message the beginning.

    Args:
        error: of any kind.
        message: what to say in place of its own.
    """
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    message = " ".join((_message(error) if message is None else message).split())
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the message of a foreign error is foreign code as well
        return "its message cannot be shown"


@contextmanager
def foreign_code(what: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into an error of ours that says in whose code it did.

    Errors of ours are sentences already, and an interrupt from the keyboard is nobody's error: both pass.

    Args:
        what: ran, as the beginning of a sentence: "'python:zoo:load'".

    Raises:
        InvalidValueError: what, the error's type and its message; the error itself is the cause.
    """
    try:
        yield
    except FusionCamError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidValueError(f"{what}: {described(error).rstrip('.')}.") from error
