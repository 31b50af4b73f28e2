"""Explanations as pictures, arrays and numbers on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusioncam_core.arrays.checks import require_word
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.names import Distinct, folded
from fusioncam_core.results.drawable import check_class_names, check_drawable, check_photographs, check_style
from fusioncam_core.results.figures import PictureFormat, rendered
from fusioncam_core.results.pictures import image_figure, require_readable, signed_panels
from fusioncam_core.results.stored import SCHEMA, encoded
from fusioncam_core.results.style import DEFAULT_STYLE, Style
from fusioncam_core.results.terminal import target_numbers
from fusioncam_core.results.writing import MARK, Identity, below, identities, refusal, require_free, write_files

if TYPE_CHECKING:
    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.explanation import Explanation


def save_explanation(
    explanation: Explanation,
    directory: str | Path,
    names: Sequence[str] | None = None,
    photographs: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    pictures: bool = True,
    picture: PictureFormat = "png",
    style: Style = DEFAULT_STYLE,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
    inputs: AbstractSet[Identity] = frozenset(),
) -> list[Path]:
    """Write NAME.png, NAME.npz and NAME.json for every image.

    - NAME.png (or .pdf, .svg): the photograph, the denoised Grad-CAM, the Score-CAM and the Fusion-CAM (for other
      methods: the map), one row per target, with a colour bar; of clips and volumes the middle frame or slice. Of many
      targets the first are drawn: about as many as fit in 60 inches.
    - NAME.npz: everything, for `Explanation.load`: the arrays by the names of their fields, every part as `parts/PART`
      and every weight as `weights/WEIGHT`, without the batch axis; the other fields in `explanation`, a text of JSON;
      `fusioncam`, the number of this schema.
    - NAME.json, to be read by people: the image's name and its place in the source, the method, the layer, for every
      target its class, name, score, probability and weights, and how all this was made; `fusioncam` says that it is an
      explanation, and `schema` in which schema.

    A name may have folders in it, as in `cat/001`: they are made below the directory. A name of more than 250 bytes
    is shortened, with a digest of the whole. The files of one image are written together: all of them, or after an
    error none.

    Args:
        explanation: of NumPy arrays (`explanation.numpy()`).
        directory: made if it is not there.
        names: one per image, the files' names without their ending; by default those that the explanation has, else
            `image-0` and so on, counted over the whole source where the explanation knows the images' places in it.
        photographs: one per image, a Pillow image or a uint8 array (H, W, 3) of any size, of which the map
            covers the whole; by default the model's inputs, scaled to their own minimum and maximum.
        class_names: one per class, in the order of the model's outputs.
        pictures: False writes the .npz and .json alone.
        picture: the pictures' format: "png", "pdf" or "svg".
        style: how they are drawn.
        preprocessing: of the photographs, which are then drawn whole, with the map where the input was cut from.
        overwrite: True replaces explanations that fusioncam has written. Other files are never replaced, nor are those
            that the images were read from.
        inputs: `identities` of further files that are not to be replaced.

    Returns:
        The files written, image by image.

    Raises:
        ValueError: the number of `names` or `photographs` is not the number of images, a name leads out of the
            directory or comes twice, a file is in the way, there is not a name per class, or pictures are asked for
            maps that are neither two- nor three-dimensional. Nothing is written then.
        OSError: a file could not be written; the error names it.
        MissingExtra: pictures are asked for and matplotlib or Pillow is not installed.
    """
    count = len(explanation.images)
    names = default_names(explanation) if names is None else list(names)
    _check_names(names, count)
    require_word(picture, "picture", PictureFormat)
    check_savable(explanation, class_names, style, pictures=pictures)
    check_photographs(explanation, photographs, preprocessing)
    shown = [None] * count if photographs is None else list(photographs)
    if pictures and photographs is not None:
        require_readable(photographs, preprocessing)
    inputs = inputs | identities(explanation.files)
    paths = [_paths(directory, name, pictures, picture) for name in names]
    require_free([path for own in paths for path in own], "explanation", overwrite=overwrite, inputs=inputs)
    written: list[Path] = []
    signed = signed_panels(explanation, style) if pictures else None
    for index, own in enumerate(paths):
        numbers = [_arrays(explanation, index), _numbers(explanation, index, names[index], class_names)]
        contents = numbers
        if pictures:
            figure = image_figure(explanation, index, shown[index], class_names, style, preprocessing, signed)
            contents = [rendered(figure, picture), *numbers]
        files = dict(zip(own, contents, strict=True))
        written += write_files(files, "explanation", overwrite=overwrite, inputs=inputs)
    return written


def default_names(explanation: Explanation) -> list[str]:
    """What the files of each image are called if nobody says otherwise: as its own file, or by its place."""
    count = len(explanation.images)
    own = explanation.names or ("",) * count
    places = explanation.indices or range(count)
    return [name or f"image-{place}" for name, place in zip(own, places, strict=True)]


def check_savable(
    explanation: Explanation,
    class_names: Sequence[str] | None,
    style: Style = DEFAULT_STYLE,
    *,
    pictures: bool = True,
) -> None:
    """Look at what does not depend on the images.

    Raises:
        ValueError: if there is not a name per class, or pictures are asked for maps that cannot be drawn, or not so.
    """
    check_class_names(explanation, class_names)
    if pictures:
        check_drawable(explanation)
        check_style(explanation, style)


def free_name(
    directory: str | Path,
    name: str,
    *,
    pictures: bool = True,
    picture: PictureFormat = "png",
    overwrite: bool = False,
    inputs: AbstractSet[Identity] = frozenset(),
    reserved: AbstractSet[str] = frozenset(),
) -> tuple[str, str | None]:
    """The name, or with the first number behind it under which `save_explanation` writes; and why not without.

    Args:
        directory: where to.
        name: without ending.
        pictures, picture: as for `save_explanation`, and so the next two.
        overwrite: whether explanations that fusioncam has written count as free.
        inputs: what may never be replaced.
        reserved: names of other images, `folded`.
    """
    take, first = Distinct(), None
    while True:
        own = take(name)
        if own != name and folded(own) in reserved:
            continue
        reasons = (
            refusal(path, "explanation", overwrite=overwrite, inputs=inputs)
            for path in _paths(directory, own, pictures, picture)
        )
        reason = next((each for each in reasons if each is not None), None)
        if reason is None:
            return own, first
        first = first or reason


def _paths(directory: str | Path, name: str, pictures: bool, picture: PictureFormat) -> list[Path]:
    path = below(directory, name)
    endings = (f".{picture}", ".npz", ".json") if pictures else (".npz", ".json")
    return [path.with_name(f"{path.name}{ending}") for ending in endings]


def _arrays(explanation: Explanation, index: int) -> bytes:
    return encoded(explanation[index]._stored())


def _numbers(explanation: Explanation, index: int, name: str, class_names: Sequence[str] | None) -> bytes:
    numbers = {
        MARK: "explanation",  # first, where it is looked for
        "schema": SCHEMA,
        "name": name,
        "index": int(explanation.indices[index]) if explanation.indices else None,
        "method": explanation.method,
        "layer": explanation.layer,
        "model": explanation.model,
        "input_shape": list(explanation.images.shape[1:]),
        "map_shape": list(explanation.maps.shape[explanation.targets.ndim :]),
        "images_explained_together": len(explanation.images),
        "evaluations": explanation.evaluations,
        "targets": list(target_numbers(explanation, index, class_names)),
        "provenance": None if explanation.provenance is None else explanation.provenance.to_json(),
    }
    # Bytes of a file's name that are no UTF-8 become JSON's escapes, which are read as what they were.
    return (json.dumps(numbers, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise InvalidValueError(f"There are {count} images, but {len(names)} names.")
    seen: set[str] = set()
    for name in names:
        if folded(name) in seen:
            raise InvalidValueError(
                f"The name {name!r} comes twice: one image would overwrite the other. (Some file systems do not tell "
                "capitals apart: here nobody does.)"
            )
        seen.add(folded(name))
