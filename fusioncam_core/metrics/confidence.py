"""What a class's probability loses or gains when the image is seen under its map."""

from __future__ import annotations

from fusioncam_core.arrays.checks import defined, known, require_broadcast, require_shares
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.words import relu


def drop(plain: Array, masked: Array) -> Array:
    """Drop in confidence: `max(0, p - o) / p`; lower is better.

    Chattopadhyay et al., Grad-CAM++ (arXiv 1710.11063); its "average drop %" is the mean over a data set,
    times 100.

    Args:
        plain: `p` (...), the probability of the class for the image.
        masked: `o` (...), the probability for the image under its map; of a shape that broadcasts with it.

    Returns:
        (...) in [0, 1]; NaN where `p` is 0 or a probability is NaN.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not broadcast or a value lies outside [0, 1].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import drop
        >>> drop(np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        array([0.5, 0. ])
    """
    masked, xp = _check(plain, masked)
    return _drop(plain, masked, xp=xp)


def _drop(p: Array, o: Array, *, xp: Namespace) -> Array:
    there = p > 0
    return defined(relu(p - o, xp=xp) / xp.where(there, p, xp.ones_like(p)), there & known(o, xp=xp), p, xp=xp)


def increase(plain: Array, masked: Array) -> Array:
    """Increase in confidence: 1 where `o > p`, else 0; higher is better.

    Chattopadhyay et al., Grad-CAM++ (arXiv 1710.11063); its "% increase in confidence" is the mean over
    a data set, times 100. Nothing is divided by `p`: where it is 0, any probability under the map is an increase.

    Args:
        plain: `p` (...), the probability of the class for the image.
        masked: `o` (...), the probability for the image under its map; of a shape that broadcasts with it.

    Returns:
        (...) of zeros and ones in the input's dtype; NaN where a probability is NaN.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not broadcast or a value lies outside [0, 1].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import increase
        >>> increase(np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        array([0., 1.])
    """
    masked, xp = _check(plain, masked)
    return _increase(plain, masked, xp=xp)


def _increase(p: Array, o: Array, *, xp: Namespace) -> Array:
    return defined(xp.astype(o > p, p.dtype), known(p, xp=xp) & known(o, xp=xp), p, xp=xp)


def gain(plain: Array, masked: Array) -> Array:
    """Gain in confidence: `max(0, o - p) / (1 - p)`, the counterpart of `drop`; higher is better.

    Zhang et al., Opti-CAM (arXiv 2301.07002); its "average gain" is the mean over a data set, times 100.
    A softmax in float32 rounds to 1 above a lead of about 17 logits, and leaves nothing to gain.

    Args:
        plain: `p` (...), the probability of the class for the image.
        masked: `o` (...), the probability for the image under its map; of a shape that broadcasts with it.

    Returns:
        (...) in [0, 1]; NaN where `p` is 1 or a probability is NaN.

    Raises:
        TypeError: if the arrays are not floating or of different libraries.
        ValueError: if the shapes do not broadcast or a value lies outside [0, 1].

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import gain
        >>> gain(np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        array([0. , 0.5])
    """
    masked, xp = _check(plain, masked)
    return _gain(plain, masked, xp=xp)


def _gain(p: Array, o: Array, *, xp: Namespace) -> Array:
    room = p < 1
    return defined(relu(o - p, xp=xp) / xp.where(room, 1 - p, xp.ones_like(p)), room & known(o, xp=xp), p, xp=xp)


def _check(plain: Array, masked: Array) -> tuple[Array, Namespace]:
    """The masked probability in the plain one's dtype, and the namespace."""
    xp = array_namespace(plain, masked)
    require_shares(plain, "The plain probability", xp)
    require_shares(masked, "The masked probability", xp)
    require_broadcast(plain=plain, masked=masked)
    return xp.astype(masked, plain.dtype), xp
