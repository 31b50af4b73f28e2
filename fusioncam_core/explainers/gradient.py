"""Explainers that weigh a layer's channels by gradients: one forward pass, one backward pass to the layer.

ShapleyCAM (arXiv 2501.06261) is not among them: it needs the product of the Hessian with the activations, and an
adapter gives first derivatives, already detached. Neither is FullGrad (arXiv 1905.00780): it sums over the biases of
all layers, and an adapter sees one layer and no parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Unpack

import numpy as np

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array, constant_like
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.options import ExplainerOptions
from fusioncam_core.explainers.result import Result
from fusioncam_core.methods.eigen import _eigen_cam, _eigengrad_cam
from fusioncam_core.methods.form import Combined
from fusioncam_core.methods.gradient import _grad_cam, _grad_cam_plus_plus, _hires_cam, _layer_cam, _xgrad_cam
from fusioncam_core.methods.smooth import _smooth_grad_cam_plus_plus
from fusioncam_core.models.axes import drawn_for_one


class _FromGradients(Explainer):
    """A method that is a formula of one batch's activations and gradients."""

    needs_gradients = True
    takes_form = True
    formula: ClassVar[Callable[..., Combined]]

    def explain(self, batch: Batch) -> Result:
        """The method's formula."""
        return self.finish_with(batch, self.formula, batch.activations, batch.required_gradients)


class GradCAM(_FromGradients):
    """Grad-CAM (arXiv 1610.02391): channels weighed by the mean of their gradients.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> GradCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "grad-cam"
    title = "Grad-CAM"
    family = "gradient"
    paper = "arXiv 1610.02391"
    formula = staticmethod(_grad_cam)


class GradCAMPlusPlus(_FromGradients):
    """Grad-CAM++ (arXiv 1710.11063): channels weighed by their positive gradients, the larger for small evidence.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAMPlusPlus
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> GradCAMPlusPlus(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "grad-cam++"
    title = "Grad-CAM++"
    family = "gradient"
    paper = "arXiv 1710.11063"
    formula = staticmethod(_grad_cam_plus_plus)


class XGradCAM(_FromGradients):
    """XGrad-CAM (arXiv 2008.02312): channels weighed by the mean of their gradients where they are active.

    Examples:
        >>> import torch
        >>> from fusioncam_core import XGradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> XGradCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "xgrad-cam"
    title = "XGrad-CAM"
    family = "gradient"
    paper = "arXiv 2008.02312"
    formula = staticmethod(_xgrad_cam)


class LayerCAM(_FromGradients):
    """LayerCAM (doi 10.1109/TIP.2021.3089943): every position weighed by its own gradient, if that is positive.

    Examples:
        >>> import torch
        >>> from fusioncam_core import LayerCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> LayerCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "layer-cam"
    title = "LayerCAM"
    family = "gradient"
    paper = "doi 10.1109/TIP.2021.3089943"
    formula = staticmethod(_layer_cam)


class HiResCAM(_FromGradients):
    """HiResCAM (arXiv 2011.08891): every position weighed by its own gradient.

    Examples:
        >>> import torch
        >>> from fusioncam_core import HiResCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> raw = HiResCAM(model, "0", relu=False, normalised=False)(strip, targets=[[0, 1]])
        >>> raw.maps.sum(dim=(2, 3)), model(strip)  # they add up to the logits
        (tensor([[1.5000, 2.0000]]), tensor([[1.5000, 2.0000]]))
    """

    name = "hires-cam"
    title = "HiResCAM"
    family = "gradient"
    paper = "arXiv 2011.08891"
    formula = staticmethod(_hires_cam)


class EigenGradCAM(_FromGradients):
    """EigenGrad-CAM: the principal component of activations times gradients.

    Examples:
        >>> import torch
        >>> from fusioncam_core import EigenGradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> EigenGradCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "eigengrad-cam"
    title = "EigenGrad-CAM"
    family = "gradient"
    formula = staticmethod(_eigengrad_cam)


class EigenCAM(Explainer):
    """Eigen-CAM (arXiv 2008.00299): the principal component of the activations, the same map for every target.

    It has no relu: its lowest value, which may be negative, is 0 in the map. With `relu=False` 0 stays 0.

    Examples:
        >>> import torch
        >>> from fusioncam_core import EigenCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> EigenCAM(model, "0")(strip, 0).maps  # what is brightest, whatever the class
        tensor([[[0., 0., 0., 1.]]])
    """

    name = "eigen-cam"
    title = "Eigen-CAM"
    family = "gradient"
    paper = "arXiv 2008.00299"
    takes_form = True

    def explain(self, batch: Batch) -> Result:
        """`N(U(A v_1))`."""
        combined = _eigen_cam(batch.activations, xp=batch.xp)
        values = batch.xp.concat([combined.values] * int(batch.targets.shape[1]), axis=1)
        return self.finish(batch, combined._replace(values=values))


class SmoothGradCAMPlusPlus(Explainer):
    """Smooth Grad-CAM++ (arXiv 1908.01224): Grad-CAM++ of gradients averaged over noisy copies of the image.

    Every image gets the same noise, in proportion to its own range: a map depends neither on the rest of the batch nor
    on the framework.

    Args:
        model, layer, **options: as for `Explainer`.
        samples: how many noisy copies; each is one more evaluation of the model an image. At an early layer of the
            tests' shapes network 20 give a map within 0.05 of that of 200.
        std: the noise's standard deviation, as a share of the image's range (largest less smallest value). SmoothGrad
            (arXiv 1706.03825) recommends 0.1 to 0.2.
        seed: of the noise, which NumPy's PCG64 draws.

    Raises:
        TypeError, ValueError: as `Explainer`, and for options out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import SmoothGradCAMPlusPlus
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> SmoothGradCAMPlusPlus(model, "0", samples=5)(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "smooth-grad-cam++"
    title = "Smooth Grad-CAM++"
    family = "gradient"
    paper = "arXiv 1908.01224"
    needs_gradients = True
    takes_form = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        samples: int = 20,
        std: float = 0.15,
        seed: int = 0,
        **options: Unpack[ExplainerOptions],
    ):
        if not 0 < std < math.inf:
            raise InvalidValueError(f"std is a positive share of the image's range: got {std!r}.")
        self.samples = require_count(samples, "samples")
        self.std = std
        self.seed = require_count(seed, "seed", least=0)
        super().__init__(model, layer, **options)

    def explain(self, batch: Batch) -> Result:
        """`N(U(relu(sum_k w_k A_k)))` with the weights of Grad-CAM++ from averaged powers of the gradients."""
        gradients = (batch.capture(images)[1] for images in self._noisy(batch))
        return self.finish(batch, _smooth_grad_cam_plus_plus(batch.activations, gradients, xp=batch.xp))

    def _noisy(self, batch: Batch) -> Iterator[Array]:
        """The batch's images (B, ...), once for each sample, with noise added."""
        images, xp = batch.images, batch.xp
        axes = tuple(range(1, images.ndim))
        extent = xp.max(images, axis=axes, keepdims=True) - xp.min(images, axis=axes, keepdims=True)
        for values in _standard_noise(tuple(images.shape[1:]), batch.channel_axis, self.samples, self.seed):
            yield images + self.std * extent * constant_like(values, images, xp)


def _standard_noise(
    shape: tuple[int, ...], channel_axis: int | None, samples: int, seed: int
) -> Iterator[np.ndarray[Any, Any]]:
    """Normal noise for one image, (1, *shape), drawn channels first so that all layouts get the same."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(samples):
        yield drawn_for_one(generator.standard_normal, shape, channel_axis)
