"""The call shape that all explainers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Unpack

from fusioncam_core.arrays.checks import require_size_of, require_switch
from fusioncam_core.arrays.namespaces import Array, Namespace, indices_like, to_numpy
from fusioncam_core.arrays.programs import as_one_program
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.errors import (
    CannotRunError,
    InvalidTypeError,
    InvalidValueError,
    NotRunError,
    UnconnectedError,
)
from fusioncam_core.explainers import registry
from fusioncam_core.explainers.ahead import Ahead
from fusioncam_core.explainers.arguments import WITHOUT_EFFECT, Value
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.diagnostics import (
    OutputCheck,
    images_from,
    warn_of_empty_maps,
    warn_of_zero_gradients,
)
from fusioncam_core.explainers.model_inputs import ModelInputs
from fusioncam_core.explainers.options import (
    BUDGET,
    COMBINES,
    DEFAULTS,
    ExplainerOptions,
    require_known,
    require_map_size,
)
from fusioncam_core.explainers.over_data_sets import OverDataSets
from fusioncam_core.explainers.provenance import provenance_of
from fusioncam_core.explainers.result import Result, checked, require_one_size, united
from fusioncam_core.methods.form import Combined, Form, ended, finished
from fusioncam_core.models.adapter import Capture, LayerCapture, LayerInfo, ModelAdapter, split_call, unconnected_words
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.baselines import erased_images
from fusioncam_core.models.batch_size import BatchSize, ModelBatching, Setting, Span, require_batch_size
from fusioncam_core.models.default_layer import AnyOutput, default_layer
from fusioncam_core.models.digest import weights_digest
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.fixed_batch import with_fixed_batch
from fusioncam_core.models.function_scores import Functions, FunctionScores, Scores, function_scores, target_name
from fusioncam_core.models.inputs import Inputs, batch_length, leaf, require_paths, rows_of
from fusioncam_core.models.masked_steps import MaskedSteps
from fusioncam_core.models.masking import MaskedScorer
from fusioncam_core.models.measurements import MeasuredCall, Measurements
from fusioncam_core.models.outputs import ClassScores, Task, at_targets, probabilities_of, require_rows
from fusioncam_core.models.pairing import require_own_rows
from fusioncam_core.models.session import Opened, in_session
from fusioncam_core.models.targets import Targets, check_range, check_top, read_targets
from fusioncam_core.plugins.manager import adapt_model
from fusioncam_core.results.explanation import Explanation, join

if TYPE_CHECKING:
    from fusioncam_core.stores.fingerprints import Fingerprints

Family = Literal["gradient", "region", "ensemble"]

Work = TypeVar("Work")

Behind = Callable[[], Any] | None
"""Gives the images of the next call, or None where they are not there yet; None where nobody knows of a next call."""

NO_LAYER = MeasuredCall("none", None)
"""What an explanation names as its layer if its method needs none."""


class Explainer(OverDataSets, Value, ABC):
    """A method for one model and layer: call it with images.

    A method of your own is a subclass with `name`, `title`, `family`, `paper` and what it needs, and one method,
    `explain`: docs/tutorials/own_method.md. By its name it can be asked for like any other.

    Args:
        model: a model of any framework with a plugin, or a `ModelAdapter`.
        layer: a layer's name or the layer itself; None for the last call that sees the explained input, that has space,
            and at whose positions the outputs have a gradient, besides pooling layers, a head's map of the classes and
            the parts of an attention. Of a layer that runs several times, `name#0`, `name#1`, ... are its calls, and
            the name alone means the last one that sees the explained input. A list of layers explains each and combines
            the maps; the parts are then the maps of the layers, by name. Which axes are space, and where the patches
            are in a row of tokens, is measured by at most eight small passes, once for a shape of inputs;
            `layers` reports it.
        task: what the outputs are: "multiclass" (softmax), "multilabel" (a sigmoid per class) or "binary"
            (one logit: class 1 is `z`, class 0 is `-z`).
        output_kind: whether the model returns "logits" or "probabilities". Where the backend finds the logits behind a
            model's last softmax or sigmoid itself, as with Keras, either word will do.
        output: the position or name of the explained one of several outputs.
        masked_input: the position or name of the explained one of several inputs, or, where inputs lie in nested
            containers, the path to it, such as `(0, "mri")`.
        shared: positions, names or paths of inputs that all images share: prompts, a graph, one row of metadata. They
            come to the model as they are, however many images are run.
        reshape: of a layer of tokens: their grid, such as (14, 14), or a linear function from the layer's output
            to (B, C, *spatial). None infers both where that is unambiguous.
        combine: of several layers, how their maps become one: "mean", "max" or "product", normalised again.
        batch_size: the most images, masked ones included, that the model sees at once. "auto" finds by timing, in the
            first calls, what is fastest, and keeps it for images of that shape. Either is halved, with a
            `MemoryWarning`, where the device's memory does not hold so many.
        baseline: what an erased pixel is, in the model's input space: "zero", "blur", a number, one value
            a channel, or an image.
        relu: whether what speaks against a target is cut off, as the papers have it. False keeps it, as negative
            values; a map is then normalised to [-1, 1] by its largest magnitude, so that 0 stays 0.
        normalised: whether each map is normalised. False gives the values in the method's own units, to be compared
            between targets and images. Of normalised maps `Explanation.raw_range` has what they were.
        size: of the maps: "input", the input's spatial size; "layer", the layer's, without any resize; or one length
            for each axis of space, such as (56, 56). Masks always have the input's.
        progress: a progress bar: True, False, or None to show it when somebody watches a terminal.
        weights_digest: whether each call digests the model's weights, as they are then, for
            `explanation.provenance.weights_digest`. Reading the 4.7 million of an EfficientNet-Lite0 takes 36 ms, about
            what a Grad-CAM takes, and nothing beside a Fusion-CAM.
        backend_options: for the model's backend, such as `{"channels": "last"}`.

    Explainers of the same class, model and arguments are equal. They pickle and copy as far as the model does.

    Raises:
        TypeError: if no plugin adapts the model, or for an unknown option.
        ValueError: for a layer the model does not have, or a value out of range.

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> cam = GradCAM(model, "0", relu=False)
        >>> cam
        GradCAM(Sequential, layer='0', relu=False)
        >>> explanation = cam(strip, targets=[[0, 1]])  # two classes of one image
        >>> explanation.maps[0, 0], explanation.maps[0, 1]
        (tensor([[1.0000, 0.5000, 0.0000, 0.0000]]), tensor([[0., 0., 0., 1.]]))
        >>> explanation.scores
        tensor([[1.5000, 2.0000]])
        >>> cam == GradCAM(model, "0", relu=False), cam == GradCAM(model, "0")
        (True, False)
    """

    name: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[Family]
    paper: ClassVar[str] = ""
    needs_gradients: bool = False
    needs_masks: ClassVar[bool] = False
    masks_images: ClassVar[bool] = True  # with needs_masks: whether images are masked, so that baseline= counts
    needs_layer: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = False
    takes_engine: ClassVar[bool] = False
    takes_form: ClassVar[bool] = False
    option_defaults: ClassVar[ExplainerOptions] = DEFAULTS

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        # Whoever ends in another way says anew whether the options of `finish` are heard.
        if "explain" in vars(cls) and "takes_form" not in vars(cls):
            cls.takes_form = False
        if "name" in vars(cls):
            registry.register(cls)

    def __init__(self, model: Any, layer: Any = None, **options: Unpack[ExplainerOptions]):
        if not hasattr(self, "name"):
            raise InvalidTypeError(f"The method {type(self).__name__} must declare name and title, and has none.")
        require_known(options, DEFAULTS, type(self))
        chosen: ExplainerOptions = {**self.option_defaults, **options}
        self.batch_size = require_batch_size(chosen["batch_size"])
        self.scores = ClassScores(chosen["task"], chosen["output_kind"], chosen["output"])
        self.masked_input = chosen["masked_input"]
        self.shared = require_paths(chosen["shared"])
        self.reshape = chosen["reshape"]
        self.baseline = chosen["baseline"]
        self.progress = chosen["progress"]
        self.weights_digest = require_switch(chosen["weights_digest"], "weights_digest")
        self.combine = chosen["combine"]
        if self.combine not in COMBINES:
            raise InvalidValueError(f"combine is one of {', '.join(map(repr, COMBINES))}: got {self.combine!r}.")
        self.form = Form(chosen["relu"], chosen["normalised"])
        self.size = require_map_size(chosen["size"])
        self._require_form(several_layers=isinstance(layer, list | tuple) and len(layer) > 1)
        self.adapter = adapt_model(model, chosen["backend_options"])
        given = list(layer) if isinstance(layer, list | tuple) and layer else [layer]
        named = tuple(self.adapter.find(each) for each in given) if layer is not None and self.needs_layer else None
        self._layers: tuple[str, ...] | None = named if self.needs_layer else ()
        self._finds_layer = self._layers is None
        self._choice = self._choose()
        self._steps = self._new_steps()
        self._check_outputs = OutputCheck(self.adapter, self.masked_input)
        self._own_rows: set[Any] = set()
        told = "channels" in (chosen["backend_options"] or {})
        self._inputs = ModelInputs(self.adapter, self.masked_input, self.shared, self.scores.output, channels_told=told)
        self._ahead = Ahead(self._inputs.that_run)

    @property
    def layer_names(self) -> tuple[str, ...] | None:
        """The explained layers; none for a method that needs none, None while the default one is not found yet."""
        return self._layers

    def _options(self) -> Mapping[str, Any]:
        return {**self.option_defaults, **(dict.fromkeys(BUDGET) if self.takes_budget else {})}

    def _model_name(self) -> str:
        return self.adapter.model_name

    def fingerprint(self, words: Fingerprints) -> str:
        """What tells its maps from those of others, in a folder of results: class, options, layers and the model."""
        given = self.get_params()
        options = {name: each for name, each in given.items() if name not in WITHOUT_EFFECT}
        parts = {f"{name} in use": each for name, each in vars(self).items() if isinstance(each, Explainer)}
        layers = None if given["layer"] is None else self.layer_names
        own = words.of_object(self, {**options, **parts, "layer": layers}, repr(self.name))
        return f"{own} of {words.model(self.adapter, given['model'])}"

    def _require_form(self, *, several_layers: bool) -> None:
        """Refuse a form of the maps that the method does not have."""
        if not self.takes_form and not self.usual:
            raise InvalidValueError(
                f"{self.title} gives its maps in [0, 1] at the input's size: expected none of relu=, normalised= and "
                "size=. A method has them if its class says takes_form = True and its explain ends with self.finish: "
                "docs/tutorials/own_method.md."
            )
        if self.size == "layer" and not self.needs_layer:
            raise InvalidValueError(
                f"{self.title} looks at no layer: expected size='input', or one length for each axis of space, such as "
                "(56, 56), got size='layer'."
            )
        if several_layers and self.combine == "product" and not self.form.relu:
            raise InvalidValueError(
                "The product of two maps that speak against a target would speak for it: with relu=False expected "
                "combine='mean' or 'max', got 'product'."
            )

    @property
    def usual(self) -> bool:
        """Whether the maps are in [0, 1] at the input's size: what metrics, and the stages of an ensemble, need."""
        return self.form.usual and self.size == "input"

    def require_usual(self, purpose: str) -> None:
        """Refuse maps of another form or size than the usual one.

        Args:
            purpose: what needs them, to begin a sentence with.

        Raises:
            ValueError: saying what to leave out.
        """
        if not self.usual:
            raise InvalidValueError(
                f"{purpose} maps in [0, 1] at the input's size: got those of {self.title} with relu={self.form.relu}, "
                f"normalised={self.form.normalised} and size={self.size!r}. Leave these options out."
            )

    # --- the method

    @abstractmethod
    def explain(self, batch: Batch) -> Result:
        """The method itself: maps (B, K, *size) of one batch."""

    def map_size(self, batch: Batch) -> tuple[int, ...]:
        """The spatial size of the batch's maps.

        Raises:
            ValueError: if a size was asked for that has not as many axes as the images have of space.
        """
        if self.size == "layer":
            return tuple(int(length) for length in batch.activations.shape[2:])
        return batch.size if self.size == "input" else require_size_of(self.size, len(batch.size))

    def finish(self, batch: Batch, combined: Combined) -> Result:
        """The result of what a method has summed up: cut, resized and normalised as the explainer's options say.

        Args:
            batch: that it was made of.
            combined: (B, K, *spatial), usually of the layer's size.

        Raises:
            ValueError: for a size that does not fit, and raw values beyond their dtype's range.
        """
        found = finished(combined, self.map_size(batch), self.form, ranges=True, xp=batch.xp)
        return Result(found.maps, raw_range=found.raw_range, combined=combined)

    def finish_with(self, batch: Batch, formula: Callable[..., Combined], *arrays: Any) -> Result:
        """The same of what a formula sums up of these arrays: in one program, where the namespace compiles.

        Args:
            batch: that they were made of.
            formula: as `fusioncam_core.arrays.programs.as_one_program` takes functions.
            *arrays: that it takes.

        Raises:
            ValueError: as `finish`.
        """
        combined, found = ended(formula, *arrays, size=self.map_size(batch), form=self.form, xp=batch.xp)
        return Result(found.maps, raw_range=found.raw_range, combined=combined)

    def mask_count(self, batch: Batch) -> int | None:
        """How many steps the method tells `batch.advance` of; None if it cannot know."""
        return int(batch.activations.shape[0] * batch.activations.shape[1]) if self.needs_masks else 0

    # --- the layers

    def session(self) -> Opened:
        """A context in which the calling thread has the model to itself, at inference."""
        return self.adapter.session()

    # --- the inputs

    def channel_axis_of(self, images: Array) -> int | None:
        """Where such images (B, ...), the explained input, have their channels; None if they have none."""
        return self._inputs.channel_axis_of(images)

    def _find_channels(self, inputs: Inputs) -> None:
        self._inputs.find_channels(inputs, self.fitting)

    def size_of(self, images: Array) -> tuple[int, ...]:
        """The spatial size of such images (B, ...)."""
        return spatial_size(images, self.channel_axis_of(images))

    def prepared(self, images: Any) -> Inputs:
        """The inputs as the model takes them.

        Raises:
            TypeError, ValueError: as for a call.
        """
        return self._inputs.prepared(images)

    # --- the layers as they run

    @in_session
    def layers(self, images: Any) -> list[LayerInfo]:
        """The model's layers in the order they run on the images, the default one marked.

        Raises:
            TypeError, ValueError: as for a call.
        """
        return self._inputs.of_what_runs(images, self.prepared(images), self._described)

    def _described(self, inputs: Inputs) -> list[LayerInfo]:
        first = rows_of(inputs, 0, 1)
        self._find_channels(first)
        return self.fitting(lambda: self._described_from(first), first)

    def _described_from(self, first: Inputs) -> list[LayerInfo]:
        measurements = self._measurements(first)
        name = self._default_layer(measurements, first, ())
        default = None if name is None else split_call(name)[0]
        described = measurements.described(AnyOutput(self.scores.output))
        return [replace(layer, default=layer.name == default) for layer in described]

    def _measurements(self, first: Inputs) -> Measurements:
        axis = self.channel_axis_of(leaf(first, self.masked_input))
        return Measurements(self.adapter, first, self.masked_input, self.scores.output, channel_axis=axis)

    def _default_layer(self, measurements: Measurements, first: Inputs, functions: Functions) -> str | None:
        """The call for `layer=None`, found by runs of one image; None if the model has none to explain."""
        return default_layer(
            measurements,
            self.adapter,
            first,
            FunctionScores(functions) if functions else AnyOutput(self.scores.output),
            reshape=self.reshape,
        )

    def _layers_for(self, inputs: Inputs, targets: Targets) -> tuple[MeasuredCall, ...]:
        """The explained calls of layers; if no layer was named, the default one is found, once."""
        if self._layers == ():
            return ()
        first = rows_of(inputs, 0, 1)
        measurements = self._measurements(first)
        if self._layers is None:
            name = self._default_layer(measurements, first, targets.functions[0] if targets.functions else ())
            if name is None:
                raise measurements.why_none() or self.adapter.no_default_layer(first, self.needs_gradients)
            self._layers = (name,)
        return measurements.calls(self._layers)

    # --- a call

    def __call__(self, images: Any, targets: Any = None) -> Explanation:
        """Explain every image.

        Args:
            images: a floating batch (B, ...) in the layout of the model's input, preprocessed; an array of the
                framework or of NumPy. One image without the batch axis is a batch of one.
            targets: None (each image's top class), one class, (B,) classes, (B, K) for K classes an image, "top5"
                for as many top classes; or a function of the model's raw outputs for n images that returns (n,)
                scores, for all images, a list of B such functions, one an image, or B lists of K of them
                (`fusioncam_core` has ready ones, such as `Contrast`). A function of one image is called with the
                outputs of that image and of its masked copies.

        Returns:
            An explanation with maps (B, *spatial), or (B, K, *spatial) for K targets: in [0, 1] and of the input's
            size, unless `relu`, `normalised` and `size` say otherwise.

        Raises:
            TypeError: if images or targets are of a wrong dtype.
            ValueError: for shapes, targets or options that do not fit the model, or NaN or infinity on the way.
        """
        return self._call(images, targets, self.progress)

    @in_session
    def _call(self, images: Any, targets: Any, progress: bool | None, behind: Behind = None) -> Explanation:
        """As a call.

        Args:
            images, targets, progress: of it.
            behind: gives the images of the next call, if they are there by then.
        """
        inputs = self._ahead.inputs(images)
        return self._inputs.of_what_runs(images, inputs, lambda given: self._explain(given, targets, progress, behind))

    def _explain(self, inputs: Inputs, targets: Any, progress: bool | None, behind: Behind) -> Explanation:
        self._find_channels(inputs)
        wanted = read_targets(targets, batch_length(inputs))
        if self.masked_input is not None:
            require_own_rows(self.adapter, inputs, self.masked_input, self._own_rows)

        # Images that are seen together share chunks of masks.
        groups = self._steps.groups(leaf(inputs, self.masked_input))

        def explain(span: Span) -> Explanation:
            start, stop = span.start, span.start + span.count
            rows = self._ahead.rows(inputs, span)
            self._look_ahead(groups, inputs, span, behind)
            with images_from(start, stop):
                return self._explain_rows(rows, wanted.rows(start, stop), progress)

        parts = [part for part, _ in groups.over(batch_length(inputs), explain, ready=maps_made)]
        explanation = self._with_digest(join(parts, self.adapter.namespace))
        warn_of_empty_maps(explanation)
        return explanation

    def _look_ahead(self, groups: ModelBatching, inputs: Inputs, span: Span, behind: Behind) -> None:
        """Tell the adapter what it sees after the images of the span, if it may begin with that.

        Masked images take so much longer than the pass before them that it would not matter.
        """
        if self.needs_masks or not self.adapter.foresees:
            return
        following = groups.following(span, batch_length(inputs))
        if following is not None:
            self._ahead.tell(self.adapter, inputs, following)
        elif behind is not None:
            self._ahead.tell_of_next(self.adapter, behind(), groups)

    def _with_digest(self, explanation: Explanation) -> Explanation:
        """The explanation, and in its provenance the digest of the weights, if that is asked for."""
        if not self.weights_digest or explanation.provenance is None:
            return explanation
        # Now, in the session: whether weights were changed since cannot be told later (tests/test_provenance.py).
        digested = replace(explanation.provenance, weights_digest=weights_digest(self.adapter))
        return replace(explanation, provenance=digested)

    def _explain_rows(self, inputs: Inputs, targets: Targets, progress: bool | None) -> Explanation:
        with self._choice.watched(batch_length(inputs)):
            result, batches = self.run(inputs, targets, progress)
        return self._explanation(result, batches, several=targets.several)

    @in_session
    def run(self, inputs: Inputs, targets: Targets, progress: bool | None) -> tuple[Result, list[Batch]]:
        """The result for inputs that `prepare` gave, and what was seen of them at each layer."""
        return self.fitting(lambda: self._run(inputs, targets, progress), inputs)

    def fitting(self, work: Callable[[], Work], inputs: Inputs) -> Work:
        """What the work with the model gives; done again in chunks of another size, if the model runs those only.

        Raises:
            CannotRunError: if the number of images is not the reason why the model does not run.
        """
        try:
            return work()
        except CannotRunError as error:
            self._use(with_fixed_batch(self.adapter, inputs, error))
        except self.adapter.memory_errors as error:
            # Whoever has the images in smaller groups goes on with those; to others the note says what to do.
            if batch_length(inputs) > 1 and self.adapter.ran_out_of_memory(error):
                error.add_note(
                    f"The device's memory does not hold {batch_length(inputs)} images at once in "
                    f"{self.adapter.model_name}: say a smaller batch_size=."
                )
            raise
        return work()

    def _use(self, adapter: ModelAdapter) -> None:
        """Go on with another adapter of the same model."""
        self.adapter = self._inputs.adapter = adapter
        self._steps = self._new_steps()
        self._check_outputs = OutputCheck(adapter, self.masked_input)

    def _choose(self) -> Choice:
        """Whether an engine runs masked images."""
        return Choice()

    def _new_steps(self, batch_size: BatchSize | Setting | None = None) -> MaskedSteps:
        size = self.batch_size if batch_size is None else batch_size
        return MaskedSteps(self.adapter, self.masked_input, size, masked=self.needs_masks, choice=self._choice)

    def _run(self, inputs: Inputs, targets: Targets, progress: bool | None) -> tuple[Result, list[Batch]]:
        results, batches = [], self.see(inputs, targets)
        require_one_size({batch.layer: self.map_size(batch) for batch in batches})
        for batch in batches:
            watched = progress if self.needs_masks else False
            with progress_bar(self.mask_count(batch), self.title, watched) as batch.advance:
                expected = (*map(int, batch.targets.shape), *self.map_size(batch))
                results.append(checked(self.explain(batch), expected, type(self).__name__))
        return united(results, batches, self.combine, self.form), batches

    def see(self, inputs: Inputs, targets: Targets) -> list[Batch]:
        """The batch at each of the layers: one forward pass, and one backward pass if the method needs it."""
        adapter, xp, images = self.adapter, self.adapter.namespace, leaf(inputs, self.masked_input)
        passes = 1 + targets.waits
        targets = targets.on_plain(adapter.forward(inputs)) if targets.waits else targets
        scores = self._scores_of(inputs, targets)
        asked = None if targets.classes is None else indices_like(targets.classes, images, xp)
        layers, capture = self._layers_seen(inputs, targets, scores, asked)
        outputs = adapter.forward(inputs) if capture is None else capture.outputs
        logits = scores.logits(outputs)
        require_rows(logits, batch_length(inputs))
        if targets.classes is not None:
            check_range(targets.classes, int(logits.shape[1]), adapter.model_name)
        else:
            check_top(1 if targets.functions else targets.top, int(logits.shape[1]), adapter.model_name)
            asked = scores.default_targets(logits) if targets.functions else None
        seen = at_targets(logits, asked, top=1 if targets.functions else targets.top, xp=xp)
        seen.require_finite(logits, xp)
        self._check_outputs(inputs, outputs, scores)
        masked = self._masked(scores, inputs, seen.targets)
        batches = [
            Batch(
                adapter,
                layer.name,
                scores,
                inputs,
                seen.targets,
                logits,
                seen.scores,
                None if capture is None else self._captured(capture, layer),
                masked.sharing(),
                which=self.masked_input,
                reshape=self.reshape,
                channel_axis=self.channel_axis_of(images),
                evaluations=0 if number else batch_length(inputs) * passes,
                evidence=layer.evidence,
                kind=layer.kind,
            )
            for number, layer in enumerate(layers or (NO_LAYER,))
        ]
        for batch in batches:
            warn_of_zero_gradients(batch, several=targets.several)
        return batches

    def _layers_seen(
        self, inputs: Inputs, targets: Targets, scores: Scores, asked: Array | None
    ) -> tuple[tuple[MeasuredCall, ...], Capture | None]:
        """The explained calls and what one pass left of them; measured anew if the model is no longer what it was."""
        layers = self._layers_for(inputs, targets)
        if not layers:
            return layers, None
        score = scores if self.needs_gradients else None
        try:
            capture = self.adapter.capture(inputs, [layer.name for layer in layers], score, asked)
        except NotRunError:
            if all(layer.evidence is None for layer in layers):
                raise
        else:
            if all(layer.fits(capture.layers[layer.name].activations) for layer in layers):
                return layers, capture
        self.adapter.measured.clear()
        self._layers = None if self._finds_layer else self._layers
        layers = self._layers_for(inputs, targets)
        return layers, self.adapter.capture(inputs, [layer.name for layer in layers], score, asked)

    def _captured(self, capture: Capture, layer: MeasuredCall) -> LayerCapture:
        """What was captured of a layer.

        Raises:
            UnconnectedError: if gradients were asked for, and the scores do not depend on it.
        """
        captured = capture.layers[layer.name]
        if self.needs_gradients and captured.gradients is None:
            raise UnconnectedError(unconnected_words(layer.name, self.adapter.model_name, self.adapter.gradient_cuts))
        return captured

    def _scores_of(self, inputs: Inputs, targets: Targets) -> Scores:
        if targets.functions:
            return function_scores(targets.functions, shared=targets.shared)
        scores = self.scores.behind(self.adapter.ending(inputs, self.scores.output))
        return replace(scores, top=targets.top)

    def _masked(self, scores: Scores, inputs: Inputs, targets: Array) -> MaskedScorer:
        images = leaf(inputs, self.masked_input)
        channel_axis = self.channel_axis_of(images)
        return MaskedScorer(
            self._steps,
            scores,
            inputs,
            targets,
            channel_axis=channel_axis,
            erased=erased_images(
                images, "zero" if self.baseline is None else self.baseline, channel_axis, self.adapter.namespace
            ),
        )

    def _explanation(self, result: Result, batches: list[Batch], *, several: bool) -> Explanation:
        batch = batches[0]
        task = batch.scores.task if isinstance(batch.scores, ClassScores) else None
        made = {
            "maps": result.maps,
            "targets": batch.targets,
            "scores": batch.target_scores,
            "parts": dict(result.parts),
            "weights": dict(result.weights),
            "uncertainty": result.uncertainty,
            "raw_range": result.raw_range,
        }
        made, probabilities = _with_probabilities(made, batch.logits, task=task, several=several, xp=batch.xp)
        return Explanation(
            method=self.name,
            layer=", ".join(each.layer for each in batches),
            model=self.adapter.model_name,
            **made,
            class_probabilities=probabilities,
            images=batch.images,
            image_channel_axis=batch.channel_axis,
            evaluations=sum(each.evaluations for each in batches),
            titles={"maps": self.title, **result.titles},
            masks_run=result.masks_run,
            provenance=provenance_of(self, [each.layer for each in batches], batch.images),
            target_names=_target_names(batch),
            form=self.form.name,
        )


@as_one_program
def _with_probabilities(
    made: dict[str, Any], logits: Array, *, task: Task | None, several: bool, xp: Namespace
) -> tuple[dict[str, Any], Array]:
    """What was made (B, K, ...) with the targets' probabilities, of one target without its axis; and all classes'."""
    probabilities = probabilities_of(logits, task, xp)
    made = {**made, "probabilities": xp.take_along_axis(probabilities, made["targets"], axis=1)}
    return made if several else _of_first_targets(made), probabilities


def _of_first_targets(made: dict[str, Any]) -> dict[str, Any]:
    """Arrays (B, 1, ...), in dicts, without the axis of one target."""
    return {
        name: _of_first_targets(each) if isinstance(each, dict) else None if each is None else each[:, 0, ...]
        for name, each in made.items()
    }


def maps_made(explanation: Explanation) -> object:
    """Wait until the maps are made, where they are made beside us."""
    return to_numpy(explanation.maps)


def _target_names(batch: Batch) -> tuple[tuple[str, ...], ...]:
    """What the target functions of each image are called; none of classes."""
    if isinstance(batch.scores, ClassScores):
        return ()
    return tuple(tuple(map(target_name, row)) for row in batch.scores.of_images(int(batch.targets.shape[0])))
