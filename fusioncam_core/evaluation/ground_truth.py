"""Masks of the objects, from arrays or from a folder of pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.preprocessing import Preprocessing, read_photograph
from fusioncam_core.data.sources import PHOTOGRAPHS, photographs
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.stores.fingerprints import Fingerprints, digest

Masks = Any
"""(N, *size), a mapping from names to (*size) arrays, or a folder of pictures."""

REMEMBERED = 4096
"""Masks' fingerprints that are remembered: every method and metric asks for them while an image is under way."""

BRIGHT = 127
"""A mask's picture shows the object where it is brighter."""


class GroundTruth:
    """The masks of a source's images.

    A folder's pictures and a mapping's arrays belong to photographs of the same path in their folder, without the
    ending, such as "cat/001"; or, where none is called so, of the same name, if no other mask and no other photograph
    has it. Those of an array belong to the images at the same places of the source.

    Args:
        masks: as `evaluate` takes them; None for none.
        preprocessing: of the photographs: pictures of masks are cropped and resized as those are.
        source: of the images; None if nothing is known of it.

    Raises:
        TypeError: if the masks are none of these.
        ValueError: if a folder holds no picture, there are not as many masks as images, a photograph may have one of
            several masks, or none has any.
    """

    def __init__(self, masks: Masks | None, preprocessing: Callable[[Any], Any] | None = None, source: Any = None):
        self._preprocessing = preprocessing
        self._rows: Sequence[Any] | None = None
        self._named: dict[str, list[Any]] = {}
        self._prints: dict[tuple[str, int], str] = {}
        files = _files(source)
        self._photographs = None if files is None else _relative_names(files, _root(source, files))
        distinct = dict(zip(files or (), self._photographs or (), strict=True)).values()
        self._counted, self._counted_by_stem = Counter(distinct), Counter(map(_stem, distinct))
        if isinstance(masks, str | Path):
            pictures = photographs(masks)
            self._add(zip(_relative_names(pictures, Path(masks)), pictures, strict=True))
        elif isinstance(masks, Mapping):
            self._add((_without_ending(str(name)), mask) for name, mask in masks.items())
        elif masks is not None:
            self._rows = _rows(masks)
        self._by_stem: dict[str, list[str]] = {}
        for name in self._named:
            self._by_stem.setdefault(_stem(name), []).append(name)
        self._require_fit(source)

    def _add(self, named: Any) -> None:
        for name, mask in named:
            self._named.setdefault(name, []).append(mask)

    def _require_fit(self, source: Any) -> None:
        """What can be known before any work."""
        images = int(source.shape[0]) if hasattr(source, "shape") else len(self._photographs or ())
        known = hasattr(source, "shape") or self._photographs is not None
        if self._rows is not None and known and len(self._rows) != images:
            raise InvalidValueError(
                f"Masks in an array belong to the images in their order: expected {images}, got {len(self._rows)}."
            )
        if self._named and self._photographs:
            matched = [self._match(name) for name in self._photographs]
            if not any(each is not None for each in matched):
                raise InvalidValueError(
                    f"No mask is called like a photograph: expected names such as {self._photographs[0]!r}, got "
                    f"{', '.join(map(repr, list(self._named)[:3]))}."
                )

    def of(
        self, names: Sequence[str], size: tuple[int, ...], places: Sequence[int] | None = None
    ) -> np.ndarray[Any, Any]:
        """(n, *size) booleans: the masks of these images, at these places of the source (the first ones).

        Raises:
            ValueError: if an image has none, or one of another size.
        """
        at = range(len(names)) if places is None else places
        return np.stack([self._one(name, place, size) for name, place in zip(names, at, strict=True)])

    def _one(self, name: str, place: int, size: tuple[int, ...]) -> np.ndarray[Any, Any]:
        found = self._found(name, place)
        if found is None:
            raise InvalidValueError(f"There is no mask for the image {name!r}.")
        mask = self._read(found) if isinstance(found, Path) else np.asarray(to_numpy(found)) > 0
        if mask.shape != size:
            raise InvalidValueError(f"The mask of {name!r} has shape {mask.shape}, and its image {size}.")
        return mask

    def _found(self, name: str, place: int) -> Any:
        """The path or array of an image's mask, or None."""
        if self._rows is not None:
            return self._rows[place] if place < len(self._rows) else None
        return self._match(name if self._photographs is None else self._photographs[place])

    def _match(self, photograph: str) -> Any:
        """The mask of a name, or None.

        Raises:
            InvalidValueError: naming the candidates, if there are several.
        """
        exact = photograph in self._named
        name = photograph if exact else self._only(photograph, self._by_stem.get(_stem(photograph), []))
        if name is None:
            return None
        sharing = self._counted[photograph] if exact else self._counted_by_stem[_stem(photograph)]
        if sharing > 1:
            raise InvalidValueError(
                f"{self._sharing(photograph, exact)} would share the mask {name!r}: expected one for each, called like "
                "the photograph's path in its folder."
            )
        if len(self._named[name]) > 1:
            raise InvalidValueError(
                f"The mask of {photograph!r} may be any of {', '.join(map(str, self._named[name]))}: expected one."
            )
        return self._named[name][0]

    def _only(self, photograph: str, candidates: list[str]) -> str | None:
        if len(candidates) > 1:
            raise InvalidValueError(
                f"The mask of {photograph!r} may be {' or '.join(map(repr, candidates))}: expected one, called like "
                "the photograph's path in its folder."
            )
        return candidates[0] if candidates else None

    def _sharing(self, photograph: str, exact: bool) -> str:
        same = (each for each in self._photographs or () if each == photograph or not exact)
        return " and ".join(repr(each) for each in same if _stem(each) == _stem(photograph))

    def _read(self, path: Path) -> np.ndarray[Any, Any]:
        """A picture as a mask, cropped as the photographs are, of pixels that are taken, not mixed."""
        picture = read_photograph(path)
        if isinstance(self._preprocessing, Preprocessing):
            height, width = self._preprocessing.size
            nearest = require("PIL.Image", "Reading masks").Resampling.NEAREST
            picture = self._preprocessing.window(picture).resize((width, height), nearest)
        bright: np.ndarray[Any, Any] = np.asarray(picture.convert("L")) > BRIGHT
        return bright

    def fingerprint(self, name: str, place: int, fingerprints: Fingerprints) -> str:
        """Of the image's mask and of how it is cropped: another mask is another value; looked at once an image."""
        if (name, place) not in self._prints:
            while len(self._prints) >= REMEMBERED:
                self._prints.pop(next(iter(self._prints)))
            self._prints[name, place] = self._print(self._found(name, place), fingerprints)
        return self._prints[name, place]

    def _print(self, found: Any, fingerprints: Fingerprints) -> str:
        if found is None:
            return "no mask"
        if not isinstance(found, Path):
            return fingerprints.of(np.asarray(to_numpy(found)))
        cropped = self._preprocessing if isinstance(self._preprocessing, Preprocessing) else None
        return digest(found.read_bytes(), fingerprints.of(cropped).encode())


