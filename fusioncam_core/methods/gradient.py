"""Gradient maps: from a layer's activations and the gradients of a class's logit with respect to them.

In the equations `A` are the activations and `g = dy_c/dA` the gradients, `k` counts channels, `ij` and `ab`
positions; `U` resizes to the map's size and `N` normalises to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusioncam_core.arrays.checks import require_finite, require_float, spatial_axes
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.precision import in_float32, in_unit, unit
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.arrays.words import _map_size, _over_space, _ratio, channels_first, relu, weighted_sum
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import Combined, Form, finished


@in_float32("activations", "gradients")
def grad_cam(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Grad-CAM: `N(U(relu(sum_k mean_ij(g_k) A_k)))`.

    Selvaraju et al., Grad-CAM (arXiv 1610.02391), equations 1 and 2. A target whose gradient is zero
    everywhere gives a map of zeros.

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
        >>> from fusioncam_core import grad_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> grad_cam(activations, gradients)
        array([[[1. , 0.5, 0. , 0. ]]])
        >>> grad_cam(activations, gradients, relu=False)
        array([[[ 0.5 ,  0.25,  0.  , -1.  ]]])
        >>> grad_cam(activations, gradients, relu=False, normalised=False)
        array([[[ 4.,  2.,  0., -8.]]])
    """
    return _maps(_grad_cam, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _grad_cam(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    gradients, b = in_unit(gradients, 2, xp=xp)
    weights = xp.mean(gradients, axis=spatial_axes(activations.ndim - 2))
    return _weighed(weights, activations, b[:, :, 0, ...], xp=xp)


@in_float32("activations", "gradients")
def grad_cam_plus_plus(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Grad-CAM++: `N(U(relu(sum_k w_k A_k)))` with `w_k = sum_ij alpha_k relu(g_k)`.

    Chattopadhyay et al., Grad-CAM++ (arXiv 1710.11063), equation 19 for alpha:
    `alpha = g^2 / (2 g^2 + sum_ab(A_ab) g^3) = 1 / (2 + sum_ab(A_ab) g)`, of which the second form does not
    underflow and needs no epsilon. The paper supposes activations that are not negative; with others the
    denominator can vanish, and where it does the position adds nothing. Gradients that are positive nowhere
    give a map of zeros.

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
        >>> from fusioncam_core import grad_cam_plus_plus
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[1.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> grad_cam_plus_plus(activations, gradients)
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    return _maps(_grad_cam_plus_plus, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _grad_cam_plus_plus(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    a = xp.expand_dims(unit(activations, tuple(range(1, activations.ndim)), xp=xp), axis=1)
    b = unit(gradients, tuple(range(2, gradients.ndim)), xp=xp)
    totals, gradients = _channel_totals(activations / a[:, 0, ...], xp=xp), gradients / b
    one, product = _unit_factors(a, b, xp=xp)
    weights = _ratio(relu(gradients, xp=xp), 2 * one + totals * gradients * product, xp=xp)
    units = b[:, :, 0, ...], one[:, :, 0, ...]
    return _weighed(xp.sum(weights, axis=spatial_axes(activations.ndim - 2)), activations, *units, xp=xp)


def _unit_factors(a: Array, b: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Two numbers of at most 1 in the proportion of 1 to `a b`, a product that may be larger than any number.

    With `a` and `b` the units of activations and gradients, `1 + A g` in units is the first plus the second times the
    product. Where both units are 1, so are both numbers.
    """
    exponent = xp.log(a) + xp.log(b)
    none = xp.zeros_like(exponent)
    return xp.exp(xp.minimum(-exponent, none)), xp.exp(xp.minimum(exponent, none))


@in_float32("activations", "gradients")
def xgrad_cam(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """XGrad-CAM: `N(U(relu(sum_k w_k A_k)))` with `w_k = sum_ij(A_k g_k) / sum_ij(A_k)`.

    Fu et al., Axiom-based Grad-CAM (arXiv 2008.02312). A channel whose activations sum to zero, up to
    their rounding error, has no such weight and adds nothing.

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
        >>> from fusioncam_core import xgrad_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[0.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> xgrad_cam(activations, gradients, normalised=False)  # (4 * 0 + 2 * 1) / (4 + 2) of red
        array([[[1.33333333, 0.66666667, 0.        , 0.        ]]])
    """
    return _maps(_xgrad_cam, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _xgrad_cam(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    space = spatial_axes(activations.ndim - 2)
    activations, a = in_unit(activations, 1, xp=xp)
    gradients, b = in_unit(gradients, 2, xp=xp)
    totals = xp.sum(activations, axis=space)
    rounding = 8 * float(xp.finfo(activations.dtype).eps) * xp.sum(xp.abs(activations), axis=space)
    totals = xp.where(xp.abs(totals) <= rounding, xp.zeros_like(totals), totals)
    products = xp.sum(xp.expand_dims(activations, axis=1) * gradients, axis=space)
    weights = _ratio(products, xp.expand_dims(totals, axis=1), xp=xp)
    return _weighed(weights, activations, a, b[:, :, 0, ...], xp=xp)


@in_float32("activations", "gradients")
def layer_cam(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """LayerCAM: `N(U(relu(sum_k relu(g_k) A_k)))`, each position weighed by its own gradient.

    Jiang et al., LayerCAM (IEEE TIP 2021, doi 10.1109/TIP.2021.3089943). Gradients that are
    positive nowhere give a map of zeros.

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
        >>> from fusioncam_core import layer_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[0.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> layer_cam(activations, gradients, normalised=False)  # where red is brightest it does not matter
        array([[[0., 2., 0., 0.]]])
    """
    return _maps(_layer_cam, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _layer_cam(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    return _hires_cam(activations, relu(gradients, xp=xp), xp=xp)


@in_float32("activations", "gradients")
def hires_cam(
    activations: Array,
    gradients: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """HiResCAM: `N(U(relu(sum_k g_k A_k)))`, Grad-CAM without the mean over the gradients.

    Draelos and Carin, HiResCAM (arXiv 2011.08891), with Grad-CAM's relu: where a linear layer follows
    the explained one, the sum before it is each position's share of the logit. A target whose gradient is zero
    everywhere gives a map of zeros.

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
        >>> from fusioncam_core import hires_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> gradients = np.array([[[[0.0, 1, 1, 1]], [[-1, -1, -1, -1]]]])
        >>> hires_cam(activations, gradients, relu=False, normalised=False)
        array([[[ 0.,  2.,  0., -8.]]])
    """
    return _maps(_hires_cam, activations, gradients, size, channel_axis, Form(relu, normalised))


@as_one_program
def _hires_cam(activations: Array, gradients: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial), (B, K, C, *spatial) -> (B, K, *spatial)."""
    activations, a = in_unit(activations, 1, xp=xp)
    gradients, b = in_unit(gradients, 2, xp=xp)
    shares = xp.sum(gradients * xp.expand_dims(activations, axis=1), axis=2)
    return Combined(shares, (a, b[:, :, 0, ...]))


def _maps(
    kernel: Callable[..., Combined],
    activations: Array,
    gradients: Array,
    size: Sequence[int] | None,
    channel_axis: int,
    form: Form,
) -> Array:
    """The kernel's maps of checked arrays, with the targets' axis only if the gradients had it."""
    xp = array_namespace(activations, gradients)
    activations, gradients, several = _check_pair(activations, gradients, channel_axis, xp)
    maps = finished(kernel(activations, gradients, xp=xp), _map_size(size, activations), form, xp=xp).maps
    return maps if several else maps[:, 0, ...]


def _weighed(weights: Array, activations: Array, *units: Array, xp: Namespace) -> Combined:
    """`sum_k w_k A_k` of weights (B, K, C) in such units, and activations (B, C, *spatial)."""
    weights, w = in_unit(weights, 2, xp=xp)
    activations, a = in_unit(activations, 1, xp=xp)
    own = _over_space(w[:, :, 0], activations.ndim - 2, xp=xp)
    return Combined(weighted_sum(weights, activations, xp=xp), (own, a, *units))


def _channel_totals(activations: Array, *, xp: Namespace) -> Array:
    """`sum_ab(A_ab)`: (B, C, *spatial) -> (B, 1, C, 1, ...), which broadcasts to gradients."""
    axes = tuple(range(2, activations.ndim))
    return xp.expand_dims(xp.sum(activations, axis=axes, keepdims=True), axis=1)


def _check_pair(activations: Array, gradients: Array, channel_axis: int, xp: Namespace) -> tuple[Array, Array, bool]:
    """Both, channels first and finite, gradients as (B, K, C, *spatial); and whether they came with K."""
    require_float(activations, "activations", xp)
    require_float(gradients, "gradients", xp)
    several = gradients.ndim == activations.ndim + 1
    plain = tuple(gradients.shape[:1]) + tuple(gradients.shape[2:]) if several else tuple(gradients.shape)
    if plain != tuple(activations.shape):
        raise InvalidValueError(
            f"gradients have shape {tuple(gradients.shape)} and activations {tuple(activations.shape)}: they must "
            "be equal, or the gradients have one more axis, for the targets, after the batch."
        )
    activations = channels_first(activations, channel_axis, xp=xp)
    gradients = gradients if several else xp.expand_dims(gradients, axis=1)
    if channel_axis == -1:
        gradients = xp.moveaxis(gradients, -1, 2)
    require_finite(activations, "activations", xp)
    return activations, require_finite(gradients, "gradients", xp), several
