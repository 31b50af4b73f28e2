"""Maps of a layer's principal component: of its activations, or of activations times gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusioncam_core.arrays.checks import require_finite, require_float
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.precision import in_float32, in_unit
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _map_size, channels_first, product
from fusioncam_core.methods.form import Combined, Form, finished
from fusioncam_core.methods.gradient import _maps


@in_float32("activations")
def eigen_cam(
    activations: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Eigen-CAM: `N(U(A v_1))`, the activations projected on their first principal direction, for no class.

    Muhammad and Yeasin, Eigen-CAM (arXiv 2008.00299): `A = U S V^T`, with one row a position and one column a
    channel, not centred, and `v_1` the first column of `V`. Its sign, which the decomposition leaves open, is the one
    that makes the map's sum positive. Where the two largest singular values are equal no direction is the first.
    Activations that are constant over space give a map of zeros.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.
        relu: the method has none to leave out: its minimum becomes 0, whatever its sign. False divides each map by its
            largest magnitude instead, so that 0 stays 0.
        normalised: False gives the projections, signed and in the activations' units.

    Returns:
        (B, *size) in [0, 1]; with `relu=False` in [-1, 1].

    Raises:
        TypeError: if the activations are not floating.
        ValueError: if the shapes do not fit, or values are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import eigen_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> eigen_cam(activations)
        array([[[0., 0., 0., 1.]]])
    """
    xp = array_namespace(activations)
    activations = channels_first(require_float(activations, "activations", xp), channel_axis, xp=xp)
    require_finite(activations, "activations", xp)
    combined = _eigen_cam(activations, xp=xp)
    return finished(combined, _map_size(size, activations), Form(relu, normalised), xp=xp).maps[:, 0, ...]


@as_one_program
def _eigen_cam(activations: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial) -> (B, 1, *spatial)."""
    projections, _, unit = _principal_projection(activations, xp=xp)
    totals = xp.sum(projections, axis=tuple(range(1, projections.ndim)), keepdims=True)
    signed = xp.where(totals < 0, -projections, projections)
    return Combined(xp.expand_dims(signed, axis=1), (xp.expand_dims(unit, axis=1),), cut="none")


@in_float32("activations", "gradients")
def eigengrad_cam(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """EigenGrad-CAM: `N(U(relu((A g) v_1)))`, Eigen-CAM of the activations times their gradients, for a class.

    The class-specific relative of Eigen-CAM (arXiv 2008.00299) that pytorch-grad-cam introduced; as there, what is
    negative is cut. The sign of `v_1` is the one whose projection agrees with the sum of `A g` over the channels
    (HiResCAM's map), so that evidence against a class never turns into evidence for it. A target whose gradient is zero
    everywhere gives a map of zeros.

    `A g` is decomposed as it is, as in Eigen-CAM. pytorch-grad-cam takes each channel's mean off first
    (`get_2d_projection`), by its own comment because its map comes out negative otherwise: it leaves the sign of the
    decomposition open, which is settled here. Without the means zero stays what speaks neither for the class nor
    against it. With them off, a place that speaks against the class less than others do counts as evidence for it, and
    evidence that is the same everywhere as none.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        gradients: of the targets' logits, shaped like the activations, or (B, K, ...) for K targets an image.
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *size) or (B, K, *size) in [0, 1]; without the relu in [-1, 1], each map divided by its largest magnitude.

    Raises:
        TypeError: if an array is not floating, or the two are of different libraries.
        ValueError: if the shapes do not fit, or values are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import eigengrad_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[0, 0, 0, 0]]]])
        >>> eigengrad_cam(activations, gradients)
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    return _maps(_eigengrad_cam, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _eigengrad_cam(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    batch, several, *rest = gradients.shape
    activations, a = in_unit(activations, 1, xp=xp)
    gradients, b = in_unit(gradients, 2, xp=xp)
    products = xp.expand_dims(activations, axis=1) * gradients
    projections, component, unit = _principal_projection(xp.reshape(products, (batch * several, *rest)), xp=xp)
    # The projection's inner product with the sum over channels is the squared singular value times this sum.
    agreement = xp.reshape(xp.sum(component, axis=-1), (batch * several, *(1 for _ in rest[1:])))
    signed = xp.where(agreement < 0, -projections, projections)
    units = xp.reshape(unit, (batch, several, *unit.shape[1:])), a, b[:, :, 0, ...]
    return Combined(xp.reshape(signed, (batch, several, *rest[1:])), units)


def _principal_projection(features: Array, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Of (n, C, *spatial): the projection (n, *spatial) on the first principal direction, and that direction (n, C).

    The features are divided by their largest value first: that turns nothing, and their squares do not underflow. It
    comes last, (n, 1, ...), as the projection's unit.
    """
    count, channels, *spatial = features.shape
    rows = xp.matrix_transpose(xp.reshape(features, (count, channels, math.prod(spatial))))
    largest = xp.max(xp.abs(rows), axis=(-2, -1), keepdims=True)
    unit = xp.where(largest == 0, xp.ones_like(largest), largest)
    rows = rows / unit
    direction = _first_right_singular_vector(rows, xp=xp)
    projections = product(rows, direction, xp=xp)
    unit = xp.reshape(unit, (count, *(1 for _ in spatial)))
    return xp.reshape(projections, (count, *spatial)), direction[..., 0], unit


def _first_right_singular_vector(rows: Array, *, xp: Namespace) -> Array:
    """`v_1` of (n, positions, channels): (n, channels, 1), or some vector where the matrix is zero.

    The products of the rows, or of the columns if there are fewer, make a smaller matrix with the same singular
    vectors: what its squares cost in precision are the small singular values, and only the first is asked for.
    """
    columns = xp.matrix_transpose(rows)
    if rows.shape[1] > rows.shape[2]:
        return _first_singular_vector(product(columns, rows, xp=xp), xp=xp)
    left = _first_singular_vector(product(rows, columns, xp=xp), xp=xp)
    direction = product(columns, left, xp=xp)
    length = xp.sqrt(xp.sum(direction * direction, axis=1, keepdims=True))
    return direction / xp.where(length == 0, xp.ones_like(length), length)


def _first_singular_vector(square: Array, *, xp: Namespace) -> Array:
    """`u_1` of (n, m, m): (n, m, 1); libraries decompose nothing narrower than float32."""
    wide = square if xp.finfo(square.dtype).bits >= 32 else xp.astype(square, xp.float32)
    return xp.astype(xp.linalg.svd(wide, full_matrices=False)[0][..., :1], square.dtype)
