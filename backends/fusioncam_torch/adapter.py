"""A PyTorch module, seen through the narrow waist."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.modules.conv import _ConvNd

from fusioncam_core.errors import UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    Execution,
    LayerCapture,
    LayerInfo,
    ModelAdapter,
    Score,
    call_number,
    cannot_run,
    channel_axis,
    mark_default,
    not_a_part,
    not_an_array,
    reject_options,
    split_call,
    unconnected_words,
    unknown_layer,
)
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.inputs import Inputs, Which, leaves, map_leaves, rows_of
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_core.models.session import in_session
from fusioncam_torch import namespace, precision
from fusioncam_torch.containers import detached, is_several, tensor_of
from fusioncam_torch.layouts import Layouts
from fusioncam_torch.state import begin_inference, exchange
from fusioncam_torch.taps import Replacement, Tap

CPU_BATCH, GPU_BATCH = 4, 64
"""On a CPU, activations that leave the cache (and, past 32 MiB, malloc's reuse) cost more than a batch saves."""

MEMORY_ERRORS = (torch.OutOfMemoryError,)


class TorchAdapter(ModelAdapter):
    """Taps layers with forward hooks that are there for one call only, and act on the calling thread alone.

    The trunk below the first layer runs without a graph: gradients are switched on when that layer returns.

    Args:
        model: any module, also `DataParallel` around one or a `torch.compile`d one.
        options: `channels`, "first" (the default), "last", "none" or the number of their axis in a batch: where the
            channels of the model's inputs are. `compile`,
            whether masked images run through `torch.compile` (True, or a word for its `mode`). `autocast`, "bfloat16"
            or "float16": the precision in which masked images run; the plain ones keep the model's own.

    Raises:
        InvalidValueError: for another value of an option.
        InvalidTypeError: for another option.
    """

    namespace = namespace
    input_ndim_is_declared = False

    def __init__(self, model: torch.nn.Module, options: Mapping[str, Any]):
        reject_options(options, ("channels", "compile", "autocast"), "PyTorch")
        self.input_channel_axis = channel_axis(options.get("channels"), 1)
        self._module = _unwrap(model)
        self.model_name = type(self._module).__name__
        self._modules = dict(self._module.named_modules(remove_duplicate=False))
        self._device = next((parameter.device.type for parameter in self._module.parameters()), "cpu")
        self._calls: dict[Any, int] = {}
        self._autocast = precision.dtype(options.get("autocast"))
        compiled = options.get("compile", False)
        forward = precision.compiled(model, compiled) if compiled else model
        signature = signature_of(self._module)
        self._forward = Caller(forward, like=signature)
        self._call = Caller(self._module, like=signature)
        self._layouts = Layouts(self._module) if not compiled else Layouts()
        self.execution = execution(self._device, fixed_shapes=bool(compiled), memory_formats=self._layouts.names)

    # --- the model as a whole

    @property
    def anchor(self) -> torch.nn.Module:
        return self._module

    def begin(self) -> None:
        begin_inference(list(self._module.modules()), self.touch)
        self.touch(self._layouts.reset)

    def as_array(self, values: Any) -> torch.Tensor:
        like = next((p for p in self._module.parameters() if p.is_floating_point()), torch.empty(0))
        return as_tensor(values, like.device, like.dtype)

    def input_ndim(self, which: Which) -> int | None:
        """Told by the first convolution: two axes more than its kernel has."""
        convolutions = (module for module in self._module.modules() if isinstance(module, _ConvNd))
        first = next((len(module.kernel_size) + 2 for module in convolutions), None)
        return first if which is None else None

    def memory_format(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._layouts.using(name)

    def ran_out_of_memory(self, error: Exception) -> bool:
        return freed_memory(self._device)

    def weights(self) -> dict[str, torch.Tensor]:
        named = self._module.named_parameters()
        return {name: parameter.detach() for name, parameter in named if parameter.is_floating_point()}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        parameters = dict(self._module.named_parameters())
        before = {name: parameters[name].data for name in weights}
        with self.session(), self.touching(functools.partial(exchange, parameters, before)):
            exchange(parameters, dict(weights))
            yield

    # --- its layers

    def find(self, layer: Any) -> str:
        if isinstance(layer, torch.nn.Module):
            for name, module in self._modules.items():
                if module is layer and name:
                    return name
            raise not_a_part(layer, self.model_name)
        known = [name for name in self._modules if name]
        for text in (str(layer), _without_wrapper(layer)):
            if split_call(text)[0] in known:
                return text
        raise unknown_layer(layer, known, self.model_name)

    @in_session
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        size = spatial_size(max(leaves(inputs), key=lambda each: each.ndim), self.input_channel_axis)
        listing = _Listing(size, self.rows)
        named = {name: module for name, module in self._module.named_modules() if name}
        with torch.no_grad(), self._hooks({name: listing.hearer(name) for name in named}):
            self._run(rows_of(inputs, 0, self.rows))
        return mark_default(list(listing.ran.values()), besides=listing.several)

    @contextlib.contextmanager
    def _hooks(self, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        """Forward hooks of the modules of these names, for the duration."""
        handles: list[Any] = []

        def remove() -> None:
            for handle in handles:
                handle.remove()

        with self.touching(remove):
            for name, hook in hooks.items():
                handles.append(self._modules[name].register_forward_hook(hook))
            yield

    # --- running it

    @in_session
    def capture(
        self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: torch.Tensor | None
    ) -> Capture:
        with_gradient, alone = score is not None, len(layers) == 1
        taps = [Tap(layer, self.model_name, with_gradient=with_gradient, alone=alone) for layer in layers]
        # A user's inference_mode would forbid the graph from the layer on; its tensors are cloned into ordinary ones.
        with torch.inference_mode(False), torch.no_grad():
            inputs = map_leaves(lambda each: each.clone() if each.is_inference() else each, inputs)
            with self._hooks_of(taps):
                outputs = self._run(inputs)
            outputs = self._restored(outputs, inputs, self._run_again)
            activations = [self._activations(tap, inputs) for tap in taps]
            gradients = [None] * len(taps) if score is None else self._gradients(score, outputs, targets, taps)
        return Capture(
            detached(outputs),
            {
                tap.layer: LayerCapture(each.detach(), gradient, 1)
                for tap, each, gradient in zip(taps, activations, gradients, strict=True)
            },
        )

    @contextlib.contextmanager
    def _hooks_of(self, taps: Sequence[Tap]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for tap in taps:  # one after the other: two may listen to calls of one layer
                stack.enter_context(self._hooks({tap.name: tap.hear}))
            yield

    def _activations(self, tap: Tap, inputs: Inputs) -> torch.Tensor:
        self._calls[_calls_key(tap.name, inputs)] = tap.calls
        call_number(tap.layer, tap.calls, self.model_name)
        assert tap.output is not None
        return tap.output

    def _gradients(
        self, score: Score, outputs: Any, targets: torch.Tensor | None, taps: Sequence[Tap]
    ) -> list[torch.Tensor]:
        """(K, *activations.shape) of each layer."""
        with torch.enable_grad():
            # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
            scores = score(outputs, targets).sum(dim=0).unbind()
        activations = [tap.output for tap in taps]
        rows = [
            torch.autograd.grad(each, activations, retain_graph=True, allow_unused=True)
            if each.requires_grad
            else [None] * len(taps)
            for each in scores
        ]
        for tap, gradients in zip(taps, zip(*rows, strict=True), strict=True):
            if any(each is None for each in gradients):
                raise UnconnectedError(unconnected_words(tap.layer, self.model_name))
        return [torch.stack(gradients).detach() for gradients in zip(*rows, strict=True)]

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        # Not inference_mode, which gains nothing here: what a model keeps of a call would be of no use to training.
        with torch.no_grad(), precision.autocast(self._device, self._autocast):
            outputs = self._called(functools.partial(self._layouts.run, self._forward), inputs)
            return self._restored(outputs, inputs, self._run_again)

    @in_session
    def forward_with(self, inputs: Inputs, layer: str, activations: torch.Tensor) -> Any:
        name, _ = split_call(layer)
        with torch.no_grad():
            call = call_number(layer, self._calls_of(name, inputs), self.model_name)
            replacement = Replacement(call, activations)
            with self._hooks({name: replacement.hear}):
                outputs = self._run(inputs)
            call_number(f"{name}#{call}", replacement.calls, self.model_name)
            return self._restored(outputs, inputs, self._run_again)

    def _calls_of(self, name: str, inputs: Inputs) -> int:
        """How often a layer runs: as in its last capture of such inputs, or counted by a run of one image."""
        key = _calls_key(name, inputs)
        if key not in self._calls:
            counter = Tap(name, self.model_name, with_gradient=False, alone=True)
            with self._hooks({name: counter.hear}):
                self._run(rows_of(inputs, 0, self.rows))
            self._calls[key] = counter.calls
        return self._calls[key]

    def _run(self, inputs: Inputs) -> Any:
        return self._called(self._call, inputs)

    def _run_again(self, inputs: Inputs) -> Any:
        with torch.no_grad():
            return self._run(inputs)

    def _called(self, call: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        try:
            return call(inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # torch._assert, by which models check their inputs
            raise cannot_run(self.model_name, inputs, str(error) or type(error).__name__) from error
        except TypeError as error:
            if self._call.binds(inputs):
                raise
            raise cannot_run(self.model_name, inputs, str(error)) from error


def signature_of(module: torch.nn.Module) -> Any:
    """What tells the arguments of a module's forward: itself, or the signature that TorchScript keeps of it."""
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return module.forward
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(each.name, kind, default=None if each.has_default_value() else inspect.Parameter.empty)
            for each in schema.arguments[1:]
        ]
    )


def _calls_key(name: str, inputs: Inputs) -> tuple[Any, ...]:
    """A model may run a layer more often on larger images."""
    return name, tuple(tuple(each.shape[1:]) for each in leaves(inputs))


class _Listing:
    """Hears all layers of one run of one image.

    Attributes:
        ran: the layers by name, in the order of their last calls.
        several: the names of those that returned named outputs: which of them the rest of the model goes on with is
            not known.
    """

    def __init__(self, size: tuple[int, ...], rows: int):
        self._rows = rows
        self.ran: dict[str, LayerInfo] = {}
        self.several: set[str] = set()
        self._size = size
        self._thread = threading.get_ident()

    def hearer(self, name: str) -> Callable[..., None]:
        """The forward hook of a layer."""

        def hear(module: torch.nn.Module, _: Any, output: Any) -> None:
            if threading.get_ident() == self._thread:
                self._hear(name, module, output)

        return hear

    def _hear(self, name: str, module: torch.nn.Module, output: Any) -> None:
        tensor = tensor_of(output)
        before = self.ran.pop(name, None)  # a layer that runs again moves to the place of its last call
        if tensor is not None:
            # Windows of attention stand in the batch axis: no longer one image, so nowhere in it.
            spatial = tensor.shape[0] == self._rows and has_space(tensor.shape, self._size)
            calls = 1 + (before.calls if before else 0)
            self.ran[name] = LayerInfo(name, type(module).__name__, tuple(tensor.shape), spatial, calls=calls)
        if is_several(output):
            self.several.add(name)


# --- what Keras on PyTorch shares


def execution(device: str, **more: Any) -> Execution:
    """How a device of PyTorch's likes to work."""
    return Execution(batch_size=CPU_BATCH if device == "cpu" else GPU_BATCH, memory_errors=MEMORY_ERRORS, **more)


def as_tensor(values: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The values on the device, detached; floating ones of that dtype.

    Raises:
        InvalidTypeError: for anything but an array of NumPy or a tensor.
    """
    if not isinstance(values, np.ndarray | torch.Tensor):
        raise not_an_array(values, "a PyTorch tensor")
    tensor = torch.from_numpy(np.array(values)) if isinstance(values, np.ndarray) else values.detach()
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def freed_memory(device: str) -> bool:
    """True: memory that PyTorch keeps for itself is given back, so that a smaller batch may fit."""
    if device == "cuda":
        torch.cuda.empty_cache()
    return True


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside `torch.compile` and `DataParallel`: hooks act on it, and only on it."""
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return _unwrap(model.module)
    original = getattr(model, "_orig_mod", None)
    return _unwrap(original) if isinstance(original, torch.nn.Module) else model


def _without_wrapper(name: object) -> str:
    text = str(name)
    for prefix in ("module.", "_orig_mod."):
        text = text.removeprefix(prefix)
    return text
