"""The photographs of one command, explained one after the other: their files, their rows and their reports."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.cli.classes import numbered
from fusioncam_core.cli.common import complain, in_words, say
from fusioncam_core.cli.contrasts import with_contrasts
from fusioncam_core.cli.drawing import Canvas, Seen, style_of
from fusioncam_core.cli.quiet import in_words as warning_in_words
from fusioncam_core.cli.report import CommandReport
from fusioncam_core.data.preprocessing import prepared_photograph, read_photograph
from fusioncam_core.data.progress import Steps
from fusioncam_core.errors import CannotWriteError, InvalidValueError, PhotographError
from fusioncam_core.extras import require
from fusioncam_core.names import folded, names_of_files
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.results.files import check_savable, free_name, save_explanation
from fusioncam_core.results.index import Index, IndexFormat
from fusioncam_core.results.provenance import plain
from fusioncam_core.results.style import DEFAULT_STYLE
from fusioncam_core.results.terminal import photograph_report
from fusioncam_core.results.writing import Identity, identities
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.explainers import Explainer
    from fusioncam_core.results.explanation import Explanation

NO_INDEX = "none"

_NOISE = (256, 256)
"""Pixels of the photograph that is made up to see whether the model and the arguments work."""


class Work:
    """The photographs of one command.

    Args:
        arguments: of the command.
        paths: of its photographs.
        loaded: the model.
        preprocessing: of its photographs.
        explainer: of the model.

    Attributes:
        names: of the photographs, for the files.
        index: the table of what was explained.
        report: the page of it, if that is asked for.
        done: how many photographs were looked at.
        broken: how many of those have no explanation, or none that is written.
        last: the last explanation, if there is any.

    Raises:
        ValueError: the pictures cannot be drawn as the arguments say, or a target is no class's name, or several's.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        paths: Sequence[str],
        loaded: LoadedModel,
        preprocessing: Callable[[Any], Any],
        explainer: Explainer,
    ):
        self.names = names_of_files(paths)
        self.done = self.broken = 0
        self.last: Explanation | None = None
        self._reserved = frozenset(map(folded, self.names))
        self._arguments = arguments
        self._targets = numbered(arguments.targets, loaded.class_names)
        self._loaded = loaded
        self._preprocessing = preprocessing
        self._explainer = explainer
        self._pictures = not arguments.maps_only
        self._style = style_of(arguments) if self._pictures else DEFAULT_STYLE
        self._canvas = Canvas(arguments, preprocessing)
        self._kept: set[Identity] = set(identities(paths))
        form: IndexFormat = "csv" if arguments.index == NO_INDEX else arguments.index
        self.index = Index(arguments.out, form, overwrite=arguments.overwrite, inputs=frozenset(self._kept))
        self.report = CommandReport(arguments, paths)
        self._prepared_by = plain(loaded.preprocessing)
        self._works = False

    def on(self, path: str, name: str, advance: Steps) -> None:
        """Explain one photograph, write its files and its rows, and report it; `advance` is told.

        Raises:
            ValueError: something is wrong with the model or the arguments.
            OSError: the index cannot be written.
        """
        told: list[str] = []
        try:
            with _warnings_named(path, told, advance.make_room):
                lines, explanation, written = self._explained_and_written(path, name)
        except PhotographError as error:
            advance.make_room()
            complain(str(error))
            self.report.leave_out(path, name, str(error))
            self.broken += 1
            if self._arguments.index != NO_INDEX:
                self.index.failed(path, str(error), told)
        else:
            self.last = explanation
            say("\n".join(lines) + "\n", sys.stdout)
            if self._arguments.index != NO_INDEX:
                self.index.explained(path, explanation, self._loaded.class_names, written, told)
        self.done += 1
        advance(1)

    def told(self, words: str) -> str:
        """Where what was done is listed, behind the words; nothing if it is not."""
        return "" if self.index.path is None else f"{words}{visible(self.index.path)}"

    def _explained_and_written(self, path: str, name: str) -> tuple[list[str], Explanation, list[Path]]:
        """The lines that report a photograph, its explanation, and the files.

        Raises:
            ValueError: `PhotographError`, if something is wrong with this photograph or its files; others if something
                is wrong with the model or the arguments.
        """
        try:
            photograph = read_photograph(path)
        except InvalidValueError as error:
            raise PhotographError(str(error)) from error
        explanation = self._explanation(photograph, path)
        self._check_class_names(explanation)
        check_savable(explanation, self._loaded.class_names, self._style, pictures=self._pictures)
        try:
            return self._report(path, name, explanation, photograph)
        except (InvalidValueError, CannotWriteError) as error:
            raise PhotographError(f"{path}: {in_words(error)}") from error

    def _check_class_names(self, explanation: Explanation) -> None:
        names, classes = self._arguments.class_names, int(explanation.class_probabilities.shape[1])
        if names is not None and len(names) != classes:
            raise InvalidValueError(
                f"--class-names: expected {classes} names, one for each class of the model, got {len(names)}."
            )

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
        targets = self._targets
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

    def _report(
        self, path: str, name: str, explanation: Explanation, photograph: Any
    ) -> tuple[list[str], Explanation, list[Path]]:
        seen = self._canvas.of(photograph)
        written, reason = self._written(name, explanation, seen)
        self.report.add(name, explanation, seen, self._loaded.class_names)
        self._kept |= identities(written)
        *lines, files = photograph_report(path, explanation, self._loaded.class_names, written)
        last = files if reason is None else f"{files}; numbered, since {visible(reason.rstrip('.'))}"
        return [*lines, last], explanation, written

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
                pictures=self._pictures,
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
            pictures=self._pictures,
            picture=self._arguments.picture,
            overwrite=self._arguments.overwrite,
            inputs=self._kept,
            reserved=self._reserved,
        )


@contextlib.contextmanager
def _warnings_named(path: str, told: list[str], make_room: Callable[[], None]) -> Iterator[None]:
    """Say what is warned about a photograph with its name, also if an error ends it.

    Args:
        path: of the photograph.
        told: gets the texts.
        make_room: called before one is said.
    """
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            texts = (warning_in_words(each.message, each.category, each.filename) for each in caught)
            for text in dict.fromkeys(texts):
                if text is not None:
                    told.append(text)
                    make_room()
                    complain(f"{path}: warning: {text}")
