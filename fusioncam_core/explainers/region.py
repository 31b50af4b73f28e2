"""Explainers that run the model on images under masks of channels, or with channels switched off."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np

from fusioncam_core.approximation.budget import Scored, score_channels
from fusioncam_core.arrays.checks import require_finite, require_word
from fusioncam_core.arrays.namespaces import Array, array_namespace, constant_like, to_numpy
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.masking import Masking
from fusioncam_core.explainers.options import DEFAULTS, BudgetOptions, EngineOptions, ExplainerOptions, limits_of
from fusioncam_core.explainers.result import Result
from fusioncam_core.methods.ablation import _ablation_cam
from fusioncam_core.methods.groups import PERCENTILE, Grouping, _group_cam, check_groups, group_maps
from fusioncam_core.methods.score import ChannelWeights, _mask_maps, _score_cam, formula
from fusioncam_core.models.baselines import blurred_images
from fusioncam_core.models.masking import HostScorer, MaskedScorer
from fusioncam_core.models.scoring import Chunk, ScoreMaps, above_black, gathered, scored
from fusioncam_core.models.steps import skip

GROUP_BLUR, GROUP_BLUR_RADIUS = 50.0, 25
"""Group-CAM's erased image: a Gaussian of this standard deviation in a window of twice that radius and one pixels.

So the authors have it, in `cam/groupcam.py` of github.com/wofmanaf/Group-CAM.
"""


class Budgeted(Masking):
    """A method whose channels need not all be run.

    Args:
        model, layer, **options: as for `Explainer`.
        budget: the most masks run of each image; None for all. What the others would score is predicted.
        tolerance: an image is done when its map is not expected to move more than this at any position of the layer,
            in (0, 1); None for never. The expectation is a Gaussian process's (`fusioncam_core.approximation`), of the
            map in [0, 1], whatever `relu`, `normalised` and `size` say.
    """

    needs_masks = True
    takes_budget = True

    def __init__(self, model: Any, layer: Any = None, **options: Unpack[BudgetOptions]):
        limits, options_left = limits_of(type(self), options)
        self.limits = limits
        super().__init__(model, layer, **options_left)

    _samples: int = 1
    """Masks a channel."""

    def mask_count(self, batch: Batch) -> int:
        """A budget's masks, or all of them."""
        images, channels = batch.activations.shape[:2]
        return int(images * min(channels * self._samples, self.limits.budget or math.inf))

    def _result(self, made: Result, found: Scored, batch: Batch) -> Result:
        """The maps, with what was run for them and how far they may still move."""
        masks_run, uncertainty = (
            constant_like(each, batch.logits, batch.xp) for each in (found.masks_run, found.uncertainty)
        )
        return replace(made, masks_run=masks_run, uncertainty=uncertainty)


Asked = tuple[ScoreMaps, Callable[[], Array], "Array | None"]
"""The scores of maps, those of the black image, and what was taken off both."""


