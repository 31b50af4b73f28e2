"""`fusioncam explain --job`: any number of photographs into Parquet files, with which an interrupted run goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fusioncam_core.cli.classes import numbered
from fusioncam_core.cli.common import complain, say, sides_in
from fusioncam_core.cli.drawing import refuse_drawing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.jobs.table import PURPOSE
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer

MADE, NONE = "made", "none"
"""What `--job-maps` is besides a size."""

_OTHERS: dict[str, Any] = {
    "report": None,
    "contrast": [],
    "overwrite": False,
    "explain_table": False,
    "maps_only": False,
}
"""Options that a job has no use for, and what they are when they are not given."""


def add_job(parser: argparse.ArgumentParser) -> None:
    """The arguments about jobs."""
    add = parser.add_argument_group("a job").add_argument
    job = "write rows into Parquet files in DIR, and go on where an earlier run of the same job was interrupted"
    add("--job", action="store_true", help=job)
    kept = f"which maps a job keeps: {MADE}, {NONE}, or smaller ones such as 7x7 (default: {MADE})"
    add("--job-maps", type=_maps, default=MADE, metavar="HxW", help=kept)
    add(
        "--job-piece", type=int, default=1000, metavar="N", help="photographs in a file of a job (default: %(default)s)"
    )


def _maps(text: str) -> Any:
    if text in (MADE, NONE):
        return None if text == NONE else text
    sides = sides_in(text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {MADE}, {NONE} and sizes such as 7x7")
    return sides


def check_job(arguments: argparse.Namespace) -> None:
    """Refuse options that a job has no use for, before a model is loaded.

    Raises:
        InvalidValueError: naming the first.
        MissingExtra: pyarrow is not installed.
    """
    for name, unset in _OTHERS.items():
        if getattr(arguments, name) != unset:
            raise InvalidValueError(f"--{name.replace('_', '-')} does not go with --job, which writes rows alone.")
    refuse_drawing(arguments)
    require("pyarrow", PURPOSE, "jobs")


def run_job(
    arguments: argparse.Namespace,
    paths: Sequence[str],
    explainer: Explainer,
    loaded: LoadedModel,
    preprocessing: Callable[[Any], Any],
    progress: bool | None,
) -> int:
    """Do what is left of the job, and say what was done: 1 if a photograph was left out."""
    try:
        done = explainer.explain_to(
            arguments.out,
            list(paths),
            numbered(arguments.targets, loaded.class_names),
            preprocessing=preprocessing,
            class_names=loaded.class_names,
            maps=arguments.job_maps,
            piece=arguments.job_piece,
            progress=progress,
            model_name=arguments.model,
        )
    except KeyboardInterrupt:
        complain(
            f"interrupted: what is written in {visible(arguments.out)} stays, and the same command goes on with it"
        )
        return 130
    why = "; the column error says why" if done.skipped else ""
    say(f"{done}\nwrote {visible(done.folder)}{why}", sys.stdout)
    return 1 if done.skipped else 0
