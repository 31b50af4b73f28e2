"""Flax and Equinox: the packages flaxmodels (Linen) and equimo (Equinox), and the examples' own networks (NNX)."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sweep import on_jax
from benchmarks.sweep.layouts import FIRST, LAST, ByLayer, Layout
from benchmarks.sweep.subject import NotBuiltError, Size, Subject, expectation

CLASSES = 10
CLASS = Layout(before=1)


def _linen(name: str) -> Callable[[Size], Any]:
    def make(size: Size) -> Any:
        import flaxmodels

        words = {"output": "logits", "pretrained": None, "normalize": False, "num_classes": CLASSES}
        module = getattr(flaxmodels, name)(**words)
        init = jax.jit(functools.partial(module.init, train=False))
        variables = init(jax.random.key(0), jnp.zeros((1, *size, 3)))
        return module, _spread(variables)

    return make


def _spread(variables: Any) -> Any:
    """Arrays of one value spread, as after some training."""
    generator = np.random.Generator(np.random.PCG64(1))

    def spread(array: Any) -> Any:
        if array.size and bool(array.min() == array.max()):
            return array + 0.05 * generator.standard_normal(array.shape).astype(np.float32)
        return array

    return jax.tree.map(spread, variables)


def _zoo(module: str) -> Callable[[Size], Any]:
    def make(size: Size) -> Any:
        return importlib.import_module(f"examples.zoo.{module}").build()

    return make


EQUIMO = {
    "mobilenet": "mobilenetv3_small",
    "convnext": "convnext_t",
    "iformer": "iformer_t",
    "lowformer": "lowformer_backbone_b0",
    "reduceformer": "reduceformer_backbone_b1",
    "attnet": "attnet_xxs",
}


def _equimo(module: str) -> Callable[[Size], Any]:
    def make(size: Size) -> Any:
        models = importlib.import_module(f"equimo.models.{module}")
        return getattr(models, EQUIMO[module])(num_classes=CLASSES, in_channels=3, key=jax.random.PRNGKey(0))

    return make


def _equimo_vit(size: Size) -> Any:
    from equimo.models.vit import VisionTransformer

    return VisionTransformer(
        img_size=size[0], in_channels=3, dim=48, patch_size=16, num_heads=[4], depths=[3], num_classes=CLASSES,
        key=jax.random.PRNGKey(0),
    )  # fmt: skip


MODELS: dict[str, dict[str, tuple[Callable[[Size], Any], ByLayer]]] = {
    "flax": {
        "flaxmodels ResNet18": (_linen("ResNet18"), ByLayer(LAST)),
        "flaxmodels VGG16": (_linen("VGG16"), ByLayer(LAST)),
        "examples ResNet8": (_zoo("resnet8_flax"), ByLayer(LAST)),
        "examples TinyViT": (_zoo("tiny_vit_flax"), ByLayer(CLASS)),
    },
    "equinox": {
        **{f"equimo {name}": (_equimo(name), ByLayer(FIRST)) for name in EQUIMO},
        "equimo VisionTransformer": (_equimo_vit, ByLayer(Layout(before=5))),
    },
}


EXPECTED = [
    ("flaxmodels ResNet18", r"BasicBlock_7"),
    ("examples ResNet8", r"stage3(\..*)?"),
    ("examples TinyViT", r"blocks[.\[]3\]?\.attention_norm"),
    ("equimo mobilenet", r"layers\[\d+\](\..*)?"),
    ("equimo VisionTransformer", r"norm|blocks\[0\](\..*)?"),
]
"""By name the layers that the field names."""


def framework() -> ModuleType:
    return on_jax


def names(package: str) -> list[str]:
    return list(MODELS[package])


def subject(package: str, name: str) -> Subject:
    """A model of a package."""
    make, layout = MODELS[package][name]
    channels_last, zoo = package == "flax", name.startswith("examples")

    def built(size: Size) -> Any:
        try:
            return make(size)
        except ImportError as error:
            raise NotBuiltError(str(error)) from error

    return Subject(
        package,
        name,
        "classification",
        built,
        layout,
        sizes=((28, 28),) if zoo else ((224, 224),) if "VGG" in name else ((128, 128),),
        other=None if zoo or "VGG" in name else (128, 160),
        expected=expectation(EXPECTED, name),
        shape=(lambda size: (*size, 1 if zoo else 3)) if channels_last else (lambda size: (3, *size)),
    )
