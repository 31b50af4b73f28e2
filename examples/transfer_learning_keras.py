"""A Keras transfer-learning model, explained: a backbone nested in a Sequential, with rescaling and a new head.

    python -m examples.transfer_learning_keras --out transfer-out

trains for some seconds, on whatever framework KERAS_BACKEND names, and writes a picture for each of four images. To
need no download, the backbone here is a small one with random weights and the photographs are drawn: a disk or a
square on noise. With your own, only `backbone` and `drawn_images` differ; `explain` stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from fusioncam_core import Explanation, FusionCAM

SIDE = 64
CLASSES = ("disk", "square")


def backbone() -> keras.Model:
    """In earnest: `keras.applications.MobileNetV2(include_top=False, weights="imagenet")`."""
    images = keras.Input((SIDE, SIDE, 3))
    values = images
    for number, filters in enumerate((16, 32, 48), start=1):
        values = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}")(values)
        values = layers.BatchNormalization(name=f"norm{number}", momentum=0.8)(values)
        values = layers.ReLU(name=f"relu{number}")(values)
        if number < 3:
            values = layers.MaxPooling2D(name=f"pool{number}")(values)
    return keras.Model(images, values, name="backbone")


def transfer_model() -> keras.Model:
    """The model as it is usually written: pixels of 0..255 in, probabilities out."""
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            backbone(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )


def drawn_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, 64, 64, 3) of 0..255, their classes (n,), and where the shapes are (n, 64, 64)."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(len(CLASSES), size=count)
    centres = generator.integers(16, SIDE - 16, size=(count, 2, 1, 1))
    down, across = np.abs(np.indices((SIDE, SIDE))[None] - centres).transpose(1, 0, 2, 3)
    disks, squares = np.hypot(down, across) < 11, np.maximum(down, across) < 10
    inside = np.where((classes == 0)[:, None, None], disks, squares)
    images = generator.normal(90, 30, size=(count, SIDE, SIDE, 3)) + 80 * inside[..., None]
    return np.clip(images, 0, 255).astype(np.float32), classes, inside


def explain(model: keras.Model, images: np.ndarray) -> Explanation:
    """The default layer is the last one in space, which is inside the backbone; the softmax is seen through."""
    return FusionCAM(model)(images)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain four images, and say how much of each map lies on its shape."""
    parser = argparse.ArgumentParser(prog="python -m examples.transfer_learning_keras", description=main.__doc__)
    parser.add_argument("--out", default="transfer-out", metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    model = transfer_model()
    train(model)
    images, _, inside = drawn_images(4, seed=1)
    explanation = explain(model, images)
    written = explanation.save(options.out, class_names=CLASSES, overwrite=True)
    for line in report(explanation, inside):
        print(line)
    print(f"wrote {written[0].parent}")
    return 0


def train(model: keras.Model) -> None:
    """Ten epochs over 256 drawn images."""
    images, classes, _ = drawn_images(256, seed=0)
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, classes, batch_size=32, epochs=10, verbose=0)


def report(explanation: Explanation, inside: np.ndarray) -> list[str]:
    """A line for each image: its class, and the share of the map that lies on the shape."""
    found = explanation.numpy()
    shares = (found.maps * inside).sum(axis=(1, 2)) / found.maps.sum(axis=(1, 2))
    areas = inside.mean(axis=(1, 2))
    return [
        f"{CLASSES[target]:6}  p = {probability:.3f}  {share:.0%} of the map on {area:.0%} of the image"
        for target, probability, share, area in zip(found.targets, found.probabilities, shares, areas, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
