"""The explainers: a model, a layer and a method in one object, called with images."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fusioncam_core.adapter import LayerInfo, ModelAdapter
from fusioncam_core.arrays import Array, Namespace, indices_like, require_finite, require_percentage, to_numpy
from fusioncam_core.cams.fusion import Contributions, _fusion_cam, require_mode
from fusioncam_core.cams.gradient import _grad_cam, channels_first
from fusioncam_core.cams.region import _score_cam, channel_scores
from fusioncam_core.explanation import Explanation, join
from fusioncam_core.inputs import Inputs, leaf, leaves, map_leaves, prepare
from fusioncam_core.masking import Baseline, MaskedScorer, erased_images, masked_step, spatial_size
from fusioncam_core.outputs import ClassScores, OutputKind, Task
from fusioncam_core.plugins import adapt_model
from fusioncam_core.progress import progress_bar
from fusioncam_core.targets import Targets, check_range, read_targets


class FusionCamWarning(UserWarning):
    """A map that is right, and says nothing: an empty gradient, an empty map."""


@dataclass
class Run:
    """What the methods see of one batch: activations, gradients, and the model under masks.

    Attributes:
        xp: the namespace.
        activations: (B, C, *spatial) float32 of the layer.
        gradients: (B, K, C, *spatial) float32 of the targets' logits, or None if no method asked for them.
        size: the spatial size of the input.
        masked: the model under masks, for these images and targets.
        advance: told how many masks are scored.
    """

    xp: Namespace
    activations: Array
    gradients: Array | None
    size: tuple[int, ...]
    masked: MaskedScorer
    advance: Callable[[int], object]

    @functools.cached_property
    def required_gradients(self) -> Array:
        """The gradients, of a method that has said that it needs them."""
        if self.gradients is None:
            raise TypeError("A method asked for gradients without needs_gradients = True.")
        return self.gradients


@dataclass(frozen=True)
class Result:
    """A method's maps (B, K, *size), with the stages and numbers it wants to show."""

    maps: Array
    parts: dict[str, Array]
    weights: dict[str, Array]


