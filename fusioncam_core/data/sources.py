"""Where images come from: arrays, folders and loaders, read ahead and cut into groups that suit the model."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.namespaces import array_namespace, to_numpy
from fusioncam_core.data.preprocessing import prepared_photograph, read_photograph
from fusioncam_core.errors import InvalidValueError, UnreadableImageWarning, warn
from fusioncam_core.models.inputs import Inputs, Which, batch_length, leaves, map_leaves, marked, rows_of, steps
from fusioncam_core.models.structure import Path as InputPath
from fusioncam_core.models.structure import Shared, at, entries, is_array, is_container, rebuilt, split
from fusioncam_core.models.targets import holds_functions
from fusioncam_core.names import Distinct, name_as_given, names_of_files

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter


PHOTOGRAPHS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of files end that are taken for photographs in a folder."""


IMAGES, LABELS = ("image", "images", "pixel_values"), ("label", "labels")
"""What batches that are mappings call their parts."""


FROM_LABELS = "labels"
"""The targets that are the labels of the source."""


@dataclass(frozen=True)
class Group:
    """Images that are read or explained together.

    Attributes:
        inputs: of the model, (n, ...).
        labels: (n, ...) that came with them, or None.
        names: of the files they came from, as `fusioncam_core.names` makes them, or as many None.
        places: in the source, files that could not be read counted.
        files: the paths of the files they came from, or as many None; () if there are none at all.
    """

    inputs: Inputs
    labels: np.ndarray[Any, Any] | None
    names: tuple[str | None, ...]
    places: tuple[int, ...]
    files: tuple[str | None, ...] = ()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one image's inputs: images of different ones cannot be run together."""
        return [tuple(int(length) for length in each.shape[1:]) for each in leaves(self.inputs)]

    def rows(self, start: int, stop: int) -> Group:
        """Some of the images."""
        inputs = rows_of(self.inputs, start, stop)
        labels = None if self.labels is None else self.labels[start:stop]
        own = slice(start, stop)
        return Group(inputs, labels, self.names[own], self.places[own], self.files[own])

    @property
    def words(self) -> list[str]:
        """What each of the images is called in messages: its place in the source, and its name if it has one."""
        return [image_words(*each) for each in zip(self.places, self.names, strict=True)]


def image_words(place: int, name: str | None) -> str:
    """What an image of a source is called in messages."""
    return f"image {place}" if name is None else f"image {place} ({name})"


class SourceTargets:
    """The targets of a source: the same for all images, their labels, or one row for each image.

    Args:
        targets: as for `Explainer.explain_many`.
    """

    def __init__(self, targets: Any):
        listed = hasattr(targets, "shape") or isinstance(targets, list | tuple)
        self._same = targets
        self._rows: Any = None
        if holds_functions(targets):
            self._rows = list(targets)
        elif listed:
            rows = np.asarray(to_numpy(targets) if hasattr(targets, "shape") else targets)
            self._rows = rows if rows.ndim else None

    def of(self, group: Group) -> Any:
        """The targets of a group, as a call of an explainer takes them.

        Raises:
            ValueError: if the group has no labels, or the source more images than there are rows.
        """
        if isinstance(self._same, str) and self._same == FROM_LABELS:
            if group.labels is None:
                raise InvalidValueError(
                    "targets='labels' came with images that have none: give batches of (images, labels)."
                )
            return group.labels
        if self._rows is None:
            return self._same
        if max(group.places) >= len(self._rows):
            raise InvalidValueError(
                f"Expected targets for all images, got them for {len(self._rows)}, and there are more images than that."
                + (" A function for all images is given bare, not in a list." if isinstance(self._rows, list) else "")
            )
        places = list(group.places)
        return [self._rows[place] for place in places] if isinstance(self._rows, list) else self._rows[places]


Unreadable = Callable[[str, str], None]
"""Told of a file that is no photograph: its name, and why."""


def warn_of_unreadable(name: str, reason: str) -> None:
    """Says so in a warning."""
    warn(f"{reason} It is left out.", UnreadableImageWarning)


