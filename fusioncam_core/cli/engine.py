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

PROCESS, RAY = "process", "ray"
"""What `--engine` is."""

_ON_RAY = ("address", "workers", "gpus_per_worker")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The arguments about it."""
    add = parser.add_argument_group("where the work is done").add_argument
    engines = "this process, or workers of a Ray cluster, which read the photographs at the same paths"
    add("--engine", choices=[PROCESS, RAY], default=PROCESS, help=f"{engines} (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="of Ray, each with a core and a model (default: 2)")
    add("--gpus-per-worker", type=float, metavar="G", help="1, or a part for workers that share one (default: none)")
    there = "of a Ray cluster, such as auto or HOST:6379 (default: RAY_ADDRESS, or one of this machine)"
    add("--address", metavar="A", help=there)


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
            raise InvalidValueError(f"--{name.replace('_', '-')} belongs to --engine {RAY}.")


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
