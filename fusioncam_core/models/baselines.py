"""What is seen where a mask is 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusioncam_core.arrays.namespaces import Array, Namespace, constant_like, to_numpy
from fusioncam_core.arrays.words import _blur
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.axes import spatial_size, with_channels_back, with_channels_first

Baseline = Any
"""What an erased pixel is: "zero", "blur", a number, one value a channel, or an image."""

BLUR_SHARE = 1 / 9
"""The "blur" baseline's standard deviation, as a share of the shorter side.

A blur of 25 pixels on 224 leaves no outline by which a network would know the object.
"""


def erased_images(images: Array, baseline: Baseline, channel_axis: int | None, xp: Namespace) -> Array | None:
    """What is seen where a mask is 0, for each image; None for zero.

    Args:
        images: (B, ...) inputs of the model.
        baseline: "zero"; "blur", each image blurred with a standard deviation of a ninth of its shorter side;
            a number; one value a channel; or one image, for all. All in the model's input space, after
            preprocessing.
        channel_axis: of the images, or None.
        xp: the namespace.

    Raises:
        ValueError: for another word, or an array that does not broadcast to the images.
    """
    if isinstance(baseline, str):
        return _named_baseline(images, baseline, channel_axis, xp)
    values = to_numpy(baseline) if hasattr(baseline, "shape") else np.asarray(baseline, dtype=np.float64)
    if values.ndim == 1 and channel_axis is not None:
        values = values.reshape(-1, *(1,) * (images.ndim - 1 - channel_axis % images.ndim))
    try:
        values = np.broadcast_to(values, tuple(images.shape[1:]))
    except ValueError:
        raise InvalidValueError(
            f"A baseline of shape {values.shape} does not fit images of shape {tuple(images.shape[1:])}. A baseline is "
            "a number, one value a channel, or one image."
        ) from None
    return xp.broadcast_to(constant_like(values, images, xp), tuple(images.shape))


def _named_baseline(images: Array, name: str, channel_axis: int | None, xp: Namespace) -> Array | None:
    if name == "zero":
        return None
    if name != "blur":
        raise InvalidValueError(f"baseline is 'zero', 'blur', a number, one value a channel or an image: got {name!r}.")
    sigma = max(min(spatial_size(images, channel_axis)) * BLUR_SHARE, 1.0)
    return blurred_images(images, sigma, math.ceil(3 * sigma), channel_axis, xp)


def blurred_images(images: Array, sigma: float, radius: int, channel_axis: int | None, xp: Namespace) -> Array:
    """The images (B, ...) after a Gaussian blur of this standard deviation, cut off at this radius, in pixels."""
    moved = with_channels_first(images, channel_axis, xp=xp)
    return with_channels_back(_blur(moved, sigma, radius, moved.ndim - 2, xp=xp), channel_axis, xp=xp)
