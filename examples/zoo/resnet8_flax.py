"""ResNet8 for Flax NNX: `python:examples.zoo.resnet8_flax:load`."""

import jax
from flax import nnx

from examples.zoo.fashion_mnist import class_names, preprocessing
from examples.zoo.fashion_networks import BATCH_NORM_EPSILON, CLASSES, RESNET8, STAGES, STEM_CHANNELS, Stage
from examples.zoo.flax_parameters import set_parameters
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 28, 28, 1)."""
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=RESNET8)


def build() -> "ResNet8":
    """The bare network: (batch, 28, 28, 1) in, (batch, 10) logits out.

    `stage1` gives 16 maps of 28 x 28, `stage2` 32 maps of 14 x 14 and `stage3` 64 maps of 7 x 7, all after ReLU.
    """
    # Shapes only: initial weights would be drawn to be thrown away.
    model = nnx.eval_shape(lambda: ResNet8(rngs=nnx.Rngs(0)))
    set_parameters(model, RESNET8)
    return model


class ReLU(nnx.Module):
    """`max(x, 0)`, a module so that its output has a name."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape to the same shape, values at least 0."""
        return jax.nn.relu(x)


class ResidualBlock(nnx.Module):
    """Two 3 x 3 convolutions, added to the input, which a 1 x 1 convolution resizes where it has to."""

    def __init__(self, stage: Stage, *, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(stage.channels_in, stage.channels_out, 3, stage.stride, rngs=rngs)
        self.norm1 = _norm(stage.channels_out, rngs=rngs)
        self.relu1 = ReLU()
        self.conv2 = _conv(stage.channels_out, stage.channels_out, 3, rngs=rngs)
        self.norm2 = _norm(stage.channels_out, rngs=rngs)
        self.resizes = stage.resizes
        if self.resizes:
            self.shortcut_conv = _conv(stage.channels_in, stage.channels_out, 1, stage.stride, rngs=rngs)
            self.shortcut_norm = _norm(stage.channels_out, rngs=rngs)
        self.relu2 = ReLU()

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(batch, h, w, channels in) to (batch, h / stride, w / stride, channels out), values at least 0."""
        x = self.relu1(self.norm1(self.conv1(inputs)))
        x = self.norm2(self.conv2(x))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.resizes else inputs
        return self.relu2(x + shortcut)


class ResNet8(nnx.Module):
    """The network; its batch norms always use their running averages."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem_conv = _conv(1, STEM_CHANNELS, 3, rngs=rngs)
        self.stem_norm = _norm(STEM_CHANNELS, rngs=rngs)
        self.stem_relu = ReLU()
        for name, stage in STAGES.items():
            setattr(self, name, ResidualBlock(stage, rngs=rngs))
        self.classifier = nnx.Linear(STAGES["stage3"].channels_out, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, 28, 28, 1) to logits (batch, 10)."""
        x = self.stem_relu(self.stem_norm(self.stem_conv(images)))
        for name in STAGES:
            x = getattr(self, name)(x)
        return self.classifier(x.mean(axis=(1, 2)))


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    # padding="SAME" would pad one side only where a stride leaves no need for the other.
    return nnx.Conv(channels_in, channels_out, (kernel, kernel), stride, padding=kernel // 2, use_bias=False, rngs=rngs)


def _norm(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=BATCH_NORM_EPSILON, rngs=rngs)
