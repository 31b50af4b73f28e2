"""The model's inputs: one array of images, or several arrays of which one is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter

Inputs = Any
"""An array (B, ...), or a tuple or dict of such arrays, as the model takes them."""

Which = int | str | None
"""The position or the name of the explained input; None when there is only one."""


def leaf(inputs: Inputs, which: Which) -> Array:
    """The explained array of the inputs."""
    return inputs if which is None else inputs[which]


def with_leaf(inputs: Inputs, which: Which, array: Array) -> Inputs:
    """The inputs with another explained array."""
    if which is None:
        return array
    if isinstance(inputs, Mapping):
        return {**inputs, which: array}
    return tuple(array if index == which else each for index, each in enumerate(inputs))


def map_leaves(function: Callable[[Array], Array], inputs: Inputs) -> Inputs:
    """The function of every array, in the same containers."""
    if isinstance(inputs, Mapping):
        return {name: function(each) for name, each in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(function(each) for each in inputs)
    return function(inputs)


def leaves(inputs: Inputs) -> list[Array]:
    """All arrays of the inputs."""
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def call_with(function: Callable[..., Any], inputs: Inputs, *more: Any, **keywords: Any) -> Any:
    """The function of one array, of several by position (before `more`), or of several by name."""
    if isinstance(inputs, Mapping):
        return function(*more, **inputs, **keywords)
    return function(*inputs, *more, **keywords) if isinstance(inputs, tuple) else function(inputs, *more, **keywords)


def rows_of(inputs: Inputs, start: int, stop: int) -> Inputs:
    """The inputs of some neighbouring images."""
    return map_leaves(lambda each: each[start:stop, ...], inputs)


def batch_length(inputs: Inputs) -> int:
    """How many images the inputs hold."""
    return int(leaves(inputs)[0].shape[0])


def prepare(adapter: ModelAdapter, images: Any, which: Which) -> Inputs:
    """The images as the model takes them: on its device, of its dtype, with a batch axis.

    Args:
        adapter: of the model.
        images: an array, or with `which` a tuple, list or dict of arrays.
        which: the position or name of the input that is explained.

    Raises:
        TypeError: if an image is no floating array, or several inputs came without `which`.
        ValueError: for a wrong number of axes, an empty batch, inputs of different batch sizes, or a
            `which` that is not among the inputs.
    """
    if which is not None:
        return _prepare_several(adapter, images, which)
    if isinstance(images, Mapping | tuple | list):
        raise InvalidTypeError(
            f"Images are one array: got a {type(images).__qualname__}. Stack equal-sized images into a batch; "
            "for a model with several inputs say which is explained with masked_input=."
        )
    array = adapter.as_array(images)
    return _check_images(array, adapter.batch_ndim(array), adapter)


def _prepare_several(adapter: ModelAdapter, images: Any, which: int | str) -> Inputs:
    if not isinstance(images, Mapping | tuple | list):
        raise InvalidTypeError(
            f"masked_input={which!r} names one of several inputs: got a single {type(images).__qualname__}."
        )
    named = isinstance(images, Mapping)
    inputs = dict(images) if isinstance(images, Mapping) else tuple(images)
    known = list(inputs) if named else list(range(len(inputs)))
    if which not in known:
        raise InvalidValueError(f"masked_input={which!r} is not among the inputs {', '.join(map(repr, known))}.")
    inputs = map_leaves(adapter.as_array, inputs)
    explained = leaf(inputs, which)
    _check_images(explained, explained.ndim, adapter)
    sizes = {int(each.shape[0]) for each in leaves(inputs)}
    if len(sizes) > 1:
        raise InvalidValueError(f"All inputs need the same batch size: got {sorted(sizes)}.")
    return inputs


def _check_images(images: Array, input_ndim: int | None, adapter: ModelAdapter) -> Array:
    """A floating batch of images; one image gets its batch axis."""
    model_name, xp = adapter.model_name, adapter.namespace
    if not xp.isdtype(images.dtype, "real floating"):
        kind, advice = (
            (
                "floating-point images and rescales them itself",
                "Make them float32 and leave their values as they are: images.astype('float32').",
            )
            if adapter.rescales_inputs
            else (
                "preprocessed floating-point images",
                "Preprocess as in training (usually scaling to [0, 1] or by mean and standard deviation) first.",
            )
        )
        raise InvalidTypeError(f"{model_name} takes {kind}: got an array of {images.dtype}. {advice}")
    if input_ndim is not None and images.ndim == input_ndim - 1:
        images = xp.expand_dims(images, axis=0)
    if images.ndim < 3 if input_ndim is None else images.ndim != input_ndim:
        expected = f"{input_ndim} axes (or {input_ndim - 1} for one image)" if input_ndim else "at least 3 axes"
        raise InvalidValueError(
            f"{model_name} takes a batch of images with {expected}: got an array of shape {tuple(images.shape)}."
        )
    if 0 in images.shape:
        raise InvalidValueError(f"An empty batch came: images of shape {tuple(images.shape)} hold nothing to explain.")
    return images
