"""Where the work is done: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from typing import Any

from fusioncam_core.errors import InvalidValueError, PreprocessingWarning
from fusioncam_core.extras import require
from fusioncam_core.plugins.loading import load_model, place_model
from fusioncam_core.scale.workers import PURPOSE

HERE, RAY = "here", "ray"

_ON_RAY = ("address", "workers", "gpus_per_worker")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The arguments about it."""
    add = parser.add_argument_group("where the work is done").add_argument
    add("--engine", choices=[HERE, RAY], default=HERE, help="in this process, or on Ray (default: %(default)s)")
    cluster = "of a Ray cluster (default: RAY_ADDRESS, else one of this machine that is started and ended)"
    add("--address", metavar="A", help=cluster)
    add("--workers", type=int, metavar="N", help="workers on Ray, each with a model of its own (default: 2)")
    shared = "GPUs of each worker on Ray, 0.5 for two that share one (default: 0)"
    add("--gpus-per-worker", type=float, metavar="F", help=shared)


def check_engine(arguments: argparse.Namespace) -> None:
    """Refuse options for Ray without it, before a model is loaded.

    Raises:
        InvalidValueError: naming the first.
        MissingExtra: Ray is asked for, and not installed.
    """
    if arguments.engine == RAY:
        require("ray", PURPOSE, "ray")
        return
    for name in _ON_RAY:
        if getattr(arguments, name) is not None:
            raise InvalidValueError(f"--{name.replace('_', '-')} is for workers on Ray: give --engine ray as well.")


def ray_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, as functions for Ray take them."""
    return {name: getattr(arguments, name) for name in _ON_RAY if getattr(arguments, name) is not None}


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
