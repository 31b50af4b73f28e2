"""Pieces of work on Ray: workers that load what they need once, and what a worker that died had is done by another."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.errors import FusionCamError, FusionCamWarning, InvalidValueError, WorkerError, warn
from fusioncam_core.extras import require
from fusioncam_core.plugins.foreign import described
from fusioncam_core.scale.cluster import connected, elsewhere
from fusioncam_core.visible import counted

PURPOSE = "Working on Ray"

ATTEMPTS = 3
"""Workers that may die over one piece, or one after the other before any is ready: what kills three kills more."""

PATIENCE = 60.0
"""Seconds without any worker after which it is said what is waited for."""

_SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""JAX and TensorFlow otherwise take the whole memory of a GPU that they have a part of."""

_log = logging.getLogger(__name__)

Held = TypeVar("Held")
Item = TypeVar("Item")
Made = TypeVar("Made")


class _Answer(NamedTuple):
    """What came of a call on a worker."""

    made: Any = None
    error: FusionCamError | None = None
    warned: tuple[tuple[type[FusionCamWarning], str], ...] = ()


class Workers(Generic[Held]):
    """Workers of a Ray cluster; a context, which ends with them.

    Args:
        make: called once on each worker: loads the model and whatever else the work needs. It travels by pickle: a
            function, a class or a `functools.partial`; what it returns stays on the worker.
        workers: how many there are to be. The work begins with the first that is there.
        gpus_per_worker: 0 for none, a fraction for workers that share one, or 1, 2, ...
        address: of a cluster; None for that of a Ray which this process has initialised or `RAY_ADDRESS` names, and for
            one of this machine that is started, with a core for each worker, and ended.

    Raises:
        InvalidValueError: for no number of workers or GPUs; or nothing answers at the address.
        MissingExtra: Ray is not installed.

    Examples:
        >>> from fusioncam_core.scale.workers import Workers
        >>> def loaded():  # a model, once on each worker
        ...     return {"power": 2}
        >>> def powered(held, item):
        ...     return item ** held["power"]
        >>> with Workers(loaded, workers=2) as workers:  # doctest: +SKIP
        ...     sorted(workers.each(powered, range(3)))
        [(0, 0), (1, 1), (2, 4)]
    """

    def __init__(
        self, make: Callable[[], Held], *, workers: int = 2, gpus_per_worker: float = 0, address: str | None = None
    ):
        self._make, self._address = make, address
        self._count = require_count(workers, "workers")
        self._gpus = _require_gpus(gpus_per_worker)
        self._ray = require("ray", PURPOSE, "ray")
        self._opened = contextlib.ExitStack()
        self._starting: dict[Any, Any] = {}
        self._free: collections.deque[Any] = collections.deque()
        self._stillborn = 0
        self._last_words = ""

    def __enter__(self) -> Workers[Held]:
        with contextlib.ExitStack() as opened:
            opened.enter_context(connected(self._ray, self._address, self._count))
            self._require_known_gpus()
            self._packed = self._ray.put(self._ray.cloudpickle.dumps(self._make))
            opened.callback(self._end_all)
            for _ in range(self._count):
                self._start()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def count(self) -> int:
        """How many there are to be."""
        return self._count

    def each(self, do: Callable[[Held, Item], Made], items: Iterable[Item]) -> Generator[tuple[Item, Made], None, None]:
        """Do something with each of the items, and give what came of it, in the order in which it comes.

        Args:
            do: a function of a module, called on a worker with what `make` returned there and an item.
            items: which travel by pickle, one to each worker that is free; they are asked for as late as that.

        Raises:
            FusionCamError: what the function, or `make`, raised of that kind; after it the work ends.
            WorkerError: it raised something else, or several workers died over one item.
        """
        work = _Work(self, do, items)
        try:
            yield from work.done()
        finally:
            work.abandon()

    def first(self, do: Callable[[Held, Item], Made], item: Item) -> Made:
        """What comes of one item, on the first worker that is free. As for `each`."""
        with contextlib.closing(self.each(do, [item])) as made:
            return next(made)[1]

    # --- the workers themselves

    def _start(self) -> None:
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus)(_Worker)
        worker = kind.remote(0 < self._gpus < 1, os.getcwd())
        self._starting[worker.load.remote(self._packed)] = worker

    def _end(self, worker: Any) -> None:
        self._ray.kill(worker)

    def _end_all(self) -> None:
        for worker in (*self._free, *self._starting.values()):
            self._end(worker)
        self._free.clear()
        self._starting.clear()

    def _died(self, worker: Any) -> None:
        """Another one takes its place."""
        self._end(worker)  # which may be alive behind a broken network
        self._start()

    def _require_known_gpus(self) -> None:
        """Refuse GPUs where there will be none: a cluster may get machines with some, this machine will not."""
        there = self._ray.cluster_resources().get("GPU", 0)
        if self._gpus > there and not elsewhere(self._address):
            raise InvalidValueError(
                f"Expected gpus_per_worker of at most the GPUs that Ray sees on this machine, {there:g}, got "
                f"{self._gpus:g}: leave it out, or give the address of a cluster."
            )

    def _await_any(self, busy: Iterable[Any]) -> Any:
        """What of the workers that start and those that work is ready first."""
        waited_for, told = [*self._starting, *busy], False
        while True:
            ready, _ = self._ray.wait(waited_for, num_returns=1, timeout=PATIENCE)
            if ready:
                return ready[0]
            if not told and len(waited_for) == len(self._starting):
                told = True
                _log.warning("%s", self._what_is_missing())

    def _what_is_missing(self) -> str:
        there = self._ray.cluster_resources()
        wanted = f"1 CPU and {self._gpus:g} GPU" if self._gpus else "1 CPU"
        return (
            f"No worker is ready after {PATIENCE:g} s: each wants {wanted}, and the cluster has "
            f"{there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU in all. They are waited "
            "for; models that load long look the same."
        )

    def _answer(self, reference: Any) -> _Answer | None:
        """What a worker answered; None if it died, or what it made was lost with its machine."""
        errors = self._ray.exceptions
        try:
            answer: _Answer = self._ray.get(reference)
        except errors.RayTaskError as error:  # before or behind our own code, which raises nothing
            return _Answer(error=WorkerError(f"A worker cannot read what it was sent: {described(error.cause)}"))
        except errors.RayError as error:
            self._last_words = _detail(error)
            _log.warning("A worker died, and another one takes its place.")
            _log.debug("What Ray says of it: %s", error)
            return None
        for category, text in answer.warned:
            warn(text, category)
        return answer

    def _started(self, reference: Any) -> None:
        """A worker that was waited for is free, or another is started in its place."""
        worker = self._starting.pop(reference)
        answer = self._answer(reference)
        if answer is not None and answer.error is not None:
            self._end(worker)
            raise answer.error
        if answer is not None:
            self._stillborn = 0
            self._free.append(worker)
            return
        self._stillborn += 1
        if self._stillborn >= ATTEMPTS:
            raise WorkerError(
                f"{counted(self._stillborn, 'worker')} died one after the other before the model was loaded there: "
                f"{self._last_words}. Look whether fusioncam and the model's packages are installed there, and whether "
                "its memory holds the model."
            )
        self._died(worker)


