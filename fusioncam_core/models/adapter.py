"""The narrow waist: all that the core asks of a framework, for one model."""

from __future__ import annotations

import difflib
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from fusioncam_core.arrays.namespaces import Array, Namespace, dtype_name, indices_like
from fusioncam_core.errors import CannotRunError, InvalidTypeError, InvalidValueError, NotRunError
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, Which, is_one, leaves, taken
from fusioncam_core.models.memory import MEMORY_ERRORS, memory_is_full
from fusioncam_core.models.outputs import LostAxes, Shapes, shapes_of
from fusioncam_core.models.session import ModelSession, Opened, session_of
from fusioncam_core.models.structure import Shared, found

Score = Callable[[Any, Array], Array]
"""(the model's raw outputs, targets (B, K)) -> the scores (B, K) to differentiate."""

Ending = Literal["softmax", "sigmoid"]
"""The activation by which a model turns its logits into probabilities."""

CHANNELS: Mapping[str, int | None] = {"first": 1, "last": -1, "none": None}
"""The words for where channels are, and their axis in a batch; None where inputs have no channels."""

GRADIENT_SCALES = (2.0**14, 2.0**7, 1.0, 2.0**-7)
"""By what a score is multiplied before a backward pass in float16, and its gradients divided in float32: the first by
which none overflows. The smallest normal number of float16 is 6e-5, which a mean over 224 x 224 positions falls below.
"""


@dataclass(frozen=True)
class Execution:
    """How a model's device likes to work.

    Attributes:
        batch_size: how many images at once probably suit it: where the search for the fastest number starts.
        fixed_shapes: whether every call of a compiled function should have the same shapes, because a new shape costs
            a compilation; the core then pads the last chunk.
        memory_formats: the ways in which the inputs' values may lie in memory, by names for `memory_format`. The
            outputs are the same; which is faster is found out by running them.
        memory_errors: what else than MemoryError and RuntimeError the framework raises when the device's memory is
            full; among other things perhaps, which `ran_out_of_memory` then has to tell apart.
        only: whether the model runs so many images at once and no other number: none is looked for.
        beside: so many runs are worked on at once, each by a part of the processor: masks are shared out to as many.
    """

    batch_size: int = 16
    fixed_shapes: bool = False
    memory_formats: tuple[str, ...] = ("as given",)
    memory_errors: tuple[type[Exception], ...] = ()
    only: bool = False
    beside: int = 1


@dataclass(frozen=True)
class LayerCapture:
    """What one pass leaves behind of one layer.

    Attributes:
        activations: the layer's output in its own layout, batch first, detached.
        gradients: (K, *activations.shape): of each target's score with respect to the activations; None when no score
            was asked for.
        channel_axis: 1 or -1: where the channels are, as far as the backend can tell.
    """

    activations: Array
    gradients: Array | None
    channel_axis: int


@dataclass(frozen=True)
class Capture:
    """What one forward and one backward pass leave behind.

    Attributes:
        outputs: the model's outputs as it returned them, detached.
        layers: of each layer asked for, by the name it was asked by.
    """

    outputs: Any
    layers: Mapping[str, LayerCapture]