def _rows(masks: Any) -> Sequence[Any]:
    """The masks one by one, which need not be of one size."""
    rows: Any = to_numpy(masks) if hasattr(masks, "shape") else masks
    listed = isinstance(rows, np.ndarray | list | tuple)
    if not listed or not all(isinstance(each, list | tuple) or getattr(each, "shape", ()) for each in rows):
        raise InvalidTypeError(
            f"Expected masks (N, *size), a mapping from names to masks, or a folder, got {type(masks).__qualname__}."
        )
    return cast("Sequence[Any]", rows)


def _files(source: Any) -> list[Path] | None:
    """The photographs of a source, if it is a folder or a list of them."""
    if isinstance(source, str | Path):
        return photographs(source)
    listed = isinstance(source, list | tuple) and source and all(isinstance(each, str | Path) for each in source)
    return [Path(each) for each in source] if listed else None


def _root(source: Any, files: list[Path]) -> Path:
    """The folder that photographs are named in: the source, or the one in which all of a list lie."""
    if isinstance(source, str | Path):
        return Path(source)
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def _relative_names(files: Sequence[Path], root: Path) -> list[str]:
    relative = (file.absolute().relative_to(root.absolute()).as_posix() for file in files)
    return [name.removesuffix(file.suffix) for name, file in zip(relative, files, strict=True)]


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in PHOTOGRAPHS else name


def _stem(name: str) -> str:
    return name.rpartition("/")[2]
