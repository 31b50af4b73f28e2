"""Where a batch has its channels."""

from __future__ import annotations

from fusioncam_core.arrays.namespaces import Array, Namespace


def over_channels(maps: Array, spatial_ndim: int, channel_axis: int | None, *, xp: Namespace) -> Array:
    """Maps (..., *size) with an axis of one channel where batched images have theirs; as they are if these have none.

    Axes are counted in a batch, so that the maps may have more axes than one before their size.
    """
    if channel_axis is None:
        return maps
    behind = channel_axis if channel_axis < 0 else channel_axis - spatial_ndim - 2
    return xp.expand_dims(maps, axis=behind)
