"""Public packages of Flax and Equinox models: flaxmodels (Linen), jimmy-vision (NNX) and equimo (Equinox)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.sweep import on_jax
from benchmarks.sweep.layouts import FIRST, LAST, ByLayer, Layout
from benchmarks.sweep.subject import NotBuiltError, Size, Subject

CLASSES = 10


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


def _nnx(name: str) -> Callable[[Size], Any]:
    def make(size: Size) -> Any:
        rngs = nnx.Rngs(0)
        model = NNX[name](size, rngs)
        nnx.update(model, _spread(nnx.state(model, nnx.Param)))
        return model

    return make


def _dinov2(registers: int) -> Callable[[Size, Any], Any]:
    def make(size: Size, rngs: Any) -> Any:
        from jimmy.models.vit import DinoV2

        model = DinoV2(
            num_heads=4, embed_dim=64, mlp_ratio=4, patch_size=14, depth=3, img_size=size[0], reg_tokens=registers,
            num_classes=CLASSES, rngs=rngs,
        )  # fmt: skip
        return model

    return make


NNX: dict[str, Callable[[Size, Any], Any]] = {"DinoV2": _dinov2(0), "DinoV2 with registers": _dinov2(4)}

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
        import importlib

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
        "jimmy-vision DinoV2": (_nnx("DinoV2"), ByLayer(Layout(before=1))),
        "jimmy-vision DinoV2 with registers": (_nnx("DinoV2 with registers"), ByLayer(Layout(before=5))),
    },
    "equinox": {
        **{f"equimo {name}": (_equimo(name), ByLayer(FIRST)) for name in EQUIMO},
        "equimo VisionTransformer": (_equimo_vit, ByLayer(Layout(before=5))),
    },
}


def framework() -> ModuleType:
    return on_jax


def names(package: str) -> list[str]:
    return list(MODELS[package])


def subject(package: str, name: str) -> Subject:
    """A model of a package."""
    make, layout = MODELS[package][name]
    channels_last = package == "flax"

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
        sizes=((112, 112),) if "DinoV2" in name else ((224, 224),) if "VGG" in name else ((128, 128),),
        other=None if "DinoV2" in name or "VGG" in name else (128, 160),
        shape=(lambda size: (*size, 3)) if channels_last else (lambda size: (3, *size)),
    )
