"""PyTorch's part of the sweep: models made lively, and a layer's activations and gradients by autograd alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Values = np.ndarray[Any, Any]


class UnconnectedLayerError(Exception):
    """No score depends on the layer."""


def seed() -> None:
    """What models draw their weights from."""
    torch.manual_seed(0)


def settle(model: torch.nn.Module, images: Values) -> torch.nn.Module:
    """The model at inference, with parameters and running averages as after some training.

    Scales of 1e-6, heads of zeros, tiny weights and averages of nothing, as models are born with, hide what a layer
    does: parameters of one value are spread, small weights made as large as keeps a signal, and averages are those of
    the images.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
                _enlarge(module.weight)
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.min() == parameter.max():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter))
    model.eval()
    _calibrate(model, images)
    return model


def _enlarge(weight: torch.Tensor) -> None:
    """Weights of less than half the spread that keeps a signal's size get that spread."""
    wanted = (weight[0].numel() or 1) ** -0.5
    spread = float(weight.std()) if weight.numel() > 1 else 0.0
    if 0 < spread < wanted / 2:
        weight.mul_(wanted / spread)


def _calibrate(model: torch.nn.Module, images: Values) -> None:
    """Running averages of the images; a model that does not run in that mode keeps its own."""
    norms = [each for each in model.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        if norms:
            with torch.no_grad():
                model(tensor(images))
    except ValueError:  # one value a channel has no spread
        for norm in norms:
            norm.reset_running_stats()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def tensor(images: Values) -> torch.Tensor:
    return torch.from_numpy(images)


def outputs(model: torch.nn.Module, images: Values) -> Any:
    with torch.no_grad():
        return model(tensor(images))


@contextlib.contextmanager
def passes(model: torch.nn.Module) -> Iterator[list[int]]:
    """A number for each pass of the model in the context."""
    counted: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: counted.append(len(counted)))
    try:
        yield counted
    finally:
        handle.remove()


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def activations(model: torch.nn.Module, layer: str, images: Values, call: int) -> Values:
    """The output of one call of a layer."""
    heard: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: heard.append(_first(_[-1]).detach().clone()))
    try:
        outputs(model, images)
    finally:
        handle.remove()
    return heard[call].float().numpy()


def capture(
    model: torch.nn.Module, layer: str, images: Values, scores: Callable[[Any], Sequence[torch.Tensor]]
) -> tuple[Values, list[Values], int]:
    """Activations, gradients of each score, and the call: `name#0`, `name#1`, or of a bare name the last that counts.

    Raises:
        UnconnectedLayerError: if no score depends on any of its calls.
    """
    name, _, number = layer.partition("#")
    calls = [int(number)] if number else list(reversed(range(_count(model, name, images))))
    for call in calls:
        found = _capture_call(model, name, images, scores, call)
        if any(gradient.any() for gradient in found[1]):
            return *found, call
    raise UnconnectedLayerError(f"no score depends on {layer}")


def _count(model: torch.nn.Module, name: str, images: Values) -> int:
    heard: list[None] = []
    handle = model.get_submodule(name).register_forward_hook(lambda *_: heard.append(None))
    try:
        outputs(model, images)
    finally:
        handle.remove()
    return len(heard)


def _capture_call(
    model: torch.nn.Module, name: str, images: Values, scores: Callable[[Any], Sequence[torch.Tensor]], wanted: int
) -> tuple[Values, list[Values]]:
    """The layer's output is exchanged for a leaf of the same values, so that nothing behind it can write into it."""
    kept: list[torch.Tensor] = []
    calls = [0]

    def hook(_: Any, __: Any, output: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 != wanted:
            return None
        kept.append(_first(output).detach().clone().requires_grad_())
        return _with_first(output, kept[0].clone())

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        with torch.enable_grad():
            values = scores(model(tensor(images)))
    finally:
        handle.remove()
    leaf = kept[0]
    gradients = [
        torch.autograd.grad(each.sum(), leaf, retain_graph=True, allow_unused=True)[0] if each.requires_grad else None
        for each in values
    ]
    return leaf.detach().float().numpy(), [
        (torch.zeros_like(leaf) if each is None else each).float().numpy() for each in gradients
    ]


def _first(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    return _first(next(each for each in parts if each is not None))


def _with_first(output: Any, replacement: torch.Tensor) -> Any:
    if isinstance(output, torch.Tensor):
        return replacement
    if isinstance(output, Mapping):
        key = next(key for key, each in output.items() if each is not None)
        return type(output)({**output, key: _with_first(output[key], replacement)})
    place = next(index for index, each in enumerate(output) if each is not None)
    parts = [*output[:place], _with_first(output[place], replacement), *output[place + 1 :]]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
