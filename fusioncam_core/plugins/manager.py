"""The plugin manager: finds the installed backends and asks them, in order, about models and arrays."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fusioncam_core.arrays.namespaces import WORDS, register_finder
from fusioncam_core.errors import InvalidTypeError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.fixed_batch import fixed_batch
from fusioncam_core.plugins.guarded import DISABLE_VARIABLE, OWN_ANSWERS, GuardedManager, expect


def disabled_plugins() -> list[str]:
    """The plugin names that the environment variable FUSIONCAM_DISABLE_PLUGINS holds."""
    return [name for name in (part.strip() for part in os.environ.get(DISABLE_VARIABLE, "").split(",")) if name]


@functools.cache
def plugin_manager() -> GuardedManager:
    """The one plugin manager, built on first use from the entry-point group `fusioncam`.

    Register a plugin of your own at run time with `plugin_manager().register(plugin, name="...")`.

    Examples:
        >>> from fusioncam_core import plugin_manager
        >>> "torch" in [name for name, _ in plugin_manager().list_name_plugin()]
        True
    """
    from fusioncam_core.plugins import python_models

    manager = GuardedManager()
    for name in disabled_plugins():
        manager.set_blocked(name)
    manager.register(python_models, name="python")
    manager.load_installed()
    return manager


def ask_for_namespace(array: Any) -> Any | None:
    """The namespace a plugin offers for the array, or None. Of each class of arrays plugins are asked once."""
    manager = plugin_manager()
    known = manager.namespaces.get(type(array))
    if known is not None:
        return known
    asked = manager.answers("fusioncam_array_namespace", _check_namespace, array=array)
    found = next((namespace for _, namespace in asked), None)
    if found is not None:
        manager.namespaces[type(array)] = found
    return found


register_finder(ask_for_namespace)

_whole_namespaces: list[Any] = []
"""Those that were found to have every word, which is looked at once."""


def _check_namespace(namespace: Any) -> str | None:
    if any(namespace is each for each in _whole_namespaces):
        return None
    missing = sorted(word for word in WORDS if not _has(namespace, word))
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return f"expected a namespace, got {type(namespace).__qualname__} without {listed}"
    _whole_namespaces.append(namespace)
    return None


def _has(namespace: Any, word: str) -> bool:
    """Whether a namespace has a word such as "linalg.svd"."""
    try:
        operator.attrgetter(word)(namespace)
    except AttributeError:
        return False
    return True


def ask_for_methods() -> list[tuple[str, Any]]:
    """The methods that plugins offer, each with the plugin's name."""
    return _offered("fusioncam_methods")


def ask_for_metrics() -> list[tuple[str, Any]]:
    """The metrics that plugins offer, each with the plugin's name."""
    return _offered("fusioncam_metrics")


def _offered(hook: str) -> list[tuple[str, Any]]:
    """The classes in all answers: each is a list of them, or one class."""
    answers = plugin_manager().answers(hook, _check_classes)
    return [(name, each) for name, answer in answers for each in ([answer] if isinstance(answer, type) else answer)]


def _check_classes(answer: Any) -> str | None:
    if isinstance(answer, type | list | tuple):
        return None
    return f"expected a list of classes, got {type(answer).__qualname__}"


def adapt_model(model: Any, backend_options: Mapping[str, Any] | None = None) -> ModelAdapter:
    """The adapter of the first plugin that knows the model.

    Args:
        model: a model of any framework with a plugin, or an adapter (returned as it is).
        backend_options: what only the backend understands, such as `{"channels": "last"}`.

    Raises:
        TypeError: if no plugin adapts the model, or an option is unknown.
        ValueError: if an option is wrong.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM, adapt_model
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> adapter = adapt_model(model)
        >>> adapter.model_name, adapter.find("0")
        ('Sequential', '0')
        >>> GradCAM(adapter, "0")(strip, 0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
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
    adapter = _ask_for_adapter(model, options)
    if adapter is None:
        raise InvalidTypeError(_nobody_adapts(model))
    return adapter if adapter.declared_batch is None else fixed_batch(adapter, adapter.declared_batch)


def _ask_for_adapter(model: Any, options: Mapping[str, Any]) -> ModelAdapter | None:
    check = functools.partial(expect, ModelAdapter)
    answers = plugin_manager().answers("fusioncam_adapt_model", check, own=OWN_ANSWERS, model=model, options=options)
    return next((adapter for _, adapter in answers), None)


def _nobody_adapts(model: object) -> str:
    manager = plugin_manager()
    asked = [
        name for name, plugin in manager.list_name_plugin() if hasattr(plugin, "fusioncam_adapt_model")
    ]  # a blocked plugin is listed too, as None
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    known = "".join(f"\n  - {text}" for text in _descriptions())
    disabled = disabled_plugins()
    return (
        f"No plugin adapts a model of type {kind}. Plugins asked: {', '.join(asked) or 'none'}"
        + (f"; disabled by {DISABLE_VARIABLE}: {', '.join(disabled)}" if disabled else "")
        + f"{left_out()}. What they read:{known or ' nothing'}{_held_by(model)}"
    )


def _descriptions() -> list[str]:
    """What plugins say that they read, in the order of their registration."""
    answers = plugin_manager().answers("fusioncam_describe_models", functools.partial(expect, str))
    return [text for _, text in answers][::-1]


def left_out() -> str:
    """The plugins that did not work so far, as the end of a sentence; "" if there are none."""
    problems = [f"{name} ({problem})" for name, problem in plugin_manager().problems.items()]
    return f"; left out: {', '.join(problems)}" if problems else ""


def _held_by(model: object) -> str:
    """Where in an object a model is, as in trainers, pipelines and pairs; "" if it is nowhere known."""
    for name in ("model", "module"):
        with suppress(Exception):  # an attribute of a foreign object may raise anything, and this is only a hint
            inner = getattr(model, name, None)
            if inner is not None and _ask_for_adapter(inner, {}) is not None:
                kind = f"{type(inner).__module__}.{type(inner).__qualname__}"
                return f"\nThe .{name} of this {type(model).__qualname__} is a {kind}, which can be read: give that."
    if isinstance(model, tuple) and len(model) == 2:
        with suppress(Exception):  # as above
            if _ask_for_adapter(model[0], {}) is not None:
                return (
                    "\nThe first of these two can be read: give that. load_model takes both, and its answer has the "
                    "model and a preprocessing, which makes inputs of photographs."
                )
    return ""
