"""What other packages say of their own insides while they work for us."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def unheard(*loggers: str) -> Iterator[None]:
    """A context without warnings, and without what is logged to these loggers.

    Both are the process's: it is for what one thread does at a time.
    """
    silenced = [logging.getLogger(name) for name in loggers]
    with warnings.catch_warnings(), contextlib.ExitStack() as heard_again:
        warnings.simplefilter("ignore")
        for logger in silenced:
            logger.addFilter(_nothing)
            heard_again.callback(logger.removeFilter, _nothing)
        yield


def _nothing(_: logging.LogRecord) -> bool:
    return False
