"""NormGrad, a method of activations and gradients at one layer."""

from __future__ import annotations

from fusioncam_core import Explainer, normalise, resize
from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.explainers import Batch, Result


class NormGrad(Explainer):
    """NormGrad (arXiv 2004.02866): how long the activations are at a position, times how long their gradients are.

    Rebuffi, Fong, Ji and Vedaldi, There and Back Again: Revisiting Backpropagation Saliency Methods (CVPR 2020): what
    the position adds to the gradient of a 1 x 1 convolution that does nothing is `g_ij A_ij^T`, and this is its
    Frobenius norm. It has no sign: choose it to see where the layer matters to the target at all, for or against it.
    One pass forwards and one backwards.
    """

    name = "norm-grad"
    title = "NormGrad"
    family = "gradient"
    paper = "arXiv 2004.02866"
    needs_gradients = True

    def explain(self, batch: Batch) -> Result:
        """`N(U(|A_ij| |g_ij|))`: maps (B, K, *size) in [0, 1]."""
        xp = batch.xp
        activations = norms(batch.activations, 1, xp)  # (B, *spatial)
        gradients = norms(batch.required_gradients, 2, xp)  # (B, K, *spatial)
        maps = resize(xp.expand_dims(activations, axis=1) * gradients, batch.size)
        return Result(normalise(maps, spatial_ndim=len(batch.size)))


def norms(vectors: Array, axis: int, xp: Namespace) -> Array:
    """The Euclidean norms of vectors along an axis, which goes; 0 for those of zeros."""
    # In the unit of the largest entry the squares neither underflow nor overflow.
    largest = xp.max(xp.abs(vectors), axis=axis, keepdims=True)
    units = vectors / xp.where(largest > 0, largest, xp.ones_like(largest))
    return xp.max(largest, axis=axis) * xp.sqrt(xp.sum(units * units, axis=axis))
