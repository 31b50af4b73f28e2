"""How many images the model sees at once: a number that was given, or the one that proves fastest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.errors import InvalidValueError, MemoryWarning, warn

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import Execution, ModelAdapter

BatchSize = int | Literal["auto"]

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

BLOCK = (32 << 20) - (64 << 10)
"""Bytes: about the largest block, headers included, that glibc's malloc does not ask the system for every time."""

BLOCKS = 4
"""So many of them, 128 MB, stay with the process while a model works."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """Neighbours in a row of things to do.

    Attributes:
        start: the place of the first.
        count: how many there are.
        length: how many they are with padding.
    """

    start: int
    count: int
    length: int

    def of(self, padded: Array) -> Array:
        """Their part of an array that `Batching.padded` gave."""
        return padded[self.start : self.start + self.length, ...]


Done = TypeVar("Done")
"""What comes of a span."""

Work = Callable[[Span], Done]
"""Does what a span names."""


class Batching:
    """So many at once as was said.

    Args:
        size: the most at once.
        fixed: whether to fill up the last span, so that a compiler sees few shapes.
    """

    def __init__(self, size: int, *, fixed: bool = False):
        self.size = size
        self._fixed = fixed

    @property
    def largest(self) -> int:
        """No span is longer, however the size may change."""
        return self.size

    def padded(self, indices: np.ndarray) -> np.ndarray:
        """The indices (n,) with enough repeated behind them to fill up any span.

        Where shapes are fixed, their number becomes a power of two: few lengths to cut spans out of.
        """
        least = len(indices) + self.largest
        return np.resize(indices, 1 << (least - 1).bit_length()) if self._fixed else indices

    @property
    def wanted(self) -> int:
        """As many together as work goes best with: whoever brings things in pieces brings so many."""
        return self.size

    def over(
        self, total: int, work: Work[Done], *, search: bool = True, ready: Callable[[Any], object] = to_numpy
    ) -> Iterator[tuple[Done, int]]:
        """Do everything from 0 to `total`: the results of the spans in turn, and how many of each are no padding.

        Args:
            total: how many things there are to do.
            work: does a span of them.
            search: whether a faster size may be looked for meanwhile.
            ready: waits for the result of a span that is timed.
        """
        start = 0
        while start < total:
            span = self.span(start, total, self.size)
            yield work(span), span.count
            start += span.count

    def span(self, start: int, total: int, size: int) -> Span:
        """At most `size` things from `start` on.

        A fixed one has `size`, or, if it holds all there is, the next power of two: a single mask does not cost a
        whole chunk.
        """
        count = min(size, total - start)
        if not self._fixed:
            return Span(start, count, count)
        return Span(start, count, size if total > size else min(size, 1 << (total - 1).bit_length()))


class ModelBatching(Batching):
    """So many images at once as was said, or half of it, and again half, where a device's memory does not hold them.

    What did not fit is not tried again: the size stays for the next piece of work.

    Args:
        adapter: of the model that works.
        size: the most images at once.
        memory_format: in which they run; None for the one they have.
        execution: as for `make_batching`.

    Attributes:
        coming: how many images are to come besides those that are known of, for which a compilation may pay.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        size: int,
        memory_format: str | None = None,
        *,
        execution: Execution | None = None,
    ):
        likes = adapter.execution if execution is None else execution
        super().__init__(size, fixed=likes.fixed_shapes)
        self._adapter = adapter
        self._memory_format = likes.memory_formats[0] if memory_format is None else memory_format
        self.coming = 0

    @property
    def way(self) -> Setting:
        """How images run."""
        return Setting(self._memory_format, self.size)

    def over(
        self, total: int, work: Work[Done], *, search: bool = True, ready: Callable[[Any], object] = to_numpy
    ) -> Iterator[tuple[Done, int]]:
        """As of any batching; a span for which there is no memory is done in halves."""
        _reserved = _reserve()
        start, told = 0, False
        while start < total:
            span = self.span(start, total, self.size)
            try:
                with self._adapter.memory_format(self._memory_format):
                    result = work(span)
            except self._adapter.memory_errors as error:
                self._halve(span, error, told)
                told = True
                continue
            yield result, span.count
            start += span.count

    def _halve(self, span: Span, error: Exception, told: bool) -> None:
        """Go on with half of a span that did not fit, and say so, once for a piece of work.

        Raises:
            Exception: the error itself, if it is another one or there is nothing left to halve.
        """
        if not self._adapter.ran_out_of_memory(error):
            raise error
        if span.length == 1:
            error.add_note(f"The device's memory does not hold a single image of this size in {self._name}.")
            raise error
        # Half of the span, not of the size: of a larger one it would be as long again.
        self.size = span.length // 2
        if not told:
            warn(
                f"The device's memory does not hold {span.length} images at once in {self._name}: going on with "
                f"{self.size}, or fewer if need be. Say batch_size= to start there.",
                MemoryWarning,
            )

    @property
    def _name(self) -> str:
        return self._adapter.model_name


