"""Classes by the names they are asked for by: ours, plugins', and those that a user has defined meanwhile."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from fusioncam_core.errors import FusionCamError, InvalidTypeError, InvalidValueError, PluginWarning, warn
from fusioncam_core.plugins.manager import plugin_manager

Kind = TypeVar("Kind", bound=type[Any])

OWN_PACKAGE = __name__.partition(".")[0]


class Registry(Mapping[str, Kind], Generic[Kind]):
    """A mapping from names to classes. Looking a name up asks the plugins first.

    Args:
        what: the classes are called in messages, such as "metric".
        declared: what a class has to declare besides `name` and `title`: the attribute, and the words it may be.
        ask_plugins: gives the classes that plugins offer, each with its plugin's name.
        base: the full name of the class that all derive from. Only plugins' are held to it: the others put themselves
            in by deriving from it.
    """

    def __init__(
        self,
        what: str,
        declared: tuple[str, tuple[str, ...]],
        ask_plugins: Callable[[], list[tuple[str, Any]]],
        base: str,
    ):
        self._what = what
        self._base = base
        self._declared = declared
        self._ask_plugins = ask_plugins
        self._classes: dict[str, Kind] = {}
        self._asking = False
        self._refused: set[tuple[str, str]] = set()

    def register(self, kind: Kind) -> None:
        """Let a class be asked for by its `name`. One that a user defines anew takes the place of the one of its name.

        Raises:
            InvalidTypeError: if the class does not declare what it has to.
            InvalidValueError: if the name is that of one of fusioncam's own.
        """
        self._check(kind)
        before = self._classes.get(kind.name)
        if before is not None and _is_own(before) and not _is_own(kind):
            raise InvalidValueError(
                f"{kind.__name__} is called {kind.name!r}, as fusioncam's own {before.__name__}: give it another name."
            )
        if before is not None and before is not kind and self._asking:
            self._refuse(kind, before)
            return
        self._classes[kind.name] = kind

    def _check(self, kind: Any) -> None:
        attribute, words = self._declared
        for needed in ("name", "title"):
            if not isinstance(getattr(kind, needed, None), str) or not getattr(kind, needed):
                raise InvalidTypeError(
                    f"The {self._what} {kind.__name__} must declare {needed}, a text: got "
                    f"{getattr(kind, needed, None)!r}."
                )
        if getattr(kind, attribute, None) not in words:
            raise InvalidTypeError(
                f"The {self._what} {kind.__name__} must declare {attribute}, one of {', '.join(map(repr, words))}: got "
                f"{getattr(kind, attribute, None)!r}."
            )

    def _with_plugins(self) -> dict[str, Kind]:
        self._asking = True
        try:
            for plugin, each in self._ask_plugins():
                self._take(plugin, each)
        finally:
            self._asking = False
        return self._classes

    def _take(self, plugin: str, kind: Any) -> None:
        """Register what a plugin offers, or leave it out."""
        try:
            name = self._checked_name(kind)
            if name not in self._classes:
                self.register(kind)
            elif not _same(self._classes[name], kind):
                self._refuse(kind, self._classes[name])
        except FusionCamError as error:
            plugin_manager().leave_out(plugin, str(error))

    def _checked_name(self, kind: Any) -> str:
        if not isinstance(kind, type) or not isinstance(getattr(kind, "name", None), str):
            raise InvalidTypeError(f"it offers a {self._what}: expected a class with a name, got {kind!r}")
        if self._base not in {f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__}:
            raise InvalidTypeError(f"it offers a {self._what}: expected a subclass of {self._base}, got {kind!r}")
        name: str = kind.name  # type: ignore[attr-defined]
        return name

    def _refuse(self, kind: type[Any], before: type[Any]) -> None:
        """Say once that a plugin's class is not taken, as its name is."""
        if (kind.__module__, kind.__qualname__) in self._refused:
            return
        self._refused.add((kind.__module__, kind.__qualname__))
        warn(
            f"A plugin's {kind.__module__}.{kind.__qualname__} is called {before.name!r}, as is "
            f"{before.__module__}.{before.__qualname__}, which was there before and stays.",
            PluginWarning,
        )

    def __getitem__(self, name: str) -> Kind:
        return self._with_plugins()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._with_plugins()))

    def __len__(self) -> int:
        return len(self._with_plugins())

    def find(self, name: Any, role: str, known: Iterable[str] | None = None) -> Kind:
        """The class of that name, among those known (None: among all).

        Args:
            name: what was asked for.
            role: what it was asked for as, as the start of a sentence.
            known: the names of some of the classes.

        Raises:
            InvalidTypeError: if the name is no text, or the class of that name is not finished.
            InvalidValueError: if there is none; it names those there are.
        """
        classes = self._with_plugins()
        names = list(classes if known is None else known)
        listed = ", ".join(map(repr, names))
        if not isinstance(name, str):
            kind = f"the class {name.__qualname__}" if isinstance(name, type) else type(name).__qualname__
            raise InvalidTypeError(
                f"{role} is given by name, or as a {self._what} itself: got {kind}. The names are {listed}."
            )
        if name not in names:
            raise InvalidValueError(f"{role} is one of {listed}: got {name!r}{self._hint(name, names)}")
        if inspect.isabstract(classes[name]):
            missing = ", ".join(sorted(classes[name].__abstractmethods__))
            raise InvalidTypeError(f"The {self._what} {classes[name].__name__} is not finished: it has no {missing}.")
        return classes[name]

    def _hint(self, name: str, names: list[str]) -> str:
        """What else the name is, or what it may have been meant for."""
        if name in self._classes:
            attribute, _ = self._declared
            return f", whose {attribute} is {getattr(self._classes[name], attribute)!r}."
        near = difflib.get_close_matches(name, names, n=1)
        return f". Did you mean {near[0]!r}?" if near else "."


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == OWN_PACKAGE


def _same(first: type, second: type) -> bool:
    """Whether both are one class, which may have been defined anew, as where its module is loaded again."""
    return (first.__module__, first.__qualname__) == (second.__module__, second.__qualname__)
