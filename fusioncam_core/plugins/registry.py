"""Classes by the names they are asked for by: ours, plugins', and those that a user has defined meanwhile."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from fusioncam_core.errors import InvalidTypeError, InvalidValueError

Kind = TypeVar("Kind", bound=type[Any])

OWN_PACKAGE = __name__.partition(".")[0]


class Registry(Mapping[str, Kind], Generic[Kind]):
    """A mapping from names to classes. Looking a name up asks the plugins first.

    Args:
        what: the classes are called in messages, such as "metric".
        ask_plugins: gives the classes that plugins offer.
    """

    def __init__(self, what: str, ask_plugins: Callable[[], list[Any]]):
        self._what = what
        self._ask_plugins = ask_plugins
        self._classes: dict[str, Kind] = {}

    def register(self, kind: Kind) -> None:
        """Let a class be asked for by its `name`. One that is defined anew takes the place of the one of its name.

        Raises:
            InvalidValueError: if the name is that of one of fusioncam's own.
        """
        before = self._classes.get(kind.name)
        if before is not None and _is_own(before) and not _is_own(kind):
            raise InvalidValueError(
                f"{kind.__name__} is called {kind.name!r}, as fusioncam's own {before.__name__}: give it another name."
            )
        self._classes[kind.name] = kind

    def _with_plugins(self) -> dict[str, Kind]:
        for each in self._ask_plugins():
            if not (isinstance(each, type) and hasattr(each, "name")):
                raise InvalidTypeError(f"A plugin offers a {self._what}: expected a class with a name, got {each!r}.")
            self._classes.setdefault(each.name, each)  # type: ignore[arg-type]
        return self._classes

    def __getitem__(self, name: str) -> Kind:
        return self._with_plugins()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._with_plugins()))

    def __len__(self) -> int:
        return len(self._with_plugins())

    def find(self, name: Any, role: str, known: Mapping[str, Kind] | None = None) -> Kind:
        """The class of that name, among those known (None: among all).

        Args:
            name: what was asked for.
            role: what it was asked for as, as the start of a sentence.
            known: some of the classes.

        Raises:
            InvalidTypeError: if the name is no text.
            InvalidValueError: if there is none; it names those there are.
        """
        known = self if known is None else known
        names = ", ".join(map(repr, known))
        if not isinstance(name, str):
            kind = type(name).__qualname__
            raise InvalidTypeError(f"{role} is a name or a {self._what} itself: got a {kind}. The names are {names}.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(f"{role} is one of {names}: got {name!r}.{hint}")
        return known[name]


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == OWN_PACKAGE
