"""`fusioncam evaluate`: methods, compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fusioncam_core.cli.common import add_common, load, say
from fusioncam_core.data.labels import read_labels
from fusioncam_core.data.sources import photographs
from fusioncam_core.evaluation.runner import METHODS, evaluate
from fusioncam_core.extras import require
from fusioncam_core.metrics.measures import FAITHFULNESS

if TYPE_CHECKING:
    pass


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help="image files, and folders of them")
    add("--methods", type=_names, metavar="A[,B...]", help=f"methods (default: {','.join(METHODS)})")
    add("--metrics", type=_names, metavar="A[,B...]", help=f"metrics (default: {','.join(FAITHFULNESS)})")
    add(
        "--labels", metavar="HOW", help="the explained classes: names, folders or a CSV file (default: the top classes)"
    )
    add("--masks", metavar="DIR", help="pictures of the objects' masks, called like the photographs")
    add("--reference", metavar="METHOD", help="what others are compared with (default: fusion-cam)")
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    add(
        "--out",
        default="fusioncam-evaluation",
        metavar="DIR",
        help="files, and values to go on from (default: %(default)s)",
    )
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    add("--no-progress", action="store_true", help="no progress bar")
    add_common(parser, run)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def run(arguments: argparse.Namespace) -> int:
    """Compare methods on photographs: print means with intervals, write values, numbers and pictures.

    Values are kept in the output folder as they come: the same command goes on where an interrupted one was.
    """
    loaded, preprocessing = load(arguments.model)
    require("matplotlib.figure", "Drawing pictures")
    files = [file for given in arguments.photographs for file in _files(Path(given))]
    targets = None if arguments.labels is None else read_labels(arguments.labels, files, loaded.class_names)
    found = evaluate(
        loaded.model,
        files,
        arguments.methods or METHODS,
        arguments.metrics or FAITHFULNESS,
        targets,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        reference=arguments.reference,
        masks=arguments.masks,
        out=arguments.out,
        preprocessing=preprocessing,
        progress=False if arguments.no_progress else None,
        task=loaded.task,
        output_kind=loaded.output_kind,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        **({} if arguments.budget is None else {"budget": arguments.budget}),
    )
    written = found.save(arguments.out)
    say("\n".join([*found.lines(), "", f"wrote {', '.join(map(str, written))}"]), sys.stdout)
    return 1 if any(problem.method is None for problem in found.problems) else 0


def _files(path: Path) -> list[Path]:
    return photographs(path) if path.is_dir() else [path]