class Explainer(ABC):
    """A method for one model and layer: call it with images.

    Args:
        model: a model of any framework with a plugin, or a `ModelAdapter`.
        layer: a layer's name or the layer itself; None for the last one in execution order whose output
            has spatial extent (one more run of one image finds it).
        task: what the outputs are: "multiclass" (softmax), "multilabel" (a sigmoid per class) or "binary"
            (one logit: class 1 is `z`, class 0 is `-z`).
        outputs: whether the model returns "logits" or "probabilities".
        output: the position or name of the explained one of several outputs.
        masked_input: the position or name of the explained one of several inputs.
        batch_size: the most images, masked ones included, that the model sees at once.
        baseline: what an erased pixel is, in the model's input space: "zero", "blur", a number, one value
            a channel, or an image.
        progress: a progress bar: True, False, or None to show it when somebody watches a terminal.
        **options: keywords for the model's backend, such as `channels="last"`.

    Raises:
        TypeError: if no plugin adapts the model, or for an unknown option.
        ValueError: for a layer the model does not have, or a value out of range.
    """

    name: ClassVar[str]
    needs_gradients: ClassVar[bool]
    needs_masks: ClassVar[bool]

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        task: Task = "multiclass",
        outputs: OutputKind = "logits",
        output: int | str | None = None,
        masked_input: int | str | None = None,
        batch_size: int = 32,
        baseline: Baseline = "zero",
        progress: bool | None = None,
        **options: Any,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is a positive number of images, and {batch_size} came.")
        self.scores = ClassScores(task, outputs, output)
        self.masked_input = masked_input
        self.batch_size = batch_size
        self.baseline = baseline
        self.progress = progress
        self.adapter: ModelAdapter = adapt_model(model, layer, **options)

    @abstractmethod
    def explain(self, run: Run) -> Result:
        """The method itself: maps (B, K, *size) of one batch."""

    @functools.cached_property
    def _step(self) -> Any:
        return masked_step(self.adapter, self.scores, self.masked_input)

    def layers(self, images: Any) -> list[LayerInfo]:
        """The model's layers in the order they run on the images, the default one marked.

        Raises:
            TypeError, ValueError: as for a call.
        """
        with self.adapter.session():
            return self.adapter.layers(prepare(self.adapter, images, self.masked_input))

    def __call__(self, images: Any, targets: Any = None) -> Explanation:
        """Explain every image.

        Args:
            images: a floating batch (B, ...) in the layout of the model's input, preprocessed; an array of the
                framework or of NumPy. One image without the batch axis is a batch of one.
            targets: None (each image's top class), one class, (B,) classes, or (B, K) for K classes an image.

        Returns:
            An explanation with maps (B, *spatial), or (B, K, *spatial) for K targets, in [0, 1].

        Raises:
            TypeError: if images or targets are of a wrong dtype.
            ValueError: for shapes, targets or options that do not fit the model, or NaN or infinity on the way.
        """
        with self.adapter.session():
            inputs = prepare(self.adapter, images, self.masked_input)
            wanted = read_targets(targets, _batch(inputs))
            return self._explain_all(inputs, wanted)

    def _explain_all(self, inputs: Inputs, targets: Targets) -> Explanation:
        parts = []
        for start in range(0, _batch(inputs), self.batch_size):
            stop = start + self.batch_size
            parts.append(self._explain_chunk(_rows(inputs, start, stop), targets.rows(start, stop)))
        explanation = join(parts, self.adapter.namespace)
        _warn_of_empty_maps(explanation)
        return explanation

    def _explain_chunk(self, inputs: Inputs, targets: Targets) -> Explanation:
        xp, images = self.adapter.namespace, leaf(inputs, self.masked_input)
        asked = None if targets.classes is None else indices_like(targets.classes, images, xp)
        capture = self.adapter.capture(inputs, self.scores if self.needs_gradients else None, asked)
        logits = require_finite(self.scores.logits(capture.outputs), "model's outputs", xp)
        if targets.classes is None:
            asked = xp.argmax(logits, axis=1, keepdims=True)
        else:
            check_range(targets.classes, int(logits.shape[1]), self.adapter.model_name)
        activations = self._activations(capture.activations)
        gradients = self._gradients(capture.gradients, several=targets.several)
        masks = activations.shape[0] * activations.shape[1]
        with progress_bar(masks, self.name, self.progress if self.needs_masks else False) as advance:
            run = self._run(inputs, asked, activations, gradients, advance)
            result = self.explain(run)
        return self._explanation(result, run, logits, asked, images, several=targets.several)

    def _run(
        self,
        inputs: Inputs,
        targets: Array,
        activations: Array,
        gradients: Array | None,
        advance: Callable[[int], object],
    ) -> Run:
        adapter, xp = self.adapter, self.adapter.namespace
        images = leaf(inputs, self.masked_input)
        masked = MaskedScorer(
            adapter,
            self.scores,
            self._step,
            inputs,
            targets,
            which=self.masked_input,
            erased=erased_images(images, self.baseline, adapter.input_channel_axis, xp),
            batch_size=self.batch_size,
        )
        size = spatial_size(images, adapter.input_channel_axis)
        return Run(xp, activations, gradients, size, masked, advance)

    def _explanation(
        self, result: Result, run: Run, logits: Array, targets: Array, images: Array, *, several: bool
    ) -> Explanation:
        xp, probabilities = run.xp, self.scores.probabilities(logits)

        def shaped(values: Array) -> Array:
            return values if several else values[:, 0, ...]

        return Explanation(
            method=self.name,
            layer=self.adapter.layer_name,
            model=self.adapter.model_name,
            maps=shaped(result.maps),
            targets=shaped(targets),
            scores=shaped(xp.take_along_axis(logits, targets, axis=1)),
            probabilities=shaped(xp.take_along_axis(probabilities, targets, axis=1)),
            outputs=probabilities,
            images=images,
            image_channel_axis=self.adapter.input_channel_axis,
            evaluations=int(images.shape[0]) + run.masked.evaluations,
            parts={name: shaped(part) for name, part in result.parts.items()},
            weights={name: shaped(weight) for name, weight in result.weights.items()},
        )

    def _activations(self, activations: Array) -> Array:
        xp = self.adapter.namespace
        finite = require_finite(xp.astype(activations, xp.float32), self._at_layer("activations"), xp)
        return channels_first(finite, self.adapter.activation_channel_axis, xp=xp)

    def _gradients(self, gradients: Array | None, *, several: bool) -> Array | None:
        """(K, B, ...) in the layer's layout -> (B, K, C, *spatial), with a warning for those that are zero."""
        if gradients is None:
            return None
        xp = self.adapter.namespace
        finite = require_finite(xp.astype(gradients, xp.float32), self._at_layer("gradients"), xp)
        moved = xp.moveaxis(finite, 0, 1)
        if self.adapter.activation_channel_axis == -1:
            moved = xp.moveaxis(moved, -1, 2)
        self._warn_of_zero_gradients(moved if several else moved[:, 0, ...], first_axis=2 if several else 1)
        return moved

    def _warn_of_zero_gradients(self, gradients: Array, first_axis: int) -> None:
        xp = self.adapter.namespace
        empty = np.argwhere(to_numpy(xp.all(gradients == 0, axis=tuple(range(first_axis, gradients.ndim)))))
        if len(empty):
            places = _places(empty)
            warnings.warn(
                f"The gradient {self._at_layer('of the score')} is zero everywhere for {places}: the gradient map is "
                "zeros. A saturated softmax or sigmoid at the end of the model does that (explain its logits), "
                "or a layer that the score does not depend on.",
                FusionCamWarning,
                stacklevel=5,
            )

    def _at_layer(self, what: str) -> str:
        return f"{what} at layer {self.adapter.layer_name!r} of {self.adapter.model_name}"


