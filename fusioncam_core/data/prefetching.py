"""Items that are made in another thread while the ones before them are used."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

PATIENCE = 0.5
"""Seconds for which an iterator that is closed waits for the item that is being made."""

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """The items, `ahead` of which are made in another thread while the one before them is used.

    The thread ends with the items, or when this iterator is closed. Where the items keep it waiting then, such as those
    of a network, it is left behind, and ends when the next one comes; it does not keep the process alive.
    """
    with contextlib.closing(with_next(items, ahead)) as pairs:
        for item, _ in pairs:
            yield item


Next = Callable[[], Item | None]
"""The next item, if it is made by now: nobody waits for it. It still comes in its turn."""


def with_next(items: Iterable[Item], ahead: int) -> Generator[tuple[Item, Next[Item]], None, None]:
    """The same, each with a look at the item behind it."""
    if not ahead:
        yield from ((item, _nothing) for item in items)
        return
    reader = _Reader(items, ahead)
    reader.start()
    try:
        while (found := reader.take()) is not None:
            yield found[0], reader.next_made
    finally:
        reader.close()


def _nothing() -> None:
    """Nothing is made ahead."""


class _Reader(threading.Thread):
    """Makes items in a thread of its own, a number of them ahead.

    Args:
        items: made one after the other.
        ahead: how many wait at most.
    """

    def __init__(self, items: Iterable[Any], ahead: int):
        super().__init__(name="fusioncam reader", daemon=True)
        self._items = items
        self._free = threading.Semaphore(ahead)
        self._made: queue.SimpleQueue[tuple[tuple[Any, ...] | None, BaseException | None]] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._looked_at: tuple[tuple[Any, ...] | None, BaseException | None] | None = None

    def run(self) -> None:
        """Put the items into the queue, then None, or the error that ended them."""
        try:
            iterator = iter(self._items)
            while self._goes_on():
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                self._made.put(((item,), None))
                del item  # images are large: the queue's alone
            self._made.put((None, None))
        except BaseException as error:  # noqa: BLE001 - a source may raise anything; it is raised where the items are used
            self._made.put((None, error))

    def _goes_on(self) -> bool:
        """Wait until one more item is wanted; False if none ever is."""
        self._free.acquire()
        return not self._closed.is_set()

    def take(self) -> tuple[Any, ...] | None:
        """The next item alone in a tuple, or None after the last."""
        made, self._looked_at = self._looked_at, None
        item, error = self._made.get() if made is None else made
        if error is not None:
            raise error
        self._free.release()
        return item

    def next_made(self) -> Any:
        """The item that `take` gives next, if it is there."""
        if self._looked_at is None and not self._made.empty():
            self._looked_at = self._made.get()
        item = None if self._looked_at is None else self._looked_at[0]
        return None if item is None else item[0]

    def close(self) -> None:
        """Want no more items; wait for the one that is being made, but not for long."""
        self._closed.set()
        self._free.release()
        self.join(PATIENCE)