class LayerRun(NamedTuple):
    """One call of a layer: its number, counted from 0, its place among all calls of all layers, its output's shape."""

    number: int
    place: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerInfo:
    """A layer as it ran: its name, its kind, its output's shape with the batch, and whether it can be explained.

    Attributes:
        name: the path that `layer=` takes.
        kind: the class of the layer, or what else it is.
        shape: of the output, batch first.
        spatial: whether the output has channels and more than one position in space.
        default: whether `layer=None` takes this one.
        channel_axis: 1 or -1: where the channels of the output are, as far as the backend can tell.
        followed_by: an activation function that the output goes into and that is no layer itself, as far as the
            backend can tell: the map is of the values before it.
        calls: how often it ran; `name#0`, `name#1`, ... are its calls, and `name` alone is the last of them that sees
            the explained input.
        runs: its calls in their order, those whose outputs are arrays of floating-point numbers.
        named_outputs: whether it returned several outputs by name, so that it is not known with which of them the rest
            of the model goes on.
        finding: what was measured of it, in words and numbers.
        made_by: the kind of the layer inside it that made its output, where it only passes that on.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    spatial: bool
    default: bool = False
    channel_axis: int = 1
    calls: int = 1
    followed_by: str = ""
    runs: tuple[LayerRun, ...] = ()
    named_outputs: bool = False
    finding: str = ""
    made_by: str = ""


View = Callable[[str, Array, Namespace], Any]
"""(a call's name, its output, the namespace) -> what is kept of it: small arrays in tuples and lists, or None."""


CONVERTED = "converted"
"""By this word a session knows what a model was told that only its converted programs keep to."""


class ModelAdapter(ABC):
    """One model, in the words that the core understands; layers are arguments.

    An adapter never changes what it was given. Parameters, buffers, train or eval mode, `requires_grad`,
    stored gradients, hooks and layers are as before after every call, also when the call raised or was interrupted.
    The model runs as at inference (no dropout, running averages). Methods that run the model do so inside of its
    session (`fusioncam_core.models.session.in_session` opens it where that is not so yet), and taps of a layer act on
    the session's thread alone.

    `inputs` below is an array of the framework, batch first, or, for a model with several inputs, a tuple, list or
    mapping of such arrays and of whatever else the model takes, which `fusioncam_core.models.calling` passes by
    position, by name or whole. A `layer` is a name as `find` gives it.

    Attributes:
        namespace: the array words for the model's arrays.
        model_name: for messages.
        input_channel_axis: in batched inputs, counted from either end; None for inputs without channels.
        execution: how the model's device likes to work.
        rescales_inputs: whether the model brings raw images into its range itself.
        input_ndim_is_declared: whether `input_ndim` is what the model itself, or the user, says of its inputs, rather
            than what one of its layers suggests.
        declared_batch: the number of images that the model's inputs are declared for, if they are.
        frameworks: the modules of the libraries that the model is of, whose versions an explanation names.
        rows: how many images the smallest run has.

    Examples:
        >>> import torch
        >>> from fusioncam_core import adapt_model
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> [layer.name for layer in adapt_model(model).layers((strip,))]
        ['0', '1', '2']
    """

    namespace: Namespace
    model_name: str
    input_channel_axis: int | None = 1
    execution: Execution = Execution()
    gradient_cuts: str = "detach, no_grad, NumPy"
    """The framework's ways to cut a gradient, for messages."""
    rescales_inputs: bool = False
    input_ndim_is_declared: bool = True
    declared_batch: int | None = None
    frameworks: tuple[str, ...] = ()
    rows: int = 1

    # --- the model as a whole

    @abstractmethod
    def as_array(self, values: Any) -> Array:
        """One input on the model's device; floating values get the model's floating dtype, others keep theirs.

        Raises:
            InvalidTypeError: for anything but an array of NumPy or of the framework.
        """

    @abstractmethod
    def input_ndim(self, which: Which) -> int | None:
        """The axes of a batch of the named input (None: of the only one), or None if the model does not tell."""

    def batch_ndim(self, images: Array) -> int | None:
        """The axes of a batch of images like these, which are a batch or one image; None if the model does not tell.

        Where the model's structure does not tell it, a backend may find out on these images.
        """
        return self.input_ndim(None)

    @property
    def anchor(self) -> Any:
        """The object by which other adapters of the same model are known to be of it."""
        return self

    @cached_property
    def _model_session(self) -> ModelSession:
        return session_of(self.anchor)

    @property
    def measured(self) -> dict[Any, Any]:
        """What was measured of the model's layers, by the shapes of inputs: all adapters of the model share it."""
        return self._model_session.measured

    @property
    def converted(self) -> dict[Any, Any]:
        """Its programs that were converted for engines: all adapters of the model share them."""
        return self._model_session.converted

    @property
    def changes(self) -> int:
        """How often the model was told something else than before: what was compiled until then is of the past."""
        return self._model_session.changes

    def hear(self, tell: Callable[[], Any], of: Any = None) -> None:
        """Compare what the model is told, beside its weights, with what it was told last: first of all in `begin`.

        Last is the end of the session before: what the model's own code changes while it runs is no news.

        Args:
            tell: gives it so that it can be compared (`fusioncam_core.models.told`).
            of: what tells models apart that have one `anchor`.
        """
        self._model_session.hear(tell(), of)
        self.touch(lambda: self._model_session.note(tell(), of))

    def hear_if_converted(self, tell: Callable[[], Any], anew: Callable[[], Any] | None = None) -> None:
        """The same where nothing but what was converted for an engine keeps to what the model was told.

        Args:
            tell: gives it.
            anew: gives it after a session in which something was converted, of a model whose own code runs in copies:
                else nothing changes meanwhile. None asks `tell` after every session.
        """
        session = self._model_session
        if session.converted:
            session.hear(tell(), CONVERTED)
        before = list(session.converted.values())

        def note() -> None:
            now = list(session.converted.values())
            same = len(now) == len(before) and all(map(operator.is_, now, before))
            if now and not (same and anew is not None):
                session.note((anew or tell)(), CONVERTED)

        self.touch(note)

    def remade(self, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """What `make` compiles, run in the session: made again when the model has been told something else."""
        made, after = make(), self.changes

        def run(*arguments: Any) -> Any:
            nonlocal made, after
            if after != self.changes:
                made, after = make(), self.changes
            return made(*arguments)

        return lambda *arguments: self.session()(run)(*arguments)

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """A context inside the session in which no length of an array is looked at: it may stand for any number."""
        session = self._model_session
        with self.touching(lambda: setattr(session, "exporting", False)):
            session.exporting = True
            yield

    def session(self) -> Opened:
        """A context in which the calling thread has the model to itself, at inference; it may be entered inside itself.

        The core keeps it open during one explanation: what must be put back afterwards (modes, buffers) is put back
        once at its outermost exit, rather than after each of the thousands of forward passes in it.
        """
        return self._model_session.opened(self.begin)

    def begin(self) -> None:  # noqa: B027 - a model without modes has nothing to begin with
        """Put the model into inference; `self.touch(undo)` comes before whatever is changed."""

    def touch(self, undo: Callable[[], object]) -> None:
        """Register a step back, which may be taken twice, for the end of the session."""
        self._model_session.touch(undo)

    def touching(self, undo: Callable[[], object]) -> AbstractContextManager[None]:
        """The same for the end of a context inside the session."""
        return self._model_session.touching(undo)

    def memory_format(self, name: str) -> AbstractContextManager[None]:
        """A context in which `forward` lays its inputs out in memory in that way, one of `execution.memory_formats`."""
        return nullcontext()

    @property
    def memory_errors(self) -> tuple[type[Exception], ...]:
        """What may say that the memory is full: something to ask `ran_out_of_memory` about."""
        return (*MEMORY_ERRORS, *self.execution.memory_errors)

    def ran_out_of_memory(self, error: Exception) -> bool:
        """Whether an error says that the memory is full; what can be freed is freed.

        Of an error of `execution.memory_errors` it is taken for granted, of others if their words say so.
        """
        return isinstance(error, self.execution.memory_errors) or memory_is_full(error)

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """The softmax or sigmoid that makes an output and that this adapter leaves out of what it returns.

        `capture`, `forward` and `forward_with` then give the logits that go into it. None: they give the output as
        the model makes it, and what it means is the user's to say.

        Args:
            inputs: a batch, for an adapter that finds out by a run.
            output: the position or name of the explained one of several outputs.
        """
        return None

    @property
    def foresees(self) -> bool:
        """Whether something is gained by telling it what it captures later."""
        return False

    def foresee(self, inputs: Inputs | None) -> Callable[[], bool] | None:
        """Say what is captured, as the same object, after what is captured next.

        A framework that works beside Python may begin with it as soon as that other capture is under way.

        Args:
            inputs: of the same shapes as what comes before them; None if nothing comes after all.

        Returns:
            Tells later whether the model is as it was, so that what was begun still holds; None if nothing will be.
        """
        return None

    # --- its layers

    @abstractmethod
    def find(self, layer: Any) -> str:
        """The name of what a user gave as layer: a name, with `#0`, `#1`, ... for one of its calls, or an object.

        Raises:
            InvalidTypeError, InvalidValueError: if it is no part of the model, as far as that is known before a run.
        """

    @abstractmethod
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        """The layers in the order of their last calls on the inputs, the backend's choice of a default marked."""

    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        """The error for a model in which no layer can be explained, by a method that needs gradients or by another."""
        return no_spatial_layer(self.model_name)

    # --- running it

    @abstractmethod
    def capture(self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: Array | None) -> Capture:
        """One forward pass, and one backward pass from the scores to the layers only.

        Args:
            inputs: a batch.
            layers: one or more names; of a layer that runs several times and is named without a call, the last one.
            score: of the raw outputs and the targets; None leaves the backward pass out. It is the same
                object (or an equal one) from call to call, so that a compiler can key on it.
            targets: (B, K) integers for `score`, or None if `score` chooses.

        Returns:
            What the pass left. Where a score came, the gradients of a layer on which it does not depend are None.

        Raises:
            InvalidValueError: if the model cannot run on inputs of this shape or a layer did not run.
            GradientsUnavailableError: if a score came and the model cannot be differentiated.
        """

    def has_pass(self, inputs: Inputs) -> bool:
        """Whether `forward` of inputs of these shapes is compiled already, where another program of them would not be.

        False where nothing is compiled, or nothing compiled is shared.
        """
        return False

    def dependence(self, inputs: Inputs, layers: Sequence[str], score: Score) -> dict[str, Array | None]:
        """The gradients by which it is told at which layers a score depends on anything, as `capture` has them.

        A backend whose models can run parts without gradients counts those parts in, since the score does depend on
        them, and saves the pass by which `capture` finds out whether it has to.
        """
        return self.gradients_once(inputs, layers, score)

    def gradients_once(self, inputs: Inputs, layers: Sequence[str], score: Score) -> dict[str, Array | None]:
        """The gradients as `capture` has them, of a score that is asked for once or twice.

        A backend that compiles may spend less on that than where later passes gain by it.
        """
        captured = self.capture(inputs, layers, score, None)
        return {name: each.gradients for name, each in captured.layers.items()}

    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        """One forward pass, and of every call of the layers what `view` makes of its output; nothing else is kept.

        This one captures, and keeps, layers that run once; where a layer may run several times, or outputs are large,
        a backend has its own.

        Args:
            inputs: a batch.
            layers: names without a call.
            view: can be hashed and compared, so that a compiler can key on it.

        Returns:
            The outputs, and by the names of the calls, `name#0`, `name#1`, ..., what `view` returned.
        """
        calls = [call_name(layer, 0) for layer in layers]
        captured = self.capture(inputs, calls, None, None)
        kept = {call: view(call, captured.layers[call].activations, self.namespace) for call in calls}
        return captured.outputs, kept

    @abstractmethod
    def forward(self, inputs: Inputs) -> Any:
        """The model's raw outputs at inference; nothing is kept for a gradient."""

    @abstractmethod
    def forward_with(self, inputs: Inputs, layer: str, activations: Array) -> Any:
        """The raw outputs when the layer's output is replaced by `activations`, in the layer's own layout."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, of arrays and made of array words and `forward`, as the framework runs it fastest.

        Its arguments may be inputs of several arrays: what is no array in them is the same in every run of what is
        compiled.
        """
        return function

    def output_shapes(self, inputs: Inputs) -> Shapes:
        """The shapes of all arrays that the model returns for the inputs; by a run, if there is no other way."""
        return shapes_of(self.forward(inputs))

    @cached_property
    def _lost_axes(self) -> LostAxes:
        return LostAxes()

    def _restored(self, outputs: Any, inputs: Inputs, run: Callable[[Inputs], Any]) -> Any:
        """The outputs for the inputs, with the axis of the batch where the model took it off a single image's.

        Args:
            outputs: for these inputs.
            inputs: a batch.
            run: of inputs, gives outputs, or their shapes; run with two images where that tells.
        """
        if self._model_session.exporting or not is_one(inputs):
            return outputs
        xp = self.namespace
        return self._lost_axes.restored(outputs, lambda: run(twice(inputs, xp)), xp)


@runtime_checkable
class HasWeights(Protocol):
    """An adapter of a model whose weights can be looked at and exchanged."""

    def weights(self) -> Mapping[str, Array]:
        """The model's trained floating arrays, by names that begin with their layers' names.

        The order is that of the model's own list, usually from its inputs to its outputs.
        """

    def with_weights(self, weights: Mapping[str, Array]) -> AbstractContextManager[None]:
        """A context, inside the session, in which the model runs with other values of the weights named.

        It does so for all adapters of the model. Afterwards the model has its own weights again.
        """


@runtime_checkable
class HasState(Protocol):
    """An adapter that tells what else, beside the weights, decides what its model computes."""

    def state(self) -> Mapping[str, Any]:
        """Arrays that are not trained, such as running averages, and plain values, such as a layer's stride.

        What differs from run to run of one model at inference, such as the state of a random generator, is not among
        them.
        """


@runtime_checkable
class Exports(Protocol):
    """An adapter of a model that its framework can write down for an engine."""

    def exported(
        self, function: Callable[..., Sequence[Array]], arguments: Sequence[Array], shapes: Sequence[Shape]
    ) -> Exported:
        """The function, made of array words and `forward`, as others read it; inside the session.

        Args:
            function: of arrays by position.
            arguments: of an example.
            shapes: of them, a name where an axis may have any length.

        Raises:
            Exception: whatever the framework raises of what it cannot write down.
        """


# --- what backends share


def twice(inputs: Inputs, xp: Namespace) -> Inputs:
    """The first image's inputs as a batch of two."""
    return taken(inputs, indices_like([0, 0], leaves(inputs)[0], xp), xp)


def split_call(layer: str) -> tuple[str, int | None]:
    """The layer's name and its call: ("backbone", 1) of "backbone#1", ("backbone", None) of "backbone"."""
    found = re.fullmatch(r"(.+)#(\d+)", layer)
    return (found[1], int(found[2])) if found else (layer, None)


def call_name(layer: str, call: int) -> str:
    """The name of one call of a layer, counted from 0."""
    return f"{layer}#{call}"


def call_number(layer: str, calls: int, model_name: str) -> int:
    """Which call of a layer that ran so often its name means, counted from 0: the last one if it does not say.

    Raises:
        NotRunError: if it did not run, or not as often.
    """
    name, call = split_call(layer)
    if not calls:
        raise NotRunError(f"The layer {name!r} of {model_name} did not run on these inputs.")
    if call is not None and call >= calls:
        raise NotRunError(
            f"The layer {name!r} of {model_name} ran {calls} time{'s' * (calls != 1)}: expected a call from #0 to "
            f"#{calls - 1}, got {layer!r}."
        )
    return calls - 1 if call is None else call


def unknown_layer(name: object, known: Iterable[str], model_name: str) -> InvalidValueError:
    """The error for a layer that the model does not have; it offers the nearest names."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4) or names[-3:]
    return InvalidValueError(
        f"{model_name} has no layer {str(name)!r}. Nearest names: {', '.join(map(repr, near)) or 'none'}. "
        "List all of them with explainer.layers(images) or `fusioncam layers`."
    )


def not_a_part(layer: object, model_name: str) -> InvalidValueError:
    """The error for an object that is not in the model."""
    return InvalidValueError(f"The {type(layer).__qualname__} given as layer is not a part of {model_name}.")


def no_array_in(layer: str, model_name: str, output: object = None) -> InvalidValueError:
    """The error for a layer that returned nothing to explain."""
    kind = "" if output is None else f" a {type(output).__qualname__}, and"
    return InvalidValueError(f"The layer {layer!r} of {model_name} returned{kind} no floating-point array.")


def unconnected_words(layer: str, model_name: str, cuts: str = "detach, no_grad, NumPy") -> str:
    """What to say where the scores do not depend on a layer; `cuts` are the framework's ways to cut a gradient."""
    return (
        f"The scores of {model_name} do not depend on the layer {layer!r}, or the model cuts the gradient behind it "
        f"({cuts}). Take a layer on the way to the outputs, or a method that needs no gradient, such as ScoreCAM."
    )


def no_spatial_layer(model_name: str) -> InvalidValueError:
    """The error for a model in which nothing has spatial extent."""
    return InvalidValueError(
        f"No layer of {model_name} has an output with channels and more than one position in space, so there "
        "is nothing to draw a map from. A class activation map needs a convolutional (or token) layer before "
        "the pooling."
    )


def not_an_array(values: object, expected: str) -> InvalidTypeError:
    """The error for what is no array of NumPy or of the framework; `expected` such as "a PyTorch tensor"."""
    kind = type(values)
    return InvalidTypeError(f"Images are a NumPy array or {expected}: got a {kind.__module__}.{kind.__qualname__}.")


def cannot_run(model_name: str, inputs: Inputs, reason: str, advice: str = "") -> CannotRunError:
    """The error for inputs on which the model does not run, with the first line of what it said itself."""
    arrays = [each.array if isinstance(each, Shared) else each for _, each in found(inputs)]
    shapes = ", ".join(f"{tuple(each.shape)} ({dtype_name(each.dtype)})" for each in arrays)
    first_line = next(iter(reason.splitlines()), "")
    ending = f"{'' if first_line.endswith('.') else '.'} {advice}" if advice else ""
    return CannotRunError(f"{model_name} cannot run on inputs of shape {shapes}: {first_line}{ending}")


def channel_axis(channels: object, default: int | None) -> int | None:
    """The axis of the channels in a batch, for "first", "last", "none" or its number; the default for None.

    Raises:
        InvalidValueError: for another word, and for the axis of the batch.
    """
    if channels is None:
        return default
    if isinstance(channels, int) and not isinstance(channels, bool) and channels != 0:
        return channels
    if not isinstance(channels, str) or channels not in CHANNELS:
        raise InvalidValueError(
            f"channels is 'first' or 'last': got {channels!r}. It may also be 'none', for inputs without channels, or "
            "the number of their axis in a batch, such as 2 for frames before channels."
        )
    return CHANNELS[channels]


def layer_axis(input_axis: int | None, default: int) -> int:
    """Where layers have their channels, if that is where the inputs have them: 1 or -1; else the default."""
    return input_axis if input_axis in (1, -1) else default


def mark_default(layers: Sequence[LayerInfo], besides: Container[str] = ()) -> list[LayerInfo]:
    """The layers with the last spatial one, besides those named, marked as the default."""
    spatial = (index for index, layer in enumerate(layers) if layer.spatial and layer.name not in besides)
    last = max(spatial, default=None)
    return [replace(layer, default=index == last) for index, layer in enumerate(layers)]


def reject_options(options: Mapping[str, Any], known: Sequence[str], backend: str) -> None:
    """Refuse options that a backend does not know.

    Raises:
        InvalidTypeError: naming the first unknown one, the backend and what it knows.
    """
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidTypeError(
                f"The {backend} backend has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f" (it knows {', '.join(known) or 'none'}).")
            )
