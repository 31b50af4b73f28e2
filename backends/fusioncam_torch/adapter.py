"""A PyTorch module and one of its layers, seen through the narrow waist."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.modules.conv import _ConvNd

from fusioncam_core.errors import InvalidTypeError, InvalidValueError, UnconnectedError
from fusioncam_core.models.adapter import (
    Capture,
    LayerInfo,
    ModelAdapter,
    Score,
    mark_default,
    no_spatial_layer,
    reject_options,
    unknown_layer,
)
from fusioncam_core.models.inputs import Inputs, Which, leaves, map_leaves
from fusioncam_core.models.layout import has_space
from fusioncam_core.models.masking import spatial_size
from fusioncam_torch import namespace, precision
from fusioncam_torch.containers import detached, is_several, tensor_of, with_tensor
from fusioncam_torch.layouts import Layouts
from fusioncam_torch.state import InferenceState


class TorchAdapter(ModelAdapter):
    """Taps a layer with a forward hook that is there for one call only.

    The trunk below the layer runs without a graph: gradients are switched on when the layer returns.

    Args:
        model: any module, also `DataParallel` around one or a `torch.compile`d one.
        layer: a name as in `named_modules()`, a module of the model, or None.
        options: `channels`, "first" (the default) or "last": where the channels of the model's inputs are. `compile`,
            whether masked images run through `torch.compile` (True, or a word for its `mode`). `autocast`, "bfloat16"
            or "float16": the precision in which masked images run; the plain ones keep the model's own.

    Raises:
        ValueError: if the model has no such layer, or for another value of an option.
        TypeError: for another option.
    """

    namespace = namespace
    memory_errors = (torch.OutOfMemoryError,)

    CPU_BATCH, GPU_BATCH = 4, 64
    """On a CPU, activations that leave the cache (and, past 32 MiB, malloc's reuse) cost more than a batch saves."""

    def __init__(self, model: torch.nn.Module, layer: str | torch.nn.Module | None, options: Mapping[str, Any]):
        reject_options(options, ("channels", "compile", "autocast"), "PyTorch")
        self.input_channel_axis = _channel_axis(options.get("channels", "first"))
        self._model = model
        self._module = _unwrap(model)
        self.model_name = type(self._module).__name__
        self._modules = dict(self._module.named_modules(remove_duplicate=False))
        self._layer = None if layer is None else self._find(layer)
        self._default: str | None = None
        self._state = InferenceState(self._module)
        self._device = next((parameter.device.type for parameter in self._module.parameters()), "cpu")
        self.batch_size = self.CPU_BATCH if self._device == "cpu" else self.GPU_BATCH
        self._calls: int | None = None
        self._autocast = precision.dtype(options.get("autocast"))
        compiled = options.get("compile", False)
        self.fixed_chunks = bool(compiled)
        self._forward = precision.compiled(model, compiled) if compiled else model
        self._layouts = Layouts(self._module) if not compiled else Layouts()
        self.memory_formats = self._layouts.names

    def _find(self, layer: str | torch.nn.Module) -> str:
        known = [name for name in self._modules if name]
        if isinstance(layer, torch.nn.Module):
            for name, module in self._modules.items():
                if module is layer:
                    return name
            raise InvalidValueError(
                f"The {type(layer).__qualname__} given as layer is not a part of {self.model_name}."
            )
        for name in (layer, _without_wrapper(layer)):
            if name in known:
                return str(name)
        raise unknown_layer(layer, known, self.model_name)

    @property
    def layer_name(self) -> str:
        if self._layer is None:
            raise InvalidValueError("The default layer is found when the model runs: call capture or layers first.")
        return self._layer

    @property
    def activation_channel_axis(self) -> int:
        return 1

    def as_array(self, values: Any) -> torch.Tensor:
        if not isinstance(values, np.ndarray | torch.Tensor):
            raise InvalidTypeError(
                f"Images are a NumPy array or a PyTorch tensor, and a {type(values).__module__}."
                f"{type(values).__qualname__} came."
            )
        tensor = torch.from_numpy(np.array(values)) if isinstance(values, np.ndarray) else values.detach()
        like = next((p for p in self._module.parameters() if p.is_floating_point()), torch.empty(0))
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)

    def input_ndim(self, which: Which) -> int | None:
        """Told by the first convolution: two axes more than its kernel has."""
        convolutions = (module for module in self._module.modules() if isinstance(module, _ConvNd))
        first = next((len(module.kernel_size) + 2 for module in convolutions), None)
        return first if which is None else None

    def session(self) -> contextlib.AbstractContextManager[None]:
        return self._state

    def layers(self, inputs: Inputs) -> list[LayerInfo]:
        ran: dict[str, LayerInfo] = {}
        several: set[str] = set()
        images = max(leaves(inputs), key=lambda each: each.ndim)
        size = spatial_size(images, self.input_channel_axis)

        def record(name: str, module: torch.nn.Module, output: Any) -> None:
            tensor = tensor_of(output)
            ran.pop(name, None)  # a layer that runs again moves to the place of its last call
            if tensor is not None:
                # Windows of attention stand in the batch axis: no longer one image, so nowhere in it.
                spatial = tensor.shape[0] == 1 and has_space(tensor.shape, size)
                ran[name] = LayerInfo(name, type(module).__name__, tuple(tensor.shape), spatial)
            if is_several(output):
                several.add(name)

        with self.session(), torch.no_grad(), contextlib.ExitStack() as hooks:
            for name, module in self._module.named_modules():
                if name:
                    hook = module.register_forward_hook(
                        lambda module, _, output, name=name: record(name, module, output)
                    )
                    hooks.callback(hook.remove)
            self._run(map_leaves(lambda each: each[:1], inputs))
        listed = mark_default(list(ran.values()), besides=several)
        self._default = next((layer.name for layer in listed if layer.default), None)
        return listed

    def _resolve(self, inputs: Inputs) -> str:
        """The layer's name; the default one is found by a run of one image, once."""
        if self._layer is None:
            if self._default is None:
                self.layers(inputs)
            if self._default is None:
                raise no_spatial_layer(self.model_name)
            self._layer = self._default
        return self._layer

    def capture(self, inputs: Inputs, score: Score | None, targets: torch.Tensor | None) -> Capture:
        # A user's inference_mode would forbid the graph from the layer on; its tensors are cloned into ordinary ones.
        with self.session(), torch.inference_mode(False), torch.no_grad():
            inputs = map_leaves(lambda each: each.clone() if each.is_inference() else each, inputs)
            tap = _Tap(self._resolve(inputs), with_gradient=score is not None)
            with tap.on(self._modules[tap.layer]):
                outputs = self._run(inputs)
            activations = tap.activations(self.model_name)
            self._calls = tap.calls
            gradients = None if score is None else self._gradients(score, outputs, targets, activations)
        return Capture(detached(outputs), activations.detach(), gradients)

    def _gradients(
        self, score: Score, outputs: Any, targets: torch.Tensor | None, activations: torch.Tensor
    ) -> torch.Tensor:
        with torch.enable_grad():
            # Images do not meet in inference, so the sum over the batch keeps each image's own gradient.
            scores = score(outputs, targets).sum(dim=0).unbind()
        gradients = [
            torch.autograd.grad(each, activations, retain_graph=True, allow_unused=True)[0]
            if each.requires_grad
            else None
            for each in scores
        ]
        if any(each is None for each in gradients):
            raise UnconnectedError(
                f"The scores of {self.model_name} do not depend on the layer {self._layer!r}, or the model cuts the "
                "gradient behind it (detach, no_grad, NumPy). Take a layer on the way to the outputs."
            )
        return torch.stack(gradients).detach()

    def memory_format(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._layouts.using(name)

    def ran_out_of_memory(self, error: Exception) -> bool:
        if self._device == "cuda":
            torch.cuda.empty_cache()
        return True

    def forward(self, inputs: Inputs) -> Any:
        # Not inference_mode, which gains nothing here: what a model keeps of a call would be of no use to training.
        with self.session(), torch.no_grad(), precision.autocast(self._device, self._autocast):
            return self._layouts.run(lambda inputs: _call(self._forward, inputs), inputs)

    def weights(self) -> dict[str, torch.Tensor]:
        named = self._module.named_parameters()
        return {name: parameter.detach() for name, parameter in named if parameter.is_floating_point()}

    @contextlib.contextmanager
    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        # Other tensors in the parameters' place, so that the own ones are never written to.
        parameters = dict(self._module.named_parameters())
        before = {name: parameters[name].data for name in weights}
        try:
            for name, values in weights.items():
                parameters[name].data = values
            yield
        finally:
            for name, values in before.items():
                parameters[name].data = values

    def forward_with(self, inputs: Inputs, activations: torch.Tensor) -> Any:
        with self.session(), torch.no_grad():
            name = self._resolve(inputs)
            with _replaced(self._modules[name], activations, call=self._last_call(name, inputs)):
                return self._run(inputs)

    def _last_call(self, name: str, inputs: Inputs) -> int:
        """The number of the layer's last call in one run: as in the last capture, or counted by a run of one image."""
        if self._calls is None:
            counter = _Tap(name, with_gradient=False)
            with counter.on(self._modules[name]):
                self._run(map_leaves(lambda each: each[:1], inputs))
            self._calls = counter.calls
        return self._calls

    def _run(self, inputs: Inputs) -> Any:
        try:
            return _call(self._module, inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # torch._assert, by which models check their inputs
            shapes = ", ".join(f"{tuple(each.shape)} ({each.dtype})" for each in leaves(inputs))
            raise InvalidValueError(
                f"{self.model_name} cannot run on inputs of shape {shapes}: {_first_line(error)}"
            ) from error


class _Tap:
    """What passes through a layer, while its hook is on: the output of the last call."""

    def __init__(self, layer: str, *, with_gradient: bool):
        self.layer = layer
        self.calls = 0
        self._with_gradient = with_gradient
        self._output: torch.Tensor | None = None

    @contextlib.contextmanager
    def on(self, module: torch.nn.Module) -> Iterator[None]:
        handle = module.register_forward_hook(self._keep)
        try:
            yield
        finally:
            handle.remove()

    def _keep(self, module: torch.nn.Module, _: Any, output: Any) -> Any:
        tensor = tensor_of(output)
        if tensor is None:
            raise InvalidValueError(
                f"The layer {self.layer!r} returned a {type(output).__qualname__}, and no tensor in it."
            )
        self.calls += 1
        self._output = tensor.detach()
        if self._with_gradient:
            torch.set_grad_enabled(True)
            self._output = self._output.requires_grad_(True)
        # The rest of the model gets a copy: an in-place activation must not change what was kept.
        return with_tensor(output, self._output.clone())

    def activations(self, model_name: str) -> torch.Tensor:
        if self._output is None:
            raise InvalidValueError(f"The layer {self.layer!r} of {model_name} did not run on these inputs.")
        return self._output


@contextlib.contextmanager
def _replaced(module: torch.nn.Module, activations: torch.Tensor, *, call: int) -> Iterator[None]:
    """The module's output in its call number `call` is `activations`."""
    seen = 0

    def replace(_: torch.nn.Module, __: Any, output: Any) -> Any:
        nonlocal seen
        seen += 1
        return with_tensor(output, activations.clone()) if seen == call else output

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _call(model: torch.nn.Module, inputs: Inputs) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


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


def _channel_axis(channels: object) -> int:
    if channels not in ("first", "last"):
        raise InvalidValueError(f"channels is 'first' or 'last', and {channels!r} came.")
    return 1 if channels == "first" else -1
