"""The names that pytorch-grad-cam imports from torchvision, for machines whose PyTorch has no torchvision.

None of them is needed for a class activation map. Each raises where it is used.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

NAMES = {
    "torchvision": (),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
}
"""Modules, and what pytorch-grad-cam 1.5.7 imports from each."""


@contextmanager
def standing_in() -> Iterator[None]:
    """In this block `import torchvision` finds the stand-in; where torchvision is installed, that one.

    The modules are forgotten again afterwards, so that nobody else takes torchvision for installed.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    sys.modules.update(_modules())
    try:
        yield
    finally:
        for name in NAMES:
            sys.modules.pop(name, None)


class _StandIn(ModuleType):
    """A module that explains what it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        raise AttributeError(_explanation(f"{self.__name__}.{name}"))


def _modules() -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    for name, attributes in NAMES.items():
        module = modules[name] = _StandIn(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        for attribute in attributes:
            setattr(module, attribute, _refusal(f"{name}.{attribute}"))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **keywords: Any) -> NoReturn:
        raise NotImplementedError(_explanation(name))

    return refuse


def _explanation(name: str) -> str:
    return (
        f"{name} was used, and torchvision is not installed: pytorch-grad-cam runs here on a stand-in without it "
        "(benchmarks/peers/torchvision_standin.py), which is enough for class activation maps of classifiers only"
    )
