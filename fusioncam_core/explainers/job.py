"""A job as an explainer does it: how its images run best, found once, and what becomes of each of them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.checks import require_count, require_size, require_size_of, require_word
from fusioncam_core.arrays.words import resize
from fusioncam_core.data.sources import Group, SourceTargets, prefetched, read, regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidValueError
from fusioncam_core.explainers.dataset import LeftOut, OnError, _of_group, _together
from fusioncam_core.explainers.diagnostics import images_called, warn_of_empty_maps
from fusioncam_core.explainers.options import KeptMaps
from fusioncam_core.explainers.provenance import version_of
from fusioncam_core.jobs.manifest import Manifest
from fusioncam_core.jobs.pieces import Piece, Pieces, moved
from fusioncam_core.jobs.run import Estimate, Explained, JobResult, Skipped, Worker, run
from fusioncam_core.models.batch_size import AutoBatching, ModelBatching, Setting
from fusioncam_core.models.masking import MaskedSteps
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.stores.fingerprints import Fingerprints

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

SEARCH = 60.0
"""Seconds for which the best way to run the images is looked for; what proved best by then is kept to."""


def explain_to(
    explainer: Explainer,
    folder: str | Path,
    source: Any,
    targets: Any,
    *,
    preprocessing: Callable[[Any], Any] | None,
    class_names: Sequence[str] | None,
    maps: KeptMaps,
    piece: int,
    resume: bool,
    on_error: OnError,
    prefetch: int,
    progress: bool | None,
    wait: float,
    model_name: str | None,
) -> JobResult:
    """As `Explainer.explain_to`."""
    require_word(on_error, "on_error", OnError)
    if maps not in ("made", None):
        maps = require_size(maps)
    job = _Job(explainer, targets, preprocessing, maps, on_error, prefetch)
    pieces = Pieces(source, require_count(piece, "piece"), job.groups)
    words = Fingerprints(model_name)
    made_of = {
        "model": words.model(explainer.adapter, explainer.get_params()["model"]),
        "method": words.of(explainer),
        "source": pieces.fingerprint(words),
        "targets": words.of(targets, "targets"),
        "preprocessing": words.of(preprocessing, "preprocessing"),
        "maps": words.of(maps, "maps"),
        "piece": str(piece),
        "version": version_of("fusioncam_core"),
    }
    return run(
        Path(folder),
        pieces,
        Worker(made_of, job.settle, lambda each, manifest: job.explain(each, manifest, pieces)),
        class_names=class_names,
        resume=resume,
        wait=wait,
        progress=progress,
        title=explainer.title,
    )


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


class _Job:
    """What is done with each piece of a source."""

    def __init__(
        self,
        explainer: Explainer,
        targets: Any,
        preprocessing: Callable[[Any], Any] | None,
        maps: KeptMaps,
        on_error: OnError,
        prefetch: int,
    ):
        self._explainer = explainer
        self._wanted = SourceTargets(targets)
        self._preprocessing, self._maps = preprocessing, maps
        self._on_error, self._prefetch = on_error, prefetch
        self._unreadable: collections.deque[str] = collections.deque()
        self._steps: MaskedSteps | None = None

    def groups(self, part: Any, start: int) -> Iterator[Group]:
        """Of a part of the source, with the places in the source."""
        explainer = self._explainer
        found = read(
            part,
            explainer.adapter,
            explainer.masked_input,
            explainer.shared,
            self._preprocessing,
            explainer.adapter.execution.batch_size,
            self._not_read,
            strict=self._on_error == "raise",
        )
        return (moved(group, start) for group in found)

    def _not_read(self, name: str, reason: str) -> None:
        if self._on_error == "raise":
            raise InvalidValueError(reason)
        self._unreadable.append(reason)

    def settle(self, pieces: Pieces, made_of: dict[str, str]) -> Manifest:
        """Explain images from the first on until it is known how they run best, and make the manifest."""
        explainer, began = self._explainer, time.monotonic()
        first: Explanation | None = None
        with explainer._choice.many(pieces.total):
            for single in self._from_the_first(pieces):
                if first is None and isinstance(single, Explanation):
                    first = single
                    self._kept_maps(first)  # which refuses a size that is not for such images
                batching = explainer._steps.searched
                if first is None or batching is None:
                    continue
                if self._is_settled(batching) or time.monotonic() - began > SEARCH:
                    break
                batching.coming = pieces.total or 0
        explainer._choice.keep_to(explainer._choice.name)
        self._unreadable.clear()
        if first is None:
            raise InvalidValueError("None of the images could be explained: there is nothing to make a job of.")
        batching = explainer._steps.searched
        assert batching is not None
        batching.coming = 0
        return Manifest(
            made_of,
            batch_size=batching.way.size,
            memory_format=batching.way.memory_format,
            engine=explainer._choice.name,
            layers=list(explainer.layer_names or ()),
            weights=list(first.weights),
            provenance={} if first.provenance is None else _plain(dataclasses.asdict(first.provenance)),
            total=pieces.total,
        )

    def _is_settled(self, batching: ModelBatching) -> bool:
        """Whether it is known how images run best, and by what."""
        choice = self._explainer._choice
        return (choice.decided or not choice.on) and (not isinstance(batching, AutoBatching) or batching.settled)

    def _from_the_first(self, pieces: Pieces) -> Iterator[Explanation | LeftOut]:
        groups = itertools.chain.from_iterable(piece.groups() for piece in pieces)
        for group in regrouped(groups, lambda each: _together(self._explainer, each)):
            yield from self._of_group(group)

    def explain(self, piece: Piece, manifest: Manifest, pieces: Pieces) -> Iterator[Explained | Skipped]:
        """The images of a piece, in the way of the manifest, those that were left out in their places."""
        with self._in_the_way(manifest, pieces):
            groups = prefetched(regrouped(piece.groups(), lambda _: manifest.batch_size), self._prefetch)
            expected = piece.start
            with contextlib.closing(groups) as ahead:
                for group in ahead:
                    for single in self._of_group(group):
                        place = single.place if isinstance(single, LeftOut) else single.indices[0]
                        yield from self._missing(expected, place)
                        expected = place + 1
                        yield self._explained(single)
            yield from self._missing(expected, expected + len(self._unreadable))

    def _missing(self, start: int, stop: int) -> Iterator[Skipped]:
        """Files between those that could be read; each was told of when it was read."""
        for place in range(start, stop):
            yield Skipped(place, self._unreadable.popleft())

    def _of_group(self, group: Group) -> Iterator[Explanation | LeftOut]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyMapWarning)  # of places in a group; told again of each image
            found = list(_of_group(self._explainer, group, self._wanted, Explanation.numpy))
        yield from found

    def _explained(self, single: Explanation | LeftOut) -> Explained | Skipped:
        if isinstance(single, LeftOut):
            if self._on_error == "raise":
                single.tell("raise")
            return Skipped(single.place, str(single.error))
        with warnings.catch_warnings(record=True) as seen, images_called([f"image {single.indices[0]}"]):
            warnings.simplefilter("always")
            warn_of_empty_maps(single)
        return Explained(single, self._kept_maps(single), [str(each.message) for each in seen])

    def _kept_maps(self, single: Explanation) -> np.ndarray[Any, Any] | None:
        """(K, *spatial)."""
        if self._maps is None:
            return None
        maps: np.ndarray[Any, Any] = single.maps if single.targets.ndim == 1 else single.maps[0]
        return maps if self._maps == "made" else np.asarray(resize(maps, require_size_of(self._maps, maps.ndim - 1)))

    @contextlib.contextmanager
    def _in_the_way(self, manifest: Manifest, pieces: Pieces) -> Iterator[None]:
        """A context in which the explainer runs as many images at once as the manifest says."""
        explainer = self._explainer
        if self._steps is None:
            self._require_the_same_layers(manifest, pieces)
            explainer._choice.keep_to(manifest.engine)
            self._steps = explainer._new_steps(Setting(manifest.memory_format, manifest.batch_size))
        before, explainer._steps = explainer._steps, self._steps
        try:
            yield
        finally:
            explainer._steps = before

    def _require_the_same_layers(self, manifest: Manifest, pieces: Pieces) -> None:
        """Let the layers be found on the same image as when the job was begun, the first."""
        if self._explainer.layer_names is None:
            next(each for each in self._from_the_first(pieces) if isinstance(each, Explanation))
            self._unreadable.clear()
        layers = list(self._explainer.layer_names or ())
        if layers != manifest.layers:
            raise InvalidValueError(
                f"The job was begun at {manifest.layers}, and the explainer is at {layers} now: give it layer=."
            )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(each) if isinstance(each, dict) else each for name, each in values.items()}
