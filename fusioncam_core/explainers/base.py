"""The call shape that all explainers share."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from fusioncam_core.arrays.checks import require_finite
from fusioncam_core.arrays.namespaces import Array, indices_like
from fusioncam_core.arrays.words import normalise
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.batch import Batch, batch_size
from fusioncam_core.explainers.dataset import explain_many
from fusioncam_core.explainers.diagnostics import warn_of_empty_maps, warn_of_probabilities, warn_of_zero_gradients
from fusioncam_core.models.adapter import Capture, LayerInfo, ModelAdapter
from fusioncam_core.models.batch_size import BatchSize, ModelBatching, Span, require_batch_size
from fusioncam_core.models.default_layer import AnyOutput, default_layer
from fusioncam_core.models.inputs import Inputs, leaf, map_leaves, prepare
from fusioncam_core.models.layout import Reshape
from fusioncam_core.models.masking import Baseline, MaskedScorer, MaskedSteps, erased_images, spatial_size
from fusioncam_core.models.outputs import ClassScores, FunctionScores, OutputKind, Scores, Task
from fusioncam_core.models.targets import Targets, check_range, read_targets
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.explanation import Explanation, join

COMBINATIONS = {"mean": "mean", "max": "max", "product": "prod"}
"""How the maps of several layers become one: the word, and the array API's name for it."""


NO_LAYER = "none"
"""What an explanation names as its layer if its method needs none."""


@dataclass(frozen=True)
class Result:
    """A method's maps (B, K, *size), with the stages and the numbers (B, K) it has, and titles of stages to show.

    Of a region map with channels that may be left out: how many masks of each image were run, `masks_run` (B,), and how
    far each map may still move, `uncertainty` (B, K).
    """

    maps: Array
    parts: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    masks_run: Array | None = None
    uncertainty: Array | None = None


