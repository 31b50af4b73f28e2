"""The plugin manager that no plugin can take down: what does not work is left out, and said once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pluggy

from fusioncam_core.errors import FusionCamError, InvalidTypeError, InvalidValueError, PluginWarning, warn
from fusioncam_core.plugins import hookspecs
from fusioncam_core.plugins.foreign import described

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

DISABLE_VARIABLE = "FUSIONCAM_DISABLE_PLUGINS"
"""Environment variable: names of plugins, separated by commas, that are not to be loaded."""

OWN_ANSWERS = (FusionCamError,)
"""What a plugin raises about a model or a spec of its own."""

Check = Callable[[Any], str | None]
"""What is wrong with an answer to a hook, as in "expected a str, got an int"; None if nothing is."""


class GuardedManager(pluggy.PluginManager):
    """Knows the plugins, and asks each for itself.

    Attributes:
        problems: what is wrong with a plugin, by its name: "ImportError: no module named 'frame'".
        namespaces: by class of arrays, of those that the plugins registered now were asked about.
    """

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.problems: dict[str, str] = {}
        self.namespaces: weakref.WeakKeyDictionary[type, Any] = weakref.WeakKeyDictionary()
        self._origins: dict[str, str] = {}

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """As pluggy's; what others answered about arrays is asked anew."""
        self.namespaces.clear()
        return super().register(plugin, name)

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any | None:
        """As pluggy's; what it answered about arrays is forgotten."""
        self.namespaces.clear()
        return super().unregister(plugin, name)

    def load_installed(self) -> None:
        """Register what the entry points of all installed distributions name; warn of what cannot be had."""
        from importlib.metadata import distributions  # a tenth of the time that importing this package takes

        for distribution in distributions():
            for entry_point in _entry_points(distribution):
                self._load(entry_point, _name_of(distribution))

    def _load(self, entry_point: EntryPoint, distribution: str) -> None:
        name = entry_point.name
        if self.is_blocked(name) or self._origins.get(name) == distribution:  # found twice on Python's path
            return
        try:
            if self.has_plugin(name):
                raise InvalidValueError(f"the distribution {self._origins.get(name)!r} has a plugin of this name")
            plugin = entry_point.load()
            _check(plugin, name)
            self.register(plugin, name=name)
            self._origins[name] = distribution
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may do anything while it is imported
            self.leave_out(name, described(error), f"of the distribution {distribution!r} ({entry_point.value}) ")

    def leave_out(self, name: str, problem: str, whence: str | None = None) -> None:
        """Warn that a plugin is left out, once for each, and keep what was wrong with it.

        Args:
            name: of the plugin, as FUSIONCAM_DISABLE_PLUGINS takes it.
            problem: with it, such as an error's type and message.
            whence: it is, followed by a space; None looks up where it was loaded from.
        """
        known = name in self.problems
        self.problems[name] = problem.rstrip(".")
        if known:
            return
        if whence is None:
            whence = f"of the distribution {self._origins[name]!r} " if name in self._origins else ""
        warn(
            f"The plugin {name!r} {whence}is left out: {self.problems[name]}. Repair or remove it, or set "
            f"{DISABLE_VARIABLE}={name} to do without it.",
            PluginWarning,
        )

    def answers(
        self, hook: str, check: Check, own: tuple[type[Exception], ...] = (), **arguments: Any
    ) -> Iterator[tuple[str, Any]]:
        """The answers to a hook, each with its plugin's name, in pluggy's order; None is no answer.

        A plugin that raises, or answers with something else than the hook asks for, is left out.

        Args:
            hook: its name.
            check: says what is wrong with an answer.
            own: errors that are an answer about what was asked, and reach the caller.
            **arguments: of the hook.
        """
        for each in reversed(getattr(self.hook, hook).get_hookimpls()):
            try:
                answer = _ask(each, arguments)
                problem = _WRAPS if _wraps(each) else None if answer is None else check(answer)
            except own:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the others are asked, whatever one does
                answer, problem = None, described(error)
            if problem is not None:
                self.leave_out(each.plugin_name, problem)
            elif answer is not None:
                yield each.plugin_name, answer


_WRAPS = "it wraps a hook, which would change what other plugins answer: expected an answer of its own"


def _wraps(implementation: pluggy.HookImpl) -> bool:
    return implementation.wrapper or implementation.hookwrapper


def _ask(implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> Any:
    """One plugin's answer. Arguments that it has defaults for are optional to it, as they are to pluggy."""
    places = [arguments[name] for name in implementation.argnames]
    named = {name: arguments[name] for name in implementation.kwargnames if name in arguments}
    return implementation.function(*places, **named)


def _entry_points(distribution: Distribution) -> list[EntryPoint]:
    """Those of our group. Of other distributions nothing is parsed: what is wrong with them is not ours to say."""
    try:
        if f"[{hookspecs.PROJECT}]" not in (distribution.read_text("entry_points.txt") or ""):
            return []
    except (OSError, UnicodeDecodeError):
        return []
    return _parsed(distribution)


def _parsed(distribution: Distribution) -> list[EntryPoint]:
    try:
        return [each for each in distribution.entry_points if each.group == hookspecs.PROJECT]
    except Exception as error:  # noqa: BLE001 - one distribution's broken metadata is no reason to do without the others
        warn(
            f"The plugins of the distribution {_name_of(distribution)!r} are left out: its entry_points.txt cannot be "
            f"read: {described(error)}. Repair or remove the distribution: {DISABLE_VARIABLE} names single plugins.",
            PluginWarning,
        )
        return []


def _name_of(distribution: Distribution) -> str:
    try:
        return str(distribution.metadata["Name"])
    except Exception:  # noqa: BLE001 - only a name for a message is lost with broken metadata
        return "unknown"


def _check(plugin: Any, name: str) -> None:
    """Try a plugin in a manager of its own: what fails halfway in the real one would stay there in part.

    Raises:
        PluginValidationError: if a hook has arguments that there are not, or is none of ours.
        InvalidTypeError: if there is no hook in it.
    """
    trial = pluggy.PluginManager(hookspecs.PROJECT)
    trial.add_hookspecs(hookspecs)
    trial.register(plugin, name=name)
    trial.check_pending()
    hash(plugin)
    if not trial.get_hookcallers(plugin):
        raise InvalidTypeError(f"it has none of the hooks of fusioncam: got {type(plugin).__qualname__}")


def expect(kind: type, answer: Any) -> str | None:
    """What is wrong with an answer that should be of a kind, or None."""
    if isinstance(answer, kind):
        return None
    return f"expected a {kind.__name__}, got {type(answer).__module__}.{type(answer).__qualname__}"
