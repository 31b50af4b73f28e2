"""`fusioncam methods`: what there is."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fusioncam_core.cli.common import say
from fusioncam_core.explainers.registry import capabilities
from fusioncam_core.results.terminal import method_table

if TYPE_CHECKING:
    pass


def add_parser(parser: argparse.ArgumentParser) -> None:
    """No arguments."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the methods: what each needs of the model, and where it comes from."""
    say("\n".join(method_table(capabilities())), sys.stdout)
    return 0
