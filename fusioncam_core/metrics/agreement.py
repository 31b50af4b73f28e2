"""Whether a map stays what it is when the image is seen under it, how much it covers, and ADCC of both and the drop."""

from __future__ import annotations

from fusioncam_core.arrays.checks import (
    defined,
    finite_maps,
    known,
    require_broadcast,
    require_map,
    require_shape,
    require_shares,
    spatial_axes,
)
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.words import is_constant


def coherency(maps: Array, again: Array, *, spatial_ndim: int = 2) -> Array:
    """Coherency: `(1 + r) / 2`, `r` the Pearson correlation of a map and the map of the image under it.

    Poppi et al., Revisiting the Evaluation of CAMs (arXiv 2104.10252): the correlation, normalised from
    [-1, 1] to [0, 1], as the authors' code has it. Higher is better.

    Args:
        maps: (..., *spatial), floating.
        again: the same shape: the maps of the same class for the images under `maps`.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...) in [0, 1]; NaN where either map is constant or holds NaN or infinity (the authors' code has 0 for NaN).

    Raises:
        TypeError: if the maps are not floating or of different libraries.
        ValueError: if the shapes differ.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import coherency
        >>> maps = np.array([[0.0, 0.5, 1.0]])
        >>> float(coherency(maps, maps)), round(float(coherency(maps, 1 - maps)), 4)
        (1.0, 0.0)
    """
    xp = array_namespace(maps, again)
    require_map(maps, "maps", spatial_ndim, xp)
    require_map(again, "again", spatial_ndim, xp)
    require_shape(again, "The maps of the masked images", maps.shape, "that of the maps")
    return _coherency(maps, xp.astype(again, maps.dtype), spatial_ndim, xp=xp)


def _coherency(maps: Array, again: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    first, one = _standardised(maps, spatial_ndim, xp=xp)
    second, other = _standardised(again, spatial_ndim, xp=xp)
    correlation = xp.mean(first * second, axis=spatial_axes(spatial_ndim))
    # Rounding may lead out of [0, 1]; clip with Python bounds breaks a dynamic torch.compile.
    shares = xp.minimum(xp.maximum((1 + correlation) / 2, xp.zeros_like(correlation)), xp.ones_like(correlation))
    return defined(shares, one & other, maps, xp=xp)


def _standardised(maps: Array, spatial_ndim: int, *, xp: Namespace) -> tuple[Array, Array]:
    """Each map less its mean, over its standard deviation; and which of them are finite and not constant (...)."""
    axes = spatial_axes(spatial_ndim)
    values, finite = finite_maps(maps, spatial_ndim, xp=xp)
    centred = values - xp.mean(values, axis=axes, keepdims=True)
    # In the unit of the largest deviation the squares neither underflow nor overflow.
    largest = xp.max(xp.abs(centred), axis=axes, keepdims=True)
    centred = centred / xp.where(largest > 0, largest, xp.ones_like(largest))
    variance = xp.mean(centred * centred, axis=axes, keepdims=True)
    varied = xp.logical_not(is_constant(values, spatial_ndim, xp=xp))
    return centred / xp.sqrt(xp.where(variance > 0, variance, xp.ones_like(variance))), finite & varied


def complexity(maps: Array, *, spatial_ndim: int = 2) -> Array:
    """Complexity: the mean of a map's absolute values, its L1 norm over the number of its pixels.

    Poppi et al., Revisiting the Evaluation of CAMs (arXiv 2104.10252). Lower is better.

    Args:
        maps: (..., *spatial), floating; in [0, 1] for `adcc`.
        spatial_ndim: how many of the last axes are space.

    Returns:
        (...), not below 0; NaN where a map holds NaN or infinity.

    Raises:
        TypeError, ValueError: if `maps` is no floating array with that many axes.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import complexity
        >>> complexity(np.array([[0.0, 0.5, 1.0]]))
        array(0.5)
    """
    xp = array_namespace(maps)
    return _complexity(require_map(maps, "maps", spatial_ndim, xp), spatial_ndim, xp=xp)


def _complexity(maps: Array, spatial_ndim: int, *, xp: Namespace) -> Array:
    values, finite = finite_maps(maps, spatial_ndim, xp=xp)
    return defined(xp.mean(xp.abs(values), axis=spatial_axes(spatial_ndim)), finite, maps, xp=xp)


def adcc(coherency: Array, complexity: Array, drop: Array) -> Array:
    """ADCC, the harmonic mean of the three: `3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))`.

    Poppi et al., Revisiting the Evaluation of CAMs (arXiv 2104.10252). Higher is better.

    Args:
        coherency: (...) in [0, 1], see the function of that name.
        complexity: (...) in [0, 1], likewise; of a shape that broadcasts with it.
        drop: (...) in [0, 1], likewise.

    Returns:
        (...) in [0, 1]; 0 where a term of the mean is 0; NaN where one is NaN.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not broadcast or a value lies outside [0, 1].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import adcc
        >>> round(float(adcc(np.array(1.0), np.array(0.5), np.array(0.5))), 4)  # 3 / (1 + 2 + 2)
        0.6
    """
    xp = array_namespace(coherency, complexity, drop)
    for name, values in (("The coherency", coherency), ("The complexity", complexity), ("The drop", drop)):
        require_shares(values, name, xp)
    require_broadcast(coherency=coherency, complexity=complexity, drop=drop)
    terms = (xp.astype(each, coherency.dtype) for each in (coherency, 1 - complexity, 1 - drop))
    return _adcc(*terms, xp=xp)


def _adcc(*terms: Array, xp: Namespace) -> Array:
    # Below the smallest normal number a reciprocal overflows.
    least = float(xp.finfo(terms[0].dtype).smallest_normal)
    nought = [term < least for term in terms]
    total = sum(1 / xp.where(zero, xp.ones_like(term), term) for zero, term in zip(nought, terms, strict=True))
    mean = xp.where(nought[0] | nought[1] | nought[2], xp.zeros_like(total), 3 / total)
    return defined(mean, known(terms[0] + terms[1] + terms[2], xp=xp), terms[0], xp=xp)
