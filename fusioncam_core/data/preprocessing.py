"""From a photograph to the array a network was trained on, and to the picture of what the network saw."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.arrays.words import resize
from fusioncam_core.errors import FusionCamError, InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.models.structure import is_array

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

_BROKEN = (SyntaxError, IndexError, TypeError, struct.error)
"""What Pillow's readers raise of a file that is not of their format, or damaged."""

_OTHER_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_Channels = Literal["first", "last"]
_Colours = Literal["rgb", "bgr", "grey"]
_Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photograph before it reaches a network: crop, resize, normalise.

    Calling it gives one model input; `window` and `view` give the same part of the photograph as a
    picture, to draw maps on, and `restored` takes a map back to the whole photograph.

    Attributes:
        size: height and width of the model's input, in pixels.
        crop_fraction: the centred window that is kept, as a fraction in (0, 1] of the largest one with the
            proportions of `size` (for a square `size`: of the shorter side). None keeps the whole
            photograph and squashes it to `size`.
        interpolation: Pillow's name of the resampling filter, lower case.
        mean: subtracted from the values 0..255: one number, or one per channel (red, green, blue).
        std: what the difference is divided by: one positive number, or one per channel.
        channels: `"first"` gives (3, H, W), `"last"` gives (H, W, 3); of grey pictures (1, H, W) and (H, W, 1).
        colours: the order of the channels in the array: `"rgb"`, or `"bgr"` as in networks that were trained in Caffe,
            ResNet50 and VGG of Keras' applications among them. `mean` and `std` stay in the order red, green, blue.
            `"grey"` gives the one channel that films and scans have, of coloured pictures their brightness (ITU-R 601);
            `mean` and `std` are one number each then.

    Raises:
        ValueError: a field is outside what is described above.

    Examples:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from fusioncam_core import Preprocessing
        >>> photograph = Image.new("RGB", (40, 30), (255, 0, 0))
        >>> preprocessing = Preprocessing((16, 16), mean=127.5, std=127.5)
        >>> pixels = preprocessing(photograph)
        >>> pixels.shape, pixels[:, 0, 0]
        ((3, 16, 16), array([ 1., -1., -1.], dtype=float32))
        >>> preprocessing.box(photograph)  # what the network sees of it: left, top, right, bottom
        (5, 0, 35, 30)
        >>> preprocessing.restored(np.ones((16, 16), np.float32), photograph)[0, [0, 20]]
        array([0., 1.], dtype=float32)
    """

    size: tuple[int, int] = (224, 224)
    crop_fraction: float | None = 1.0
    interpolation: _Interpolation = "bicubic"
    mean: float | Sequence[float] = 127.0
    std: float | Sequence[float] = 128.0
    channels: _Channels = "first"
    colours: _Colours = "rgb"

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.crop_fraction is not None and not 0.0 < self.crop_fraction <= 1.0:
            raise InvalidValueError(f"crop_fraction is {self.crop_fraction}; give a number in (0, 1], or None.")
        _check_name("interpolation", self.interpolation, get_args(_Interpolation))
        _check_name("channels", self.channels, get_args(_Channels))
        _check_name("colours", self.colours, get_args(_Colours))
        _per_channel("mean", self.mean)
        if not (_per_channel("std", self.std) > 0.0).all():
            raise InvalidValueError(f"std is {self.std}; every value must be greater than 0.")
        if self.colours == "grey" and np.ndim(self.mean) + np.ndim(self.std) > 0:
            raise InvalidValueError(
                f"Grey pictures have one channel: expected one number as mean and as std, got {self.mean} and "
                f"{self.std}."
            )

    def window(self, photograph: Image) -> Image:
        """The part of the photograph that the network sees: upright, RGB, in the photograph's resolution.

        Args:
            photograph: a Pillow image of any mode that has values in 0..255 or 0..65535.

        Raises:
            TypeError: `photograph` is not a Pillow image.
            ValueError: its values have no known range (Pillow's modes "I" and "F").
        """
        photograph = upright(photograph)
        return photograph if self.crop_fraction is None else photograph.crop(self.box(photograph))

    def whole(self, photograph: Any) -> Image:
        """The whole photograph as `window` cuts from it: upright and RGB.

        Args:
            photograph: a Pillow image, or a uint8 array (H, W, 3) of one that is upright.

        Raises:
            TypeError: it is neither.
            ValueError: it is an array of another dtype or shape, or an image whose values have no known range.
        """
        if not isinstance(photograph, np.ndarray):
            return upright(photograph)
        if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[-1] != 3:
            raise InvalidValueError(
                f"Expected a photograph as a Pillow image or a uint8 array (height, width, 3), got dtype "
                f"{photograph.dtype} and shape {photograph.shape}."
            )
        image: Image = require("PIL.Image", "Preparing photographs").fromarray(photograph)
        return image

    def box(self, photograph: Any) -> tuple[int, int, int, int]:
        """Where `window` lies: left, top, right and bottom in pixels of the upright photograph.

        Args:
            photograph: as for `whole`, and so is what is raised.
        """
        across, down = self.whole(photograph).size
        if self.crop_fraction is None:
            return 0, 0, across, down
        return _centred_box((across, down), self.size, self.crop_fraction)

    def restored(self, saliency: Any, photograph: Any) -> npt.NDArray[np.float32]:
        """A map of the input as one of the photograph: stretched over the window, 0 outside of it.

        The middle of a pixel of the input comes to lie on the middle of the pixels that it was made of; between the
        middles the map is linear.

        Args:
            saliency: (h, w), a map of the whole input in any resolution, of any framework.
            photograph: as for `whole`.

        Returns:
            (H, W) float32, of the upright photograph's height and width.

        Raises:
            TypeError: as for `whole`.
            ValueError: as for `whole`, and for a map that is not of two axes or not finite.
        """
        values = to_numpy(saliency)
        if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
            raise InvalidValueError(
                f"Expected a map (height, width) of finite numbers, got one of shape {values.shape}."
            )
        whole = self.whole(photograph)
        left, top, right, bottom = self.box(whole)
        frame = np.zeros((whole.height, whole.width), dtype=np.float32)
        frame[top:bottom, left:right] = resize(values.astype(np.float32), (bottom - top, right - left))
        return frame

    def view(self, photograph: Image) -> Image:
        """`window` resized to `size`: the network's input as a picture. Raises as `window` does."""
        height, width = self.size
        return self.window(photograph).resize((width, height), _resampling(self.interpolation))

    def __call__(self, photograph: Image) -> npt.NDArray[np.float32]:
        """One model input, float32, (3, H, W) or (H, W, 3), no batch axis. Raises as `window` does."""
        view = self.view(photograph)
        pixels = np.asarray(view.convert("L") if self.colours == "grey" else view, dtype=np.float32)
        pixels = pixels[:, :, np.newaxis] if self.colours == "grey" else pixels
        array = (pixels - _per_channel("mean", self.mean)) / _per_channel("std", self.std)
        array = np.ascontiguousarray(array[..., ::-1]) if self.colours == "bgr" else array
        return array if self.channels == "last" else np.ascontiguousarray(np.moveaxis(array, -1, 0))


def read_photograph(path: str | PathLike[str]) -> Image:
    """Read an image file with Pillow: upright as its EXIF orientation says, RGB, 8 bits per channel.

    Only regular files are opened: reading from a pipe or a device may never end. Files with more pixels than Pillow
    takes without a warning (`PIL.Image.MAX_IMAGE_PIXELS`) are not decoded.

    Args:
        path: of the file.

    Raises:
        ValueError: there is no such file, it is not an image, it is damaged or too large, or its values have no known
            range.
        MissingExtra: Pillow is not installed.
    """
    with _in_words(path):
        _require_regular(path)
        with open(path, "rb") as file:
            image = _decoded(file, path)
    return _required(image, path)


def photograph_in(content: bytes, name: str) -> Image:
    """A photograph of which the file's content is at hand, as `read_photograph` gives those of files.

    Args:
        content: of the file.
        name: of the photograph, for messages.

    Raises:
        ValueError, MissingExtra: as there.
    """
    with _in_words(name):
        image = _decoded(io.BytesIO(content), name)
    return _required(image, name)


@contextlib.contextmanager
def _in_words(path: str | PathLike[str]) -> Iterator[None]:
    pillow = require("PIL.Image", "Reading photographs")
    try:
        yield
    except FileNotFoundError as error:
        raise InvalidValueError(f"{path}: there is no such file.") from error
    except (*_BROKEN, OSError, ValueError, EOFError, MemoryError, pillow.DecompressionBombError) as error:
        raise InvalidValueError(f"{path} cannot be read as a photograph: {error}") from error


def _decoded(file: BinaryIO, path: str | PathLike[str]) -> Image | None:
    image = _identified(file, path)
    if image is None:
        return None
    image.load()
    return upright(image)


def _required(image: Image | None, path: str | PathLike[str]) -> Image:
    if image is None:
        raise InvalidValueError(f"{path} is not an image Pillow can read.")
    return image


def _require_regular(path: str | PathLike[str]) -> None:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((word for is_it, word in _OTHER_KINDS if is_it(mode)), "something else")
        raise InvalidValueError(f"expected a file, got {kind}.")


def _identified(file: BinaryIO, path: str | PathLike[str]) -> Image | None:
    """What `PIL.Image.open` gives, without its warning of large images; None if it is no image.

    That one names no file, and catching it would meddle with the warnings of other threads.
    """
    pillow = require("PIL.Image", "Reading photographs")
    pillow.init()
    beginning = file.read(16)
    for name in pillow.ID:
        factory, accept = pillow.OPEN[name]
        accepted = accept is None or accept(beginning)
        if not accepted or isinstance(accepted, str):  # a word says what is missing to read the format
            continue
        file.seek(0)
        try:
            image: Image = factory(file, os.fspath(path))
        except _BROKEN:
            continue
        _require_bounded(image, pillow.MAX_IMAGE_PIXELS)
        return image
    return None


def _require_bounded(image: Image, limit: int | None) -> None:
    pixels = image.width * image.height
    if limit is not None and pixels > limit:
        raise InvalidValueError(
            f"expected at most {limit} pixels, Pillow's limit against files that unpack to fill the memory, got "
            f"{image.width} x {image.height} = {pixels}. Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def prepared_photograph(photograph: Image, preprocessing: Callable[[Any], Any], path: str | PathLike[str]) -> Any:
    """The input that preprocessing makes of a photograph.

    Args:
        photograph: as `read_photograph` gives it.
        preprocessing: of the user, or a `Preprocessing`.
        path: of the photograph, for messages.

    Raises:
        ValueError: whatever preprocessing raised, with the photograph's name; or what it returned is no array of
            finite numbers.
    """
    try:
        array = preprocessing(photograph)
    except FusionCamError as error:
        raise InvalidValueError(f"{path}: {error}") from error
    except Exception as error:  # the user's own may raise anything, and it is about this photograph alone
        raise InvalidValueError(f"{path}: preprocessing raised {type(error).__name__}: {error}") from error
    if not is_array(array):
        raise InvalidValueError(f"{path}: expected an array from preprocessing, got {_kind_of(array)}.")
    values = to_numpy(array)
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        raise InvalidValueError(f"{path}: expected finite numbers from preprocessing, got NaN or infinity.")
    return array


def _kind_of(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


def upright(photograph: Image) -> Image:
    """A copy turned as the EXIF orientation says, in RGB.

    Grey images with 16 bits are scaled to 0..255 (Pillow alone would cut them off at 255).

    Raises:
        TypeError: `photograph` is not a Pillow image.
        ValueError: its values have no known range (Pillow's modes "I" and "F").
    """
    pillow = require("PIL.Image", "Preparing photographs")
    if not isinstance(photograph, pillow.Image):
        raise InvalidTypeError(
            f"Expected a Pillow image, got a {type(photograph).__name__}. Open files with "
            "read_photograph(path), and wrap uint8 arrays of shape (H, W, 3) with PIL.Image.fromarray."
        )
    turned: Image = require("PIL.ImageOps", "Preparing photographs").exif_transpose(photograph)
    if turned.mode in ("I", "F"):
        raise InvalidValueError(
            f"An image of mode {turned.mode!r} has values of no known range; scale it to 0..255 first."
        )
    if turned.mode.startswith("I;16"):
        turned = pillow.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert("RGB")


def _check_size(size: Any) -> None:
    if not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise InvalidValueError(f"size is {size!r}; give (height, width) as two positive integers.")


def _check_name(field: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise InvalidValueError(f"{field} is {name!r}; choose one of {', '.join(names)}.")


def _per_channel(field: str, value: float | Sequence[float]) -> npt.NDArray[np.float32]:
    array = np.asarray(value, dtype=np.float32)
    if array.shape not in ((), (3,)) or not np.isfinite(array).all():
        raise InvalidValueError(f"{field} is {value!r}; give one finite number, or three (red, green, blue).")
    return array


def _resampling(name: str) -> Resampling:
    resampling: Resampling = require("PIL.Image", "Preparing photographs").Resampling[name.upper()]
    return resampling


def _centred_box(photograph: tuple[int, int], size: tuple[int, int], fraction: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the window in a photograph of (width, height)."""
    across, down = photograph
    height, width = size
    scale = fraction * min(across / width, down / height)
    window_width = max(1, min(across, math.floor(width * scale + 0.5)))
    window_height = max(1, min(down, math.floor(height * scale + 0.5)))
    left, top = (across - window_width) // 2, (down - window_height) // 2
    return left, top, left + window_width, top + window_height
