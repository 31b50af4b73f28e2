"""What runs masked images: the model's framework, or an inference engine."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any, get_args

from fusioncam_core.cli.engine import PROCESS
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.models.engines import AUTO, Precision
from fusioncam_core.plugins.engines import find_engine

ENGINES = ("openvino", "onnxruntime", AUTO)
"""What `--inference-engine` is: those of our own, and the word for one that is installed, where it pays."""


def add_inference(parser: argparse.ArgumentParser) -> None:
    """The arguments about it; `--engine` is where the work is done."""
    add = parser.add_argument_group("masked images, faster").add_argument
    engine = f"what runs the model on masked images: {_listed()}, one that is installed, among many photographs"
    add("--inference-engine", choices=ENGINES, metavar="NAME", help=f"{engine} (default: the model's framework)")
    precision = "in which the engine computes: float32, or bfloat16, which may move maps by a fifth (default: float32)"
    add("--inference-precision", choices=get_args(Precision), metavar="TYPE", help=precision)


def inference_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, as explainers have them."""
    said = {"engine": arguments.inference_engine, "engine_precision": arguments.inference_precision}
    return {name: value for name, value in said.items() if value is not None}


def check_inference(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be, before a model is loaded.

    Raises:
        InvalidValueError: for a precision without an engine, or one in which the engine cannot compute here.
        MissingExtra: the engine is not installed, where it is this process that needs it.
    """
    engine, precision = arguments.inference_engine, arguments.inference_precision
    if engine is None and precision is not None:
        raise InvalidValueError(f"--inference-precision belongs to --inference-engine: expected {_listed()} there.")
    if engine is None or arguments.engine != PROCESS:
        return
    found = find_engine(engine)
    reason = None if found is None or precision is None else found.unable(precision)
    if found is not None and reason is not None:
        raise InvalidValueError(f"--inference-precision {precision}: {found.name} cannot compute so here, {reason}.")


def require_masking(arguments: argparse.Namespace, methods: Collection[type[Explainer]]) -> None:
    """Nothing, if no engine is asked for, or one of the methods leaves masked images to it.

    Raises:
        InvalidValueError: if none does.
    """
    if arguments.inference_engine is not None and not any(method.takes_engine for method in methods):
        names = ", ".join(method.name for method in methods)
        raise InvalidValueError(
            f"--inference-engine is for methods that run the model on masked images, such as fusion-cam, not {names}"
        )


def _listed() -> str:
    return f"{', '.join(ENGINES[:-1])} or {ENGINES[-1]}"
