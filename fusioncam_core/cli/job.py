"""`fusioncam explain --job`: any number of photographs into Parquet files, with which an interrupted run goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.cli.classes import numbered
from fusioncam_core.cli.common import announce, complain, say, sides_in
from fusioncam_core.cli.drawing import refuse_drawing
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

PROCESS, RAY = "process", "ray"
"""What `--engine` is."""

_RAYS = ("workers", "gpus_per_worker", "address")
"""Options of Ray, which are None when they are not given."""

_QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed"}
"""Keeps Ray from writing a paragraph about what we say in a line; read when it is imported."""

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
    engines = "what does a job: this process, or workers of a Ray cluster, which read the photographs at the same paths"
    add("--engine", choices=[PROCESS, RAY], default=PROCESS, help=f"{engines} (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="of Ray, each with a core and a model (default: 2)")
    add("--gpus-per-worker", type=float, metavar="G", help="1, or a part for workers that share one (default: none)")
    there = "of a Ray cluster, such as auto or HOST:6379 (default: RAY_ADDRESS, or one of this machine)"
    add("--address", metavar="A", help=there)


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
    given = [f"--{name.replace('_', '-')}" for name in _RAYS if getattr(arguments, name) is not None]
    if arguments.engine == PROCESS and given:
        raise InvalidValueError(f"{given[0]} belongs to --engine {RAY}.")
    if not arguments.job:
        if arguments.engine == RAY:
            raise InvalidValueError(f"--engine {RAY} does jobs: expected --job as well.")
        return
    for name, unset in _OTHERS.items():
        if getattr(arguments, name) != unset:
            raise InvalidValueError(f"--{name.replace('_', '-')} does not go with --job, which writes rows alone.")
    refuse_drawing(arguments)
    require("pyarrow", PURPOSE, "jobs")
    if arguments.engine == RAY:
        workers_of(arguments, object)


def workers_of(arguments: argparse.Namespace, make: Callable[[], Any]) -> Workers[Any]:
    """Ray's workers as the arguments have them, none of which has begun.

    Raises:
        InvalidValueError: for no number of workers or GPUs.
        MissingExtra: Ray is not installed.
    """
    from fusioncam_core.scale.workers import Workers  # with what few commands need

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    given = {name: value for name in _RAYS if (value := getattr(arguments, name)) is not None}
    return Workers(make, **given)


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
