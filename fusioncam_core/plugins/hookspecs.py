"""What a plugin may answer: the hooks of the `fusioncam` entry-point group.

A plugin is a module (or object) registered under the entry-point group `fusioncam`, with functions
marked `pluggy.HookimplMarker("fusioncam")`. It names only the arguments it needs. It must import its
framework inside the hook, never at the top: every plugin is asked about every model, and to say "not
mine" needs no import (`sys.modules` tells whether the framework is loaded at all).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter
    from fusioncam_core.plugins.loading import LoadedModel

PROJECT = "fusioncam"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def fusioncam_adapt_model(model: Any, layer: Any, options: Mapping[str, Any]) -> ModelAdapter | None:
    """An adapter for the model and one of its layers, or None when the model is not yours.

    Args:
        model: whatever the user wants explained.
        layer: a name, an object of the framework, or None for the last layer with spatial extent.
        options: further keywords of the explainer that only a backend understands; an adapter
            raises TypeError for one it does not know.

    Raises:
        ValueError, TypeError: if the model is yours, but the layer or an option is wrong.
    """


@hookspec(firstresult=True)
def fusioncam_array_namespace(array: Any) -> Any | None:
    """The array API namespace for an array of your framework, or None when it is not yours.

    A namespace has the array API's names. It may also have `is_traced(array)` (whether a compiler is
    recording, so that values cannot be looked at), `constant_like(values, like)` and
    `indices_like(values, like)` (NumPy values as arrays on `like`'s device, where `asarray` needs help),
    `kept(scores)` (how a chunk's scores are best kept until all are there) and `to_host(arrays)` (several arrays as
    NumPy, where joining them first would cost a compilation for every number of them).
    """


@hookspec(firstresult=True)
def fusioncam_load_model(spec: str) -> LoadedModel | None:
    """The model that a text names, or None when it is not yours.

    Args:
        spec: such as `python:package.module:function`: a prefix that says whose it is, and what to load.

    Raises:
        ValueError: if the text has your prefix and the model cannot be loaded, in one sentence.
    """


@hookspec
def fusioncam_describe_models() -> str:
    """The models you adapt and how to install what they need, in a few words for an error message."""