def _batch(inputs: Inputs) -> int:
    return int(leaves(inputs)[0].shape[0])


def _rows(inputs: Inputs, start: int, stop: int) -> Inputs:
    return map_leaves(lambda each: each[start:stop, ...], inputs)


def _places(indices: np.ndarray[Any, Any]) -> str:
    """The first images (and targets, when there are several) as words."""
    named = [f"image {row[0]}" + (f", target number {row[1]}" if len(row) > 1 else "") for row in indices[:3]]
    return "; ".join(named) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")


def _warn_of_empty_maps(explanation: Explanation) -> None:
    maps = explanation.maps
    tops = to_numpy(maps).reshape(*explanation.targets.shape, -1).max(axis=-1)
    empty = np.argwhere(tops == 0)
    if len(empty):
        warnings.warn(
            f"The {explanation.method} map is zero everywhere for {_places(empty)}: at layer {explanation.layer!r} "
            "nothing speaks for this target at one place more than at another.",
            FusionCamWarning,
            stacklevel=4,
        )


def _grad_cam_map(run: Run) -> Array:
    return _grad_cam(run.activations, run.required_gradients, run.size, xp=run.xp)


def _score_cam_map(run: Run) -> Array:
    scores = channel_scores(
        run.activations,
        run.masked.score_maps,
        run.masked.black_scores,
        batch_size=run.masked.batch_size,
        xp=run.xp,
        fixed_chunks=run.masked.adapter.fixed_chunks,
        advance=run.advance,
    )
    return _score_cam(run.activations, scores, run.size, xp=run.xp)


class GradCAM(Explainer):
    """Grad-CAM (arXiv 1610.02391): channels weighed by the mean of their gradients; one forward, one backward."""

    name = "grad-cam"
    needs_gradients = True
    needs_masks = False

    def explain(self, run: Run) -> Result:
        """`N(U(relu(sum_k mean_ij(dy_c/dA_k) A_k)))`."""
        return Result(_grad_cam_map(run), {}, {})


class ScoreCAM(Explainer):
    """Score-CAM (arXiv 1910.01279): channels weighed by the logit of the image masked with them.

    One evaluation of the model for each channel that is not constant, whatever the number of targets.
    """

    name = "score-cam"
    needs_gradients = False
    needs_masks = True

    def explain(self, run: Run) -> Result:
        """`N(relu(U(sum_k softmax(s)_k A_k)))`."""
        return Result(_score_cam_map(run), {}, {})


class FusionCAM(Explainer):
    """Fusion-CAM (arXiv 2603.05386): Grad-CAM, denoised, and Score-CAM, fused pixel by pixel by their similarity.

    Args:
        model, layer, and every keyword of `Explainer`.
        percentile: values of the gradient map below it are noise; in [0, 100].
        contributions: "clipped" (negative contributions count as 0) or "signed" (the published arithmetic).

    Raises:
        TypeError, ValueError: as `Explainer`.
    """

    name = "fusion-cam"
    needs_gradients = True
    needs_masks = True

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        percentile: float = 10,
        contributions: Contributions = "clipped",
        **keywords: Any,
    ):
        self.percentile = require_percentage(percentile)
        self.contributions = require_mode(contributions)
        super().__init__(model, layer, **keywords)

    def explain(self, run: Run) -> Result:
        """Steps 1 to 3 of the paper, with every stage in the parts."""
        fusion = _fusion_cam(
            _grad_cam_map(run),
            _score_cam_map(run),
            run.masked.probabilities,
            run.masked.black_probabilities(),
            self.percentile,
            self.contributions,
            len(run.size),
            xp=run.xp,
        )
        return Result(fusion.maps, fusion.parts, fusion.weights)


EXPLAINERS: dict[str, type[Explainer]] = {each.name: each for each in (FusionCAM, GradCAM, ScoreCAM)}
"""The explainers by name."""
