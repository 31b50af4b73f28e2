"""A PyTorch module, seen through the narrow waist."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.modules.conv import _ConvNd

from fusioncam_core.errors import FusionCamError, InvalidValueError
from fusioncam_core.models.adapter import (
    Capture,
    Execution,
    LayerCapture,
    LayerInfo,
    LayerRun,
    ModelAdapter,
    Score,
    View,
    call_name,
    call_number,
    cannot_run,
    channel_axis,
    mark_default,
    not_a_part,
    not_an_array,
    reject_options,
    split_call,
    unknown_layer,
)
from fusioncam_core.models.axes import spatial_size
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.engines import Exported, Shape
from fusioncam_core.models.inputs import Inputs, Which, leaves, map_leaves, rows_of
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.memory import memory_is_full
from fusioncam_core.models.session import in_session
from fusioncam_torch import dtypes, namespace, precision, reach
from fusioncam_torch.buffers import Buffers
from fusioncam_torch.containers import detached, is_several, tensor_of
from fusioncam_torch.exporting import exported
from fusioncam_torch.layouts import Layouts
from fusioncam_torch.signatures import about_inputs
from fusioncam_torch.state import begin_inference, exchange, plain_attributes, told_of
from fusioncam_torch.switches import EAGER, GRADIENTS, NO_CUDNN, Gradients, Switch, is_compiled
from fusioncam_torch.taps import Replacement, Tap

CPU_BATCH, GPU_BATCH = 4, 64
"""On a CPU, activations that leave the cache (and, past 32 MiB, malloc's reuse) cost more than a batch saves."""

CUTS = "detach, NumPy, integers, an autograd function of its own"
"""What cuts a gradient, also while no_grad does not."""


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
    gradient_cuts = CUTS
    frameworks = ("torch",)
    input_ndim_is_declared = False

    def __init__(self, model: torch.nn.Module, options: Mapping[str, Any]):
        reject_options(options, ("channels", "compile", "autocast"), "PyTorch")
        self.input_channel_axis = channel_axis(options.get("channels"), 1)
        self._module = reach.unwrapped(model)
        self.model_name = reach.class_name(self._module)
        self._modules = reach.parts(self._module)
        self._device = next((parameter.device.type for parameter in self._module.parameters()), "cpu")
        self._walked: reach.Walked | None = None
        self._buffers = Buffers()
        self._calls: dict[Any, int] = {}
        self._frozen: dict[tuple[str, ...], bool] = {}
        self._autocast = precision.dtype(options.get("autocast"))
        compiled = options.get("compile", False)
        forward = precision.compiled(model, compiled) if compiled else model
        signature = signature_of(self._module)
        self._forward = Caller(forward, like=signature)
        self._call = Caller(self._module, like=signature)
        self._compiled = bool(compiled)
        self._layouts = Layouts(self._module) if not compiled else Layouts()
        self.execution = execution(self._device, fixed_shapes=bool(compiled), memory_formats=self._layouts.names)

    # --- the model as a whole

    @property
    def anchor(self) -> torch.nn.Module:
        return self._module

    def begin(self) -> None:
        if self._walked is None or not self._walked.holds:
            self._walked = reach.Walked(self._module)
        self.hear_if_converted(functools.partial(told_of, self._module))
        begin_inference(self._walked.modules, self._buffers, self.touch)
        self.touch(self._layouts.reset)

    def _all(self) -> reach.Walked:
        """The model's modules and parameters, as they were when the session began."""
        walked = self._walked if self._model_session.is_mine else None
        return reach.Walked(self._module) if walked is None else walked

    def as_array(self, values: Any) -> torch.Tensor:
        modules, parameters = (walked := self._all()).modules, walked.parameters
        if any(map(torch.nn.parameter.is_lazy, parameters)):
            raise reach.not_initialised(self._module, self.model_name)
        like = dtypes.like_inputs(modules, parameters, getattr(values, "ndim", 0))
        return as_tensor(values, like.device, like.dtype)

    def input_ndim(self, which: Which) -> int | None:
        """Told by the first convolution: two axes more than its kernel has."""
        convolutions = (module for module in self._module.modules() if isinstance(module, _ConvNd))
        first = next((len(module.kernel_size) + 2 for module in convolutions), None)
        return first if which is None else None

    def memory_format(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._layouts.using(name)

    def ran_out_of_memory(self, error: Exception) -> bool:
        return super().ran_out_of_memory(error) and freed_memory(self._device)

    def weights(self) -> dict[str, torch.Tensor]:
        named = self._parameters().items()
        return {name: parameter.detach() for name, parameter in named if parameter.is_floating_point()}

    def state(self) -> dict[str, Any]:
        trained = {id(each) for each in self._parameters().values() if each.is_floating_point()}
        tensors = itertools.chain(self._module.named_parameters(), self._module.named_buffers())
        others = {reach.plain_name(name): each.detach() for name, each in tensors if id(each) not in trained}
        return {**others, **plain_attributes(self._module)}

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        return {reach.plain_name(name): parameter for name, parameter in self._module.named_parameters()}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        parameters = self._parameters()
        before = {name: parameters[name].data for name in weights}
        with self.session(), self.touching(functools.partial(exchange, parameters, before)):
            exchange(parameters, dict(weights))
            yield

    # --- its layers

    def find(self, layer: Any) -> str:
        if error := reach.without_layers(self._module, self.model_name):
            raise error
        name = self._named(layer)
        alone, _ = split_call(name)
        if error := reach.holds_layers(alone, self._modules[alone], self.model_name):
            raise error
        return name

    def _named(self, layer: Any) -> str:
        if isinstance(layer, torch.nn.Module):
            inner = reach.unwrapped(layer)
            for name, module in self._modules.items():
                if (module is layer or module is inner) and name:
                    return name
            raise not_a_part(layer, self.model_name)
        known = [name for name in self._modules if name]
        text = str(layer)
        for name in (text, reach.plain_name(text), reach.plain_name(text.removeprefix("module."))):
            if split_call(name)[0] in known:
                return name
        raise reach.inside_script(text, self._modules, self.model_name) or unknown_layer(layer, known, self.model_name)

    def no_default_layer(self, inputs: Inputs, gradients: bool) -> Exception:
        without = reach.without_layers(self._module, self.model_name)
        return without or super().no_default_layer(inputs, gradients)

    @in_session
    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        if reach.without_layers(self._module, self.model_name):
            return []
        listing = _Listing(
            spatial_size(max(leaves(inputs), key=lambda each: each.ndim), self.input_channel_axis), self.rows
        )
        once = {id(module): name for name, module in reversed(self._modules.items()) if name}
        named = [name for name, module in self._modules.items() if once.get(id(module)) == name]
        with torch.no_grad(), self._hooks({name: listing.hearer(name) for name in named}):
            self._run(rows_of(inputs, 0, self.rows))
        return mark_default(list(listing.ran.values()))

    @in_session
    def observe(self, inputs: Inputs, layers: Sequence[str], view: View) -> tuple[Any, dict[str, Any]]:
        observer = _Observer(view)
        with torch.no_grad(), self._hooks({name: observer.hearer(name) for name in layers}):
            return self._run(inputs), observer.seen

    @contextlib.contextmanager
    def _hooks(self, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        """Forward hooks of the modules of these names, for the duration, in which nothing runs compiled."""
        handles: list[Any] = []

        def remove() -> None:
            for handle in handles:
                handle.remove()

        with self._needing(EAGER, is_compiled(lambda: self._all().modules)), self.touching(remove):
            for name, hook in hooks.items():
                handles.append(reach.hook(self._modules[name], hook))
            yield

    @contextlib.contextmanager
    def _needing(self, switch: Switch, needed: bool = True) -> Iterator[None]:
        if not needed:
            yield
            return
        who = object()
        with self.touching(functools.partial(switch.done, who)):
            switch.need(who)
            yield

    # --- running it

    @in_session
    def capture(
        self, inputs: Inputs, layers: Sequence[str], score: Score | None, targets: torch.Tensor | None
    ) -> Capture:
        if score is None:
            return self._capture(inputs, layers, score, targets)
        with self._without_cudnn():
            frozen = tuple(layers)
            if not self._frozen.get(frozen, False):
                gradients = Gradients(stay_on=False)
                capture = self._watched(inputs, layers, score, targets, gradients)
                connected = all(each.gradients is not None for each in capture.layers.values())
                if connected or frozen in self._frozen or not gradients.went_off:
                    return capture
            # What looks unconnected may be a frozen part under no_grad, on which the scores do depend.
            within = self._watched(inputs, layers, score, targets, Gradients(stay_on=True))
            self._frozen[frozen] = any(each.gradients is not None for each in within.layers.values())
            return within

    @in_session
    def dependence(self, inputs: Inputs, layers: Sequence[str], score: Score) -> dict[str, torch.Tensor | None]:
        with self._without_cudnn():
            captured = self._watched(inputs, layers, score, None, Gradients(stay_on=True))
        return {name: each.gradients for name, each in captured.layers.items()}

    def _watched(
        self, inputs: Inputs, layers: Sequence[str], score: Score, targets: torch.Tensor | None, gradients: Gradients
    ) -> Capture:
        with torch.no_grad(), self.touching(functools.partial(GRADIENTS.done, gradients)):
            return self._capture(inputs, layers, score, targets, functools.partial(GRADIENTS.need, gradients))

    def _capture(
        self,
        inputs: Inputs,
        layers: Sequence[str],
        score: Score | None,
        targets: torch.Tensor | None,
        begun: Callable[[], object] = lambda: None,
    ) -> Capture:
        with_gradient, alone = score is not None, len(layers) == 1
        taps = [Tap(layer, self.model_name, with_gradient=with_gradient, alone=alone, begun=begun) for layer in layers]
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
    def _without_cudnn(self) -> Iterator[None]:
        """cuDNN's recurrent layers have no backward pass at inference, and PyTorch's own have."""
        recurrent = self._device == "cuda" and any(isinstance(each, torch.nn.RNNBase) for each in self._all().modules)
        with self._needing(NO_CUDNN, recurrent):
            yield

    @contextlib.contextmanager
    def _hooks_of(self, taps: Sequence[Tap]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for tap in taps:  # one after the other: two may listen to calls of one layer
                stack.enter_context(self._hooks({tap.name: tap.hear}))
            yield

    def _activations(self, tap: Tap, inputs: Inputs) -> torch.Tensor:
        self._calls[_calls_key(tap.name, inputs)] = tap.calls
        call_number(tap.layer, tap.calls, self.model_name)
        return tap.tensor

    def _gradients(
        self, score: Score, outputs: Any, targets: torch.Tensor | None, taps: Sequence[Tap]
    ) -> list[torch.Tensor | None]:
        """(K, *activations.shape) of each layer; None of one on which no score depends."""
        with torch.enable_grad():
            # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
            scores = score(outputs, targets).sum(dim=0).unbind()
        activations = [tap.tensor for tap in taps]
        tried = dtypes.scales((*activations, *self._all().parameters), self._device)
        rows = [
            dtypes.gradients(each, activations, tried) if each.requires_grad else [None] * len(taps) for each in scores
        ]
        columns = list(zip(*rows, strict=True))
        if any(each is None for gradients in columns for each in gradients):
            quantised = reach.quantised(self._modules, self.model_name)
            if quantised is not None:
                raise quantised
        return [
            None if all(each is None for each in gradients) else _stacked(gradients, like).detach()
            for gradients, like in zip(columns, activations, strict=True)
        ]

    @in_session
    def forward(self, inputs: Inputs) -> Any:
        # Not inference_mode, which gains nothing here: what a model keeps of a call would be of no use to training.
        with self._about(inputs), torch.no_grad(), precision.autocast(self._device, self._autocast):
            # Detached, since a model may switch gradients on by itself.
            outputs = detached(self._layouts.run(self._forward, inputs))
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
            return self._restored(detached(outputs), inputs, self._run_again)

    @in_session
    def exported(
        self, function: Callable[..., Any], arguments: Sequence[torch.Tensor], shapes: Sequence[Shape]
    ) -> Exported:
        for told, reason in (
            (self._autocast is not None, "runs masked images under autocast: say engine_precision= in its place"),
            (self._compiled, "runs masked images through torch.compile: leave that out, or engine="),
            (isinstance(self._module, torch.jit.ScriptModule), "is a TorchScript module, which torch.export refuses"),
            (reach.quantised(self._modules, self.model_name) is not None, "has quantised layers"),
        ):
            if told:
                raise InvalidValueError(f"{self.model_name} {reason}.")

        def recorded(*given: torch.Tensor) -> Any:  # later, when it is asked for
            with self.session(), self.exporting():
                return function(*given)

        return exported(self._module, recorded, arguments, shapes, self._device)

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
        with self._about(inputs):
            return self._call(inputs)

    def _run_again(self, inputs: Inputs) -> Any:
        with torch.no_grad():
            return self._run(inputs)

    @contextlib.contextmanager
    def _about(self, inputs: Inputs) -> Iterator[None]:
        """What PyTorch's operations raise, or the model for want of inputs, as an error about its inputs."""
        try:
            yield
        except FusionCamError:
            raise
        except (RuntimeError, AssertionError, TypeError, AttributeError, LookupError, ValueError) as error:
            if memory_is_full(error):
                raise
            if frozen := reach.inference_tensors(self._module, self.model_name, error):
                raise frozen from error
            more = about_inputs(self._module, inputs, error)
            unbound = isinstance(error, TypeError) and not self._call.binds(inputs)
            if more is None and not unbound and not isinstance(error, RuntimeError | AssertionError):  # torch._assert's
                raise
            raise cannot_run(self.model_name, inputs, str(error) or type(error).__name__, more or "") from error


def _stacked(gradients: Sequence[torch.Tensor | None], like: torch.Tensor | None) -> torch.Tensor:
    assert like is not None
    if len(gradients) == 1 and gradients[0] is not None:
        return gradients[0].unsqueeze(0)
    return torch.stack([torch.zeros_like(like) if each is None else each for each in gradients])


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
    """

    def __init__(self, size: tuple[int, ...], rows: int):
        self._rows = rows
        self.ran: dict[str, LayerInfo] = {}
        self._size = size
        self._place = 0
        self._calls: dict[str, int] = {}
        # The outputs themselves are kept, so that no other one can get their id.
        self._makers: dict[int, tuple[torch.Tensor, str]] = {}
        self._thread = threading.get_ident()

    def hearer(self, name: str) -> Callable[..., None]:
        """The forward hook of a layer."""

        def hear(module: torch.nn.Module, _: Any, output: Any) -> None:
            if threading.get_ident() == self._thread:
                self._hear(name, module, output)

        return hear

    def _hear(self, name: str, module: torch.nn.Module, output: Any) -> None:
        tensor = tensor_of(output)
        number = self._calls[name] = self._calls.get(name, -1) + 1
        before = self.ran.pop(name, None)  # a layer that runs again moves to the place of its last call
        if tensor is None:
            return
        shape = tuple(tensor.shape)
        # Windows of attention stand in the batch axis: no longer one image, so nowhere in it.
        spatial = shape[0] == self._rows and has_space(shape, self._size) and not is_several(output)
        kind = type(module).__name__
        _, made_by = self._makers.setdefault(id(tensor), (tensor, kind))
        self.ran[name] = LayerInfo(
            name,
            kind,
            shape,
            spatial,
            calls=number + 1,
            runs=(*(before.runs if before else ()), LayerRun(number, self._place, shape)),
            named_outputs=is_several(output),
            made_by="" if made_by == kind else made_by,
        )
        self._place += 1


class _Observer:
    """Hears some layers of one run, and keeps what a view makes of their outputs, by the calls' names."""

    def __init__(self, view: View):
        self.seen: dict[str, Any] = {}
        self._view = view
        self._calls: dict[str, int] = {}
        self._thread = threading.get_ident()

    def hearer(self, name: str) -> Callable[..., None]:
        """The forward hook of a layer."""

        def hear(module: torch.nn.Module, _: Any, output: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            number = self._calls[name] = self._calls.get(name, -1) + 1
            tensor = tensor_of(output)
            if tensor is not None:
                tensor = tensor.dequantize() if tensor.is_quantized else tensor
                self.seen[call_name(name, number)] = self._view(call_name(name, number), tensor, namespace)

        return hear


# --- what Keras on PyTorch shares


def execution(device: str, **more: Any) -> Execution:
    """How a device of PyTorch's likes to work."""
    return Execution(batch_size=CPU_BATCH if device == "cpu" else GPU_BATCH, **more)


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
