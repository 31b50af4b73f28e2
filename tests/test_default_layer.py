"""The default layer of vision transformers of Keras and Flax: what the last attention reads, as with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import GradCAM
from libraries import framework

SIZE, PATCH, WIDTH = 16, 4, 8
TOKENS = 1 + (SIZE // PATCH) ** 2


def keras_transformer() -> tuple[Any, str]:
    """A functional model with one block and a class token, which its head reads; and its first normalisation."""
    framework("tensorflow")
    keras = framework("keras")
    layers, ops = keras.layers, keras.ops

    class ClassToken(layers.Layer):
        def build(self, shape: Any) -> None:
            self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="token")
            self.positions = self.add_weight(shape=(1, TOKENS, shape[-1]), initializer="random_normal", name="places")

        def call(self, patches: Any) -> Any:
            token = ops.broadcast_to(self.token, (ops.shape(patches)[0], 1, WIDTH))
            return ops.concatenate([token, patches], axis=1) + self.positions

    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    patches = layers.Reshape((TOKENS - 1, WIDTH))(layers.Conv2D(WIDTH, PATCH, strides=PATCH)(images))
    tokens = ClassToken()(patches)
    read = layers.LayerNormalization(name="before_attention")(tokens)
    tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, WIDTH // 2)(read, read)])
    tokens = layers.Add()([tokens, layers.Dense(WIDTH)(layers.LayerNormalization(name="before_mlp")(tokens))])
    logits = layers.Dense(3)(layers.LayerNormalization(name="last")(tokens)[:, 0])
    return keras.Model(images, logits), "before_attention"


def flax_transformer() -> tuple[Any, str]:
    """The same in Flax."""
    jax, linen = framework("jax"), framework("flax.linen")

    class Transformer(linen.Module):
        @linen.compact
        def __call__(self, images: Any) -> Any:
            patches = linen.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH))(images)
            token = self.param("token", linen.initializers.normal(0.1), (1, 1, WIDTH))
            positions = self.param("places", linen.initializers.normal(0.1), (1, TOKENS, WIDTH))
            token = jax.numpy.broadcast_to(token, (len(images), 1, WIDTH))
            tokens = jax.numpy.concatenate([token, patches.reshape(len(images), -1, WIDTH)], axis=1) + positions
            read = linen.LayerNorm(name="before_attention")(tokens)
            tokens = tokens + linen.MultiHeadDotProductAttention(2)(read, read)
            tokens = tokens + linen.Dense(WIDTH)(linen.LayerNorm(name="before_mlp")(tokens))
            return linen.Dense(3)(linen.LayerNorm(name="last")(tokens)[:, 0])

    model = Transformer()
    return (model, model.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))), "before_attention"


def keras_matrix() -> tuple[Any, str]:
    """A model whose attention's matrix is the output of a layer."""
    framework("tensorflow")
    keras = framework("keras")
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    patches = layers.Reshape((TOKENS - 1, WIDTH))(layers.Conv2D(WIDTH, PATCH, strides=PATCH)(images))
    read = layers.LayerNormalization(name="read")(patches)
    heads = ops.transpose(ops.reshape(layers.Dense(3 * WIDTH)(read), (-1, TOKENS - 1, 3, WIDTH)), (0, 2, 1, 3))
    matrix = layers.Softmax(name="matrix")(ops.matmul(heads, ops.transpose(heads, (0, 1, 3, 2))))
    seen = ops.mean(ops.matmul(matrix, ops.expand_dims(read, 1)), axis=1)
    return keras.Model(images, layers.Dense(3)(ops.mean(seen, axis=1))), "matrix"


def flax_matrix() -> tuple[Any, str]:
    """The same in Flax."""
    jax, linen = framework("jax"), framework("flax.linen")

    class Matrix(linen.Module):
        @linen.compact
        def __call__(self, heads: Any) -> Any:
            return jax.nn.softmax(heads @ heads.swapaxes(2, 3))

    class Transformer(linen.Module):
        @linen.compact
        def __call__(self, images: Any) -> Any:
            patches = linen.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH))(images).reshape(len(images), -1, WIDTH)
            read = linen.LayerNorm(name="read")(patches)
            heads = linen.Dense(3 * WIDTH)(read).reshape(len(images), -1, 3, WIDTH).swapaxes(1, 2)
            seen = (Matrix(name="matrix")(heads) @ read[:, None]).mean(1)
            return linen.Dense(3)(seen.mean(1))

    model = Transformer()
    return (model, model.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))), "matrix"


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
@pytest.mark.parametrize("build", [keras_matrix, flax_matrix], ids=["keras", "flax"])
def test_the_matrix_of_an_attention_is_no_map(build: Any) -> None:
    """It is as square as the image."""
    model, layer = build()
    images = np.random.Generator(np.random.PCG64(0)).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    cam = GradCAM(model)
    assert cam(images, 1).layer != layer
    assert layer not in {each.name for each in cam.layers(images) if each.spatial}
    with pytest.raises(ValueError, match=r"'matrix' has shape \(1, 3, 16, 16\), .* Give reshape="):
        GradCAM(model, layer)(images, 1)


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
@pytest.mark.parametrize("build", [keras_transformer, flax_transformer], ids=["keras", "flax"])
def test_class_token(build: Any) -> None:
    model, layer = build()
    images = np.random.Generator(np.random.PCG64(0)).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    cam = GradCAM(model)
    explanation = cam(images, [[0, 1, 2]] * 2).numpy()
    assert explanation.layer == layer
    assert explanation.maps.shape == (2, 3, SIZE, SIZE)
    assert explanation.maps.max() == pytest.approx(1)
    assert [each.name for each in cam.layers(images) if each.default] == [layer]


@pytest.mark.filterwarnings("ignore:The last layer of")  # so many heads make what is behind the backbone early
def test_a_target_function_that_looks_at_one_of_many_heads() -> None:
    """Behind the head that it looks at are more maps than are measured at once, which are nothing to it."""
    framework("tensorflow")
    keras = framework("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    features = layers.Conv2D(WIDTH, 3, activation="relu", padding="same", name="backbone")(images)
    rows = []
    for head in range(40):
        mixed = layers.Conv2D(WIDTH, 3, activation="relu", padding="same", name=f"mixed_{head}")(features)
        boxes = layers.Conv2D(4, 1, name=f"boxes_{head}")(mixed)
        rows.append(layers.Reshape((SIZE * SIZE, 4))(boxes))
    model = keras.Model(images, layers.Concatenate(axis=1)(rows))
    first = 9 * SIZE * SIZE

    def tenth(outputs: Any) -> Any:
        return keras.ops.sum(outputs[:, first : first + SIZE * SIZE, 1], axis=1)

    image = np.random.default_rng(0).standard_normal((1, SIZE, SIZE, 3)).astype(np.float32)
    assert GradCAM(model)(image, tenth).layer == "mixed_9"