class ScoreCAM(Budgeted):
    """Score-CAM (arXiv 1910.01279): channels weighed by the logit of the image masked with them.

    One evaluation of the model for each channel that is not constant, whatever the number of targets.

    Args:
        model, layer, **options: as for `Explainer`.
        channel_weights: "softmax" (of the channels' logits) or "probability" (of the target under the channel's
            mask; masks are then normalised before the resize, and summed in the activations' place, as in xplaincam,
            the later package of Fusion-CAM's authors) or "regression" (what each place adds to the probability, by a
            ridge regression on the masks: `fusioncam_core.score_cam`), which a budget suits less.
        budget: the most masks run of each image; None for all. What the others would score is predicted. Several
            targets share the masks that are run, so their maps differ a little from those of one call each.
        tolerance: an image is done when its map is not expected to move more than this at any position of the layer,
            in (0, 1); None for never. The expectation is a Gaussian process's (`fusioncam_core.approximation.budget`).

    Raises:
        TypeError, ValueError: as `Explainer`, for another word, and for limits out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import ScoreCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> ScoreCAM(model, "0")(strip, 0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.5730]]])
        >>> explanation = ScoreCAM(model, "0", channel_weights="regression")(strip, 0)
        >>> explanation.maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
        >>> explanation.masks_run
        tensor([2.])
    """

    name = "score-cam"
    title = "Score-CAM"
    family = "region"
    paper = "arXiv 1910.01279"
    takes_form = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        channel_weights: ChannelWeights = "softmax",
        **options: Unpack[BudgetOptions],
    ):
        self.channel_weights = require_word(channel_weights, "channel_weights", ChannelWeights)
        super().__init__(model, layer, **options)
        if channel_weights == "regression" and self.engine.name is not None and self.engine.precision != "float32":
            raise InvalidValueError(
                "A regression of scores on masks, which Fusion-CAM's calibrated variant takes, needs them in float32: "
                "in bfloat16 its map of a photograph moved by .19. Leave engine_precision= out."
            )

    def explain(self, batch: Batch) -> Result:
        """`N(relu(U(sum_k softmax(s)_k A_k)))`; `N(relu(U(sum_k p_k N(A_k))))`; `N(relu(U(regression)))`."""
        maps = _mask_maps(batch.activations, self.channel_weights, xp=batch.xp)
        host = batch.masked.on_host if self.channel_weights == "softmax" else None
        found = self._scored(batch, maps) if host is None else self._scored_on_host(batch, maps, host)
        with batch.masked.between_passes():
            return self._result(self._finished(batch, maps, found.scores), found, batch)

    def _scored(self, batch: Batch, maps: Array) -> Scored:
        ways = {"softmax": self._by_logit, "probability": self._by_share, "regression": self._by_increase}
        score_maps, black, origin = ways[self.channel_weights](batch)
        return score_channels(
            maps,
            score_maps,
            black,
            limits=self.limits,
            formula=formula(self.channel_weights, in_unit=batch.masked.gives_probabilities),
            origin=origin,
            **batch.chunking,
        )

    def _scored_on_host(self, batch: Batch, maps: Array, host: HostScorer) -> Scored:
        """The same by logits, with masks and scores that stay where an engine reads and writes them."""
        on_host = to_numpy(maps)
        options = {**batch.chunking, "xp": array_namespace(on_host)}

        def score_maps(maps: Array, chunk: Chunk) -> Array:
            return host.score_maps(maps, chunk.owners, chunk.count)

        black, by_softmax = batch.masked.black_scores, formula("softmax")
        found = score_channels(on_host, score_maps, black, limits=self.limits, formula=by_softmax, **options)
        return replace(found, scores=constant_like(found.scores, maps, batch.xp))

    def _finished(self, batch: Batch, maps: Array, scores: Array) -> Result:
        if self.channel_weights == "regression":  # on the host
            return self.finish(batch, _score_cam(maps, scores, self.channel_weights, xp=batch.xp))
        return self.finish_with(batch, _score_cam, maps, scores, self.channel_weights)

    def _by_logit(self, batch: Batch) -> Asked:
        """The scores of maps, of the black image, and what they are counted from."""

        def score_maps(maps: Array, chunk: Chunk) -> Array:
            return batch.masked.score_maps(maps, chunk.owners, chunk.count)

        return score_maps, batch.masked.black_scores, None

    def _by_share(self, batch: Batch) -> Asked:
        def score_maps(maps: Array, chunk: Chunk) -> Array:
            return batch.masked.probability_maps(maps, chunk.owners, chunk.count, normalised=False)

        def no_scores() -> Array:
            # A constant channel's map is zeros: whatever its probability, it adds nothing.
            return batch.xp.zeros_like(batch.target_scores)

        return score_maps, no_scores, None

    def _by_increase(self, batch: Batch) -> Asked:
        def score_maps(maps: Array, chunk: Chunk) -> Array:
            return batch.masked.probability_maps(maps, chunk.owners, chunk.count)

        black = batch.masked.black_probabilities()
        return *above_black(score_maps, black, xp=batch.xp), black


