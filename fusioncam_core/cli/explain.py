"""`fusioncam explain`: photographs, explained."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.cli.common import add_common, complain, load, say
from fusioncam_core.data.preprocessing import Preprocessing, read_photograph
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.extras import require
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.results.files import save_explanation
from fusioncam_core.results.terminal import photograph_report

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.results.explanation import Explanation


_FUSION_OPTIONS = ("percentile", "contributions", "variant")


_LIMITS = ("budget", "tolerance")


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help="image files")
    add("--targets", type=_targets, metavar="N[,N...]", help="classes, or top5 for as many (default: the top class)")
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    listed = "`fusioncam methods` lists them (default: %(default)s)"
    add("--method", default="fusion-cam", metavar="METHOD", help=listed)
    add("--out", default="fusioncam-out", metavar="DIR", help="where the files go (default: %(default)s)")
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--tolerance", type=float, metavar="T", help="the same: until its map moves by at most T")
    add("--percentile", type=float, metavar="P", help="Fusion-CAM: the denoising threshold (default: 10)")
    add("--contributions", choices=["clipped", "signed"], help="Fusion-CAM: negative ones (default: clipped)")
    add("--variant", choices=["published", "calibrated"], help="Fusion-CAM: the paper's or the measured one")
    add("--no-progress", action="store_true", help="no progress bar")
    add_common(parser, run)


def _targets(text: str) -> list[int] | str:
    if text.startswith("top") and text[3:].isdecimal():
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r} is not a list of class numbers such as 281 or 281,285, nor a word such as top5"
        raise argparse.ArgumentTypeError(message) from None


def run(arguments: argparse.Namespace) -> int:
    """Explain photographs: print the top classes and the contributions, write pictures, maps and numbers."""
    loaded, preprocessing = load(arguments.model)
    explainer = _explainer(arguments, loaded)
    require("matplotlib.figure", "Drawing pictures")  # fail before the long work, not after it
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    broken = 0
    for path, name in zip(arguments.photographs, unique_names(arguments.photographs), strict=True):
        try:
            photograph = read_photograph(path)
        except ValueError as error:
            complain(str(error))
            broken += 1
            continue
        explanation = _call(explainer, preprocessing(photograph), arguments.targets, path)
        seen = [preprocessing.window(photograph)] if isinstance(preprocessing, Preprocessing) else None
        written = save_explanation(explanation, arguments.out, [name], seen, loaded.class_names)
        lines = photograph_report(path, explanation, loaded.class_names, written)
        say("\n".join(lines) + "\n", sys.stdout)
    return 1 if broken else 0


def _explainer(arguments: argparse.Namespace, loaded: LoadedModel) -> Explainer:
    method = find_method(arguments.method, role="--method")
    options = {name: value for name in _FUSION_OPTIONS if (value := getattr(arguments, name)) is not None}
    if options and arguments.method != "fusion-cam":
        raise InvalidValueError(f"--{next(iter(options))} belongs to --method fusion-cam, not {arguments.method}")
    limits = {name: value for name in _LIMITS if (value := getattr(arguments, name)) is not None}
    if limits and not method.takes_budget:
        raise InvalidValueError(
            f"--{next(iter(limits))} is for Score-CAM and what builds on it, not {arguments.method}"
        )
    return method(
        loaded.model,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        task=loaded.task,
        output_kind=loaded.output_kind,
        progress=False if arguments.no_progress else None,
        **options,
        **limits,
    )


def _call(explainer: Explainer, image: Any, targets: list[int] | str | None, path: str) -> Explanation:
    """Explain one image; what is warned about it is said with its name."""
    wanted = np.asarray(targets if len(targets) == 1 else [targets]) if isinstance(targets, list) else targets
    with warnings.catch_warnings(record=True) as caught:
        explanation = explainer(image[np.newaxis], wanted).numpy()
    for warning in caught:
        complain(f"{path}: warning: {warning.message}")
    return explanation


def unique_names(paths: Iterable[str]) -> list[str]:
    """The files' names without folder and ending; a repeated one gets a number, as in `cat`, `cat-2`.

    Names that differ only in capitals count as repeated: some file systems do not tell them apart.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name = stem = Path(path).stem
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