class _Work(Generic[Held, Item, Made]):
    """One pass over items."""

    def __init__(self, workers: Workers[Held], do: Callable[[Held, Item], Made], items: Iterable[Item]):
        self._workers, self._do, self._items = workers, do, iter(items)
        self._again: collections.deque[tuple[Item, int]] = collections.deque()
        self._busy: dict[Any, tuple[Any, Item, int]] = {}
        self._next: tuple[Item, int] | None = None

    def done(self) -> Iterator[tuple[Item, Made]]:
        """The items and what came of them."""
        while True:
            while self._workers._free and self._has_more():
                self._hand_out()
            if not self._busy and not self._has_more():
                return
            reference = self._workers._await_any(self._busy)
            if reference in self._workers._starting:
                self._workers._started(reference)
            else:
                yield from self._taken(reference)

    def abandon(self) -> None:
        """Nobody waits for what is not done: whoever works on it makes room for a worker that does not."""
        for worker, _, _ in self._busy.values():
            self._workers._died(worker)
        self._busy.clear()

    def _has_more(self) -> bool:
        if self._next is None and self._again:
            self._next = self._again.popleft()
        if self._next is None:
            self._next = next(((item, 0) for item in self._items), None)
        return self._next is not None

    def _hand_out(self) -> None:
        assert self._next is not None
        (item, deaths), self._next = self._next, None
        worker = self._workers._free.popleft()
        self._busy[worker.do.remote(self._do, item)] = (worker, item, deaths)

    def _taken(self, reference: Any) -> Iterator[tuple[Item, Made]]:
        worker, item, deaths = self._busy.pop(reference)
        answer = self._workers._answer(reference)
        if answer is not None:
            self._workers._free.append(worker)
            if answer.error is not None:
                raise answer.error
            yield item, answer.made
            return
        self._workers._died(worker)
        if deaths + 1 >= ATTEMPTS:
            raise WorkerError(
                f"{counted(deaths + 1, 'worker')} died over the same piece of work, the last one so: "
                f"{self._workers._last_words}. Memory that runs out is the usual reason: give each worker fewer images "
                "(piece=, batch_size=), or start fewer workers."
            )
        self._again.append((item, deaths + 1))


