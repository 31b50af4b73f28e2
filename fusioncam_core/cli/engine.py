"""Where the work is done: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusioncam_core.errors import InvalidValueError, PreprocessingWarning
from fusioncam_core.plugins.loading import load_model, place_model

PROCESS, RAY = "process", "ray"
"""What `--engine` is."""

_RAYS = ("workers", "gpus_per_worker", "address")
"""Options of Ray, which are None when they are not given."""

_QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed"}
"""Keeps Ray from writing a paragraph about what we say in a line; read when it is imported."""


def add_engine(add: Callable[..., Any], what: str) -> None:
    """The arguments about it.

    Args:
        add: a parser's, or a group's, `add_argument`.
        what: is done.
    """
    engines = f"what {what}: this process, or workers of a Ray cluster, which read the photographs at the same paths"
    add("--engine", choices=[PROCESS, RAY], default=PROCESS, help=f"{engines} (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="of Ray, each with a core and a model (default: 2)")
    add("--gpus-per-worker", type=float, metavar="G", help="1, or a part for workers that share one (default: none)")
    there = "of a Ray cluster, such as auto or HOST:6379 (default: RAY_ADDRESS, or one of this machine)"
    add("--address", metavar="A", help=there)


def check_engine(arguments: argparse.Namespace) -> None:
    """Refuse what Ray's options say, before a model is loaded.

    Raises:
        InvalidValueError: for one without Ray, or for no number of workers or GPUs.
        MissingExtra: Ray is asked for, and not installed.
    """
    given = [f"--{name.replace('_', '-')}" for name in _RAYS if getattr(arguments, name) is not None]
    if arguments.engine == PROCESS and given:
        raise InvalidValueError(f"{given[0]} belongs to --engine {RAY}.")
    if arguments.engine == RAY:
        from fusioncam_core.scale.workers import Workers  # with what few commands need

        Workers(object, **ray_options(arguments))


def ray_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, as functions for Ray take them; what Ray says itself is made less of."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return {name: value for name in _RAYS if (value := getattr(arguments, name)) is not None}


def as_here(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments for this process: the device is the workers' where there are any, and may be theirs alone."""
    return argparse.Namespace(**{**vars(arguments), **({"device": None} if arguments.engine == RAY else {})})


@dataclass(frozen=True)
class ModelOf:
    """Loads a model on a worker.

    Attributes:
        spec: as `--model` has it.
        device: as `--device` has it.
    """

    spec: str
    device: str | None

    def __call__(self) -> Any:
        """The model. What its loader guesses about preprocessing was said where the command was given."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PreprocessingWarning)
            loaded = load_model(self.spec)
        return (loaded if self.device is None else place_model(loaded, self.device)).model
