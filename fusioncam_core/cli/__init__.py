"""The command `fusioncam`: explain photographs, compare methods, list a model's layers and the methods."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fusioncam_core.cli import evaluate, explain, layers, methods
from fusioncam_core.cli.common import complain, in_words, say
from fusioncam_core.errors import InvalidValueError, MissingExtra


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; None takes the process's own.

    Returns:
        The exit status: 0; 1 when a photograph could not be read; 2 when the arguments or the model do not
        work; 130 when interrupted from the keyboard, as shells have it.
    """
    arguments = argparse.Namespace(traceback=False)
    try:
        _parser().parse_args(argv, arguments)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (ValueError, TypeError, OSError, MissingExtra) as error:
        if arguments.traceback:
            say(traceback.format_exc().rstrip(), sys.stderr)
        complain(f"error: {in_words(error)}")
        return 2
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Usage errors become exceptions, so that they are reported as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")


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
