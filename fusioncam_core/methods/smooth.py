"""Gradient maps averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusioncam_core.arrays.checks import spatial_axes
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.precision import in_float32, unit
from fusioncam_core.arrays.words import _map_size, _ratio, relu
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import Combined, Form, finished
from fusioncam_core.methods.gradient import _channel_totals, _check_pair, _unit_factors, _weighed


@in_float32("activations", "gradients")
def smooth_grad_cam_plus_plus(
    activations: Array,
    gradients: Sequence[Array],
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Smooth Grad-CAM++: Grad-CAM++ with the powers of the gradients averaged over noisy copies of the input.

    Omeiza et al., Smooth Grad-CAM++ (arXiv 1908.01224): `N(U(relu(sum_k w_k A_k)))` with
    `w_k = sum_ij alpha_k relu(D_1)`, `alpha = D_2 / (2 D_2 + sum_ab(A_ab) D_3)` and `D_p` the mean of `g^p` over
    the copies. The numerator is `D_2` because only so does one copy without noise give Grad-CAM++ (torch-cam, too,
    corrects the paper's there). Zero denominators add nothing, as in Grad-CAM++.

    Args:
        activations: of the input itself, (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        gradients: of the noisy copies, one array each as `grad_cam` takes them, or one array with the copies in
            front: (n, B, ...).
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *size) or (B, K, *size) in [0, 1]; without the relu in [-1, 1], each map divided by its largest magnitude.

    Raises:
        TypeError: if an array is not floating, or they are of different libraries.
        ValueError: if there is no copy, the shapes do not fit, or values are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import smooth_grad_cam_plus_plus
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> smooth_grad_cam_plus_plus(activations, [gradients, 2 * gradients])  # of two noisy copies
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    copies = _copies(gradients)
    xp = array_namespace(activations, *copies)
    pairs = [_check_pair(activations, each, channel_axis, xp) for each in copies]
    first, _, several = pairs[0]
    combined = _smooth_grad_cam_plus_plus(first, (each for _, each, _ in pairs), xp=xp)
    maps = finished(combined, _map_size(size, first), Form(relu, normalised), xp=xp).maps
    return maps if several else maps[:, 0, ...]


def _smooth_grad_cam_plus_plus(activations: Array, gradients: Iterable[Array], *, xp: Namespace) -> Combined:
    """(B, C, *spatial) and one (B, K, C, *spatial) a noisy copy -> (B, K, *spatial)."""
    d1, d2, d3, b, copies = _power_sums(gradients, xp=xp)
    a = xp.expand_dims(unit(activations, tuple(range(1, activations.ndim)), xp=xp), axis=1)
    one, product = _unit_factors(a, b, xp=xp)
    totals = _channel_totals(activations / a[:, 0, ...], xp=xp)
    weights = _ratio(d2 * relu(d1, xp=xp), 2 * d2 * one + totals * d3 * product, xp=xp)
    units = b[:, :, 0, ...], one[:, :, 0, ...] / copies
    return _weighed(xp.sum(weights, axis=spatial_axes(activations.ndim - 2)), activations, *units, xp=xp)


def _power_sums(gradients: Iterable[Array], *, xp: Namespace) -> tuple[Array, Array, Array, Array, int]:
    """The sums over the copies of `h`, `h^2` and `h^3`, with `h` the gradients in the unit that comes next; the copies.

    The unit, the largest gradient of each target in any copy, keeps the powers from under- and overflowing. Sums serve
    as means do: the number of copies cancels in alpha, and elsewhere is a factor of the map, like the unit.
    """
    copies, count = iter(gradients), 1
    first = next(copies)
    axes = tuple(range(2, first.ndim))
    largest = xp.max(xp.abs(first), axis=axes, keepdims=True)
    d1, d2, d3 = _powers(first / _or_one(largest, xp=xp))
    for each in copies:
        count += 1
        larger = xp.maximum(largest, xp.max(xp.abs(each), axis=axes, keepdims=True))
        shrink = largest / _or_one(larger, xp=xp)
        largest = larger
        h1, h2, h3 = _powers(each / _or_one(largest, xp=xp))
        d1, d2, d3 = d1 * shrink + h1, d2 * shrink**2 + h2, d3 * shrink**3 + h3
    return d1, d2, d3, _or_one(largest, xp=xp), count


def _or_one(values: Array, *, xp: Namespace) -> Array:
    """The values, 1 in place of what is zero or too small for some libraries to tell from it."""
    vanishing = values < float(xp.finfo(values.dtype).smallest_normal)
    return xp.where(vanishing, xp.ones_like(values), values)


def _powers(values: Array) -> tuple[Array, Array, Array]:
    squares = values * values
    return values, squares, squares * values


def _copies(gradients: Any) -> list[Array]:
    """The gradients of each noisy copy, all of one shape."""
    if hasattr(gradients, "shape"):
        copies = [gradients[index, ...] for index in range(gradients.shape[0])]
    else:
        copies = list(gradients)
    shapes = {tuple(each.shape) for each in copies}
    if len(shapes) != 1:
        raise InvalidValueError(
            f"Expected the gradients of one or more noisy copies, all of one shape, got {len(copies)} of the shapes "
            f"{sorted(shapes)}."
        )
    return copies
