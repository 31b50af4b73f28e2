"""`fusioncam explain --report`: all photographs of a command in one page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusioncam_core.cli.common import say
from fusioncam_core.cli.drawing import Seen, style_of
from fusioncam_core.results.report import Report
from fusioncam_core.results.writing import identities
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation


def add_report(parser: argparse.ArgumentParser) -> None:
    """The argument about the report."""
    page = "write one page with all photographs, their maps and numbers, to look through in a browser"
    parser.add_argument("--report", metavar="FILE.html", help=page)


class CommandReport:
    """The report of one command, if it is asked for; otherwise nothing happens.

    Args:
        arguments: of the command.
        paths: of its photographs.

    Raises:
        ValueError: the file cannot be written there.
        MissingExtra: what it needs is not installed.
    """

    def __init__(self, arguments: argparse.Namespace, paths: Sequence[str]):
        self._taken = 0
        self._report = None
        if arguments.report is not None:
            inputs = identities(paths)
            style = style_of(arguments)
            self._report = Report(arguments.report, style=style, overwrite=arguments.overwrite, inputs=inputs)

    def add(self, name: str, explanation: Explanation, seen: Seen, class_names: Sequence[str] | None) -> None:
        """Take in a photograph."""
        if self._report is not None:
            photographs, preprocessing = seen
            self._report.add(explanation, photographs, class_names, names=[name], preprocessing=preprocessing)
            self._taken += 1

    def leave_out(self, path: str, name: str, reason: str) -> None:
        """Say that a photograph is missing, and why: with its name, since a path tells more than others need know."""
        if self._report is not None:
            self._report.leave_out(reason.replace(path, name))

    def write(self) -> None:
        """Write the file, if there is a photograph in it, and say where it is."""
        if self._report is not None and self._taken:
            say(f"wrote {visible(self._report.write())}", sys.stdout)
