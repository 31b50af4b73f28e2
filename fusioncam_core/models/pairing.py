"""Whether the rows of several inputs belong to the images that they came with, or to all of them."""

from __future__ import annotations

from typing import Any

from fusioncam_core.errors import CannotRunError, InvalidValueError
from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.inputs import Inputs, Which, batch_length, rows_of, steps
from fusioncam_core.models.structure import Path, Shared, found, named, split


def require_own_rows(adapter: ModelAdapter, inputs: Inputs, which: Which, known: set[Any]) -> None:
    """Refuse inputs of which every image sees every row, unless they are marked as shared; and the other way round.

    A model that compares each image with each prompt has as many columns of outputs as there are prompts: with as many
    prompts as images nothing in the shapes tells them from rows of the images' own, and copies of an image would come
    with copies of the prompts. The outputs for one image and for two tell, once for inputs of a form.

    Args:
        adapter: of the model.
        inputs: as `prepare` gives them.
        which: the explained one.
        known: forms of inputs that have been looked at; this one is added.

    Raises:
        InvalidValueError: naming what is to be shared, or what is not.
    """
    batch = batch_length(inputs)
    form = split(inputs)[1].key
    if batch == 1 or form in known:
        return
    others = [(path, each) for path, each in found(inputs) if path != steps(which)]
    own = [path for path, each in others if not isinstance(each, Shared) and each.ndim]
    shared = [(path, each.array) for path, each in others if isinstance(each, Shared)]
    as_many = [path for path, each in shared if tuple(each.shape[:1]) == (batch,)]
    if own or as_many:
        _look(adapter, inputs, own, as_many)
    known.add(form)


def _look(adapter: ModelAdapter, inputs: Inputs, own: list[Path], shared: list[Path]) -> None:
    try:
        one = adapter.output_shapes(rows_of(inputs, 0, 1))
    except CannotRunError as error:
        if not shared:
            return  # whatever the reason is, the run of all images will tell
        raise InvalidValueError(
            f"With shared={_names(shared)!r}, {adapter.model_name} does not run on one image: it seems to take a row "
            "of them for each image. Leave out of shared= what every image has its own row of."
        ) from error
    two = adapter.output_shapes(rows_of(inputs, 0, 2)) if own else {}
    for path, shape in two.items():
        before = one.get(path, shape)
        if before[:1] == (1,) and shape[:1] == (2,) and before[1:] != shape[1:]:
            raise InvalidValueError(
                f"The outputs of {adapter.model_name} are {before} for one image and {shape} for two: it sees every "
                f"row of another input with every image. Say what all images share: shared={_names(own)!r}, or those "
                "of them that are."
            )


def _names(paths: list[Path]) -> list[Any]:
    return [named(path) for path in paths]
