"""A model with all that is needed to explain photographs with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.outputs import OutputKind, Task


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that is needed to explain photographs with it.

    Attributes:
        model: the model, of a framework that one of the plugins adapts.
        preprocessing: turns a Pillow image into one model input, without a batch axis; usually a
            `fusioncam_core.Preprocessing`. None where the loader does not know it. What a library has in its place,
            such as an image processor, `load_model` turns into such a function.
        class_names: a name for every class, in the order of the model's outputs, or None.
        layer: the layer to explain, or None for the explainers' own choice.
        name: what to call the model in reports, or None.
        task, output_kind: what the model's outputs are, as the explainers take them.

    Examples:
        >>> import torch
        >>> from fusioncam_core import LoadedModel, load_model
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> loaded = LoadedModel(model, class_names=["red", "green"], task="multilabel")
        >>> load_model(loaded).class_names
        ['red', 'green']
    """

    model: Any
    preprocessing: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    layer: Any = None
    name: str | None = None
    task: Task = "multiclass"
    output_kind: OutputKind = "logits"


def as_loaded(given: Any, whence: str) -> LoadedModel:
    """What a loader returned, or somebody holds: a model, `(model, preprocessing)` or a `LoadedModel`.

    Args:
        given: one of these.
        whence: it came, for messages: "'python:zoo:load' returned".

    Raises:
        InvalidValueError: it is None, or a tuple of another length.
    """
    if isinstance(given, LoadedModel):
        return given
    if isinstance(given, tuple):
        if len(given) != 2:
            raise InvalidValueError(f"{whence} {len(given)} things; expected (model, preprocessing).")
        return LoadedModel(*given)
    if given is None:
        raise InvalidValueError(f"{whence} None; expected a model, (model, preprocessing) or a LoadedModel.")
    return LoadedModel(given)