class _Worker:
    """Lives in a process of Ray's.

    Args:
        shares_gpu: whether it has a part of one.
        folder: the current one of the process that it works for, in which it works as well if it has such a folder:
            paths and modules there are then the same.
    """

    def __init__(self, shares_gpu: bool, folder: str):
        if os.path.isdir(folder):
            os.chdir(folder)
        for name, value in _SHARED_GPU.items() if shares_gpu else ():
            os.environ.setdefault(name, value)
        self._held: Any = None

    def load(self, packed: bytes) -> _Answer:
        """Call what makes the rest of the work possible."""

        def load() -> None:
            self._held = _unpacked(packed)()

        return _answered(load)

    def do(self, do: Callable[[Any, Any], Any], item: Any) -> _Answer:
        """One piece of work."""
        return _answered(lambda: do(self._held, item))


def _unpacked(packed: bytes) -> Callable[[], Any]:
    try:
        made: Callable[[], Any] = pickle.loads(packed)
    except Exception as error:  # modules of the user's are imported
        raise WorkerError(
            f"A worker cannot load what it was sent: {described(error).rstrip('.')}. Expected the modules "
            "that it needs to be there as well: install them, or give their folder as working_dir in Ray's runtime_env."
        ) from error
    return made


def _answered(work: Callable[[], Any]) -> _Answer:
    """What the work gives; errors and our warnings as values, which come to the user as without Ray."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        try:
            made, error = work(), None
        except (Exception, SystemExit) as caught:  # noqa: BLE001 - models and their loaders raise anything
            made, error = None, _portable(caught)
    ours = {(each.category, str(each.message)) for each in seen if issubclass(each.category, FusionCamWarning)}
    return _Answer(made, error, tuple(sorted(ours, key=str)))


def _portable(error: BaseException) -> FusionCamError:
    """An error of ours as it is; of another one what it says, since its class may be unknown where it is read."""
    import traceback  # for errors alone

    if isinstance(error, FusionCamError):
        with contextlib.suppress(Exception):
            return pickle.loads(pickle.dumps(error)) and error
    told = WorkerError(f"A worker ended with {described(error)}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _detail(error: BaseException) -> str:
    """How a worker ended, of all that Ray says of it."""
    return described(error, str(error).rpartition("Worker exit detail: ")[2])


def _require_gpus(count: Any) -> float:
    """A number of GPUs that Ray gives a worker."""
    given = isinstance(count, int | float) and not isinstance(count, bool) and count >= 0
    if not given or (count > 1 and count != int(count)):
        raise InvalidValueError(f"Expected gpus_per_worker as 0, a fraction up to 1 or a whole number, got {count!r}.")
    return float(count)
