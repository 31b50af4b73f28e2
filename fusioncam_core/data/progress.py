"""Progress: a bar where somebody watches a terminal, lines where it is asked for and nobody does, or nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from fusioncam_core.extras import require
from fusioncam_core.visible import visible

SECONDS = 30.0
"""Between two lines: two in a minute fill no log, and show whether a job is alive."""

Progress = bool | Literal["lines"] | None
"""What is shown of progress: as for `progress_bar`."""


class Steps:
    """Told of steps; this one shows nothing."""

    def __call__(self, steps: int) -> None:
        """So many more were done."""

    def skip(self, steps: int) -> None:
        """So many need not be done: they are not in the rate, nor in what is left."""

    def make_room(self) -> None:
        """Something else is about to be written where a bar stands; the next step draws it again."""


class _Bar(Steps):
    """Of tqdm."""

    def __init__(self, bar: Any):
        self.bar = bar

    def __call__(self, steps: int) -> None:
        self.bar.update(steps)

    def skip(self, steps: int) -> None:
        if self.bar.total is not None:
            self.bar.total -= steps
            self.bar.refresh()

    def make_room(self) -> None:
        self.bar.clear()


class _Lines(Steps):
    """A line now and then, of how much is done and how long the rest may take."""

    def __init__(self, total: int | None, description: str, stream: TextIO, *, rate: bool = False):
        self._total, self._done, self._rate = total, 0, rate
        self._description, self._stream = visible(description), stream
        self._begun = self._told = time.monotonic()

    def __call__(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._told >= SECONDS:
            self._told = now
            self._stream.write(f"{self._line(now - self._begun)}\n")
            self._stream.flush()

    def skip(self, steps: int) -> None:
        if self._total is not None:
            self._total -= steps

    def _line(self, gone: float) -> str:
        if not self._total:
            return f"{self._description}: {self._done} done in {clock(gone)}{self._told_rate(gone)}"
        left = gone * max(self._total - self._done, 0) / max(self._done, 1)
        share = f"{self._done / self._total:.0%}".replace("%", " %")
        return (
            f"{self._description}: {self._done} of {self._total} ({share}) in {clock(gone)}{self._told_rate(gone)}, "
            f"about {clock(left)} left"
        )

    def _told_rate(self, gone: float) -> str:
        return f", {self._done / gone:.3g} a second" if self._rate and gone > 0 else ""


def clock(seconds: float) -> str:
    """Minutes and seconds as in 6:08, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress_bar(
    total: int | None, description: str, progress: Progress = None, *, rate: bool = False
) -> Iterator[Steps]:
    """Progress on standard error; yields `advance`, which is called with steps, and whose `skip` leaves some out.

    Args:
        total: the number of steps, or None when it is not known.
        description: what is being done, shown before the bar.
        progress: None shows a bar when standard error is a terminal and tqdm is installed; True always shows
            progress, as a line each half a minute where standard error is neither a terminal nor a notebook's, such as
            in a log; False never does. "lines" shows such lines where nobody watches, and else as None does. Nothing is
            shown where standard error is closed.
        rate: whether lines say how many steps are done in a second, as a bar does.

    Raises:
        MissingExtra: `progress` is True, a bar can be drawn, and tqdm is not installed.
    """
    in_log = sys.stderr is not None and not (sys.stderr.isatty() or _in_notebook())
    shown = (_is_watched() or (in_log and progress == "lines")) if progress in (None, "lines") else progress
    if sys.stderr is None or not shown:
        yield Steps()
        return
    if in_log:
        yield _Lines(total, description, sys.stderr, rate=rate)
        return
    tqdm = require("tqdm", "A progress bar").tqdm
    with tqdm(total=total, desc=visible(description), file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        yield _Bar(bar)


def _in_notebook() -> bool:
    """Whether standard error goes to a cell, in which a bar moves as in a terminal."""
    return "ipykernel" in sys.modules


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
