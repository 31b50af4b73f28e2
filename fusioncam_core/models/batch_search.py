"""The batch size that proves fastest, found by timing the first spans of the work itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.models.batch_size import BatchSize, Done, ModelBatching, Setting, Span, Work, reserve

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import Execution, ModelAdapter

LARGEST = 1024
"""No more images at once are tried by "auto"."""

GAIN = 0.03
"""Another way must be faster by this share: less is the noise of a timing."""

LEAD = 4
"""Of two ways the one that has won so many rounds more than the other is the faster one."""

ROUNDS = 12
"""After so many rounds the one that has won more of them is."""

SHARE = 0.2
"""Where a new size costs a compilation, searching may take this share of the time that the work takes."""

_log = logging.getLogger(__name__)

Search = Generator[tuple[Setting, Setting], bool, Setting]
"""Yields the best way so far and one to try, is sent whether that is faster, and returns the best."""


class PairedTiming:
    """Two ways side by side, in rounds in which each runs as many images, so that both meet the same machine.

    As many images, and not as many runs: of short runs more fall between two disturbances, and small batches would seem
    faster than they are.

    Args:
        best: the best way so far. It begins.
        other: the one that is tried; of its size, or a multiple or fraction.
    """

    def __init__(self, best: Setting, other: Setting):
        self.best, self.other = best, other
        self.prepared = 0.0
        self._images = max(best.size, other.size)
        self._first: dict[Setting, float] = {}
        self._seconds: dict[Setting, list[float]] = {best: [], other: []}
        self._rounds = self._lead = 0

    @property
    def next(self) -> Setting:
        """What runs now: each way once to prepare, and then its share of the round."""
        done = len(self._seconds[self.best]) * self.best.size
        return self.best if self.best not in self._first or done < self._images else self.other

    @property
    def is_new(self) -> bool:
        """Whether the other way runs for the first time now."""
        return self.next is self.other and self.other not in self._first

    def tell(self, way: Setting, seconds: float) -> None:
        """The next run took so long."""
        if way not in self._first:
            self._first[way] = seconds
            return
        if self._rounds == 0 and not self._seconds[way]:
            self.prepared += max(self._first[way] - seconds, 0.0)
        self._seconds[way].append(seconds)
        # Half of an odd size takes a run more than the other's one.
        if len(self._seconds[self.other]) * self.other.size >= self._images:
            best, other = self.seconds_an_image(self.best), self.seconds_an_image(self.other)
            self._lead += 1 if other <= best * (1 - GAIN) else -1
            self._rounds += 1
            self._seconds = {each: [] for each in self._seconds}

    def seconds_an_image(self, way: Setting) -> float:
        """What a way has needed in this round, of which it has done some."""
        return sum(self._seconds[way]) / (len(self._seconds[way]) * way.size)

    @property
    def faster(self) -> bool | None:
        """Whether the other way is faster; None before that is known."""
        over = abs(self._lead) >= LEAD or self._rounds >= ROUNDS
        return self._lead > 0 if over else None


class AutoBatching(ModelBatching):
    """Finds the fastest way to work by timing the first spans of the work itself, and keeps to it.

    Nothing is run for the sake of timing. Memory formats are compared at the first size; then sizes double as long as
    that makes an image cheaper, or, if it does not, halve. Where the adapter compiles for every size, another one is
    tried once the compilation is a small share of the work.

    Args:
        adapter: of the model that works.
        execution: as for `make_batching`; its batch size is tried first.
        beside: as for any batching; spans that are timed are not shared out.
        light: as for any batching; a size that is not faster may then be passed over: the one beyond it is tried too.
    """

    def __init__(
        self, adapter: ModelAdapter, execution: Execution | None = None, *, light: bool = False, beside: int = 1
    ):
        likes = adapter.execution if execution is None else execution
        super().__init__(adapter, likes.batch_size, execution=likes, light=light, beside=beside)
        self._best = Setting(likes.memory_formats[0], likes.batch_size)
        self._search: Search | None = _search(self._best, likes.memory_formats, light=light)
        self._timing = PairedTiming(*next(self._search))
        self._worked = 0.0
        self._prepared = 0.0

    @property
    def largest(self) -> int:
        """No span is longer."""
        return LARGEST

    @property
    def way(self) -> Setting:
        """The best way so far."""
        return self._best

    @property
    def wanted(self) -> int:
        """Enough for a run of each of the two ways that are compared, and of light images many."""
        return super().wanted if self._search is None else max(super().wanted, self._timing.other.size)

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return self._search is None

    def over(
        self, total: int, work: Work[Done], *, search: bool = True, ready: Callable[[Any], object] = to_numpy
    ) -> Iterator[tuple[Done, int]]:
        """As of any batching; the results of spans that are timed have been waited for."""
        _reserved = reserve()
        start, told = 0, False
        while start < total:
            began = time.perf_counter()
            tried = self._next_run(total - start) if search else None
            way = self._best if tried is None else tried
            span = self.span(start, total, self._shared_out(total) if tried is None else way.size)
            try:
                with self._adapter.memory_format(way.memory_format):
                    result = work(span)
            except self._adapter.memory_errors as error:
                told = self._give_up(way, span, error, told)
                continue
            if tried is not None:
                ready(result)
                self._tell(tried, time.perf_counter() - began)
            self._worked += time.perf_counter() - began
            yield result, span.count
            start += span.count

    def _next_run(self, left: int) -> Setting | None:
        """The way to time now; None where there is nothing to find out, or not enough work for it."""
        if self._search is None:
            return None
        way = self._timing.next
        return way if left >= way.size and self._is_worth_trying(left) else None

    def _is_worth_trying(self, left: int) -> bool:
        """Whether compiling for one more size takes little of the time that the work takes."""
        if not self._fixed or not self._timing.is_new:
            return True
        expected = self._worked + (left + self.coming) * self._timing.seconds_an_image(self._best)
        # What was spent on others than the first one, and as much as that one took for the next.
        return self._prepared + self._timing.prepared <= SHARE * expected

    def _tell(self, way: Setting, seconds: float) -> None:
        """One run of a way took so long."""
        self._timing.tell(way, seconds)
        if self._timing.faster is not None:
            self._judge(self._timing.faster)

    def _judge(self, faster: bool) -> None:
        """The way that was tried is faster, or it is not: go on to the next one."""
        assert self._search is not None
        best, other = self._timing.best, self._timing.other
        _log.debug("%s: %s is %s than %s", self._adapter.model_name, other, "faster" if faster else "no faster", best)
        self._best = other if faster else best
        self.size = self._best.size
        self._prepared += self._timing.prepared
        try:
            self._timing = PairedTiming(*self._search.send(faster))
        except StopIteration:
            _log.info("%s: %s is fastest", self._adapter.model_name, self._best)
            self._search = None

    def _give_up(self, way: Setting, span: Span, error: Exception, told: bool) -> bool:
        """There was no memory for this way: one that was tried has lost, the best one goes on with half.

        Returns:
            Whether the user has been told. A size that was only tried is no loss, and no news: the best one is kept.
        """
        if way.size > self._best.size and self._adapter.ran_out_of_memory(error):
            self._judge(faster=False)
            return told
        self._halve(span, error, told)
        self._search, self._best = None, Setting(way.memory_format, self.size)
        return True


def _search(best: Setting, memory_formats: Sequence[str], *, light: bool) -> Search:
    """Tries the other formats at that size, and then other sizes."""
    best = yield from _other_formats(best, memory_formats)
    return (yield from _other_sizes(best, (2, 4) if light else (2,)))


def _other_formats(best: Setting, memory_formats: Sequence[str]) -> Search:
    for memory_format in memory_formats:
        other = best._replace(memory_format=memory_format)
        if other != best and (yield best, other):
            best = other
    return best


def _other_sizes(best: Setting, larger: Sequence[int]) -> Search:
    """Larger ones by these factors as long as one of them is faster, or, if none ever was, smaller ones."""
    before = best
    while (found := (yield from _first_faster(best, larger))) != best:
        best = found
    while best.size <= before.size and (found := (yield from _first_faster(best, (0.5,)))) != best:
        best = found
    return best


def _first_faster(best: Setting, factors: Sequence[float]) -> Search:
    """The first of the sizes by these factors that is faster, or the best one so far."""
    for factor in factors:
        tried = int(best.size * factor)
        if 1 <= tried <= LARGEST and (yield best, best._replace(size=tried)):
            return best._replace(size=tried)
    return best


def make_batching(
    adapter: ModelAdapter,
    batch_size: BatchSize | Setting,
    execution: Execution | None = None,
    *,
    light: bool = False,
    beside: int = 1,
) -> ModelBatching:
    """The batching of a model for a batch size as users give it, or for the way that proved fastest before.

    Args:
        adapter: of the model.
        batch_size: as given.
        execution: how what runs the model likes to work, if it is not the adapter's framework.
        light: whether images are, as `is_light` tells.
        beside: so many spans are worked on at once.
    """
    likes = adapter.execution if execution is None else execution
    if isinstance(batch_size, Setting):
        size, memory_format = batch_size.size, batch_size.memory_format
        return ModelBatching(adapter, size, memory_format, execution=likes, light=light, beside=beside)
    if batch_size == "auto" and not likes.only:
        return AutoBatching(adapter, likes, light=light, beside=beside)
    size = likes.batch_size if batch_size == "auto" else batch_size
    return ModelBatching(adapter, size, execution=likes, light=light, beside=beside)
