"""Ablation-CAM: a channel weighs as much as the score falls when the channel is switched off."""

from __future__ import annotations

from collections.abc import Sequence

from fusioncam_core.arrays.checks import require_finite, require_float
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace
from fusioncam_core.arrays.precision import in_float32
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.methods.form import Combined, Form, finished
from fusioncam_core.methods.gradient import _weighed
from fusioncam_core.methods.score import check_activations, one_or_several


@in_float32("activations", "scores", "ablated")
def ablation_cam(
    activations: Array,
    scores: Array,
    ablated: Array,
    *,
    size: Sequence[int] | None = None,
    channel_axis: int = 1,
    relu: bool = True,
    normalised: bool = True,
) -> Array:
    """Ablation-CAM: `N(U(relu(sum_k (y - y_k) A_k)))`, `y_k` the logit when channel `k` is zero everywhere.

    Desai and Ramaswamy, Ablation-CAM (WACV 2020), equations 3 and 4. Their weight is `(y - y_k) / y`: for a
    positive logit the division is a scale that `N` takes out again, and for a negative one it would turn what
    speaks for the class into what speaks against it, so it is left out, of maps that are not normalised as well.

    Args:
        activations: (B, C, *spatial) or, with `channel_axis=-1`, (B, *spatial, C).
        scores: (B,) the target's logits, or (B, K) for K targets an image.
        ablated: (B, C) or (B, K, C) the same without a channel.
        size: the spatial size of the map, usually the input's; None keeps the layer's.
        channel_axis: 1 or -1, of the activations.
        relu: False keeps what speaks against the target, as negative values.
        normalised: False gives the values in the method's own units.

    Returns:
        (B, *size) or (B, K, *size) in [0, 1]; without the relu in [-1, 1], each map divided by its largest magnitude.

    Raises:
        TypeError: if an array is not floating, or they are of different libraries.
        ValueError: if the shapes do not fit, or values are NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import ablation_cam
        >>> activations = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # (1, 2, 1, 4)
        >>> ablation_cam(activations, np.array([1.5]), np.array([[0.0, 1.5]]))  # without red, and without green
        array([[[1. , 0.5, 0. , 0. ]]])
    """
    array_namespace(activations, scores, ablated)
    activations, extent, a, xp = check_activations(activations, size, channel_axis)
    for name, values in (("scores", scores), ("ablated scores", ablated)):
        require_finite(require_float(values, name, xp), name, xp)
    expected = (*scores.shape, activations.shape[1])
    if scores.shape[0] != activations.shape[0] or tuple(ablated.shape) != expected or scores.ndim > 2:
        raise InvalidValueError(
            f"scores have shape {tuple(scores.shape)} and ablated scores {tuple(ablated.shape)}, with activations of "
            f"{activations.shape[0]} images and {activations.shape[1]} channels: (images,) or (images, targets) and "
            "the same with the channels were expected."
        )
    # In halves, because a difference may be larger than any number.
    drops = xp.expand_dims(scores, axis=-1) * 0.5 - ablated * 0.5
    form = Form(relu, normalised)

    def maps(drops: Array) -> Array:
        combined = _ablation_cam(activations, drops, xp=xp)
        return finished(combined._replace(units=(2, *combined.units, a)), extent, form, xp=xp).maps

    return one_or_several(drops, maps)


@as_one_program
def _ablation_cam(activations: Array, drops: Array, *, xp: Namespace) -> Combined:
    """(B, C, *spatial) and the scores' drops (B, K, C) -> (B, K, *spatial)."""
    return _weighed(drops, activations, xp=xp)
