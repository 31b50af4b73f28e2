"""The command `fusioncam`: explain photographs, compare methods, list a model's layers and the methods."""

from __future__ import annotations

import argparse
import difflib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fusioncam_core.cli import evaluate, explain, layers, methods
from fusioncam_core.cli.common import ClosedOutputError, complain, foreign_exit, in_words, is_foreign, say
from fusioncam_core.cli.quiet import occupy_standard_streams, quiet
from fusioncam_core.errors import InvalidValueError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; None takes the process's own.

    Returns:
        The exit status: 0; 1 when something was left out, such as a photograph that could not be read; 2 when the
        arguments or the model do not work; 130 when interrupted from the keyboard and 141 when nobody reads the output,
        as shells have it.
    """
    if argv is None:
        occupy_standard_streams()
    arguments = argparse.Namespace(traceback=False)
    try:
        with quiet(whole_process=argv is None):
            return _run(argv, arguments)
    except KeyboardInterrupt:
        return 130
    except ClosedOutputError:
        return 141


def _run(argv: Sequence[str] | None, arguments: argparse.Namespace) -> int:
    """Parse the arguments and run the command; what goes wrong is one line."""
    try:
        _parser().parse_args(argv, arguments)
        run: Callable[[argparse.Namespace], int] = arguments.run
        with foreign_exit():
            return run(arguments)
    except ClosedOutputError:
        raise
    except Exception as error:  # noqa: BLE001 - models, loaders and preprocessing are foreign code, which raises anything
        if arguments.traceback:
            say(traceback.format_exc().rstrip(), sys.stderr)
        where = "" if arguments.traceback or not is_foreign(error) or "model" not in arguments else _WHERE
        complain(f"error: {in_words(error)}{where}")
        return 2


_WHERE = " (--traceback shows where it came from)"


class _Parser(argparse.ArgumentParser):
    """Usage errors become exceptions, so that they are reported as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message}{self._near(message)} (see {self.prog} --help)")

    def _near(self, message: str) -> str:
        """What the first option that no command has may have been meant for."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        word = words.partition(" ")[0].partition("=")[0]
        if not unknown or not word.startswith("--"):
            return ""
        near = difflib.get_close_matches(word, sorted(self._options()), n=1)
        return f"; did you mean {near[0]}?" if near else ""

    def _options(self) -> set[str]:
        """Of this parser and those of its commands."""
        found = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {option for parser in action.choices.values() for option in parser._options()}
        return found


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from fusioncam_core import __version__

        say(f"fusioncam {__version__}", sys.stdout)
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fusioncam", description="Class activation maps for image classifiers.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, summary in (
        ("explain", explain, "explain photographs"),
        ("evaluate", evaluate, "compare methods"),
        ("methods", methods, "list the methods"),
        ("layers", layers, "list a model's layers"),
    ):
        command.add_parser(commands.add_parser(name, help=summary, description=command.run.__doc__))
    return parser