class Setting(NamedTuple):
    """How images are run: so many at once, and how their values lie in memory."""

    memory_format: str
    size: int


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
    """

    def __init__(self, adapter: ModelAdapter, execution: Execution | None = None):
        likes = adapter.execution if execution is None else execution
        super().__init__(adapter, likes.batch_size, execution=likes)
        self._best = Setting(likes.memory_formats[0], likes.batch_size)
        self._search: Search | None = _search(self._best, likes.memory_formats)
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
        """Enough for a run of each of the two ways that are compared."""
        return self.size if self._search is None else max(self._timing.best.size, self._timing.other.size)

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return self._search is None

    def over(
        self, total: int, work: Work[Done], *, search: bool = True, ready: Callable[[Any], object] = to_numpy
    ) -> Iterator[tuple[Done, int]]:
        """As of any batching; the results of spans that are timed have been waited for."""
        _reserved = _reserve()
        start, told = 0, False
        while start < total:
            began = time.perf_counter()
            tried = self._next_run(total - start) if search else None
            way = self._best if tried is None else tried
            span = self.span(start, total, way.size)
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


def _search(best: Setting, memory_formats: Sequence[str]) -> Search:
    """Tries the other formats at that size, and then other sizes."""
    best = yield from _other_formats(best, memory_formats)
    return (yield from _other_sizes(best))


def _other_formats(best: Setting, memory_formats: Sequence[str]) -> Search:
    for memory_format in memory_formats:
        other = best._replace(memory_format=memory_format)
        if other != best and (yield best, other):
            best = other
    return best


def _other_sizes(best: Setting) -> Search:
    """Larger ones as long as they are faster, or else smaller ones."""
    for factor in (2, 0.5):
        before = best
        while 1 <= (tried := int(best.size * factor)) <= LARGEST:
            other = best._replace(size=tried)
            if not (yield best, other):
                break
            best = other
        if best != before:
            break
    return best


def require_batch_size(batch_size: BatchSize) -> BatchSize:
    """The batch size itself if it is "auto" or a positive whole number.

    Raises:
        ValueError: if it is neither.
    """
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size != "auto" and not (whole and batch_size >= 1):
        raise InvalidValueError(f"batch_size is a positive number of images or 'auto': got {batch_size!r}.")
    return batch_size


def make_batching(
    adapter: ModelAdapter, batch_size: BatchSize | Setting, execution: Execution | None = None
) -> ModelBatching:
    """The batching of a model for a batch size as users give it, or for the way that proved fastest before.

    Args:
        adapter: of the model.
        batch_size: as given.
        execution: how what runs the model likes to work, if it is not the adapter's framework.
    """
    likes = adapter.execution if execution is None else execution
    if isinstance(batch_size, Setting):
        return ModelBatching(adapter, batch_size.size, batch_size.memory_format, execution=likes)
    if batch_size == "auto" and likes.only:
        return ModelBatching(adapter, likes.batch_size, execution=likes)
    if batch_size == "auto":
        return AutoBatching(adapter, likes)
    return ModelBatching(adapter, batch_size, execution=likes)


def _reserve() -> np.ndarray:
    """While what this returns is alive, memory that a model has freed is at hand for its next run.

    glibc gives large blocks back to the system when they are freed, and fetches them again page by page, until it has
    seen larger ones freed (mallopt(3), M_MMAP_THRESHOLD); and it gives back what is free at the end of the heap
    (M_TRIM_THRESHOLD). Activations are such blocks, and to fetch them takes more than a larger batch saves. So some are
    freed here below one that stays. None is written to, and other allocators lose nothing.
    """
    np.empty(BLOCK, np.uint8)
    blocks = [np.empty(BLOCK, np.uint8) for _ in range(BLOCKS + 1)]
    return max(blocks, key=lambda block: block.__array_interface__["data"][0])
