"""What a plugin may answer: the hooks of the `fusioncam` entry-point group.

A plugin is a module (or object) registered under the entry-point group `fusioncam`, with functions
marked `pluggy.HookimplMarker("fusioncam")`. It names only the arguments it needs. It must import its
framework inside the hook, never at the top: every plugin is asked about every model, and to say "not
mine" needs no import (`sys.modules` tells whether the framework is loaded at all).

A plugin that does not import, raises, or answers with something else than is asked for is left out with a
`PluginWarning`, and the others are asked. Errors of `fusioncam_core.errors` about a model or a spec of the plugin's own
reach the user. Wrappers of hooks are not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fusioncam_core.arrays.namespaces import Namespace
    from fusioncam_core.explainers.base import Explainer
    from fusioncam_core.metrics.metric import Metric
    from fusioncam_core.models.adapter import ModelAdapter
    from fusioncam_core.models.engines import Engine
    from fusioncam_core.plugins.loaded_model import LoadedModel

PROJECT = "fusioncam"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def fusioncam_adapt_model(model: Any, options: Mapping[str, Any]) -> ModelAdapter | None:
    """An adapter for the model, or None when the model is not yours.

    Args:
        model: whatever the user wants explained.
        options: the explainer's `backend_options`; an adapter raises InvalidTypeError for one it does not know.

    Raises:
        InvalidValueError, InvalidTypeError: if the model is yours, but an option is wrong.
    """


@hookspec
def fusioncam_methods() -> Sequence[type[Explainer]]:
    """Methods of yours: subclasses of `fusioncam_core.Explainer`, each asked for by its `name`.

    They are imported here, not at the top of the plugin: the hook is called when a method is first looked up by name.
    """


@hookspec
def fusioncam_metrics() -> Sequence[type[Metric]]:
    """Metrics of yours: subclasses of `fusioncam_core.metrics.Metric`, each asked for by its `name`."""


@hookspec(firstresult=True)
def fusioncam_array_namespace(array: Any) -> Namespace | None:
    """The array API namespace for an array of your framework, or None when it is not yours. Asked once of each class.

    What a namespace must have is the protocol `fusioncam_core.arrays.namespaces.Namespace`, the names of the array API
    that the core uses; what it may have besides, `OptionalWords` beside it. `WORDS` there is the list of the names, by
    which to test yours.
    """


@hookspec(firstresult=True)
def fusioncam_load_model(spec: str) -> LoadedModel | None:
    """The model that a text names, or None when it is not yours.

    Args:
        spec: such as `python:package.module:function`: a prefix that says whose it is, and what to load.

    Raises:
        InvalidValueError: if the text has your prefix and the model cannot be loaded, in one sentence.
    """


@hookspec(firstresult=True)
def fusioncam_complete_model(loaded: LoadedModel) -> LoadedModel | None:
    """What people hold, as a model and what belongs to it, or None when it is not yours or has all there is to know.

    Args:
        loaded: what was given in place of a model, such as a pipeline, or a model whose `preprocessing` is an image
            processor or a data configuration of its library. What the user has said besides stays: class names, say.

    Returns:
        A `LoadedModel` whose model a plugin adapts, and whose preprocessing can be called with a Pillow image.

    Raises:
        InvalidValueError, InvalidTypeError: if it is yours, and cannot be used.
    """


@hookspec(firstresult=True)
def fusioncam_place_model(model: Any, device: str) -> Any | None:
    """The model on a device, or None when it is not yours.

    It is asked by `--device` of a model that was loaded for one command, so it may be moved in place.

    Args:
        model: what `fusioncam_adapt_model` takes.
        device: in the user's words: "cpu", "cuda:1", or "gpu" for the first of any kind.
            `fusioncam_core.plugins.devices.chosen_device` finds which of yours that is.

    Returns:
        The model, or another one of its type, whose adapter computes on that device and takes its inputs there.

    Raises:
        InvalidValueError: if there is no such device, naming those there are, or the model cannot be moved there.
    """


@hookspec(firstresult=True)
def fusioncam_engine(name: str) -> Engine | None:
    """The engine of that name, or None when it is not yours.

    An engine runs a model's masked passes in place of its framework; what it must have is the protocol
    `fusioncam_core.models.engines.Engine`. What it needs is imported here, not at the top of the plugin.

    Args:
        name: as given to `engine=`, or "auto", for one whose packages are installed.

    Raises:
        MissingExtra: if it is yours, and a package is not installed that it needs; not for "auto".
    """


@hookspec
def fusioncam_describe_models() -> str:
    """The models you adapt and how to install what they need, in a few words for an error message."""