class GroupCAM(Masking):
    """Group-CAM (arXiv 2103.13859): groups of channels, weighed by gradients, mask the image; what helps is summed.

    The masks are made of a target's gradients: one evaluation for each group that is not constant and each target,
    and one an image for the wholly erased one. With `relu=False` a group that lowers the probability takes away from
    the sum. The groups' maps are summed in the size of the map, each normalised in it.

    Args:
        model, layer, **options: as for `Explainer`.
        groups: how many; each channel on its own if there are fewer.
        grouping: "order" (neighbouring channels) or "k-means" (of the weighed channels' maps).
        percentile: values of a group's map not above it are 0. The authors' code (github.com/wofmanaf/Group-CAM) takes
            70; 0 leaves the step out, as the published Fusion-CAM code does.
        seed: of k-means.
        blur: the standard deviation in pixels of the Gaussian that erases, in a window of 51 pixels. The authors' code
            takes 50, the published Fusion-CAM code 25.
        baseline: as for `Explainer`; None, the method's own, is the blurred image.

    Raises:
        TypeError, ValueError: as `Explainer`, and for options out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GroupCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> GroupCAM(model, "0", groups=2, percentile=0)(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "group-cam"
    title = "Group-CAM"
    family = "region"
    paper = "arXiv 2103.13859"
    needs_gradients = True
    needs_masks = True
    takes_form = True
    option_defaults: ClassVar[ExplainerOptions] = {**DEFAULTS, "baseline": None}

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        groups: int = 32,
        grouping: Grouping = "order",
        percentile: float = PERCENTILE,
        seed: int = 0,
        blur: float = GROUP_BLUR,
        **options: Unpack[EngineOptions],
    ):
        check_groups(groups, grouping, percentile, seed)
        if not 0 < blur < math.inf:
            raise InvalidValueError(f"blur is a positive number of pixels: got {blur!r}.")
        self.blur = blur
        self.groups = groups
        self.grouping = grouping
        self.percentile = percentile
        self.seed = seed
        super().__init__(model, layer, **options)

    def mask_count(self, batch: Batch) -> int:
        """One a target and group."""
        several, channels = batch.required_gradients.shape[1:3]
        return int(batch.activations.shape[0] * several * min(self.groups, channels))

    def explain(self, batch: Batch) -> Result:
        """`N(sum_g relu(p_g - p_0) M_g)`."""
        masked, xp = self._erasing(batch), batch.xp
        black = masked.black_probabilities()

        def score_maps(maps: Array, chunk: Chunk) -> Array:
            probabilities = masked.probability_maps(maps, chunk.owners, chunk.count)
            return probabilities - xp.take(black, chunk.owners, axis=0)

        maps = group_maps(
            batch.activations,
            batch.required_gradients,
            self.groups,
            self.grouping,
            self.percentile,
            self.seed,
            xp=xp,
        )
        combined = _group_cam(maps, score_maps, self.map_size(batch), self.form, **batch.chunking)
        if masked is not batch.masked:
            batch.count(masked.evaluations)
        return self.finish(batch, combined)

    def _erasing(self, batch: Batch) -> MaskedScorer:
        if self.baseline is not None:
            return batch.masked
        blurred = blurred_images(batch.images, self.blur, GROUP_BLUR_RADIUS, batch.channel_axis, batch.xp)
        return batch.masked.erasing(blurred)


class AblationCAM(Explainer):
    """Ablation-CAM (WACV 2020, Desai and Ramaswamy): channels weighed by what the logit loses without them.

    One evaluation of the model for each channel that is not zero everywhere, whatever the number of targets. The image
    is not masked.

    Examples:
        >>> import torch
        >>> from fusioncam_core import AblationCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> AblationCAM(model, "0")(strip, targets=0).maps
        tensor([[[1.0000, 0.5000, 0.0000, 0.0000]]])
    """

    name = "ablation-cam"
    title = "Ablation-CAM"
    family = "region"
    paper = "WACV 2020, Desai and Ramaswamy"
    needs_masks = True
    masks_images = False
    takes_form = True

    def explain(self, batch: Batch) -> Result:
        """`N(U(relu(sum_k (y - y_k) A_k)))`."""
        drops = constant_like(self._drops(batch), batch.activations, batch.xp)
        return self.finish_with(batch, _ablation_cam, batch.activations, drops)

    def _drops(self, batch: Batch) -> np.ndarray[Any, Any]:
        """(B, K, C) `y - y_k`; 0 for a channel that is zero anyway."""
        xp, activations = batch.xp, batch.activations
        axes = tuple(range(2, activations.ndim))
        live = to_numpy(xp.any(activations != 0, axis=axes))
        images, channels = np.nonzero(live)
        skip(batch.advance, live.size - len(images))
        scores = to_numpy(batch.target_scores)
        ablated = np.zeros((*live.shape, scores.shape[1]), dtype=scores.dtype)
        ablated[images, channels] = self._ablated(batch, images, channels)
        drops = np.where(live[:, None, :], scores[:, :, None] - np.moveaxis(ablated, -1, 1), 0)
        require_finite(drops, "scores without a channel", array_namespace(drops))
        return drops.astype(scores.dtype)

    def _ablated(self, batch: Batch, images: np.ndarray[Any, Any], channels: np.ndarray[Any, Any]) -> Any:
        """(n, K) the targets' logits of the images (n,), each without a channel (n,)."""

        def score_channels(maps: Array, chunk: Chunk) -> Array:
            return batch.ablated_scores(chunk.owners, chunk.channels, chunk.count)

        if not len(images):
            return 0
        return gathered(scored(batch.activations, images, channels, score_channels, **batch.chunking), xp=batch.xp)
