"""Explanations as pictures, arrays and numbers on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.figures import (
    _check_class_names,
    _check_drawable,
    _input_picture,
    _input_title,
    _method_title,
    _pixels,
    _rows,
    figure,
    png,
)
from fusioncam_core.results.terminal import target_numbers

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation


def save_explanation(
    explanation: Explanation,
    directory: str | Path,
    names: Sequence[str] | None = None,
    photographs: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    pictures: bool = True,
) -> list[Path]:
    """Write NAME.png, NAME.npz and NAME.json for every image.

    - NAME.png: the photograph, the denoised Grad-CAM, the Score-CAM and the Fusion-CAM (for other methods:
      the map), one row per target, with a colour bar; of clips and volumes the middle frame or slice.
    - NAME.npz: `maps`, `targets`, `scores`, `probabilities` and every part and weight under its own
      name, without the batch axis.
    - NAME.json: the method, the layer, and for every target its class, name, score, probability and weights.

    Args:
        explanation: of NumPy arrays (`explanation.numpy()`).
        directory: made if it is not there.
        names: one per image, the files' names without their ending; `image-0` and so on by default.
        photographs: one per image, a Pillow image or a uint8 array (H, W, 3) of any size, of which the map
            covers the whole; by default the model's inputs, scaled to their own minimum and maximum.
        class_names: one per class, in the order of the model's outputs.
        pictures: False writes the .npz and .json alone.

    Returns:
        The files written, image by image.

    Raises:
        ValueError: the number of `names` or `photographs` is not the number of images, a name is not a
            plain file name or comes twice, there is not a name per class, or pictures are asked for maps
            that are neither two- nor three-dimensional.
        MissingExtra: pictures are asked for and matplotlib or Pillow is not installed.
    """
    count = len(explanation.images)
    names = [f"image-{index}" for index in range(count)] if names is None else list(names)
    _check_names(names, count)
    _check_class_names(explanation, class_names)
    if photographs is not None and len(photographs) != count:
        raise InvalidValueError(f"There are {count} images, but {len(photographs)} photographs.")
    if pictures:
        _check_drawable(explanation)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for index, name in enumerate(names):
        if pictures:
            photograph = None if photographs is None else photographs[index]
            path = folder / f"{name}.png"
            written.append(_write_picture(path, explanation, index, photograph, class_names))
        written.append(_write_arrays(folder / f"{name}.npz", explanation, index))
        written.append(_write_numbers(folder / f"{name}.json", explanation, index, class_names))
    return written


def _write_picture(
    path: Path, explanation: Explanation, index: int, photograph: Any, class_names: Sequence[str] | None
) -> Path:
    parts = {name: title for name, title in explanation.titles.items() if name in explanation.parts}
    pixels = _input_picture(explanation, index) if photograph is None else _pixels(photograph)
    titles = [
        _input_title(explanation) if photograph is None else "Photograph",
        *parts.values(),
        _method_title(explanation),
    ]
    path.write_bytes(png(figure(list(_rows(explanation, index, pixels, parts, class_names)), titles)))
    return path


def _write_arrays(path: Path, explanation: Explanation, index: int) -> Path:
    arrays = {
        "maps": explanation.maps,
        "targets": explanation.targets,
        "scores": explanation.scores,
        "probabilities": explanation.probabilities,
        **explanation.parts,
        **explanation.weights,
    }
    np.savez_compressed(path, **{name: np.asarray(array)[index] for name, array in arrays.items()})
    return path


def _write_numbers(path: Path, explanation: Explanation, index: int, class_names: Sequence[str] | None) -> Path:
    numbers = {
        "name": path.stem,
        "method": explanation.method,
        "layer": explanation.layer,
        "input_shape": list(explanation.images.shape[1:]),
        "map_shape": list(explanation.maps.shape[explanation.targets.ndim :]),
        "images_explained_together": len(explanation.images),
        "evaluations": explanation.evaluations,
        "targets": list(target_numbers(explanation, index, class_names)),
    }
    path.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise InvalidValueError(f"There are {count} images, but {len(names)} names.")
    if len(set(names)) != count:
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidValueError(f"The name {twice!r} comes twice: one image would overwrite the other.")
    for name in names:
        if not name or Path(name).name != name:
            raise InvalidValueError(f"{name!r} is not a plain file name; say where to with the directory.")
