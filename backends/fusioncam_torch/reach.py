"""Which parts of a model hooks reach, by the names users know, and what to say of the others."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fusioncam_core.errors import GradientsUnavailableError, InvalidTypeError, InvalidValueError

WITHOUT_LAYERS = "Take a method that only runs the model, such as RISE."

QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
"""Where PyTorch's quantised layers are defined, the dynamic ones among them."""


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside `torch.compile` and `DataParallel`: hooks act on it, and only on it."""
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    original = _original(model)
    return model if original is model else unwrapped(original)


def _original(module: torch.nn.Module) -> torch.nn.Module:
    """The module that `torch.compile` was given."""
    return _original(module._modules["_orig_mod"]) if "_orig_mod" in module._modules else module


def class_name(model: torch.nn.Module) -> str:
    """Its class's name, of TorchScript that of the class it was made from."""
    return str(model.original_name) if isinstance(model, torch.jit.ScriptModule) else type(model).__name__


def modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's modules, each once, in the order of its own `modules()`, which takes ten times as long."""
    found: dict[int, torch.nn.Module] = {}
    waiting: list[torch.nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            if module._modules:
                waiting.extend(reversed(list(module._modules.values())))
    return list(found.values())


def parameters(modules: Iterable[torch.nn.Module]) -> list[torch.nn.Parameter]:
    """The parameters of those modules, shared ones once."""
    named = (each for module in modules for each in module._parameters.values() if each is not None)
    return list({id(each): each for each in named}.values())


_PARTS, _PARAMETERS = operator.attrgetter("_modules"), operator.attrgetter("_parameters")


class Walked:
    """The modules and parameters of a model, each once.

    Attributes:
        modules, parameters: in the order of the model's own.
    """

    def __init__(self, model: torch.nn.Module):
        self.modules = modules(model)
        self.parameters = parameters(self.modules)
        self._held = self._now()

    def _now(self) -> list[Any]:
        """What the modules have now as parts and parameters."""
        mappings = itertools.chain(map(_PARTS, self.modules), map(_PARAMETERS, self.modules))
        return list(itertools.chain.from_iterable(map(operator.methodcaller("values"), mappings)))

    @property
    def holds(self) -> bool:
        """Whether the model still has these parts and parameters, and no others."""
        now = self._now()
        return len(now) == len(self._held) and all(map(operator.is_, now, self._held))


def parts(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The model's modules by name, itself as "", in the order of their definition; what is shared, by every name.

    A part that was compiled has the name that it had before, and nothing inside TorchScript is listed: no hook is
    called there.
    """
    found: dict[str, torch.nn.Module] = {}

    def visit(name: str, module: torch.nn.Module, around: tuple[int, ...]) -> None:
        module = _original(module)
        if id(module) in around:  # a part that knows what it is a part of
            return
        found[name] = module
        if not isinstance(module, torch.jit.ScriptModule):
            for child, part in module._modules.items():
                if part is not None:
                    visit(f"{name}.{child}" if name else child, part, (*around, id(module)))

    visit("", model, ())
    return found


def plain_name(name: str) -> str:
    """A name of a part, or of something in it, without what `torch.compile` puts into it."""
    return ".".join(word for word in name.split(".") if word != "_orig_mod")


def hook(module: torch.nn.Module, function: Any) -> Any:
    """A forward hook's handle. TorchScript's modules forbid their own method, and call hooks nevertheless."""
    return torch.nn.Module.register_forward_hook(module, function)


def holds_a_model(given: Any) -> InvalidTypeError | None:
    """The error for what is called like a model and is none, but has one: an exported program, ultralytics' YOLO."""
    name = type(given).__name__
    if isinstance(given, torch.export.ExportedProgram):
        return InvalidTypeError(
            f"This {name} is no module. Give torch.export.unflatten(it), which has layers; or it.module(), which has "
            "none, to a method that only runs the model, such as RISE."
        )
    if isinstance(given, torch.nn.Module) and type(given).__call__ is not torch.nn.Module.__call__:
        inner = getattr(given, "model", None)
        if isinstance(inner, torch.nn.Module) and callable(getattr(given, "predict", None)):
            return InvalidTypeError(
                f"Calling this {name} predicts, from files or images, and gives results instead of scores. Its .model "
                f"is the network, a {type(inner).__name__}: give that."
            )
    return None


def without_layers(model: torch.nn.Module, model_name: str) -> InvalidTypeError | None:
    """Why no layer of the model can be explained, if that is so."""
    if isinstance(model, torch.jit.ScriptModule):
        return InvalidTypeError(
            f"{model_name} is a TorchScript model, and hooks do not reach its layers. Give the original "
            f"torch.nn.Module. {WITHOUT_LAYERS}"
        )
    if isinstance(model, torch.fx.GraphModule) and not _called(model):
        return InvalidTypeError(
            f"{model_name} is a graph of operations, as torch.export makes it, and has no layers. Give "
            f"torch.export.unflatten(exported_program), or the original torch.nn.Module. {WITHOUT_LAYERS}"
        )
    return None


def _called(model: torch.fx.GraphModule) -> list[str]:
    """The parts that the graph calls, besides those that check its inputs."""
    return [
        str(node.target)
        for node in model.graph.nodes
        if node.op == "call_module" and not str(node.target).startswith("_guards")
    ]


def inside_script(name: str, modules: Mapping[str, torch.nn.Module], model_name: str) -> InvalidTypeError | None:
    """The error for a layer inside a part that is TorchScript, if it is one."""
    for outer, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) and name.startswith(f"{outer}."):
            return InvalidTypeError(
                f"The layer {name!r} of {model_name} is inside of {outer!r}, which is TorchScript, where hooks do not "
                f"reach. Take {outer!r} itself, or a model in which it is the original torch.nn.Module."
            )
    return None


def holds_layers(name: str, module: torch.nn.Module, model_name: str) -> InvalidValueError | None:
    """The error for a ModuleList, a ModuleDict or another module without a forward pass of its own, if it is one."""
    if isinstance(module, torch.jit.ScriptModule) or type(module).forward is not torch.nn.Module.forward:
        return None
    last = next((child for child, part in reversed(module._modules.items()) if part is not None), None)
    advice = "Take a layer that runs." if last is None else f"Take one of those, such as the last, '{name}.{last}'."
    return InvalidValueError(
        f"The layer {name!r} of {model_name} is a {type(module).__name__}: it holds layers and does not run itself. "
        f"{advice}"
    )


def quantised(modules: Mapping[str, torch.nn.Module], model_name: str) -> GradientsUnavailableError | None:
    """The error for gradients of a model that has quantised layers, if it does."""
    names = [name for name, module in modules.items() if type(module).__module__.startswith(QUANTISED)]
    names = [name for name in names if not name.startswith(tuple(f"{each}." for each in names))]
    if not names:
        return None
    return GradientsUnavailableError(
        f"{model_name} has quantised layers ({_some(names)}), through which no gradient passes. Take a method that "
        "only runs the model, such as ScoreCAM, EigenCAM or RISE, or give the model as it was before quantisation."
    )


def inference_tensors(model: torch.nn.Module, model_name: str, error: Exception) -> GradientsUnavailableError | None:
    """The error for gradients of a model whose weights were made in inference mode, if PyTorch's own was about that."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    names = [name for name, tensor in tensors if tensor.is_inference()]
    if not names or "Inference tensors cannot be saved for backward" not in str(error):
        return None
    return GradientsUnavailableError(
        f"{model_name} has weights that were made in torch.inference_mode() ({_some(names)}), of which PyTorch keeps "
        "nothing for a gradient. Make or load the model outside of it, or take a method that only runs the model, such "
        "as ScoreCAM, EigenCAM or RISE."
    )


def not_initialised(model: torch.nn.Module, model_name: str) -> InvalidValueError:
    """The error for a model with lazy layers that have not run yet."""
    names = [name for name, each in model.named_parameters() if torch.nn.parameter.is_lazy(each)]
    return InvalidValueError(
        f"{model_name} has parameters whose shapes are not known yet ({_some(names)}). Run it on an image once, "
        "model(images), before it is explained."
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
