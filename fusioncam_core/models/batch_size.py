"""How many images the model sees at once, and are done in halves where memory does not hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from fusioncam_core.arrays.namespaces import Array, to_numpy
from fusioncam_core.errors import InvalidValueError, MemoryWarning, warn

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import Execution, ModelAdapter

BatchSize = int | Literal["auto"]

LIGHT = 64 * 64
"""Values of an image that is so small that four times the memory of a batch of them is no matter."""

TOGETHER = 256
"""So many light images are at least brought and explained together: beside a short pass other steps count."""

BLOCK = (32 << 20) - (64 << 10)
"""Bytes: about the largest block, headers included, that glibc's malloc does not ask the system for every time."""

BLOCKS = 4
"""So many of them, 128 MB, stay with the process while a model works."""


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

    @property
    def settled(self) -> bool:
        """Whether the next span has this size, unless memory does not hold it."""
        return True

    def following(self, span: Span, total: int) -> Span | None:
        """The span that is done after that one; None of the last, and where another size may be tried by then."""
        start = span.start + span.count
        return self.span(start, total, self.size) if self.settled and start < total else None

    def first(self, total: int) -> Span | None:
        """The first span of so many; None where another size may be tried."""
        return self.span(0, total, self.size) if self.settled else None

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
        light: whether images take so little memory that many may be brought and explained together, whatever the size.
        beside: so many spans are worked on at once.

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
        light: bool = False,
        beside: int = 1,
    ):
        likes = adapter.execution if execution is None else execution
        super().__init__(size, fixed=likes.fixed_shapes)
        self._adapter = adapter
        self._light = light
        self._beside = beside
        self._memory_format = likes.memory_formats[0] if memory_format is None else memory_format
        self.coming = 0

    @property
    def way(self) -> Setting:
        """How images run."""
        return Setting(self._memory_format, self.size)

    @property
    def wanted(self) -> int:
        """As many as run at once, and of light images many."""
        return max(self.size, TOGETHER) if self._light else self.size

    def over(
        self, total: int, work: Work[Done], *, search: bool = True, ready: Callable[[Any], object] = to_numpy
    ) -> Iterator[tuple[Done, int]]:
        """As of any batching; a span for which there is no memory is done in halves."""
        _reserved = reserve()
        start, told = 0, False
        while start < total:
            span = self.span(start, total, self._shared_out(total))
            try:
                with self._adapter.memory_format(self._memory_format):
                    result = work(span)
            except self._adapter.memory_errors as error:
                self._halve(span, error, told)
                told = True
                continue
            yield result, span.count
            start += span.count

    def _shared_out(self, total: int) -> int:
        """The size, or a smaller one by which there is a span for each of those that are worked on at once."""
        share = -(-total // self._beside)
        return min(self.size, 1 << (share - 1).bit_length()) if self._beside > 1 else self.size

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


def require_batch_size(batch_size: BatchSize) -> BatchSize:
    """The batch size itself if it is "auto" or a positive whole number.

    Raises:
        ValueError: if it is neither.
    """
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size != "auto" and not (whole and batch_size >= 1):
        raise InvalidValueError(f"batch_size is a positive number of images or 'auto': got {batch_size!r}.")
    return batch_size


def is_light(images: Array) -> bool:
    """Whether each of these images (B, ...) takes little memory: one of 28 x 28 does, of 32 x 32 in colour as well."""
    return math.prod(int(length) for length in images.shape[1:]) <= LIGHT


def reserve() -> np.ndarray:
    """While what this returns is alive, memory that a model has freed is at hand for its next run.

    glibc gives large blocks back to the system when they are freed, and fetches them again page by page, until it has
    seen larger ones freed (mallopt(3), M_MMAP_THRESHOLD); and it gives back what is free at the end of the heap
    (M_TRIM_THRESHOLD). Activations are such blocks, and to fetch them takes more than a larger batch saves. So some are
    freed here below one that stays. None is written to, and other allocators lose nothing.
    """
    np.empty(BLOCK, np.uint8)
    blocks = [np.empty(BLOCK, np.uint8) for _ in range(BLOCKS + 1)]
    return max(blocks, key=lambda block: block.__array_interface__["data"][0])
