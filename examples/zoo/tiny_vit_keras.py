"""The tiny ViT for Keras 3 on any backend: `python:examples.zoo.tiny_vit_keras:load`."""

from typing import Any

import keras
from keras import layers, ops

from examples.zoo.fashion_mnist import IMAGE_SIZE, class_names, preprocessing
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
from examples.zoo.keras_parameters import set_parameters
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 28, 28, 1)."""
    return LoadedModel(build(), preprocessing(channels="last"), class_names(), name=TINY_VIT)


def build() -> keras.Model:
    """The bare network, a Functional model: (batch, 28, 28, 1) in, (batch, 10) logits out.

    `block_0_mlp_add` to `block_3_mlp_add` give 50 tokens of width 64, the class token first;
    `block_3_attention_norm` is what the last attention reads.
    """
    model = _network()
    set_parameters(model, TINY_VIT)
    return model


@keras.saving.register_keras_serializable("fusioncam_zoo")
class Tokens(layers.Layer):
    """Puts the class token before the patches and adds the positions."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the two weights; the shape tells nothing that is not known."""
        self.class_token = self.add_weight(shape=(1, 1, WIDTH), name="class_token")
        self.positions = self.add_weight(shape=(1, TOKENS, WIDTH), name="positions")

    def call(self, patches: Any) -> Any:
        """(batch, 49, 64) to (batch, 50, 64)."""
        class_token = ops.broadcast_to(self.class_token, (ops.shape(patches)[0], 1, WIDTH))
        return ops.concatenate([class_token, patches], axis=1) + self.positions


@keras.saving.register_keras_serializable("fusioncam_zoo")
class AttentionHeads(layers.Layer):
    """softmax(query key^T / sqrt(head width)) value, in four heads."""

    def call(self, query: Any, key: Any, value: Any) -> Any:
        """Three times (batch, 50, 64) to the same shape."""
        query, key, value = (_heads(each) for each in (query, key, value))
        weights = ops.softmax(query @ ops.transpose(key, (0, 1, 3, 2)) / HEAD_WIDTH**0.5, axis=-1)
        return ops.reshape(ops.transpose(weights @ value, (0, 2, 1, 3)), (-1, TOKENS, WIDTH))


def _network() -> keras.Model:
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="image")
    embedding = layers.Conv2D(
        WIDTH, PATCH_SIZE, strides=PATCH_SIZE, data_format="channels_last", name="patch_embedding"
    )
    tokens = layers.Reshape((TOKENS - 1, WIDTH), name="patches")(embedding(image))
    tokens = Tokens(name="tokens")(tokens)
    for index in range(BLOCKS):
        tokens = _block(f"block_{index}", tokens)
    class_token = _norm("final_norm", tokens)[:, 0]
    return keras.Model(image, layers.Dense(CLASSES, name="classifier")(class_token), name="tiny_vit")


def _block(name: str, tokens: Any) -> Any:
    read = _attention(f"{name}_attention", _norm(f"{name}_attention_norm", tokens))
    tokens = layers.Add(name=f"{name}_attention_add")([tokens, read])
    x = layers.Dense(MLP_WIDTH, name=f"{name}_mlp_expand")(_norm(f"{name}_mlp_norm", tokens))
    x = layers.Activation("gelu", name=f"{name}_mlp_gelu")(x)
    x = layers.Dense(WIDTH, name=f"{name}_mlp_project")(x)
    return layers.Add(name=f"{name}_mlp_add")([tokens, x])


def _attention(name: str, tokens: Any) -> Any:
    query, key, value = (layers.Dense(WIDTH, name=f"{name}_{part}")(tokens) for part in ("query", "key", "value"))
    return layers.Dense(WIDTH, name=f"{name}_output")(AttentionHeads(name=f"{name}_heads")(query, key, value))


def _norm(name: str, tokens: Any) -> Any:
    return layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name=name)(tokens)


def _heads(tokens: Any) -> Any:
    """(batch, tokens, width) to (batch, heads, tokens, head width)."""
    return ops.transpose(ops.reshape(tokens, (-1, TOKENS, HEADS, HEAD_WIDTH)), (0, 2, 1, 3))
