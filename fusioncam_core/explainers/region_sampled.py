"""Explainers that run the model on many samples of masks: varied ones of channels, or random ones."""

from __future__ import annotations

import functools
from typing import Any, Unpack

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.masking import Masking
from fusioncam_core.explainers.options import BudgetOptions, EngineOptions
from fusioncam_core.explainers.region import Budgeted
from fusioncam_core.explainers.result import Result
from fusioncam_core.methods.rise import RandomMasks, _rise, check_random_masks
from fusioncam_core.methods.sampled import Vary, add_noise, grow, varied_scores
from fusioncam_core.methods.score import _score_cam
from fusioncam_core.models.scoring import Chunk


class _Sampled(Budgeted):
    """Score-CAM of several masks a channel."""

    takes_form = True
    _share: float
    _vary: Vary

    def explain(self, batch: Batch) -> Result:
        """`N(relu(U(sum_k softmax(s)_k A_k)))` with the mean of the samples' logits as `s_k`."""

        def score_masks(masks: Array, chunk: Chunk) -> Array:
            return batch.masked.score_maps(masks, chunk.owners, chunk.count, normalised=False)

        found = varied_scores(
            batch.activations,
            score_masks,
            batch.masked.black_scores,
            self._vary,
            self._samples,
            batch.size,
            share=self._share,
            limits=self.limits,
            **batch.chunking,
        )
        return self._result(self.finish_with(batch, _score_cam, batch.activations, found.scores), found, batch)


class SSCAM(_Sampled):
    """SS-CAM (arXiv 2006.14255): Score-CAM with the logit averaged over noisy masks of every channel.

    One evaluation of the model for each sample of each channel that is not constant, whatever the number of targets.

    Args:
        model, layer, **options: as for `Explainer`.
        samples: noisy masks a channel.
        std: the standard deviation of the noise on masks in [0, 1].
        seed: of the noise, which is the same for every image, on every framework.
        budget, tolerance: as for `ScoreCAM`; the budget counts every sample.

    Raises:
        TypeError, ValueError: as `Explainer`, and for numbers out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import SSCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> SSCAM(model, "0", std=0.1)(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.6218]]])
    """

    name = "ss-cam"
    title = "SS-CAM"
    family = "region"
    paper = "arXiv 2006.14255"

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        samples: int = 35,
        std: float = 2.0,
        seed: int = 0,
        **options: Unpack[BudgetOptions],
    ):
        self.samples = samples
        self.std = std
        self.seed = seed
        self._samples = require_count(samples, "samples")
        self._share = 1 / samples
        self._vary = add_noise(std, seed)
        super().__init__(model, layer, **options)


class ISCAM(_Sampled):
    """IS-CAM (arXiv 2010.03023): Score-CAM with the logit averaged over masks of growing strength of every channel.

    `steps - 1` evaluations of the model for each channel that is not constant, whatever the number of targets: the
    first mask of the paper's sums is black for all channels.

    Args:
        model, layer, **options: as for `Explainer`.
        steps: of the integration, at least 2.
        budget, tolerance: as for `ScoreCAM`; the budget counts every step but the first.

    Raises:
        TypeError, ValueError: as `Explainer`, for too few steps, and for limits out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import ISCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> ISCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.2543]]])
    """

    name = "is-cam"
    title = "IS-CAM"
    family = "region"
    paper = "arXiv 2010.03023"

    def __init__(self, model: Any, layer: Any = None, *, steps: int = 10, **options: Unpack[BudgetOptions]):
        self.steps = steps
        self._samples = require_count(steps, "steps", least=2) - 1
        self._share = 1 / steps
        self._vary = grow(steps)
        super().__init__(model, layer, **options)


class RISE(Masking):
    """RISE (arXiv 1806.07421): random masks, each as much worth as the probability that it leaves.

    Needs no layer: a model that only runs forward will do, such as a `BlackBox`. One evaluation for each mask and
    image, whatever the number of targets. Before it is normalised, a map is the mean probability of the images in which
    a place is seen; it has no relu to leave out, and `relu=False` divides it by its largest value.

    Args:
        model, **options: as for `Explainer`; a layer is not looked at, so that there is no size of one.
        masks: how many; the paper takes 4000 for VGG-16 and 8000 for ResNet-50.
        cells: of a mask's grid, along each axis.
        probability: of a cell to be seen.
        seed: of the masks, which are the same for every image, on every framework.

    Raises:
        TypeError, ValueError: as `Explainer`, and for numbers out of range.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core import RISE, BlackBox
        >>> images = np.array([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]], dtype=np.float32)
        >>> function = BlackBox(lambda images: images.mean(axis=(2, 3)))  # (n, 2, 1, 4) -> (n, 2) logits
        >>> RISE(function, masks=500, cells=4)(images, 0).maps.round(1)
        array([[[1. , 0.8, 0.3, 0. ]]], dtype=float32)
    """

    name = "rise"
    title = "RISE"
    family = "region"
    paper = "arXiv 1806.07421"
    needs_masks = True
    needs_layer = False
    takes_form = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        seed: int = 0,
        **options: Unpack[EngineOptions],
    ):
        check_random_masks(masks, cells, probability, seed)
        self.masks = masks
        self.cells = cells
        self.probability = probability
        self.seed = seed
        self._random_masks = functools.partial(RandomMasks, masks, cells=cells, probability=probability, seed=seed)
        super().__init__(model, layer, **options)

    def mask_count(self, batch: Batch) -> int:
        """All masks of all images."""
        return self.masks * int(batch.targets.shape[0])

    def explain(self, batch: Batch) -> Result:
        """`N(sum_i p(I M_i) M_i)`."""

        def score_masks(masks: Array, owners: Array, count: int) -> Array:
            return batch.masked.probability_maps(masks, owners, count, normalised=False)

        masks = self._random_masks(batch.size)
        combined = _rise(masks, int(batch.targets.shape[0]), score_masks, batch.logits, **batch.chunking)
        return self.finish(batch, combined)
