"""`fusioncam layers`: what a model is made of."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np

from fusioncam_core.cli.common import add_common, load, say
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers import GradCAM
from fusioncam_core.extras import require
from fusioncam_core.results.terminal import grouped_table, layer_table

if TYPE_CHECKING:
    pass


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--all", action="store_true", help="list also layers without spatial extent")
    parser.add_argument("--last", type=int, metavar="N", help="the last N rows, a block in one (default: all layers)")
    add_common(parser, run, named=False)


def run(arguments: argparse.Namespace) -> int:
    """List a model's layers in the order in which they run, and mark the one that is explained by default."""
    if arguments.last is not None and arguments.last < 1:
        raise InvalidValueError(f"--last is a number of layers, 1 or more: got {arguments.last}.")
    loaded, preprocessing = load(arguments)
    explainer = GradCAM(loaded.model, loaded.layer, task=loaded.task, output_kind=loaded.output_kind)
    blank = require("PIL.Image", "Making an input for the model").new("RGB", (224, 224))
    layers = explainer.layers(preprocessing(blank)[np.newaxis])
    shown = [layer for layer in layers if layer.spatial or arguments.all]
    default = None if loaded.layer is None else (explainer.layer_names or (None,))[0]
    table = layer_table(shown, default) if arguments.last is None else grouped_table(shown, default, arguments.last)
    say("\n".join(table), sys.stdout)
    return 0
