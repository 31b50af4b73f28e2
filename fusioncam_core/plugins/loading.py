"""A model, and what belongs to it, from a line of text."""

from __future__ import annotations

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.manager import plugin_manager


def load_model(spec: str) -> LoadedModel:
    """Load the model that `spec` names, with the first plugin that knows this kind of spec.

    Args:
        spec: such as `python:package.module:function`, a function that takes no arguments and returns a
            model, `(model, preprocessing)` or a `LoadedModel`.

    Raises:
        ValueError: no plugin knows such a spec, or it names something that does not load.
        TypeError: a plugin answered with something other than a `LoadedModel`.
    """
    loaded = plugin_manager().hook.fusioncam_load_model(spec=spec)
    if loaded is None:
        raise InvalidValueError(
            f"No plugin can load {spec!r}. A spec starts with its kind, as in python:package.module:function, "
            "which names a function that takes no arguments and returns the model, keras:model.keras or timm:NAME."
        )
    if not isinstance(loaded, LoadedModel):
        raise InvalidTypeError(f"A plugin answered {spec!r} with a {type(loaded).__name__} instead of a LoadedModel.")
    return loaded
