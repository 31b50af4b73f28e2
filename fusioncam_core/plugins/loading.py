"""A model, and what belongs to it, from a line of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusioncam_core.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from fusioncam_core.models.outputs import OutputKind, Task

from fusioncam_core.plugins.manager import plugin_manager


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that is needed to explain photographs with it.

    Attributes:
        model: the model, of a framework that one of the plugins adapts.
        preprocessing: turns a Pillow image into one model input, without a batch axis; usually a
            `fusioncam_core.preprocessing.Preprocessing`. None where the loader does not know it.
        class_names: a name for every class, in the order of the model's outputs, or None.
        layer: the layer to explain, or None for the explainers' own choice.
        name: what to call the model in reports, or None.
        task, output_kind: what the model's outputs are, as the explainers take them.
    """

    model: Any
    preprocessing: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    layer: Any = None
    name: str | None = None
    task: Task = "multiclass"
    output_kind: OutputKind = "logits"


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
