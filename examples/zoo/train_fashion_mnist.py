"""Trains one of the two networks for Fashion-MNIST with PyTorch and writes its parameters.

    python -m examples.zoo.train_fashion_mnist resnet8 --out resnet8.npz

prints the accuracy on the test images after every epoch; they are used for nothing else.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from examples.zoo.fashion_mnist import FOLDER, Labelled, prepare, read_data_set
from examples.zoo.fashion_networks import RESNET8, TINY_VIT, checkpoint_path, write_parameters
from examples.zoo.resnet8_torch import ResNet8
from examples.zoo.tiny_vit_torch import TinyViT

SEED = 0
SHIFT = 2
LABEL_SMOOTHING = 0.1


class Recipe(NamedTuple):
    """How a network is trained; the learning rate is the highest of a one-cycle schedule (arXiv 1708.07120)."""

    name: str
    network: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int


RECIPES = {
    "resnet8": Recipe(RESNET8, ResNet8, 10, 1e-2, 1e-2, 128),
    "tiny-vit": Recipe(TINY_VIT, TinyViT, 12, 2e-3, 5e-2, 128),
}


def train(model: nn.Module, recipe: Recipe, data: Labelled, seed: int = SEED) -> Iterator[float]:
    """Train in place with AdamW, an epoch for each item that is asked for: its mean loss.

    Args:
        model: (batch, 1, 28, 28) in, (batch, 10) logits out.
        recipe: of which the network is not used; the epochs set the schedule.
        data: at least one batch; what is left over from whole batches is left out of that epoch.
        seed: of the order and of the augmentation.
    """
    generator = np.random.default_rng(seed)
    steps = len(data.images) // recipe.batch_size
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, epochs=recipe.epochs, steps_per_epoch=steps
    )
    model.to(memory_format=torch.channels_last)  # faster on a CPU
    for _ in range(recipe.epochs):
        model.train()
        order = generator.permutation(len(data.images))[: steps * recipe.batch_size]
        losses = []
        for chosen in np.split(order, steps):
            images = augment(data.images[chosen], generator)
            losses.append(_step(model, optimiser, images, data.labels[chosen]))
            schedule.step()
        yield float(np.mean(losses))


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, images: np.ndarray, labels: np.ndarray) -> float:
    inputs, targets = torch.from_numpy(prepare(images, "first")), torch.from_numpy(labels.astype(np.int64))
    loss = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=LABEL_SMOOTHING)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def augment(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images (n, h, w), each moved by up to two pixels each way, half of them mirrored; what moves in is black."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = generator.integers(2 * SHIFT + 1, size=(2, count, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    mirrored = generator.random(count) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled) -> float:
    """The part of the images that the network, put into evaluation mode, classifies right."""
    model.eval()
    batches = torch.from_numpy(prepare(data.images, "first")).split(500)
    classes = torch.cat([model(batch).argmax(dim=1) for batch in batches])
    return float(np.mean(classes.numpy() == data.labels))


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    """What a checkpoint holds: the state dict without the count of batches, which inference has no use for."""
    state = model.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print, write."""
    parser = _parser()
    options = parser.parse_args(arguments)
    recipe = RECIPES[options.network]
    if options.epochs is not None:
        recipe = recipe._replace(epochs=options.epochs)
    try:
        data, unseen = read_data_set("train", options.data), read_data_set("test", options.data)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    torch.manual_seed(SEED)
    model = recipe.network()
    start = time.perf_counter()
    for epoch, loss in enumerate(train(model, recipe, data), 1):
        print(f"epoch {epoch}: loss {loss:.4f}, test accuracy {accuracy(model, unseen):.2%}", flush=True)
    file = options.out or checkpoint_path(recipe.name)
    write_parameters(file, parameters(model))
    print(f"{time.perf_counter() - start:.0f} s; wrote {file}")
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = ", ".join(f"{recipe.epochs} for {name}" for name, recipe in RECIPES.items())
    parser = argparse.ArgumentParser(prog="python -m examples.zoo.train_fashion_mnist")
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--epochs", type=_positive, metavar="N", help=f"default: {defaults}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the checkpoint beside this module")
    parser.add_argument(
        "--data", type=Path, default=FOLDER, metavar="DIR", help="of the .gz files; default: %(default)s"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1 epoch, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
