"""The narrow waist: all that the core asks of a framework, for one model and one of its layers."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.inputs import Inputs, Which

Score = Callable[[Any, Array], Array]
"""(the model's raw outputs, targets (B, K)) -> the scores (B, K) to differentiate."""

Ending = Literal["softmax", "sigmoid"]
"""The activation by which a model turns its logits into probabilities."""


@dataclass(frozen=True)
class Capture:
    """What one forward and one backward pass leave behind.

    Attributes:
        outputs: the model's outputs as it returned them, detached.
        activations: of the layer, in its own layout, batch first, detached.
        gradients: (K, *activations.shape): of each target's score with respect to the activations; None
            when no score was asked for.
    """

    outputs: Any
    activations: Array
    gradients: Array | None


@dataclass(frozen=True)
class LayerInfo:
    """A layer as it ran: its name, its kind, its output's shape with the batch, and whether it can be explained.

    Attributes:
        name: the path that `layer=` takes.
        kind: the class of the layer, or what else it is.
        shape: of the output, batch first.
        spatial: whether the output has channels and more than one position in space.
        default: whether `layer=None` takes this one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    spatial: bool
    default: bool = False


class ModelAdapter(ABC):
    """One model and one layer, in the words that the core understands.

    An adapter never changes what it was given. Parameters, buffers, train or eval mode, `requires_grad`,
    stored gradients, hooks and layers are as before after every call, also when the call raised. The
    model runs as at inference (no dropout, running averages), and its last call of the layer counts.

    `inputs` below is an array of the framework, batch first, or a tuple or dict of such arrays for a model with
    several inputs (passed by position or by name).

    Attributes:
        namespace: the array words for the model's arrays.
        model_name: for messages.
        input_channel_axis: 1 or -1, in batched inputs.
        fixed_chunks: whether every call of a compiled function should have the same shapes, because a new
            shape costs a compilation; the core then pads the last chunk.
        batch_size: how many images at once probably suit the device: where the search for the fastest number starts.
        memory_formats: the ways in which the inputs' values may lie in memory, by names for `memory_format`. The
            outputs are the same; which is faster is found out by running them.
        memory_errors: what the framework raises when the device's memory is full, among other things perhaps.
    """

    namespace: Namespace
    model_name: str
    input_channel_axis: int = 1
    fixed_chunks: bool = False
    batch_size: int = 16
    memory_formats: tuple[str, ...] = ("as given",)
    memory_errors: tuple[type[Exception], ...] = ()

    @property
    @abstractmethod
    def layer_name(self) -> str:
        """The path of the layer. With `layer=None` it is known once the model has run."""

    @property
    @abstractmethod
    def activation_channel_axis(self) -> int:
        """1 or -1: where the channels of the layer's activations are."""

    @abstractmethod
    def as_array(self, values: Any) -> Array:
        """One input on the model's device; floating values get the model's floating dtype, others keep theirs.

        Raises:
            TypeError: for anything but an array of NumPy or of the framework.
        """

    @abstractmethod
    def input_ndim(self, which: Which) -> int | None:
        """The axes of a batch of the named input (None: of the only one), or None if the model does not tell."""

    def session(self) -> AbstractContextManager[None]:
        """A context the core keeps open during one explanation; it may be entered again inside itself.

        What must be put back afterwards (modes, buffers) can be put back once at its outermost exit, rather
        than after each of the thousands of forward passes in it. Every method works outside of it too.
        """
        return nullcontext()

    def memory_format(self, name: str) -> AbstractContextManager[None]:
        """A context in which `forward` lays its inputs out in memory in that way, one of `memory_formats`."""
        return nullcontext()

    def ran_out_of_memory(self, error: Exception) -> bool:
        """Whether one of the `memory_errors` says that the device's memory is full; what can be freed is freed."""
        return True

    def ending(self, inputs: Inputs, output: int | str | None) -> Ending | None:
        """The softmax or sigmoid that makes an output and that this adapter leaves out of what it returns.

        `capture`, `forward` and `forward_with` then give the logits that go into it. None: they give the output as
        the model makes it, and what it means is the user's to say.

        Args:
            inputs: a batch, for an adapter that finds out by a run.
            output: the position or name of the explained one of several outputs.
        """
        return None

    @abstractmethod
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        """The layers in the order they ran on the inputs, the default marked."""

    @abstractmethod
    def capture(self, inputs: Inputs, score: Score | None, targets: Array | None) -> Capture:
        """One forward pass, and one backward pass from the scores to the layer only.

        Args:
            inputs: a batch.
            score: of the raw outputs and the targets; None leaves the backward pass out. It is the same
                object (or an equal one) from call to call, so that a compiler can key on it.
            targets: (B, K) integers for `score`, or None if `score` chooses.

        Raises:
            ValueError: if the model cannot run on inputs of this shape or the layer did not run.
            UnconnectedError: if the scores do not depend on the layer.
        """

    @abstractmethod
    def forward(self, inputs: Inputs) -> Any:
        """The model's raw outputs at inference; nothing is kept for a gradient."""

    @abstractmethod
    def forward_with(self, inputs: Inputs, activations: Array) -> Any:
        """The raw outputs when the layer's output is replaced by `activations`, in the layer's own layout."""

    def weights(self) -> Mapping[str, Array]:
        """The model's trained floating arrays, by names that begin with their layers' names.

        The order is that of the model's own list, usually from its inputs to its outputs.

        Raises:
            TypeError: for a model whose weights cannot be looked at.
        """
        raise InvalidTypeError(f"The weights of {self.model_name} cannot be looked at: its backend does not give them.")

    def with_weights(self, weights: Mapping[str, Array]) -> AbstractContextManager[None]:
        """A context in which the model runs with other values of the weights named, and has its own again afterwards.

        Raises:
            TypeError: for a model whose weights cannot be changed.
        """
        raise InvalidTypeError(f"The weights of {self.model_name} cannot be changed: its backend does not do it.")

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, of arrays and made of array words and `forward`, as the framework runs it fastest."""
        return function


def unknown_layer(name: object, known: Iterable[str], model_name: str) -> ValueError:
    """The error for a layer that the model does not have; it offers the nearest names."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4) or names[-3:]
    return InvalidValueError(
        f"{model_name} has no layer {str(name)!r}. Nearest names: {', '.join(map(repr, near)) or 'none'}. "
        "List all of them with explainer.layers(images) or `fusioncam layers`."
    )


def no_spatial_layer(model_name: str) -> ValueError:
    """The error for a model in which nothing has spatial extent."""
    return InvalidValueError(
        f"No layer of {model_name} has an output with channels and more than one position in space, so there "
        "is nothing to draw a map from. A class activation map needs a convolutional (or token) layer before "
        "the pooling."
    )


def mark_default(layers: Sequence[LayerInfo], besides: Container[str] = ()) -> list[LayerInfo]:
    """The layers with the last spatial one, besides those named, marked as the default."""
    spatial = (index for index, layer in enumerate(layers) if layer.spatial and layer.name not in besides)
    last = max(spatial, default=None)
    return [
        LayerInfo(layer.name, layer.kind, layer.shape, layer.spatial, default=index == last)
        for index, layer in enumerate(layers)
    ]


def reject_options(options: Mapping[str, Any], known: Sequence[str], backend: str) -> None:
    """Refuse keywords that a backend does not know.

    Raises:
        TypeError: naming the first unknown keyword, the backend and what it knows.
    """
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *CORE_KEYWORDS], n=1)
            raise InvalidTypeError(
                f"The {backend} backend has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f" (it knows {', '.join(known) or 'none'}).")
            )


CORE_KEYWORDS = (
    "layer",
    "percentile",
    "batch_size",
    "baseline",
    "contributions",
    "progress",
    "task",
    "outputs",
)
"""The explainers' own keywords, offered when one of them was misspelt."""
