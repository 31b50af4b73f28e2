"""Where a batch has its channels and its space, and what is seen of it under masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusioncam_core.arrays.checks import of_dtype
from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.errors import InvalidValueError


def over_channels(maps: Array, spatial_ndim: int, channel_axis: int | None, *, xp: Namespace) -> Array:
    """Maps (..., *size) with an axis of one channel where batched images have theirs; as they are if these have none.

    Axes are counted in a batch, so that the maps may have more axes than one before their size.
    """
    if channel_axis is None:
        return maps
    behind = channel_axis if channel_axis < 0 else channel_axis - spatial_ndim - 2
    return xp.expand_dims(maps, axis=behind)


def masks_of(images: Array, maps: Array, channel_axis: int | None, *, xp: Namespace) -> Array:
    """Maps (n, *size) as masks of images (n, ...): of their dtype, and with their axis of channels."""
    spatial_ndim = maps.ndim - 1
    return of_dtype(over_channels(maps, spatial_ndim, channel_axis, xp=xp), images.dtype, xp=xp)


def under_masks(images: Array, masks: Array, erased: Array | None) -> Array:
    """`E + (I - E) M`, with `E` the erased images; `I M` where that is zero."""
    return images * masks if erased is None else erased + (images - erased) * masks


def spatial_axes(ndim: int, channel_axis: int | None) -> tuple[int, ...]:
    """The axes of a batch of images that are neither the batch nor the channels."""
    channels = None if channel_axis is None else channel_axis % ndim
    return tuple(axis for axis in range(1, ndim) if axis != channels)


def spatial_size(images: Array, channel_axis: int | None) -> tuple[int, ...]:
    """The lengths of the spatial axes of batched images: all but the first and the channels'."""
    shape = [int(length) for length in images.shape]
    if channel_axis is not None:
        _require_axis(shape, channel_axis)
        del shape[channel_axis]
    return tuple(shape[1:])


def _require_axis(shape: Sequence[int], channel_axis: int) -> None:
    """Raise InvalidValueError unless a batch of this shape has the axis, and it is not the first."""
    if channel_axis >= len(shape) or channel_axis <= -len(shape):
        raise InvalidValueError(
            f"The channels are in axis {channel_axis} of a batch, and images of shape {tuple(shape)} came. Say where "
            "they are with backend_options={'channels': ...}: 'first', 'last', 'none' or the number of the axis."
        )


def with_channels_first(images: Array, channel_axis: int | None, *, xp: Namespace) -> Array:
    """(B, C, *spatial) of batched images; of those without channels (B, 1, *spatial)."""
    if channel_axis is None:
        return xp.expand_dims(images, axis=1)
    return images if channel_axis == 1 else xp.moveaxis(images, channel_axis, 1)


def with_channels_back(images: Array, channel_axis: int | None, *, xp: Namespace) -> Array:
    """The inverse of `with_channels_first`."""
    if channel_axis is None:
        return images[:, 0, ...]
    return images if channel_axis == 1 else xp.moveaxis(images, 1, channel_axis)


def drawn_for_one(
    draw: Callable[[tuple[int, ...]], np.ndarray[Any, Any]], shape: Sequence[int], channel_axis: int | None
) -> np.ndarray[Any, Any]:
    """What is drawn for one image, channels first so that all layouts get the same, as (1, *shape).

    Args:
        draw: gives values of a shape.
        shape: of the image, without a batch axis.
        channel_axis: where a batch has its channels, or None.
    """
    axis = 0 if channel_axis is None else channel_axis % (len(shape) + 1) - 1
    values = draw((int(shape[axis]), *(int(length) for place, length in enumerate(shape) if place != axis)))
    return np.moveaxis(values, 0, axis)[None]
