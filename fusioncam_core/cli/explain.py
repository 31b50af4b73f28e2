"""`fusioncam explain`: photographs, explained."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from fusioncam_core.cli.baselines import HELP, METAVAR, baseline_given
from fusioncam_core.cli.classes import targets_given
from fusioncam_core.cli.common import VARIANTS, add_common, complain, load, say, sides_in
from fusioncam_core.cli.drawing import add_drawing, refuse_drawing, style_of
from fusioncam_core.cli.engine import RAY
from fusioncam_core.cli.inference import add_inference, check_inference, inference_options, require_masking
from fusioncam_core.cli.job import add_job, asked_of, check_job, job_here, job_on_ray, run_job
from fusioncam_core.cli.photographs import GIVEN_HELP, photographs_given
from fusioncam_core.cli.report import add_report
from fusioncam_core.cli.work import NO_INDEX, Work
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.explainers.registry import EXPLAINERS, find_method
from fusioncam_core.extras import require
from fusioncam_core.methods.fusion import Variant
from fusioncam_core.models.digest import shows_weights
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.index import IndexFormat
from fusioncam_core.results.terminal import table_legend
from fusioncam_core.visible import counted, visible

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.explainers.job import Job
    from fusioncam_core.explainers.options import Size


_FUSION_OPTIONS = ("percentile", "contributions", "variant")


_LIMITS = ("budget", "tolerance")


_OWN_CODE = "python:"
"""How specs begin whose module may define a method as it is imported."""


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help=GIVEN_HELP)
    classes = "classes by number or name, or top5 for as many (default: the top class)"
    add("--targets", type=targets_given, metavar="C[,C...]", help=classes)
    contrast = "one row more: why class A (a number or a name) and not B; may be given again"
    add("--contrast", nargs=2, action="append", default=[], metavar=("A", "B"), help=contrast)
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    listed = "`fusioncam methods` lists them (default: %(default)s)"
    add("--method", default="fusion-cam", metavar="METHOD", help=listed)
    add("--out", default="fusioncam-out", metavar="DIR", help="where the files go (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace earlier explanations there (default: number the names)")
    listed = "a table of all photographs and targets there (default: %(default)s)"
    add("--index", choices=[*get_args(IndexFormat), NO_INDEX], default="csv", help=listed)
    add("--maps-only", action="store_true", help="write maps and numbers, draw no pictures")
    add("--explain-table", action="store_true", help="say under the tables what their numbers mean")
    _add_form(parser)
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--tolerance", type=float, metavar="T", help="the same: until its map moves by at most T")
    add("--baseline", type=baseline_given, metavar=METAVAR, help=HELP)
    add("--percentile", type=float, metavar="P", help="Fusion-CAM: the denoising threshold (default: 10)")
    add("--contributions", choices=["clipped", "signed"], help="Fusion-CAM: negative ones (default: clipped)")
    add("--variant", choices=get_args(Variant), metavar="NAME", help=VARIANTS)
    add("--no-progress", action="store_true", help="no progress bar, and no lines about it in a log")
    add_inference(parser)
    add_job(parser)
    add_report(parser)
    add_drawing(parser)
    add_common(parser, run)


def _add_form(parser: argparse.ArgumentParser) -> None:
    """The arguments about the maps themselves, which `Explainer` has as `relu`, `normalised` and `size`."""
    add = parser.add_argument_group("the maps").add_argument
    signed = "keep what speaks against a class, as values below 0 (default: cut it off)"
    add("--signed", "--no-relu", action="store_true", help=signed)
    add("--raw", action="store_true", help="in the method's own units, not normalised (default: in [0, 1])")
    sizes = "input, layer, or a height and a width as in 56x56 (default: input)"
    add("--size", type=_size, metavar="HxW", help=sizes)


def _size(text: str) -> Size:
    if text in ("input", "layer"):
        return cast("Size", text)
    sides = sides_in(text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of input, layer and sizes such as 56x56")
    return sides


def run(arguments: argparse.Namespace) -> int:
    """Explain photographs: print the top classes and the contributions, write pictures, maps and numbers; or, with
    --job, rows in Parquet files.

    The files are called like the photographs, below the folder that holds all of these. None replaces a photograph or
    anything else that fusioncam has not written; earlier explanations are replaced with --overwrite only. A table,
    index.csv, gets a row for each photograph and target as they come.
    """
    paths = _checked(arguments)
    watched = _progress(arguments.no_progress, several=len(paths) > 1, reports=not arguments.job)
    if arguments.engine == RAY:
        make = functools.partial(_job, arguments, len(paths))
        return run_job(arguments, lambda: job_on_ray(arguments, paths, make, watched[0]))
    loaded, preprocessing = load(arguments)
    explainer = _explainer(arguments, loaded, not arguments.job and watched[1])
    if arguments.job:
        asked = asked_of(arguments, loaded, preprocessing, len(paths))
        return run_job(arguments, lambda: job_here(arguments, paths, explainer, asked, watched[0]))
    work = Work(arguments, paths, loaded, preprocessing, explainer)
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    bar = progress_bar(len(paths), "photographs", watched[0])
    with contextlib.closing(work.index), explainer._choice.many(len(paths)), bar as advance:
        try:
            for path, name in zip(paths, work.names, strict=True):
                work.on(path, name, advance)
        except KeyboardInterrupt:
            advance.make_room()
            complain(f"interrupted: {work.done} of {len(paths)} photographs are done{work.told(', listed in ')}")
            return 130
    work.report.write()
    if arguments.explain_table and work.last is not None:
        say("\n".join(table_legend(work.last)) + "\n", sys.stdout)
    if work.index.path is not None:
        say(f"wrote {visible(work.index.path)}, {counted(work.index.rows, 'row')}", sys.stdout)
    return 1 if work.broken else 0


def _checked(arguments: argparse.Namespace) -> list[str]:
    """The paths of the photographs; what can be seen to be wrong without the model is said before it is loaded.

    Raises:
        ValueError: a photograph is not there, or an option does not work.
        OSError: the files cannot go where they are to.
        MissingExtra: what draws pictures is not installed.
    """
    paths = photographs_given(arguments.photographs)
    if not arguments.model.startswith(_OWN_CODE) or arguments.method in EXPLAINERS:
        _check_options(arguments)
    check_job(arguments)
    check_inference(arguments)
    if arguments.maps_only and not arguments.job:
        refuse_drawing(arguments)
    elif not arguments.job:
        require("matplotlib.figure", "Drawing pictures")
        style_of(arguments)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise CannotWriteError(errno.EEXIST, os.strerror(errno.EEXIST), str(out))
    return paths


def _progress(unwanted: bool, several: bool, reports: bool = True) -> tuple[bool | None, bool | None]:
    """Of the photographs, and of the work on each: a bar in a terminal, lines in a log, or nothing.

    Of several photographs the reports themselves are the progress where they go to the terminal of the bar.
    """
    if unwanted or sys.stderr is None:
        return False, False
    shown = None if sys.stderr.isatty() else True
    if not reports:  # a job: all of it is in the rows
        return shown, False
    if not several:
        return False, shown
    reports_seen = shown is None and sys.stdout is not None and sys.stdout.isatty()
    return (False, None) if reports_seen else (shown, False)


def _check_options(arguments: argparse.Namespace) -> None:
    """Look whether there is such a method, and whether the options are its own."""
    method = find_method(arguments.method, role="--method")
    if _given(arguments, _FUSION_OPTIONS) and arguments.method != "fusion-cam":
        name = next(iter(_given(arguments, _FUSION_OPTIONS)))
        raise InvalidValueError(f"--{name} belongs to --method fusion-cam, not {arguments.method}")
    if _given(arguments, _LIMITS) and not method.takes_budget:
        name = next(iter(_given(arguments, _LIMITS)))
        raise InvalidValueError(f"--{name} is for Score-CAM and what builds on it, not {arguments.method}")
    if arguments.baseline is not None and not (method.needs_masks and method.masks_images):
        raise InvalidValueError(
            f"--baseline is for methods that erase parts of the image, such as fusion-cam, not {arguments.method}"
        )
    require_masking(arguments, [method])
    _check_form(arguments, method)


def _check_form(arguments: argparse.Namespace, method: type[Explainer]) -> None:
    """Refuse a form of the maps that the method does not have, before a model is loaded."""
    given = [f"--{name}" for name in ("signed", "raw") if getattr(arguments, name)]
    fused = method.family == "ensemble"
    if given and (fused or not method.takes_form):
        why = "fuses maps in [0, 1], with which it masks the image" if fused else "gives its maps in [0, 1]"
        other = "a method of the family gradient or region, which `fusioncam methods` lists"
        raise InvalidValueError(f"{given[0]}: {method.title} {why}. Choose {other}, with --method.")
    if arguments.size == "layer" and (fused or not method.needs_layer):
        why = "fuses maps at the input's size" if fused else "looks at no layer"
        raise InvalidValueError(f"--size layer: {method.title} {why}: expected --size input, or one such as 56x56.")
    if arguments.size is not None and not method.takes_form:
        raise InvalidValueError(f"--size: {method.title} gives its maps at the input's size.")


def _form(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options about the maps, as explainers have them; those that are not given are left to them."""
    said = {"relu": not arguments.signed, "normalised": not arguments.raw}
    size = {} if arguments.size is None else {"size": arguments.size}
    return {**{name: value for name, value in said.items() if not value}, **size}


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _job(arguments: argparse.Namespace, photographs: int) -> Job:
    """What a job does with so many photographs, where it is done."""
    from fusioncam_core.explainers.job import Job  # with what few commands need

    loaded, preprocessing = load(arguments)
    return Job(_explainer(arguments, loaded, False), asked_of(arguments, loaded, preprocessing, photographs))


def _explainer(arguments: argparse.Namespace, loaded: LoadedModel, progress: bool | None) -> Explainer:
    _check_options(arguments)  # once more: the model's own module may have brought the method
    adapter = adapt_model(loaded.model)
    return find_method(arguments.method)(
        adapter,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        task=loaded.task,
        output_kind=loaded.output_kind,
        progress=progress,
        weights_digest=shows_weights(adapter) and not arguments.job,  # which knows its model itself
        **_given(arguments, (*_FUSION_OPTIONS, *_LIMITS, "baseline")),
        **inference_options(arguments),
        **_form(arguments),
    )
