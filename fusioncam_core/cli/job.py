"""`fusioncam explain --job`: any number of photographs into Parquet files, with which an interrupted run goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.cli.classes import numbered
from fusioncam_core.cli.common import announce, complain, say, sides_in
from fusioncam_core.cli.drawing import refuse_drawing
from fusioncam_core.cli.engine import RAY, add_engine, check_engine, ray_options
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.jobs.table import PURPOSE
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.explainers.job import Asked, Job
    from fusioncam_core.jobs.run import JobResult
    from fusioncam_core.scale.workers import Workers

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
    add_engine(add, "does a job")


def _maps(text: str) -> Any:
    if text in (MADE, NONE):
        return None if text == NONE else text
    sides = sides_in(text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {MADE}, {NONE} and sizes such as 7x7")
    return sides


def check_job(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go with each other, before a model is loaded.

    Raises:
        InvalidValueError: naming the first.
        MissingExtra: pyarrow or Ray is not installed.
    """
    if arguments.engine == RAY and not arguments.job:
        raise InvalidValueError(f"--engine {RAY} does jobs: expected --job as well.")
    check_engine(arguments)
    if not arguments.job:
        return
    for name, unset in _OTHERS.items():
        if getattr(arguments, name) != unset:
            raise InvalidValueError(f"--{name.replace('_', '-')} does not go with --job, which writes rows alone.")
    refuse_drawing(arguments)
    require("pyarrow", PURPOSE, "jobs")


def workers_of(arguments: argparse.Namespace, make: Callable[[], Any]) -> Workers[Any]:
    """Ray's workers as the arguments have them, none of which has begun.

    Raises:
        InvalidValueError: for no number of workers or GPUs.
        MissingExtra: Ray is not installed.
    """
    from fusioncam_core.scale.workers import Workers  # with what few commands need

    return Workers(make, **ray_options(arguments))


def asked_of(
    arguments: argparse.Namespace, loaded: LoadedModel, preprocessing: Callable[[Any], Any], photographs: int
) -> Asked:
    """What becomes of so many photographs."""
    from fusioncam_core.explainers.job import Asked  # likewise

    targets: Any = numbered(arguments.targets, loaded.class_names)
    if isinstance(targets, list):  # the same for all photographs
        targets = targets[0] if len(targets) == 1 else np.tile(targets, (photographs, 1))
    return Asked(
        targets,
        preprocessing,
        loaded.class_names,
        arguments.job_maps,
        arguments.job_piece,
        model_name=arguments.model,
    )


def job_here(
    arguments: argparse.Namespace, paths: Sequence[str], explainer: Explainer, asked: Asked, progress: bool | None
) -> JobResult:
    """Do what is left of the job in this process."""
    from fusioncam_core.explainers.job import explain_to  # likewise

    return explain_to(explainer, arguments.out, list(paths), asked, resume=True, progress=progress, wait=0.0)


def job_on_ray(
    arguments: argparse.Namespace, paths: Sequence[str], make: Callable[[], Job], progress: bool | None
) -> JobResult:
    """Do what is left of the job by Ray's workers, each of which makes what is to be done."""
    from fusioncam_core.scale.ray import job_on_ray  # likewise

    workers = workers_of(arguments, make)
    announce(f"starting {arguments.workers or 2} workers with {arguments.model}")
    return job_on_ray(
        workers, arguments.out, list(paths), arguments.job_piece, resume=True, wait=0.0, progress=progress
    )


def run_job(arguments: argparse.Namespace, work: Callable[[], JobResult]) -> int:
    """Do what is left of a job, and say what was done: 1 if a photograph was left out."""
    try:
        done = work()
    except KeyboardInterrupt:
        complain(
            f"interrupted: what is written in {visible(arguments.out)} stays, and the same command goes on with it"
        )
        return 130
    why = "; the column error says why" if done.skipped else ""
    say(f"{done}\nwrote {visible(done.folder)}{why}", sys.stdout)
    return 1 if done.skipped else 0
