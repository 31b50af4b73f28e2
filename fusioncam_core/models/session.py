"""One model is used by one thread of ours at a time, and is afterwards as it was before.

Whatever a backend changes of a model (modes, hooks, attributes, weights) it registers for putting back before it
changes it. The session puts all of it back at its end, also after an exception or an interrupt at any line of ours, in
the middle of putting back included. So each step back must be one that can be taken twice.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

Undo = Callable[[], object]
"""Puts something back as it was; may be called again when it was interrupted, or had nothing to do."""

REMEMBERED = 64
"""Of so many models of one session it is known what they were told."""

P = ParamSpec("P")
R = TypeVar("R")


class ModelSession:
    """What all adapters of one model share: which thread works with it now, and what is to be put back.

    Attributes:
        shared: what one of them has put there for the others, such as other weights of a model that cannot be written
            to; emptied by what was registered for it.
        measured: what was found out about the model, which holds as long as it lives.
        converted: its programs that were converted for engines.
        changes: how often the model was told something else than before.
        exporting: whether the model is run now to be written down for an engine: its arrays have no lengths then.
    """

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self.measured: dict[Any, Any] = {}
        self.converted: dict[Any, Any] = {}
        self.changes = 0
        self.exporting = False
        self._told: dict[Any, Any] = {}
        self._forgot = False
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._undo: list[Undo] = []

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread is in the session."""
        return self._owner == threading.get_ident()

    def opened(self, begin: Undo) -> Opened:
        """A context in which the calling thread has the model to itself; others wait. It may be entered inside itself.

        Args:
            begin: puts the model into inference; called when the outermost context is entered.
        """
        return Opened(self, begin)

    def hear(self, told: Any, of: Any = None) -> None:
        """What the model is told now, beside its weights: if that is new, nothing holds that was found out before.

        Args:
            told: to be compared with what it was told last.
            of: which of the models it is, where several share their arrays, and by these a session.
        """
        if self._told[of] != told if of in self._told else self._forgot:
            self.changes += 1
            self.measured.clear()
            self.converted.clear()
        self.note(told, of)

    def note(self, told: Any, of: Any) -> None:
        """Compare with this the next time."""
        self._told.pop(of, None)
        while len(self._told) >= REMEMBERED:
            del self._told[next(iter(self._told))]
            self._forgot = True
        self._told[of] = told

    def touch(self, undo: Undo) -> None:
        """Register a step back for the session's end, before what it undoes is done."""
        self._undo.append(undo)

    @contextlib.contextmanager
    def touching(self, undo: Undo) -> Iterator[None]:
        """The same for a part of the session: the step is taken when the context ends, or with the session."""
        mark = len(self._undo)
        self._undo.append(undo)
        try:
            yield
        finally:
            self._put_back(mark)

    def _put_back(self, mark: int = 0) -> None:
        while len(self._undo) > mark:
            self._undo[-1]()
            self._undo.pop()

    def _put_back_or_drop(self) -> None:
        """Every step that is left, whatever one of them raises; the first error is raised in the end."""
        errors: list[BaseException] = []
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:  # noqa: BLE001 - raised below, when the others are back
                errors.append(error)
        if errors:
            raise errors[0]


class Opened(contextlib.ExitStack, contextlib.ContextDecorator):
    """One stay in a session. As a decorator (`opened(function)(...)`) it is left from code that is not ours, so that an
    exception between two of our lines cannot come between the function's end and the way out.
    """

    def __init__(self, session: ModelSession, begin: Undo):
        super().__init__()
        self._session = session
        self._begin = begin
        self._outermost = not session.is_mine
        self.callback(self._finish)
        self.callback(self._end)  # goes first; what an interrupt leaves of it the other one does

    def __enter__(self) -> Opened:
        if not self._outermost:
            return self
        try:
            self._session._lock.acquire()
            self._session._owner = threading.get_ident()
            self._begin()
            return self
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if not self._outermost:
            return
        if self._session.is_mine:
            self._session._put_back()
            self._session._owner = None
        self._release()

    def _finish(self) -> None:
        if not self._outermost:
            return
        try:
            if self._session.is_mine:
                self._session._put_back_or_drop()
        finally:
            if self._session.is_mine:
                self._session._owner = None
            self._release()

    def _release(self) -> None:
        with contextlib.suppress(RuntimeError):  # which a lock raises that is not the thread's, or no longer
            self._session._lock.release()


class Within(contextlib.ExitStack, contextlib.ContextDecorator):
    """A decorator by which a function is called inside of contexts, and they are left from code that is not ours."""

    def __init__(self, *contexts: contextlib.AbstractContextManager[Any]):
        super().__init__()
        self._contexts = contexts

    def __enter__(self) -> Within:
        for context in self._contexts:
            self.enter_context(context)
        return self


_sessions: dict[int, tuple[weakref.ref[Any], ModelSession]] = {}


def session_of(model: Any) -> ModelSession:
    """The session of a model, found from the object, which is not kept alive by it.

    An object that cannot be referenced weakly has a new one each time: its adapters do not know of each other.
    """
    key = id(model)
    found = _sessions.get(key)
    if found is not None and found[0]() is model:
        return found[1]
    try:
        reference = weakref.ref(model, lambda _: _sessions.pop(key, None))
    except TypeError:
        return ModelSession()
    fresh = (reference, ModelSession())
    kept = _sessions.setdefault(key, fresh)  # of two threads the first one's
    if kept[0]() is not model:
        _sessions[key] = kept = fresh
    return kept[1]


class HasSession(Protocol):
    """Anything with a session to open."""

    def session(self) -> Opened:
        """A context in which the calling thread has the model to itself."""


Self = TypeVar("Self", bound=HasSession)


def in_session(method: Callable[Concatenate[Self, P], R]) -> Callable[Concatenate[Self, P], R]:
    """The method, run inside the session of what it is a method of."""

    @functools.wraps(method)
    def within(self: Self, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return self.session()(method)(self, *arguments, **keywords)

    return within
