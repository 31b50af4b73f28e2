"""A model, and what belongs to it, from a line of text."""

from __future__ import annotations

import functools

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.guarded import OWN_ANSWERS, expect
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.manager import left_out, plugin_manager


def load_model(spec: str) -> LoadedModel:
    """Load the model that `spec` names, with the first plugin that knows this kind of spec.

    Args:
        spec: such as `python:package.module:function`, a function that takes no arguments and returns a
            model, `(model, preprocessing)` or a `LoadedModel`.

    Raises:
        InvalidValueError: no plugin knows such a spec, or it names something that does not load.
    """
    check = functools.partial(expect, LoadedModel)
    answers = plugin_manager().answers("fusioncam_load_model", check, own=OWN_ANSWERS, spec=spec)
    loaded: LoadedModel | None = next((answer for _, answer in answers), None)
    if loaded is None:
        raise InvalidValueError(
            f"No plugin can load {spec!r}{left_out()}. A spec starts with its kind, as in "
            "python:package.module:function, which names a function that takes no arguments and returns the model, "
            "keras:model.keras or timm:NAME."
        )
    return loaded
