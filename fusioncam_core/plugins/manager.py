"""The plugin manager: finds the installed backends and asks them, in order, about models and arrays."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import pluggy

from fusioncam_core.arrays.namespaces import register_finder
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.fixed_batch import fixed_batch
from fusioncam_core.plugins import hookspecs

DISABLE_VARIABLE = "FUSIONCAM_DISABLE_PLUGINS"
"""Environment variable: names of plugins, separated by commas, that are not to be loaded."""


def disabled_plugins() -> list[str]:
    """The plugin names that the environment variable FUSIONCAM_DISABLE_PLUGINS holds."""
    return [name for name in (part.strip() for part in os.environ.get(DISABLE_VARIABLE, "").split(",")) if name]


@functools.cache
def plugin_manager() -> pluggy.PluginManager:
    """The one plugin manager, built on first use from the entry-point group `fusioncam`.

    Register a plugin of your own at run time with `plugin_manager().register(plugin, name="...")`.
    """
    from fusioncam_core.plugins import python_models

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in disabled_plugins():
        manager.set_blocked(name)
    manager.register(python_models, name="python")
    manager.load_setuptools_entrypoints(hookspecs.PROJECT)
    manager.check_pending()
    return manager


def ask_for_namespace(array: Any) -> Any | None:
    """The namespace a plugin offers for the array, or None."""
    return plugin_manager().hook.fusioncam_array_namespace(array=array)


register_finder(ask_for_namespace)


def ask_for_methods() -> list[Any]:
    """The methods that plugins offer."""
    return _offered(plugin_manager().hook.fusioncam_methods())


def ask_for_metrics() -> list[Any]:
    """The metrics that plugins offer."""
    return _offered(plugin_manager().hook.fusioncam_metrics())


def _offered(answers: list[Any]) -> list[Any]:
    """The classes in all answers: each is a list of them, or one class."""
    return [each for answer in answers for each in ([answer] if isinstance(answer, type) else answer)]


def adapt_model(model: Any, backend_options: Mapping[str, Any] | None = None) -> ModelAdapter:
    """The adapter of the first plugin that knows the model.

    Args:
        model: a model of any framework with a plugin, or an adapter (returned as it is).
        backend_options: what only the backend understands, such as `{"channels": "last"}`.

    Raises:
        TypeError: if no plugin adapts the model, or an option is unknown.
        ValueError: if an option is wrong.
    """
    if backend_options is not None and not isinstance(backend_options, Mapping):
        raise InvalidTypeError(
            f"backend_options is a mapping such as {{'channels': 'last'}}: got {backend_options!r}. Layers are given "
            "to explainers, and to the methods of the adapter."
        )
    options = {} if backend_options is None else dict(backend_options)
    if isinstance(model, ModelAdapter):
        if options:
            raise InvalidTypeError(f"An adapter already has its options: leave {', '.join(options)} out.")
        return model
    adapter: ModelAdapter | None = plugin_manager().hook.fusioncam_adapt_model(model=model, options=options)
    if adapter is None:
        raise InvalidTypeError(_nobody_adapts(model))
    return adapter if adapter.declared_batch is None else fixed_batch(adapter, adapter.declared_batch)


def _nobody_adapts(model: object) -> str:
    manager = plugin_manager()
    asked = [
        name for name, plugin in manager.list_name_plugin() if hasattr(plugin, "fusioncam_adapt_model")
    ]  # a blocked plugin is listed too, as None
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    known = "".join(f"\n  - {text}" for text in reversed(manager.hook.fusioncam_describe_models()))
    disabled = disabled_plugins()
    return (
        f"No plugin adapts a model of type {kind}. Plugins asked: {', '.join(asked) or 'none'}"
        + (f"; disabled by {DISABLE_VARIABLE}: {', '.join(disabled)}" if disabled else "")
        + f". What they read:{known or ' nothing'}{_held_by(model)}"
    )


def _held_by(model: object) -> str:
    """Which attribute of an object holds a model, as trainers and pipelines do; "" if none is known to."""
    hook = plugin_manager().hook
    for name in ("model", "module"):
        inner = getattr(model, name, None)
        if inner is not None and hook.fusioncam_adapt_model(model=inner, options={}) is not None:
            kind = f"{type(inner).__module__}.{type(inner).__qualname__}"
            return f"\nThe .{name} of this {type(model).__qualname__} is a {kind}, which can be read: give that."
    return ""
