"""A job on Ray: the folder, the files and the rows of one process. Workers explain, and this process writes.

It alone has the folder, by its lock, so that nobody who was given up writes there any more. The workers need no file
system of this machine, and this process needs no model and no GPU.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.progress import Steps
from fusioncam_core.data.sources import Group, read
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.job import NOTHING, Asked, Job, made_by
from fusioncam_core.jobs.manifest import Manifest
from fusioncam_core.jobs.pieces import Piece, Pieces, moved
from fusioncam_core.jobs.run import Count, fill, require_folder, run
from fusioncam_core.jobs.table import schema, written_into
from fusioncam_core.results.writing import naming, whole_file
from fusioncam_core.scale.workers import Workers
from fusioncam_core.stores.fingerprints import Fingerprints

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer
    from fusioncam_core.explainers.dataset import OnError
    from fusioncam_core.explainers.options import KeptMaps
    from fusioncam_core.jobs.run import JobResult
    from fusioncam_core.models.inputs import Which

AHEAD = 1
"""Pieces that are read ahead, of sources that this process reads: one while the workers have theirs."""

BEGIN = 8
"""Images of the source's beginning by which a worker finds the layers, if none was named: one is enough that works."""


def explain_to(
    factory: Callable[[], Explainer],
    folder: str | Path,
    source: Any,
    targets: Any = None,
    *,
    preprocessing: Callable[[Any], Any] | None = None,
    class_names: Sequence[str] | None = None,
    maps: KeptMaps = "made",
    piece: int = 1000,
    resume: bool = True,
    on_error: OnError = "skip",
    prefetch: int = 2,
    progress: bool | None = None,
    wait: float = 0.0,
    model_name: str | None = None,
    workers: int = 2,
    gpus_per_worker: float = 0,
    address: str | None = None,
) -> JobResult:
    """`Explainer.explain_to` by workers of a Ray cluster: the same folder, files and rows, which either goes on with.

    Args:
        factory: returns the explainer; it is called once on each worker, and travels there by pickle.
        folder: where this process writes.
        source: as there. Folders and lists of files are read by the workers, at the same paths; arrays and loaders by
            this process, which sends the images.
        targets, preprocessing, class_names, maps, piece, resume, on_error, prefetch, progress, wait, model_name: as
            there.
        workers, gpus_per_worker, address: as for `Workers`.

    Returns:
        What was done, as there.

    Raises:
        TypeError, ValueError: as there.
        WorkerError: something goes wrong on a worker for a reason that is none of ours, or workers die one after the
            other.
        MissingExtra: Ray, pyarrow or filelock is not installed.
    """
    asked = Asked(targets, preprocessing, class_names, maps, piece, on_error, prefetch, model_name)
    make = functools.partial(_made, factory, asked)
    there = Workers(make, workers=workers, gpus_per_worker=gpus_per_worker, address=address)
    return job_on_ray(there, folder, source, piece, resume=resume, wait=wait, progress=progress)


def _made(factory: Callable[[], Explainer], asked: Asked) -> Job:
    return Job(made_by(factory), asked)


def job_on_ray(
    workers: Workers[Job],
    folder: str | Path,
    source: Any,
    piece: int,
    *,
    resume: bool,
    wait: float,
    progress: bool | None,
) -> JobResult:
    """A job by workers that make what is to be done with each piece; other arguments as for `explain_to`."""
    engine = _OnRay(workers, source, piece)
    require_folder(Path(folder))
    with workers:
        return run(Path(folder), engine.pieces, engine, resume=resume, wait=wait, progress=progress)


class _Told(NamedTuple):
    """What this process needs to know of an explainer."""

    title: str
    made_of: dict[str, str]
    masked_input: Which
    shared: Sequence[Any]
    finds_layers: bool


class _OnRay:
    """Does the work of a job on workers.

    Args:
        workers: which have a `Job` each.
        source: of the images.
        piece: images in a file.
    """

    ahead = AHEAD

    def __init__(self, workers: Workers[Job], source: Any, piece: int):
        self._workers = workers
        self.pieces = Pieces(source, piece, self._read)

    @functools.cached_property
    def _told(self) -> _Told:
        return self._workers.first(_tell, None)

    @property
    def title(self) -> str:
        return self._told.title

    def made_of(self) -> dict[str, str]:
        return {**self._told.made_of, "source": self.pieces.fingerprint(Fingerprints())}

    def settle(self, made_of: dict[str, str]) -> Manifest:
        total, workers = self.pieces.total, self._workers.count
        share = None if total is None else math.ceil(total / workers)
        settled = functools.partial(_settled, made_of=made_of, total=total, share=share)
        for piece in self.pieces:
            manifest = self._workers.first(settled, _portable(piece))
            if manifest is not None:
                return manifest
        raise InvalidValueError(NOTHING)

    def files(
        self, missing: Iterator[Piece], manifest: Manifest, place: Callable[[Piece], Path], advance: Steps
    ) -> Generator[Count, None, None]:
        packed = functools.partial(_packed, manifest=manifest, begin=self._begin())
        for piece, (content, count) in self._workers.each(packed, map(_portable, missing)):
            path = place(piece)
            with whole_file(path) as file, naming(path):
                file.write(content)
            advance(count.images)
            yield count

    def _begin(self) -> list[Piece]:
        """The source's first images, where the explained layers are found by them."""
        return [_portable(each).head(BEGIN) for each in itertools.islice(self.pieces, int(self._told.finds_layers))]

    def _read(self, part: Any, start: int) -> Iterator[Group]:
        """The groups of what only comes one after the other, as NumPy."""
        told = self._told
        found = read(_without_files(part), _AnyModel, told.masked_input, told.shared, None, BEGIN)  # type: ignore[arg-type]
        return (moved(group, start) for group in found)


class _AnyModel:
    """Stands for a model that is elsewhere: its arrays are sent as NumPy."""

    namespace = None


def _without_files(source: Iterable[Any]) -> Iterator[Any]:
    for batch in source:
        if isinstance(batch, str | Path):
            raise InvalidValueError(
                "On Ray photographs are read by the workers: expected a folder or a list of files, got a source that "
                "gives one path after the other. Give list(source)."
            )
        yield batch


def _portable(piece: Piece) -> Piece:
    """Arrays as NumPy, which every worker can read."""
    if not hasattr(piece.part, "shape"):
        return piece
    return Piece(piece.number, piece.start, piece.paths, to_numpy(piece.part))


# --- on a worker


def _tell(job: Job, _: None) -> _Told:
    explainer = job.explainer
    return _Told(
        explainer.title,
        job.made_of(Fingerprints(job.asked.model_name)),
        explainer.masked_input,
        explainer.shared,
        explainer.layer_names is None,
    )


def _settled(job: Job, piece: Piece, made_of: dict[str, str], total: int | None, share: int | None) -> Manifest | None:
    """The manifest, found out on a piece, which stands for the whole source; None if none of it can be explained."""
    more: Iterable[Piece] = ()
    if total is not None:
        more = itertools.repeat(piece, math.ceil(total / piece.images) - 1)
    elif piece.images == job.asked.piece:
        more = itertools.repeat(piece)
    return job.settle([piece], made_of, total, share=share, more=more)


def _packed(job: Job, piece: Piece, manifest: Manifest, begin: Sequence[Piece]) -> tuple[bytes, Count]:
    """The file of a piece, and what it has: a worker has no place to write to."""
    file = io.BytesIO()
    with written_into(file, schema(manifest.weights), Path(f"piece {piece.number}")) as writer:
        count = fill(writer, job.explain(piece, manifest, begin), piece.paths, job.asked.class_names)
    return file.getvalue(), count
