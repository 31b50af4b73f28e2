"""A job as an explainer does it: how its images run best, found once, and what becomes of each of them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.checks import require_count, require_size, require_size_of, require_word
from fusioncam_core.arrays.words import resize
from fusioncam_core.data.prefetching import Next, with_next
from fusioncam_core.data.progress import Steps
from fusioncam_core.data.sources import Group, SourceTargets, image_words, read, regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.dataset import LeftOut, OnError, _of_group, _together, looking_ahead
from fusioncam_core.explainers.diagnostics import images_called, warn_of_empty_maps
from fusioncam_core.explainers.options import KeptMaps
from fusioncam_core.explainers.provenance import version_of
from fusioncam_core.jobs.manifest import Manifest
from fusioncam_core.jobs.pieces import Piece, Pieces, moved
from fusioncam_core.jobs.run import Count, Estimate, Explained, JobResult, Skipped, fill, run
from fusioncam_core.jobs.table import schema, written
from fusioncam_core.models.batch_search import AutoBatching
from fusioncam_core.models.batch_size import ModelBatching, Setting
from fusioncam_core.models.masked_steps import MaskedSteps
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.stores.fingerprints import Fingerprints

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

NOTHING = "None of the images could be explained: there is nothing to make a job of."

SEARCH = 60.0
"""Seconds for which the best way to run the images is looked for; what proved best by then is kept to."""


@dataclass(frozen=True)
class Asked:
    """What becomes of the images of a job, as `Explainer.explain_to` has it; it travels to where they are explained."""

    targets: Any = None
    preprocessing: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    maps: KeptMaps = "made"
    piece: int = 1000
    on_error: OnError = "skip"
    prefetch: int = 2
    model_name: str | None = None

    def __post_init__(self) -> None:
        require_word(self.on_error, "on_error", OnError)
        require_count(self.piece, "piece")
        if self.maps not in ("made", None):
            object.__setattr__(self, "maps", require_size(self.maps))


def explain_to(
    explainer: Explainer,
    folder: str | Path,
    source: Any,
    asked: Asked,
    *,
    resume: bool,
    progress: bool | None,
    wait: float,
) -> JobResult:
    """As `Explainer.explain_to`."""
    job = Job(explainer, asked)
    pieces = Pieces(source, asked.piece, job.groups)
    return run(Path(folder), pieces, _Here(job, pieces), resume=resume, wait=wait, progress=progress)


class _Here:
    """Does the work of a job in this process, piece after piece."""

    ahead = 0  # the images of a piece are

    def __init__(self, job: Job, pieces: Pieces):
        self._job, self._pieces = job, pieces

    @property
    def title(self) -> str:
        return self._job.explainer.title

    def made_of(self) -> dict[str, str]:
        words = Fingerprints(self._job.asked.model_name)
        return {**self._job.made_of(words), "source": self._pieces.fingerprint(words)}

    def settle(self, made_of: dict[str, str]) -> Manifest:
        found = self._job.settle(self._pieces, made_of, self._pieces.total)
        if found is None:
            raise InvalidValueError(NOTHING)
        return found

    def files(
        self, missing: Iterator[Piece], manifest: Manifest, place: Callable[[Piece], Path], advance: Steps
    ) -> Generator[Count, None, None]:
        columns, names = schema(manifest.weights), self._job.asked.class_names
        for piece in missing:
            with written(place(piece), columns) as writer:
                explained = self._job.explain(piece, manifest, self._pieces)
                count = fill(writer, explained, piece.paths, names, advance)
            yield count


def estimate(explainer: Explainer, images: Any, count: int, targets: Any, *, seconds: float) -> Estimate:
    """As `Explainer.estimate`."""
    count, began = require_count(count, "count"), time.monotonic()
    while time.monotonic() - began < seconds:
        _explained_all(explainer, images, targets)
        batching = explainer._steps.searched
        if batching is None or not isinstance(batching, AutoBatching) or batching.settled:
            break
        batching.coming = count
    if explainer._steps.searched is not None:
        explainer._steps.searched.coming = 0
    explained, began = 0, time.monotonic()
    while explained == 0 or time.monotonic() - began < seconds / 4:
        explained += _explained_all(explainer, images, targets)
    return Estimate(count, explained / (time.monotonic() - began))


def _explained_all(explainer: Explainer, images: Any, targets: Any) -> int:
    return sum(1 for _ in explainer.explain_many(images, targets, progress=False))


def made_by(factory: Callable[[], Any]) -> Explainer:
    """The explainer that a function returns."""
    explainer = factory()
    if not hasattr(explainer, "explain_many"):
        kind = type(explainer).__name__
        raise InvalidTypeError(f"Expected a function that returns an explainer, got one that returns a {kind}.")
    found: Explainer = explainer
    return found


class Job:
    """What is done with each piece of a source, where the model is.

    Args:
        explainer: of the model.
        asked: what becomes of the images.
    """

    def __init__(self, explainer: Explainer, asked: Asked):
        self.explainer, self.asked = explainer, asked
        self._wanted = SourceTargets(asked.targets)
        self._unreadable: collections.deque[str] = collections.deque()
        self._steps: MaskedSteps | None = None

    def made_of(self, words: Fingerprints) -> dict[str, str]:
        """What tells the job from others, by the names in `manifest.ABOUT`, but for the source."""
        asked = self.asked
        return {
            "model": words.model(self.explainer.adapter, self.explainer.get_params()["model"]),
            "method": words.of(self.explainer),
            "targets": words.of(asked.targets, "targets"),
            "preprocessing": words.of(asked.preprocessing, "preprocessing"),
            "maps": words.of(asked.maps, "maps"),
            "piece": str(asked.piece),
            "version": version_of("fusioncam_core"),
        }

    def groups(self, part: Any, start: int) -> Iterator[Group]:
        """Of a part of the source, with the places in the source."""
        explainer = self.explainer
        found = read(
            part,
            explainer.adapter,
            explainer.masked_input,
            explainer.shared,
            self.asked.preprocessing,
            explainer.adapter.execution.batch_size,
            self.not_read,
            strict=self.asked.on_error == "raise",
        )
        return (moved(group, start) for group in found)

    def not_read(self, name: str, reason: str) -> None:
        """Told of an image that could not be read, which is left out of the groups; in the order of images."""
        if self.asked.on_error == "raise":
            raise InvalidValueError(reason)
        self._unreadable.append(reason)

    def settle(
        self,
        pieces: Iterable[Piece],
        made_of: dict[str, str],
        total: int | None,
        *,
        share: int | None = None,
        more: Iterable[Piece] = (),
    ) -> Manifest | None:
        """Explain images from the first on until it is known how they run best, and make the manifest.

        Args:
            pieces: in their order.
            made_of: what tells the job from others.
            total: how many images the source has, if it says.
            share: how many of them are explained where this is done; None for all.
            more: what to go on with if any image of the pieces can be explained.

        Returns:
            None if none of the images can be explained.
        """
        explainer, began = self.explainer, time.monotonic()
        coming = total if share is None else share
        first: Explanation | None = None

        def singles() -> Iterator[Explanation | LeftOut]:
            yield from self._explained_from(pieces)
            if first is not None:
                yield from self._explained_from(more)

        with explainer._choice.many(coming):
            for single in singles():
                if first is None and isinstance(single, Explanation):
                    first = single
                    self._kept_maps(first)  # which refuses a size that is not for such images
                batching = explainer._steps.searched
                if first is None or batching is None:
                    continue
                if self._is_settled(batching) or time.monotonic() - began > SEARCH:
                    break
                batching.coming = coming or 0
        # An engine that was not timed is not known to be faster.
        explainer._choice.keep_to(explainer._choice.name if explainer._choice.decided else None)
        self._unreadable.clear()
        return None if first is None else self._manifest(first, made_of, total)

    def _manifest(self, first: Explanation, made_of: dict[str, str], total: int | None) -> Manifest:
        batching = self.explainer._steps.searched
        assert batching is not None
        batching.coming = 0
        return Manifest(
            made_of,
            batch_size=batching.way.size,
            memory_format=batching.way.memory_format,
            engine=self.explainer._choice.name,
            layers=list(self.explainer.layer_names or ()),
            weights=list(first.weights),
            provenance={} if first.provenance is None else _plain(dataclasses.asdict(first.provenance)),
            total=total,
        )

    def _is_settled(self, batching: ModelBatching) -> bool:
        """Whether it is known how images run best, and by what."""
        choice = self.explainer._choice
        return (choice.decided or not choice.on) and (not isinstance(batching, AutoBatching) or batching.settled)

    def _explained_from(self, pieces: Iterable[Piece]) -> Iterator[Explanation | LeftOut]:
        groups = itertools.chain.from_iterable(piece.groups(self.groups) for piece in pieces)
        for group in regrouped(groups, lambda each: _together(self.explainer, each)):
            yield from self._of_group(group, lambda: None)

    def explain(self, piece: Piece, manifest: Manifest, begin: Iterable[Piece]) -> Iterator[Explained | Skipped]:
        """The images of a piece, in the way of the manifest, those that were left out in their places.

        Args:
            piece: of the source.
            manifest: of the job.
            begin: the source from its first image on, by which the explained layers are found if none was named.
        """
        with self._in_the_way(manifest, begin):
            yield from self.in_their_places(piece, lambda _: manifest.batch_size)

    def in_their_places(self, piece: Piece, together: Callable[[Group], int]) -> Iterator[Explained | Skipped]:
        """The images of a piece, those that were left out in their places.

        Args:
            piece: of the source.
            together: how many of such images are explained together.
        """
        groups = with_next(regrouped(piece.groups(self.groups), together), self.asked.prefetch)
        expected = piece.start
        with contextlib.closing(groups) as ahead, looking_ahead(self.explainer):
            for group, behind in ahead:
                for single in self._of_group(group, behind):
                    place = single.place if isinstance(single, LeftOut) else single.indices[0]
                    yield from self._missing(expected, place)
                    expected = place + 1
                    yield self._explained(single)
        yield from self._missing(expected, expected + len(self._unreadable))

    def _missing(self, start: int, stop: int) -> Iterator[Skipped]:
        """Files between those that could be read; each was told of when it was read."""
        for place in range(start, stop):
            yield Skipped(place, self._unreadable.popleft())

    def _of_group(self, group: Group, behind: Next[Group]) -> Iterator[Explanation | LeftOut]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyMapWarning)  # of places in a group; told again of each image
            found = list(_of_group(self.explainer, group, self._wanted, behind, Explanation.numpy))
        yield from found

    def _explained(self, single: Explanation | LeftOut) -> Explained | Skipped:
        if isinstance(single, LeftOut):
            if self.asked.on_error == "raise":
                single.tell("raise")
            return Skipped(single.place, str(single.error))
        words = image_words(single.indices[0], single.names[0] if single.names else None)
        with warnings.catch_warnings(record=True) as seen, images_called([words]):
            warnings.simplefilter("always")
            warn_of_empty_maps(single)
        return Explained(single, self._kept_maps(single), [str(each.message) for each in seen])

    def _kept_maps(self, single: Explanation) -> np.ndarray[Any, Any] | None:
        """(K, *spatial)."""
        if self.asked.maps is None:
            return None
        maps: np.ndarray[Any, Any] = single.maps if single.targets.ndim == 1 else single.maps[0]
        return (
            maps
            if self.asked.maps == "made"
            else np.asarray(resize(maps, require_size_of(self.asked.maps, maps.ndim - 1)))
        )

    @contextlib.contextmanager
    def _in_the_way(self, manifest: Manifest, begin: Iterable[Piece]) -> Iterator[None]:
        """A context in which the explainer runs as many images at once as the manifest says."""
        explainer = self.explainer
        if self._steps is None:
            self._require_the_same_layers(manifest, begin)
            explainer._choice.keep_to(manifest.engine)
            self._steps = explainer._new_steps(Setting(manifest.memory_format, manifest.batch_size))
        before, explainer._steps = explainer._steps, self._steps
        try:
            yield
        finally:
            explainer._steps = before

    def _require_the_same_layers(self, manifest: Manifest, begin: Iterable[Piece]) -> None:
        """Let the layers be found on the same image as when the job was begun, the first."""
        if self.explainer.layer_names is None:
            next((each for each in self._explained_from(begin) if isinstance(each, Explanation)), None)
            self._unreadable.clear()
        if self.explainer.layer_names is None:  # none can be explained of the beginning that is at hand
            self.explainer._layers = tuple(manifest.layers)
        layers = list(self.explainer.layer_names or ())
        if layers != manifest.layers:
            raise InvalidValueError(
                f"The job was begun at {manifest.layers}, and the explainer is at {layers} now: give it layer=."
            )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(each) if isinstance(each, dict) else each for name, each in values.items()}
