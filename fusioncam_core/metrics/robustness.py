"""Whether a map tells what perturbations of the input do, and whether it stays what it is under small ones."""

from __future__ import annotations

from fusioncam_core.arrays.checks import (
    defined,
    finite_maps,
    quotient,
    require_float,
    require_map,
    require_shape,
    spatial_axes,
    widened,
)
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.words import _over_space, _ratio
from fusioncam_core.errors import InvalidValueError


def infidelity(
    attributions: Array, perturbations: Array, changes: Array, *, normalise: bool = False, spatial_ndim: int = 2
) -> Array:
    """Infidelity: the mean over perturbations `I` of `(I . A - (f(x) - f(x - I)))^2`, `A` the attributions.

    Yeh et al., On the (In)fidelity and Sensitivity of Explanations (arXiv 1901.09392), definition 2.1. Lower is
    better. A map has one value a pixel, so that `I` counts as its sum over the colours, and the map as the
    attribution of each of them.

    Args:
        attributions: (..., *spatial), floating.
        perturbations: (n, ..., *spatial): what is taken from the input, summed over its channels.
        changes: (n, ...): `f(x) - f(x - I)`, what the class's score loses by it.
        normalise: whether to scale the attributions first, each map by the factor with the lowest infidelity,
            `mean(I . A (f(x) - f(x - I))) / mean((I . A)^2)`: the maps' unit then does not matter. So do the authors'
            code and captum's `normalize`. Where the denominator is 0 the factor does not matter either.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...), not below 0; NaN where anything of a map is NaN or infinite.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not fit or there is no perturbation.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import infidelity
        >>> attributions = np.array([[1.0, 2.0]])
        >>> perturbations = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> infidelity(attributions, perturbations, np.array([1.0, 2.0]))  # what the map says is lost is lost
        array(0.)
        >>> infidelity(attributions, perturbations, np.array([1.0, 0.0]))  # (0^2 + 2^2) / 2
        array(2.)
    """
    xp = array_namespace(attributions, perturbations, changes)
    require_map(attributions, "attributions", spatial_ndim, xp)
    _check_copies(perturbations, "perturbations", attributions, spatial_ndim, xp)
    require_float(changes, "changes", xp)
    lead = tuple(perturbations.shape[: perturbations.ndim - spatial_ndim])
    require_shape(changes, "changes", lead, "one a perturbation and map")
    perturbations, changes = (xp.astype(each, attributions.dtype) for each in (perturbations, changes))
    return _infidelity(attributions, perturbations, changes, normalise, spatial_ndim, xp=xp)


def _infidelity(
    attributions: Array, perturbations: Array, changes: Array, normalise: bool, spatial_ndim: int, *, xp: Namespace
) -> Array:
    expected, known = _expected(attributions, perturbations, spatial_ndim, xp=xp)
    return _squared_error(expected, known, changes, normalise, attributions, xp=xp)


def _expected(attributions: Array, perturbations: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array]:
    """`I . A` (n, ...) of perturbations (n, ..., *spatial), in float32 at least, and where both are finite (n, ...)."""
    phi, whole = finite_maps(attributions, spatial_ndim, xp=xp)
    taken, one = finite_maps(perturbations, spatial_ndim, xp=xp)
    return xp.sum(taken * phi, axis=spatial_axes(spatial_ndim)), whole & one


def _squared_error(
    expected: Array, known: Array, changes: Array, normalise: bool, like: Array, *, xp: Namespace
) -> Array:
    """The mean over (n, ...) of what was expected, less what changed, squared; NaN but where all of it is known."""
    other = xp.isfinite(changes)
    lost = widened(xp.where(other, changes, xp.zeros_like(changes)), xp=xp)
    expected = _best_scale(expected, lost, xp=xp) * expected if normalise else expected
    return defined(xp.mean((expected - lost) ** 2, axis=0), xp.all(known & other, axis=0), like, xp=xp)


def _best_scale(expected: Array, lost: Array, *, xp: Namespace) -> Array:
    """The factor of (n, ...) that brings it nearest to another (n, ...), in the least squares: (...)."""
    largest = xp.max(xp.abs(expected), axis=0)
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    shares = expected / unit
    return _ratio(xp.mean(shares * lost, axis=0), xp.mean(shares * shares, axis=0), xp=xp) / unit


def max_sensitivity(maps: Array, perturbed: Array, *, spatial_ndim: int = 2) -> Array:
    """Maximum sensitivity: the largest `||A(x + d) - A(x)|| / ||A(x)||` of the small perturbations `d`.

    Yeh et al., On the (In)fidelity and Sensitivity of Explanations (arXiv 1901.09392), section 3, sampled; the
    division, by which the maps' unit does not matter, is that of their code and captum. Lower is better.

    A map of zeros that stays one did not move: 0, as for any constant explanation. One that moves has no unit to
    compare with: NaN, where captum has the norm of the difference.

    Args:
        maps: `A(x)` (..., *spatial), floating.
        perturbed: `A(x + d)` (n, ..., *spatial): the maps of perturbed inputs.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...), not below 0; NaN where a map is zero and one of its perturbed maps is not, or one of its maps holds NaN
        or infinity.

    Raises:
        TypeError: if the maps are not floating or of different libraries.
        ValueError: if the shapes do not fit or there is no perturbed map.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import max_sensitivity
        >>> maps = np.array([[3.0, 4.0]])
        >>> max_sensitivity(maps, np.stack([maps, maps + [[0.0, 1.0]]]))  # 1 / 5
        array(0.2)
    """
    xp = array_namespace(maps, perturbed)
    require_map(maps, "maps", spatial_ndim, xp)
    _check_copies(perturbed, "perturbed", maps, spatial_ndim, xp)
    return _max_sensitivity(maps, xp.astype(perturbed, maps.dtype), spatial_ndim, xp=xp)


def _max_sensitivity(maps: Array, perturbed: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    plain, whole = finite_maps(maps, spatial_ndim, xp=xp)
    moved, one = finite_maps(perturbed, spatial_ndim, xp=xp)
    # In the unit of the map's largest value the squares of small values do not underflow.
    largest = _over_space(xp.max(xp.abs(plain), axis=spatial_axes(spatial_ndim)), spatial_ndim, xp=xp)
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    furthest = xp.max(_norm((moved - plain) / unit, spatial_ndim, xp=xp), axis=0)
    shares = quotient(furthest, _norm(plain / unit, spatial_ndim, xp=xp), xp=xp)
    shares = xp.where(furthest > 0, shares, xp.zeros_like(shares))
    return defined(shares, whole & xp.all(one, axis=0), maps, xp=xp)


def _norm(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    """The Euclidean norm of each map's pixels."""
    return xp.sqrt(xp.sum(maps * maps, axis=spatial_axes(spatial_ndim)))


def _check_copies(copies: Array, name: str, maps: Array, spatial_ndim: int, xp: Namespace) -> None:
    """Raise ValueError unless the copies are n of the maps' shape, n at least 1."""
    require_map(copies, name, spatial_ndim, xp)
    if tuple(copies.shape[1:]) != tuple(maps.shape) or copies.shape[0] < 1:
        raise InvalidValueError(
            f"{name} have shape {tuple(copies.shape)} and the maps {tuple(maps.shape)}: the maps' shape with an axis "
            "in front, for one or more perturbations, was expected."
        )
