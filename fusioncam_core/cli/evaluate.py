"""`fusioncam evaluate`: methods, compared."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from fusioncam_core.cli.baselines import HELP, METAVAR, baseline_given
from fusioncam_core.cli.common import VARIANTS, add_common, complain, load, say
from fusioncam_core.cli.engine import PROCESS, ModelOf, add_engine, as_here, check_engine, ray_options
from fusioncam_core.cli.inference import add_inference, check_inference, inference_options, require_masking
from fusioncam_core.cli.photographs import GIVEN_HELP, photographs_given
from fusioncam_core.data.labels import read_labels
from fusioncam_core.data.sources import photographs
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.evaluation.compared import METHODS
from fusioncam_core.evaluation.results import Evaluation, require_place
from fusioncam_core.evaluation.run import ZERO
from fusioncam_core.evaluation.runner import WAIT, evaluate
from fusioncam_core.explainers.registry import EXPLAINERS
from fusioncam_core.extras import require
from fusioncam_core.methods.fusion import Variant
from fusioncam_core.metrics.measures import FAITHFULNESS
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.scale.evaluation import evaluate_on_ray

_OPTIONS = ("budget", "tolerance", "percentile", "contributions", "variant", "baseline")


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help=GIVEN_HELP)
    add("--methods", type=_names, metavar="A[,B...]", help=f"methods (default: {','.join(METHODS)})")
    add("--metrics", type=_names, metavar="A[,B...]", help=f"metrics (default: {','.join(FAITHFULNESS)})")
    add(
        "--labels", metavar="HOW", help="the explained classes: names, folders or a CSV file (default: the top classes)"
    )
    add("--masks", metavar="DIR", help="pictures of the objects' masks, called like the photographs in their folder")
    add("--reference", metavar="METHOD", help="what others are compared with (default: fusion-cam)")
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    add(
        "--out",
        default="fusioncam-evaluation",
        metavar="DIR",
        help="files, and values to go on from (default: %(default)s)",
    )
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--tolerance", type=float, metavar="T", help="the same: until its map moves by at most T")
    add("--baseline", type=baseline_given, metavar=METAVAR, help=HELP)
    add("--percentile", type=float, metavar="P", help="Fusion-CAM: the denoising threshold (default: 10)")
    add("--contributions", choices=["clipped", "signed"], help="Fusion-CAM: negative ones (default: clipped)")
    add("--variant", choices=get_args(Variant), metavar="NAME", help=VARIANTS)
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    listed = "what is printed: text, with what was left out and written, or one table (default: text)"
    add("--table", choices=["text", "markdown", "latex"], default="text", help=listed)
    add("--model-name", metavar="NAME", help="of a model without weights of its own: what its values are kept by")
    add(
        "--wait",
        type=float,
        default=WAIT,
        metavar="SECONDS",
        help="for another evaluation that fills the folder (default: %(default)g)",
    )
    add("--no-progress", action="store_true", help="no progress bar, and no lines about it in a log")
    add_inference(parser)
    add_engine(parser.add_argument_group("where the work is done").add_argument, "evaluates")
    add_common(parser, run)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def run(arguments: argparse.Namespace) -> int:
    """Compare methods on photographs: print means with intervals, write values, numbers and pictures.

    Values are kept in the output folder as they come: the same command goes on where an interrupted one was.
    """
    files = _files(arguments.photographs, Path(arguments.out))
    require("matplotlib.figure", "Drawing pictures")
    check_engine(arguments)
    _check_inference(arguments)
    require_place(arguments.out, inputs=files)
    loaded, preprocessing = load(as_here(arguments))
    try:
        found = _evaluated(arguments, loaded, preprocessing, files)
    except KeyboardInterrupt as error:
        told = getattr(error, "__notes__", [])
        if not told:  # nothing was begun
            raise
        complain(f"interrupted: {told[0]}; the same command goes on")
        return 130
    written = found.save(arguments.out, inputs=files)
    say(_printed(found, arguments.table, written), sys.stdout)
    return 1 if _left_out(found) else 0


def _evaluated(
    arguments: argparse.Namespace, loaded: LoadedModel, preprocessing: Callable[[Any], Any], files: list[Path]
) -> Evaluation:
    given = [Path(each) for each in arguments.photographs]
    # The photographs of a folder are named in it; unless our own pictures lie there, which are none of them.
    whole = len(given) == 1 and given[0].is_dir() and files == photographs(given[0])
    targets = None if arguments.labels is None else read_labels(arguments.labels, files, loaded.class_names)
    return _evaluate(arguments, loaded.model)(
        given[0] if whole else files,
        arguments.methods or METHODS,
        arguments.metrics or FAITHFULNESS,
        targets,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        reference=arguments.reference,
        masks=arguments.masks,
        out=arguments.out,
        preprocessing=preprocessing,
        model_name=arguments.model_name,
        wait=arguments.wait,
        progress=_progress(arguments.no_progress),
        task=loaded.task,
        output_kind=loaded.output_kind,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        **_options(arguments),
    )


def _evaluate(arguments: argparse.Namespace, model: Any) -> Callable[..., Evaluation]:
    """`evaluate`, here or on Ray, but for the model."""
    if arguments.engine == PROCESS:
        return functools.partial(evaluate, model)
    factory = ModelOf(arguments.model, arguments.device)
    return functools.partial(evaluate_on_ray, factory, **ray_options(arguments))


def _printed(found: Evaluation, table: str, written: list[Path]) -> str:
    if table == "text":
        return "\n".join([*found.lines(), "", f"wrote {', '.join(map(str, written))}"])
    return (found.to_markdown() if table == "markdown" else found.to_latex()).rstrip("\n")


def _check_inference(arguments: argparse.Namespace) -> None:
    """Refuse an engine that none of the methods takes; the model's own module may bring more of them."""
    check_inference(arguments)
    names = arguments.methods or METHODS
    if all(name in EXPLAINERS for name in names):
        require_masking(arguments, [EXPLAINERS[name] for name in names])


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, of methods that have them."""
    said = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    return {**said, **inference_options(arguments)}


def _progress(unwanted: bool) -> bool | None:
    """A bar in a terminal, if tqdm is there; lines in a log, which somebody may read while hours pass."""
    return False if unwanted else None if sys.stderr is None or sys.stderr.isatty() else True


def _left_out(found: Evaluation) -> bool:
    """Whether an image or a value is missing for another reason than that the metric has none for such an image."""
    undefined = {metric.name: metric.undefined for metric in found.metrics}
    return any(
        problem.reason != (ZERO if problem.metric is None else undefined[problem.metric]) for problem in found.problems
    )


def _files(given: Sequence[str], out: Path) -> list[Path]:
    """The photographs that are given, without the pictures in the output folder, where it lies among them.

    Raises:
        InvalidValueError: if that is a folder of the photographs itself, or a photograph is not there.
    """
    if any(Path(each).resolve() == out.resolve() for each in given if Path(each).is_dir()):
        raise InvalidValueError(
            f"--out {out} is the folder of the photographs: expected another one, so that no picture of ours is taken "
            "for one of them."
        )
    named = set(given)
    return [
        Path(path)
        for path in photographs_given(given)
        if path in named or out.resolve() not in Path(path).resolve().parents
    ]