class Explainer(ABC):
    """A method for one model and layer: call it with images.

    Args:
        model: a model of any framework with a plugin, or a `ModelAdapter`.
        layer: a layer's name or the layer itself; None for the last one in execution order whose output
            has spatial extent (one more run of one image finds it) or, in a model with rows of tokens, the last one
            whose patches matter to the outputs (a few more runs of one image, forwards and backwards). A list of
            layers explains each and combines the maps; the parts are then the maps of the layers, by name.
        task: what the outputs are: "multiclass" (softmax), "multilabel" (a sigmoid per class) or "binary"
            (one logit: class 1 is `z`, class 0 is `-z`).
        output_kind: whether the model returns "logits" or "probabilities". Where the backend finds the logits behind a
            model's last softmax or sigmoid itself, as with Keras, either word will do.
        output: the position or name of the explained one of several outputs.
        masked_input: the position or name of the explained one of several inputs.
        reshape: of a layer of tokens: their grid, such as (14, 14), or a linear function from the layer's output
            to (B, C, *spatial). None infers both where that is unambiguous.
        combine: of several layers, how their maps become one: "mean", "max" or "product", normalised again.
        batch_size: the most images, masked ones included, that the model sees at once. "auto" finds by timing, in the
            first calls, what is fastest, and keeps it for images of that shape. Either is halved, with a
            `MemoryWarning`, where the device's memory does not hold so many.
        baseline: what an erased pixel is, in the model's input space: "zero", "blur", a number, one value
            a channel, or an image.
        progress: a progress bar: True, False, or None to show it when somebody watches a terminal.
        **options: keywords for the model's backend, such as `channels="last"`.

    Raises:
        TypeError: if no plugin adapts the model, or for an unknown option.
        ValueError: for a layer the model does not have, or a value out of range.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs_gradients: bool = False
    needs_masks: ClassVar[bool] = False
    needs_layer: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        *,
        task: Task = "multiclass",
        output_kind: OutputKind = "logits",
        output: int | str | None = None,
        masked_input: int | str | None = None,
        reshape: Reshape = None,
        combine: str = "mean",
        batch_size: BatchSize = "auto",
        baseline: Baseline = "zero",
        progress: bool | None = None,
        **options: Any,
    ):
        self.batch_size = require_batch_size(batch_size)
        self.scores = ClassScores(task, output_kind, output)
        self.masked_input = masked_input
        self.reshape = reshape
        self.baseline = baseline
        self.progress = progress
        if combine not in COMBINATIONS:
            raise InvalidValueError(f"combine is one of {', '.join(map(repr, COMBINATIONS))}, and {combine!r} came.")
        self.combine = combine
        layers = list(layer) if isinstance(layer, list | tuple) and layer else [layer]
        self._at: Callable[[Any], ModelAdapter] = lambda layer: adapt_model(model, layer, **options)
        self.adapters: list[ModelAdapter] = [self._at(each) for each in layers]
        # As words, by which evaluations tell explainers apart; of a layer that was found it is the model that tells.
        self.layer = None if layer is None else tuple(adapter.layer_name for adapter in self.adapters)
        self._given = isinstance(model, ModelAdapter)
        self._chosen = layer is not None or self._given or not self.needs_layer
        self._searched = False
        self._default: str | None = None
        self._steps: dict[Scores, MaskedSteps] = {}

    @property
    def adapter(self) -> ModelAdapter:
        """The adapter of the (first) layer."""
        return self.adapters[0]

    @abstractmethod
    def explain(self, batch: Batch) -> Result:
        """The method itself: maps (B, K, *size) of one batch."""

    def mask_count(self, batch: Batch) -> int | None:
        """How many steps the method tells `batch.advance` of; None if it cannot know."""
        return int(batch.activations.shape[0] * batch.activations.shape[1]) if self.needs_masks else 0

    def layers(self, images: Any) -> list[LayerInfo]:
        """The model's layers in the order they run on the images, the default one marked.

        Raises:
            TypeError, ValueError: as for a call.
        """
        first = _rows(prepare(self.adapter, images, self.masked_input), 0, 1)
        with self.adapter.session():
            listed = self.adapter.layers(first)
        name = None if self._given else self._default_layer(listed, first)
        return listed if name is None else [replace(layer, default=layer.name == name) for layer in listed]

    def _default_layer(self, listed: list[LayerInfo], first: Inputs, targets: Targets | None = None) -> str | None:
        """The layer for `layer=None`, found by runs of one image, once; None where the adapter's own choice stands."""
        if not self._searched:
            functions = () if targets is None else targets.functions
            self._default = default_layer(
                listed,
                self._at,
                first,
                FunctionScores(functions) if functions else AnyOutput(self.scores.output),
                size=spatial_size(leaf(first, self.masked_input), self.adapter.input_channel_axis),
                reshape=self.reshape,
            )
            self._searched = True
        return self._default

    def _choose_layer(self, inputs: Inputs, targets: Targets) -> None:
        """Once, if no layer was named: move to the default one where that is not the adapter's own choice."""
        if not self._chosen:
            first = _rows(inputs, 0, 1)
            name = self._default_layer(self.adapter.layers(first), first, targets)
            self.adapters = self.adapters if name is None else [self._at(name)]
            self._chosen = True

    def __call__(self, images: Any, targets: Any = None) -> Explanation:
        """Explain every image.

        Args:
            images: a floating batch (B, ...) in the layout of the model's input, preprocessed; an array of the
                framework or of NumPy. One image without the batch axis is a batch of one.
            targets: None (each image's top class), one class, (B,) classes, (B, K) for K classes an image, "top5"
                for as many top classes, a function of the model's raw outputs for n images that returns (n,)
                scores, or a list of K such functions (`fusioncam_core.objectives` has ready ones).

        Returns:
            An explanation with maps (B, *spatial), or (B, K, *spatial) for K targets, in [0, 1].

        Raises:
            TypeError: if images or targets are of a wrong dtype.
            ValueError: for shapes, targets or options that do not fit the model, or NaN or infinity on the way.
        """
        return self._call(images, targets, self.progress)

    def explain_many(
        self,
        source: Any,
        targets: Any = None,
        *,
        preprocessing: Callable[[Any], Any] | None = None,
        prefetch: int = 2,
        progress: bool | None = None,
    ) -> Iterator[Explanation]:
        """Explain images from wherever they come, one after the other.

        They are explained in groups, whatever batches they come in: the masks of a group share the batches that the
        model sees. The next groups are read meanwhile, in another thread.

        Args:
            source: an array (N, ...) of any framework; a folder of photographs, or a list of files; or anything that
                yields batches, such as PyTorch's DataLoader or a `tf.data.Dataset`: arrays (n, ...), pairs (images,
                labels), or mappings with "image" or "pixel_values" (and "label"). For a model with several inputs,
                tuples or mappings of them, alone or in a pair with labels.
            targets: as for a call, the same for all images; or "labels", those of the source; or one row for each image
                of the source.
            preprocessing: of photographs: from a Pillow image to one input, as a `LoadedModel` has it.
            prefetch: how many groups are read ahead; 0 for none, without a thread.
            progress: a bar that counts images: True, False, or None to show it when somebody watches a terminal.

        Yields:
            The explanation of each image in turn, with an axis of one image: maps (1, *spatial) or (1, K, *spatial).
            Those of photographs have the files' names. A file that is no photograph is left out, with an
            `UnreadableImageWarning` that names it.

        Raises:
            TypeError, ValueError: as for a call; for a folder without photographs, or photographs without
                preprocessing; for labels or targets that are missing.
        """
        return explain_many(self, source, targets, preprocessing=preprocessing, prefetch=prefetch, progress=progress)

    def _call(self, images: Any, targets: Any, progress: bool | None) -> Explanation:
        inputs = prepare(self.adapter, images, self.masked_input)
        wanted = read_targets(targets, batch_size(inputs))
        self._choose_layer(inputs, wanted)
        with contextlib.ExitStack() as sessions:
            for adapter in self.adapters:
                sessions.enter_context(adapter.session())
            # Images that are seen together share chunks of masks.
            size = self.adapter.batch_size if self.batch_size == "auto" else self.batch_size
            batching = ModelBatching(self.adapter, size)

            def explain(span: Span) -> Explanation:
                start, stop = span.start, span.start + span.count
                return self._explain_rows(_rows(inputs, start, stop), wanted.rows(start, stop), progress)

            parts = [part for part, _ in batching.over(batch_size(inputs), explain)]
        explanation = join(parts, self.adapter.namespace)
        warn_of_empty_maps(explanation)
        return explanation

    def _explain_rows(self, inputs: Inputs, targets: Targets, progress: bool | None) -> Explanation:
        result, batches = self.run(inputs, targets, progress)
        return self._explanation(result, batches, several=targets.several)

    def run(self, inputs: Inputs, targets: Targets, progress: bool | None) -> tuple[Result, list[Batch]]:
        """The result for inputs that `prepare` gave, and what was seen of them at each layer."""
        self._choose_layer(inputs, targets)
        results, batches = [], []
        for adapter in self.adapters:
            batch = self.see(inputs, targets, adapter)
            watched = progress if self.needs_masks else False
            with progress_bar(self.mask_count(batch), self.title, watched) as batch.advance:
                results.append(self.explain(batch))
            batches.append(batch)
        return results[0] if len(results) == 1 else _combined(results, batches, self.combine), batches

    def see(self, inputs: Inputs, targets: Targets, adapter: ModelAdapter | None = None) -> Batch:
        """The batch at this explainer's layer: one forward pass, and one backward pass if the method needs it."""
        adapter = self.adapter if adapter is None else adapter
        xp, images = adapter.namespace, leaf(inputs, self.masked_input)
        scores = self._scores_of(inputs, targets)
        asked = None if targets.classes is None else indices_like(targets.classes, images, xp)
        if self.needs_layer:
            capture = adapter.capture(inputs, scores if self.needs_gradients else None, asked)
        else:
            capture = Capture(adapter.forward(inputs), None, None)
        logits = require_finite(scores.logits(capture.outputs), "model's outputs", xp)
        warn_of_probabilities(logits, scores, adapter)
        if targets.classes is None:
            asked = scores.default_targets(logits)
        else:
            check_range(targets.classes, int(logits.shape[1]), adapter.model_name)
        batch = Batch(
            adapter,
            scores,
            inputs,
            asked,
            logits,
            capture,
            self._masked(scores, inputs, asked),
            which=self.masked_input,
            reshape=self.reshape,
        )
        warn_of_zero_gradients(batch, several=targets.several)
        return batch

    def _scores_of(self, inputs: Inputs, targets: Targets) -> Scores:
        if targets.functions:
            return FunctionScores(targets.functions)
        scores = self.scores.behind(self.adapter.ending(inputs, self.scores.output))
        return replace(scores, top=targets.top)

    def _masked(self, scores: Scores, inputs: Inputs, targets: Array) -> MaskedScorer:
        images, channel_axis = leaf(inputs, self.masked_input), self.adapter.input_channel_axis
        key = replace(scores, top=1) if isinstance(scores, ClassScores) else scores
        if key not in self._steps:
            self._steps[key] = MaskedSteps(self.adapter, key, self.masked_input, self.batch_size)
        return MaskedScorer(
            self.adapter,
            scores,
            self._steps[key],
            inputs,
            targets,
            which=self.masked_input,
            erased=erased_images(images, self.baseline, channel_axis, self.adapter.namespace),
        )

    def _explanation(self, result: Result, batches: list[Batch], *, several: bool) -> Explanation:
        batch = batches[0]
        xp, probabilities = batch.xp, batch.scores.probabilities(batch.logits)

        def shaped(values: Array) -> Array:
            return values if several else values[:, 0, ...]

        return Explanation(
            method=self.name,
            layer=", ".join(adapter.layer_name for adapter in self.adapters) if self.needs_layer else NO_LAYER,
            model=self.adapter.model_name,
            maps=shaped(result.maps),
            targets=shaped(batch.targets),
            scores=shaped(batch.target_scores),
            probabilities=shaped(xp.take_along_axis(probabilities, batch.targets, axis=1)),
            class_probabilities=probabilities,
            images=batch.images,
            image_channel_axis=self.adapter.input_channel_axis,
            evaluations=sum(each.evaluations for each in batches),
            parts={name: shaped(part) for name, part in result.parts.items()},
            weights={name: shaped(weight) for name, weight in result.weights.items()},
            titles={"maps": self.title, **result.titles},
            masks_run=result.masks_run,
            uncertainty=None if result.uncertainty is None else shaped(result.uncertainty),
        )


def _combined(results: list[Result], batches: list[Batch], combine: str) -> Result:
    """The maps of several layers as one, and each as a part."""
    xp, spatial_ndim = batches[0].xp, len(batches[0].size)
    maps = xp.stack([result.maps for result in results], axis=0)
    united = normalise(getattr(xp, COMBINATIONS[combine])(maps, axis=0), spatial_ndim=spatial_ndim)
    parts = {batch.adapter.layer_name: result.maps for batch, result in zip(batches, results, strict=True)}
    if results[0].masks_run is None or results[0].uncertainty is None:
        return Result(united, parts)
    masks_run = xp.sum(xp.stack([result.masks_run for result in results]), axis=0)
    return Result(
        united, parts, masks_run=masks_run, uncertainty=xp.max(xp.stack([r.uncertainty for r in results]), axis=0)
    )


def _rows(inputs: Inputs, start: int, stop: int) -> Inputs:
    return map_leaves(lambda each: each[start:stop, ...], inputs)
