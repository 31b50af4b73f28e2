"""Fashion-MNIST: the pictures that a Debian package installs, and what networks take of them."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fusioncam_core import Preprocessing
from fusioncam_core.data.preprocessing import upright

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts the four files."""

IMAGE_SIZE = 28
MEAN, STD = 0.2860, 0.3530
"""Of all pixels of the 60,000 training images, as values in [0, 1]."""

Channels = Literal["first", "last"]

_FILES = {"train": "train", "test": "t10k"}
_IDX_BYTES = 0x08  # the third byte of an idx file: its elements are unsigned bytes


class Labelled(NamedTuple):
    """Pictures and what they show.

    Attributes:
        images: (n, 28, 28) uint8, light on black.
        labels: (n,) uint8, the index into `class_names()`.
    """

    images: np.ndarray
    labels: np.ndarray


def class_names() -> list[str]:
    """The names of the ten classes in index order: `class_names()[9] == "Ankle boot"`."""
    return [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


def read_data_set(part: Literal["train", "test"], folder: Path = FOLDER) -> Labelled:
    """The 60,000 images to train with, or the 10,000 to test with.

    Raises:
        FileNotFoundError: the files are not in the folder; the message names the package that has them.
        ValueError: a file has another format, or ends too early.
    """
    images = _read(folder / f"{_FILES[part]}-images-idx3-ubyte.gz", axes=3)
    labels = _read(folder / f"{_FILES[part]}-labels-idx1-ubyte.gz", axes=1)
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images and {len(labels)} labels of the part {part!r}")
    return Labelled(images, labels)


def prepare(images: np.ndarray, channels: Channels) -> np.ndarray:
    """What the networks take: `(pixels / 255 - MEAN) / STD`, with an axis for the one channel.

    Args:
        images: (n, 28, 28), values in 0..255.
        channels: `"first"` gives (n, 1, 28, 28), `"last"` gives (n, 28, 28, 1); both float32.
    """
    values = (images.astype(np.float32) - np.float32(255 * MEAN)) / np.float32(255 * STD)
    return np.expand_dims(values, 1 if channels == "first" else -1)


class GreyPreprocessing(Preprocessing):
    """As `fusioncam_core.Preprocessing`, for networks that take one grey channel instead of three."""

    def __call__(self, photograph: "Image") -> np.ndarray:
        """One model input, float32, (1, H, W) or (H, W, 1), no batch axis. Raises as `window` does."""
        three_alike = super().__call__(upright(photograph).convert("L"))
        return three_alike[:1] if self.channels == "first" else three_alike[..., :1]


def preprocessing(channels: Channels) -> GreyPreprocessing:
    """`prepare` for one Pillow image: the central square in grey, 28 x 28; a picture of that size stays as it is."""
    return GreyPreprocessing(
        size=(IMAGE_SIZE, IMAGE_SIZE),
        interpolation="bilinear",
        mean=255 * MEAN,
        std=255 * STD,
        channels=channels,
    )


def _read(path: Path, axes: int) -> np.ndarray:
    """An idx file: two zeros, the type of its elements, the number of its axes, their lengths, the elements."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {path}; Debian's package dataset-fashion-mnist has it: apt-get install "
            "dataset-fashion-mnist. Elsewhere, put its four .gz files into a folder and name that folder"
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, _IDX_BYTES, axes)) or len(content) < start:
        raise ValueError(f"expected an idx file of bytes with {axes} axes; {path} begins with {content[:4]!r}")
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    return _elements(path, content[start:], shape)


def _elements(path: Path, content: bytes, shape: Sequence[int]) -> np.ndarray:
    if len(content) != np.prod(shape):
        raise ValueError(f"{path} should hold {' x '.join(map(str, shape))} bytes; it holds {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(shape)
