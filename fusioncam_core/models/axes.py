"""Where a batch has its channels, and what is seen of it under masks."""

from __future__ import annotations

from fusioncam_core.arrays.checks import of_dtype
from fusioncam_core.arrays.namespaces import Array, Namespace


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
