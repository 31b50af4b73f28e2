"""The command `fusioncam`: explain photographs, compare methods, list a model's layers."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import numpy as np

from fusioncam_core.evaluation.labels import read_labels
from fusioncam_core.evaluation.runner import METHODS, evaluate
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.explainers.registry import capabilities
from fusioncam_core.extras import MissingExtra, require
from fusioncam_core.loading import LoadedModel, load_model
from fusioncam_core.many import photographs
from fusioncam_core.metrics.measures import FAITHFULNESS
from fusioncam_core.preprocessing import Preprocessing, read_photograph
from fusioncam_core.render import save_explanation
from fusioncam_core.report import layer_table, method_table, photograph_report

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.explanation import Explanation

_SPEC_HELP = "the model: python:package.module:function, keras:FILE.keras, timm:NAME or torchvision:NAME"
_FUSION_OPTIONS = ("percentile", "contributions", "form")
_LIMITS = ("budget", "tolerance")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; None takes the process's own.

    Returns:
        The exit status: 0; 1 when a photograph could not be read; 2 when the arguments or the model do not
        work; 130 when interrupted from the keyboard, as shells have it.
    """
    arguments = argparse.Namespace(traceback=False)
    try:
        _parser().parse_args(argv, arguments)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (ValueError, TypeError, OSError, MissingExtra) as error:
        if arguments.traceback:
            _say(traceback.format_exc().rstrip(), sys.stderr)
        _complain(f"error: {_in_words(error)}")
        return 2
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Usage errors become exceptions, so that they are reported as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        _say(f"fusioncam {version('fusioncam')}", sys.stdout)
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fusioncam", description="Class activation maps for image classifiers.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_explain(commands.add_parser("explain", help="explain photographs", description=_explain.__doc__))
    _add_evaluate(commands.add_parser("evaluate", help="compare methods", description=_evaluate.__doc__))
    methods = commands.add_parser("methods", help="list the methods", description=_methods.__doc__)
    methods.set_defaults(run=_methods)
    _add_layers(commands.add_parser("layers", help="list a model's layers", description=_layers.__doc__))
    return parser


def _add_explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help="image files")
    add("--targets", type=_targets, metavar="N[,N...]", help="classes, or top5 for as many (default: the top class)")
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    listed = "`fusioncam methods` lists them (default: %(default)s)"
    add("--method", choices=list(EXPLAINERS), default="fusion-cam", metavar="METHOD", help=listed)
    add("--out", default="fusioncam-out", metavar="DIR", help="where the files go (default: %(default)s)")
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--tolerance", type=float, metavar="T", help="the same: until its map moves by at most T")
    add("--percentile", type=float, metavar="P", help="Fusion-CAM: the denoising threshold (default: 10)")
    add("--contributions", choices=["clipped", "signed"], help="Fusion-CAM: negative ones (default: clipped)")
    add("--form", choices=["published", "calibrated"], help="Fusion-CAM: the paper's or the measured one")
    add("--no-progress", action="store_true", help="no progress bar")
    _add_common(parser, _explain)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
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
    _add_common(parser, _evaluate)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _add_layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="list also layers without spatial extent")
    _add_common(parser, _layers)


def _add_common(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("--model", required=True, metavar="SPEC", help=_SPEC_HELP)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run)


def _targets(text: str) -> list[int] | str:
    if text.startswith("top") and text[3:].isdecimal():
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r} is not a list of class numbers such as 281 or 281,285, nor a word such as top5"
        raise argparse.ArgumentTypeError(message) from None


def _explain(arguments: argparse.Namespace) -> int:
    """Explain photographs: print the top classes and the contributions, write pictures, maps and numbers."""
    loaded, preprocessing = _load(arguments.model)
    explainer = _explainer(arguments, loaded)
    require("matplotlib.figure", "Drawing pictures")  # fail before the long work, not after it
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    broken = 0
    for path, name in zip(arguments.photographs, unique_names(arguments.photographs), strict=True):
        try:
            photograph = read_photograph(path)
        except ValueError as error:
            _complain(str(error))
            broken += 1
            continue
        explanation = _call(explainer, preprocessing(photograph), arguments.targets, path)
        seen = [preprocessing.window(photograph)] if isinstance(preprocessing, Preprocessing) else None
        written = save_explanation(explanation, arguments.out, [name], seen, loaded.class_names)
        lines = photograph_report(path, explanation, loaded.class_names, written)
        _say("\n".join(lines) + "\n", sys.stdout)
    return 1 if broken else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    """Compare methods on photographs: print means with intervals, write values, numbers and pictures.

    Values are kept in the output folder as they come: the same command goes on where an interrupted one was.
    """
    loaded, preprocessing = _load(arguments.model)
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
        outputs=loaded.outputs,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        **({} if arguments.budget is None else {"budget": arguments.budget}),
    )
    written = found.save(arguments.out)
    _say("\n".join([*found.lines(), "", f"wrote {', '.join(map(str, written))}"]), sys.stdout)
    return 1 if any(problem.method is None for problem in found.problems) else 0


def _files(path: Path) -> list[Path]:
    return photographs(path) if path.is_dir() else [path]


def _layers(arguments: argparse.Namespace) -> int:
    """List a model's layers in the order in which they run, and mark the one that is explained by default."""
    loaded, preprocessing = _load(arguments.model)
    explainer = EXPLAINERS["grad-cam"](loaded.model, loaded.layer, task=loaded.task, outputs=loaded.outputs)
    blank = require("PIL.Image", "Making an input for the model").new("RGB", (224, 224))
    layers = explainer.layers(preprocessing(blank)[np.newaxis])
    shown = [layer for layer in layers if layer.spatial or arguments.all]
    default = None if loaded.layer is None else explainer.adapter.layer_name
    _say("\n".join(layer_table(shown, default)), sys.stdout)
    return 0


def _methods(arguments: argparse.Namespace) -> int:
    """List the methods: what each needs of the model, and where it comes from."""
    _say("\n".join(method_table(capabilities())), sys.stdout)
    return 0


def _load(spec: str) -> tuple[LoadedModel, Callable[[Any], Any]]:
    loaded = load_model(spec)
    if loaded.preprocessing is None:
        raise ValueError(
            f"{spec!r} gives a model without its preprocessing. Let it return (model, preprocessing), with a "
            "fusioncam_core.preprocessing.Preprocessing or any function from a Pillow image to an array."
        )
    return loaded, loaded.preprocessing


def _explainer(arguments: argparse.Namespace, loaded: LoadedModel) -> Explainer:
    method = EXPLAINERS[arguments.method]
    options = {name: value for name in _FUSION_OPTIONS if (value := getattr(arguments, name)) is not None}
    if options and arguments.method != "fusion-cam":
        raise ValueError(f"--{next(iter(options))} belongs to --method fusion-cam, not {arguments.method}")
    limits = {name: value for name in _LIMITS if (value := getattr(arguments, name)) is not None}
    if limits and not method.limitable:
        raise ValueError(f"--{next(iter(limits))} is for Score-CAM and what builds on it, not {arguments.method}")
    return method(
        loaded.model,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        task=loaded.task,
        outputs=loaded.outputs,
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
        _complain(f"{path}: warning: {warning.message}")
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


def _complain(message: str) -> None:
    """One line on standard error, whatever the message looks like."""
    _say(f"fusioncam: {' '.join(message.split())}", sys.stderr)


def _in_words(error: Exception) -> str:
    """An error's message; an operating system's one without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _say(text: str, stream: TextIO) -> None:
    """Write a line; what the stream's encoding lacks is escaped."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
