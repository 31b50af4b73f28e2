"""`fusioncam explain`: photographs, explained."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.cli.common import add_common, complain, in_words, load, say
from fusioncam_core.cli.contrasts import with_contrasts
from fusioncam_core.cli.drawing import Canvas, Seen, add_drawing, style_of
from fusioncam_core.cli.quiet import in_words as warning_in_words
from fusioncam_core.cli.report import CommandReport, add_report
from fusioncam_core.data.preprocessing import prepared_photograph, read_photograph
from fusioncam_core.errors import CannotWriteError, InvalidValueError, PhotographError
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.extras import require
from fusioncam_core.models.digest import shows_weights
from fusioncam_core.names import folded, names_of_files
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.files import check_savable, free_name, save_explanation
from fusioncam_core.results.provenance import plain
from fusioncam_core.results.terminal import photograph_report
from fusioncam_core.results.writing import Identity, identities
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.results.explanation import Explanation


_FUSION_OPTIONS = ("percentile", "contributions", "variant")


_LIMITS = ("budget", "tolerance")


_NOISE = (256, 256)
"""Pixels of the photograph that is made up to see whether the model and the arguments work."""


def add_parser(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("photographs", nargs="+", metavar="PHOTO", help="image files")
    add("--targets", type=_targets, metavar="N[,N...]", help="classes, or top5 for as many (default: the top class)")
    contrast = "one row more: why class A (a number or a name) and not B; may be given again"
    add("--contrast", nargs=2, action="append", default=[], metavar=("A", "B"), help=contrast)
    add("--layer", metavar="NAME", help="layer to explain (default: the one that `fusioncam layers` marks)")
    listed = "`fusioncam methods` lists them (default: %(default)s)"
    add("--method", default="fusion-cam", metavar="METHOD", help=listed)
    add("--out", default="fusioncam-out", metavar="DIR", help="where the files go (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace earlier explanations there (default: number the names)")
    add("--batch-size", type=int, metavar="N", help="images at once (default: what proves fastest)")
    add("--budget", type=int, metavar="N", help="Score-CAM in any form: at most N masks (default: all)")
    add("--tolerance", type=float, metavar="T", help="the same: until its map moves by at most T")
    add("--percentile", type=float, metavar="P", help="Fusion-CAM: the denoising threshold (default: 10)")
    add("--contributions", choices=["clipped", "signed"], help="Fusion-CAM: negative ones (default: clipped)")
    add("--variant", choices=["published", "calibrated"], help="Fusion-CAM: the paper's or the measured one")
    add("--no-progress", action="store_true", help="no progress bar")
    add_report(parser)
    add_drawing(parser)
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
    """Explain photographs: print the top classes and the contributions, write pictures, maps and numbers.

    The files are called like the photographs, below the folder that holds all of these. None replaces a photograph or
    anything else that fusioncam has not written; earlier explanations are replaced with --overwrite only.
    """
    loaded, preprocessing = load(arguments.model)
    explainer = _explainer(arguments, loaded)
    require("matplotlib.figure", "Drawing pictures")  # fail before the long work, not after it
    work = _Work(arguments, loaded, preprocessing, explainer)
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    broken = 0
    for path, name in zip(arguments.photographs, work.names, strict=True):
        try:
            lines = work.explain(path, name)
        except PhotographError as error:
            complain(str(error))
            work.report.leave_out(path, name, str(error))
            broken += 1
        else:
            say("\n".join(lines) + "\n", sys.stdout)
    work.report.write()
    return 1 if broken else 0


class _Work:
    """The photographs of one command.

    Args:
        arguments: of the command.
        loaded: the model.
        preprocessing: of its photographs.
        explainer: of the model.

    Attributes:
        names: of the photographs, for the files.
        report: of all of them.

    Raises:
        ValueError: the pictures cannot be drawn as the arguments say.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        loaded: LoadedModel,
        preprocessing: Callable[[Any], Any],
        explainer: Explainer,
    ):
        self.names = names_of_files(arguments.photographs)
        self._reserved = frozenset(map(folded, self.names))
        self._arguments = arguments
        self._loaded = loaded
        self._preprocessing = preprocessing
        self._explainer = explainer
        self._style = style_of(arguments)
        self._canvas = Canvas(arguments, preprocessing)
        self._kept: set[Identity] = set(identities(arguments.photographs))
        self._prepared_by = plain(loaded.preprocessing)
        self._works = False
        self.report = CommandReport(arguments)

    def explain(self, path: str, name: str) -> list[str]:
        """Explain one photograph and write its files: the lines that report it.

        Raises:
            ValueError: `PhotographError`, if something is wrong with this photograph or its files; others if something
                is wrong with the model or the arguments.
        """
        with _warnings_named(path):
            try:
                photograph = read_photograph(path)
            except InvalidValueError as error:
                raise PhotographError(str(error)) from error
            explanation = self._explanation(photograph, path)
            check_savable(explanation, self._loaded.class_names, self._style)
            try:
                return self._report(path, name, explanation, photograph)
            except (InvalidValueError, CannotWriteError) as error:
                raise PhotographError(f"{path}: {in_words(error)}") from error

    def _explanation(self, photograph: Any, path: str) -> Explanation:
        try:
            image = prepared_photograph(photograph, self._preprocessing, path)
        except InvalidValueError as error:
            if self._works or self._succeeds(self._prepared_noise):
                raise PhotographError(str(error)) from error
            raise
        try:
            explanation = self._explained(image)
        except (ValueError, RuntimeError) as error:
            if self._works or self._succeeds(lambda: self._explained(self._prepared_noise())):
                raise PhotographError(f"{path}: {error}") from error
            raise
        self._works = True
        provenance = explanation.provenance and replace(explanation.provenance, preprocessing=self._prepared_by)
        return replace(explanation, files=(os.path.abspath(path),), provenance=provenance)

    def _explained(self, image: Any) -> Explanation:
        targets = self._arguments.targets
        wanted = np.asarray(targets if len(targets) == 1 else [targets]) if isinstance(targets, list) else targets
        explanation = self._explainer(image[np.newaxis], wanted).numpy()
        return with_contrasts(
            explanation,
            self._arguments.contrast,
            self._loaded.class_names,
            self._loaded.task,
            lambda function: self._explainer(image[np.newaxis], function).numpy(),
        )

    def _prepared_noise(self) -> Any:
        """The input of a photograph that is made up: what fails for it too is the model's or the arguments' fault."""
        noise = np.random.default_rng(0).integers(0, 256, (*_NOISE, 3), dtype=np.uint8)
        picture = require("PIL.Image", "Reading photographs").fromarray(noise)
        return prepared_photograph(picture, self._preprocessing, "noise")

    @staticmethod
    def _succeeds(work: Callable[[], Any]) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what nobody asked to have explained
            try:
                work()
            except (ValueError, TypeError, RuntimeError):
                return False
        return True

    def _report(self, path: str, name: str, explanation: Explanation, photograph: Any) -> list[str]:
        seen = self._canvas.of(photograph)
        written, reason = self._written(name, explanation, seen)
        self.report.add(name, explanation, seen, self._loaded.class_names)
        self._kept |= identities(written)
        *lines, files = photograph_report(path, explanation, self._loaded.class_names, written)
        return [*lines, files if reason is None else f"{files}; numbered, since {visible(reason.rstrip('.'))}"]

    def _written(self, name: str, explanation: Explanation, seen: Seen) -> tuple[list[Path], str | None]:
        """The files, under the first name that is free; and why that is not the photograph's own."""
        own, reason = self._free(name)
        photographs, preprocessing = seen
        try:
            written = save_explanation(
                explanation,
                self._arguments.out,
                [own],
                photographs,
                self._loaded.class_names,
                picture=self._arguments.picture,
                style=self._style,
                preprocessing=preprocessing,
                overwrite=self._arguments.overwrite,
                inputs=self._kept,
            )
            return written, reason
        except InvalidValueError:
            if self._free(name)[0] == own:
                raise
        return self._written(name, explanation, seen)  # another command was faster: the next name

    def _free(self, name: str) -> tuple[str, str | None]:
        return free_name(
            self._arguments.out,
            name,
            picture=self._arguments.picture,
            overwrite=self._arguments.overwrite,
            inputs=self._kept,
            reserved=self._reserved,
        )


@contextlib.contextmanager
def _warnings_named(path: str) -> Iterator[None]:
    """Say what is warned about a photograph with its name, also if an error ends it."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            texts = (warning_in_words(each.message, each.category, each.filename) for each in caught)
            for text in dict.fromkeys(texts):
                if text is not None:
                    complain(f"{path}: warning: {text}")


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
    adapter = adapt_model(loaded.model)
    return method(
        adapter,
        layer=arguments.layer if arguments.layer is not None else loaded.layer,
        batch_size="auto" if arguments.batch_size is None else arguments.batch_size,
        task=loaded.task,
        output_kind=loaded.output_kind,
        progress=False if arguments.no_progress else None,
        weights_digest=shows_weights(adapter),
        **options,
        **limits,
    )
