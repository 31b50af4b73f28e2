"""Progress bars that can be switched off, and are off when nobody watches."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fusioncam_core.extras import require
from fusioncam_core.visible import visible


@contextmanager
def progress_bar(total: int | None, description: str, progress: bool | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields `advance(steps)`.

    Args:
        total: the number of steps, or None when it is not known.
        description: what is being done, shown before the bar.
        progress: None shows the bar when standard error is a terminal and tqdm is installed; True always
            shows it; False never does. None is shown where standard error is closed.

    Raises:
        MissingExtra: `progress` is True and tqdm is not installed.
    """
    if sys.stderr is None or not (_is_watched() if progress is None else progress):
        yield _ignore
        return
    tqdm = require("tqdm", "A progress bar").tqdm
    with tqdm(total=total, desc=visible(description), file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


def _is_watched() -> bool:
    return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def _ignore(steps: int) -> None:
    """Advance a bar that is not shown."""
