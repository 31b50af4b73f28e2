"""The tiny ViT for Flax NNX: `python:examples.zoo.tiny_vit_flax:load`."""

import jax
import jax.numpy as jnp
from flax import nnx

from examples.zoo.fashion_mnist import class_names, preprocessing
from examples.zoo.fashion_networks import (
    BLOCKS,
    CLASSES,
    HEAD_WIDTH,
    HEADS,
    LAYER_NORM_EPSILON,
    MLP_WIDTH,
    PATCH_SIZE,
    TINY_VIT,
    TOKENS,
    WIDTH,
)
from examples.zoo.flax_parameters import set_parameters
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 28, 28, 1)."""
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=TINY_VIT)


def build() -> "TinyViT":
    """The bare network: (batch, 28, 28, 1) in, (batch, 10) logits out.

    `blocks.0` to `blocks.3` give 50 tokens of width 64, the class token first; `blocks.3.attention_norm` is what
    the last attention reads.
    """
    # Shapes only: initial weights would be drawn to be thrown away.
    model = nnx.eval_shape(lambda: TinyViT(rngs=nnx.Rngs(0)))
    set_parameters(model, TINY_VIT)
    return model


class Tokens(nnx.Module):
    """Puts the class token before the patches and adds the positions."""

    def __init__(self) -> None:
        self.class_token = nnx.Param(jnp.zeros((1, 1, WIDTH)))
        self.positions = nnx.Param(jnp.zeros((1, TOKENS, WIDTH)))

    def __call__(self, patches: jax.Array) -> jax.Array:
        """(batch, 49, 64) to (batch, 50, 64)."""
        class_token = jnp.broadcast_to(self.class_token[...], (len(patches), 1, WIDTH))
        return jnp.concatenate([class_token, patches], axis=1) + self.positions[...]


class Attention(nnx.Module):
    """Every token reads from all tokens: softmax(query key^T / sqrt(head width)) value, in four heads."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.query = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.key = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.value = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.output = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """(batch, 50, 64) to the same shape."""
        query, key, value = (_heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        weights = jax.nn.softmax(query @ key.swapaxes(2, 3) / HEAD_WIDTH**0.5, axis=-1)
        return self.output((weights @ value).swapaxes(1, 2).reshape(tokens.shape))


class GELU(nnx.Module):
    """`x Phi(x)` with the exact normal distribution function, a module so that its output has a name."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape to the same shape."""
        return jax.nn.gelu(x, approximate=False)


class Block(nnx.Module):
    """Attention and a perceptron, each on normalised tokens and added to what came in."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = _norm(rngs=rngs)
        self.attention = Attention(rngs=rngs)
        self.mlp_norm = _norm(rngs=rngs)
        self.mlp_expand = nnx.Linear(WIDTH, MLP_WIDTH, rngs=rngs)
        self.mlp_gelu = GELU()
        self.mlp_project = nnx.Linear(MLP_WIDTH, WIDTH, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """(batch, 50, 64) to the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp_project(self.mlp_gelu(self.mlp_expand(self.mlp_norm(tokens))))


class TinyViT(nnx.Module):
    """The network: patches of 4 x 4 and a class token, four blocks, a classifier of the class token."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        patch = (PATCH_SIZE, PATCH_SIZE)
        self.patch_embedding = nnx.Conv(1, WIDTH, patch, patch, padding="VALID", rngs=rngs)
        self.tokens = Tokens()
        self.blocks = nnx.List([Block(rngs=rngs) for _ in range(BLOCKS)])
        self.final_norm = _norm(rngs=rngs)
        self.classifier = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, 28, 28, 1) to logits (batch, 10)."""
        tokens = self.tokens(self.patch_embedding(images).reshape(len(images), TOKENS - 1, WIDTH))
        for block in self.blocks:
            tokens = block(tokens)
        return self.classifier(self.final_norm(tokens)[:, 0])


def _norm(*, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, mean(x^2) - mean(x)^2, loses digits that the other frameworks keep.
    return nnx.LayerNorm(WIDTH, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, rngs=rngs)


def _heads(tokens: jax.Array) -> jax.Array:
    """(batch, tokens, width) to (batch, heads, tokens, head width)."""
    return tokens.reshape(*tokens.shape[:2], HEADS, HEAD_WIDTH).swapaxes(1, 2)