def read(
    source: Any,
    adapter: ModelAdapter,
    masked_input: Which,
    shared: Sequence[int | str | InputPath],
    preprocessing: Callable[[Any], Any] | None,
    size: int,
    unreadable: Unreadable = warn_of_unreadable,
    *,
    strict: bool = False,
) -> Iterator[Group]:
    """The groups that a source comes in.

    Photographs have the names that `names_of_files` gives them: below the folder that is the source, or the deepest
    folder that holds all files of a list. Of those that come one by one the paths are taken as they were given.

    Args:
        source: as for `Explainer.explain_many`.
        adapter: of the model.
        masked_input: the explained one of several inputs; None if there is only one.
        shared: those that all images share.
        preprocessing: of photographs.
        size: of the groups, where the source is one array.
        unreadable: told of files that are left out.
        strict: whether an error of preprocessing is raised, rather than told of as if the file could not be read.
    """
    pairs = named(source, size)
    return read_named(pairs, adapter, masked_input, shared, preprocessing, unreadable, strict=strict)


def read_named(
    pairs: Iterable[tuple[Any, str | None]],
    adapter: ModelAdapter,
    masked_input: Which,
    shared: Sequence[int | str | InputPath],
    preprocessing: Callable[[Any], Any] | None,
    unreadable: Unreadable = warn_of_unreadable,
    *,
    strict: bool = False,
    place: int = 0,
) -> Iterator[Group]:
    """The groups of what `named` gives of a source, or of a part of it. Arguments as for `read`.

    Args:
        pairs: batches and None, files and their names.
        place: of the first image in the source.
    """
    for batch, name in pairs:
        if name is not None:
            inputs, count, labels = _photograph(batch, name, preprocessing, unreadable, strict), 1, None
        else:
            inputs, labels = _batch(batch, adapter, masked_input, shared)
            count = batch_length(inputs)
        if inputs is not None:
            file = None if name is None else os.path.abspath(batch)
            yield Group(inputs, labels, (name,) * count, tuple(range(place, place + count)), (file,) * count)
        place += count


def images_in(batch: Any, masked_input: Which, shared: Sequence[int | str | InputPath]) -> int:
    """How many images a batch of a source has."""
    return batch_length(marked(_apart(batch, masked_input)[0], shared, masked_input))


def named(source: Any, size: int) -> Iterator[tuple[Any, str | None]]:
    """What a source yields; files with their names, one array in parts of so many images."""
    return _named(_slices(source, size) if hasattr(source, "shape") else source)


def _named(source: Any) -> Iterator[tuple[Any, str | None]]:
    """What a source yields; files with their names."""
    if isinstance(source, str | Path):
        found = photographs(source)
        yield from zip(found, names_of_files(found, source), strict=True)
        return
    if isinstance(source, list | tuple):
        names = iter(names_of_files([each for each in source if isinstance(each, str | Path)]))
        yield from ((each, next(names) if isinstance(each, str | Path) else None) for each in source)
        return
    take = Distinct()
    yield from ((each, take(name_as_given(each)) if isinstance(each, str | Path) else None) for each in source)


def _slices(array: Any, size: int) -> Iterator[Any]:
    for start in range(0, int(array.shape[0]), size):
        yield array[start : start + size]


def photographs(folder: str | Path) -> list[Path]:
    """The files in a folder, and in folders in it, that are called like photographs, in the order of their names.

    Raises:
        ValueError: if there is no such folder, or no photograph in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidValueError(f"{folder} is not a folder.")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in PHOTOGRAPHS and not os.path.isdir(path))
    if not found:
        raise InvalidValueError(
            f"There is no photograph in {folder}: files ending in {', '.join(PHOTOGRAPHS)} are looked for."
        )
    return found


def _photograph(
    path: str | Path, name: str, preprocessing: Callable[[Any], Any] | None, unreadable: Unreadable, strict: bool
) -> Inputs | None:
    """(1, ...) one input, or None if the file is no photograph, or preprocessing failed."""
    if preprocessing is None:
        raise InvalidValueError(
            "Photographs came without their preprocessing: give preprocessing=, as a model's loader does."
        )
    try:
        photograph = read_photograph(path)
    except ValueError as error:
        unreadable(name, str(error))
        return None
    try:
        return prepared_photograph(photograph, preprocessing, path)[np.newaxis]
    except InvalidValueError as error:
        if strict:
            raise
        unreadable(name, str(error))
        return None


def _batch(
    batch: Any, adapter: ModelAdapter, masked_input: Which, shared: Sequence[int | str | InputPath]
) -> tuple[Inputs, np.ndarray[Any, Any] | None]:
    inputs, labels = _apart(batch, masked_input)
    own = map_leaves(lambda each: _own(each, adapter), inputs)
    return marked(own, shared, masked_input), None if labels is None else _on_host(labels)


def _on_host(labels: Any) -> np.ndarray[Any, Any]:
    return to_numpy(labels) if hasattr(labels, "shape") else np.asarray(labels)


def _apart(batch: Any, masked_input: Which) -> tuple[Inputs, Any]:
    """The inputs and the labels of a batch, or None for the labels."""
    pair = isinstance(batch, tuple | list) and len(batch) >= 1
    if masked_input is not None:
        nested = pair and is_container(batch[0]) and not _is_in(batch, steps(masked_input))
        return (batch[0], batch[1] if len(batch) > 1 else None) if nested else (batch, None)
    if isinstance(batch, Mapping):
        images = next((batch[name] for name in IMAGES if name in batch), None)
        if images is None:
            raise InvalidValueError(
                f"Expected a batch with 'image' or 'pixel_values', got one with {', '.join(map(repr, batch))}."
            )
        return images, next((batch[name] for name in LABELS if name in batch), None)
    return (batch[0], batch[1] if len(batch) > 1 else None) if pair else (batch, None)


def _is_in(batch: Any, path: InputPath) -> bool:
    """Whether there is an array at the path."""
    try:
        return is_array(at(batch, path))
    except LookupError:
        return False


def _own(values: Any, adapter: ModelAdapter) -> Any:
    """The values, as NumPy if they are of another framework than the model."""
    foreign = not isinstance(values, np.ndarray) and array_namespace(values) is not adapter.namespace
    return to_numpy(values) if foreign else values


def regrouped(groups: Iterable[Group], size: Callable[[Group], int]) -> Iterator[Group]:
    """The same images in groups of as many as `size` says, or fewer where shapes change and at the end."""
    waiting: list[Group] = []
    count = 0
    for group in groups:
        if waiting and not _fits(group, waiting[0]):
            yield _joined(waiting)
            waiting, count = [], 0
        waiting.append(group)
        count += len(group.names)
        if count < size(group):  # joined once they are enough: not anew for every image
            continue
        joined, start = _joined(waiting), 0
        while count - start >= (taken := size(group)):  # asked again: while a group is explained it may change
            yield joined.rows(start, start + taken)
            start += taken
        waiting, count = ([joined.rows(start, count)], count - start) if start < count else ([], 0)
    if waiting:
        yield _joined(waiting)


def _fits(first: Group, second: Group) -> bool:
    """Whether images of both groups can be run together: equal shapes, and equal in what their images share.

    Files and arrays are kept apart, and arrays of the framework and NumPy's: either all images of a group have names,
    or none has.
    """
    alike = (first.names[0] is None) == (second.names[0] is None) and first.shapes == second.shapes
    if not alike or _libraries(first.inputs) != _libraries(second.inputs):
        return False
    (arrays, form), (others, other_form) = split(first.inputs), split(second.inputs)
    if form.key != other_form.key:
        return False
    common = [pair for *pair, shared in zip(arrays, others, form.slots, strict=True) if shared or not pair[0].ndim]
    return all(one is other or np.array_equal(to_numpy(one), to_numpy(other)) for one, other in common)


def _libraries(inputs: Inputs) -> list[Any]:
    return [array_namespace(each) for each in leaves(inputs)]


def _joined(groups: Sequence[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    inputs = [each.inputs for each in groups]
    labels = [each.labels for each in groups if each.labels is not None]
    return Group(
        _joined_inputs(inputs),
        np.concatenate(labels) if len(labels) == len(groups) else None,
        tuple(itertools.chain.from_iterable(each.names for each in groups)),
        tuple(itertools.chain.from_iterable(each.places for each in groups)),
        tuple(itertools.chain.from_iterable(each.files for each in groups)),
    )


def _joined_inputs(inputs: Sequence[Inputs]) -> Inputs:
    first = inputs[0]
    if is_container(first):
        return rebuilt(first, [_joined_inputs([each[step] for each in inputs]) for step, _ in entries(first)])
    if isinstance(first, Shared) or not is_array(first) or not first.ndim:
        return first
    return array_namespace(*inputs).concat(list(inputs), axis=0)


def length(source: Any) -> int | None:
    """How many images a source has, if it says so."""
    if isinstance(source, str | Path):
        return len(photographs(source))
    if hasattr(source, "shape"):
        return int(source.shape[0])
    paths = isinstance(source, list | tuple) and all(isinstance(each, str | Path) for each in source)
    if paths:
        return len(source)
    data: Any = getattr(source, "dataset", None)  # of a PyTorch DataLoader
    return len(data) if hasattr(data, "__len__") else None
