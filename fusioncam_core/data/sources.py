"""Where images come from: arrays, folders and loaders, read ahead and cut into groups that suit the model."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fusioncam_core.arrays.namespaces import array_namespace, to_numpy
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.errors import InvalidValueError, UnreadableImageWarning, warn
from fusioncam_core.models.inputs import Inputs, Which, batch_length, leaves, map_leaves, marked, rows_of, steps
from fusioncam_core.models.structure import Path as InputPath
from fusioncam_core.models.structure import Shared, at, entries, is_array, is_container, rebuilt, split

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter


PHOTOGRAPHS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of files end that are taken for photographs in a folder."""


IMAGES, LABELS = ("image", "images", "pixel_values"), ("label", "labels")
"""What batches that are mappings call their parts."""


FROM_LABELS = "labels"
"""The targets that are the labels of the source."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """Images that are read or explained together.

    Attributes:
        inputs: of the model, (n, ...).
        labels: (n, ...) that came with them, or None.
        names: of the files they came from, or as many None.
        places: in the source, files that could not be read counted.
    """

    inputs: Inputs
    labels: np.ndarray[Any, Any] | None
    names: tuple[str | None, ...]
    places: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one image's inputs: images of different ones cannot be run together."""
        return [tuple(int(length) for length in each.shape[1:]) for each in leaves(self.inputs)]

    def rows(self, start: int, stop: int) -> Group:
        """Some of the images."""
        inputs = rows_of(self.inputs, start, stop)
        labels = None if self.labels is None else self.labels[start:stop]
        return Group(inputs, labels, self.names[start:stop], self.places[start:stop])


class SourceTargets:
    """The targets of a source: the same for all images, their labels, or one row for each image.

    Args:
        targets: as for `Explainer.explain_many`.
    """

    def __init__(self, targets: Any):
        listed = hasattr(targets, "shape") or isinstance(targets, list | tuple)
        functions = isinstance(targets, list | tuple) and all(map(callable, targets))
        rows = np.asarray(to_numpy(targets) if hasattr(targets, "shape") else targets) if listed else None
        self._same = targets
        self._rows = None if functions or rows is None or rows.ndim == 0 else rows

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
            )
        return self._rows[list(group.places)]


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
) -> Iterator[Group]:
    """The groups that a source comes in.

    Args:
        source: as for `Explainer.explain_many`.
        adapter: of the model.
        masked_input: the explained one of several inputs; None if there is only one.
        shared: those that all images share.
        preprocessing: of photographs.
        size: of the groups, where the source is one array.
        unreadable: told of files that are left out.
    """
    if isinstance(source, str | Path):
        source = photographs(source)
    elif hasattr(source, "shape"):
        source = _slices(source, size)
    place = 0
    for batch in source:
        if isinstance(batch, str | Path):
            inputs, count, labels, name = _photograph(batch, preprocessing, unreadable), 1, None, Path(batch).stem
        else:
            inputs, labels = _batch(batch, adapter, masked_input, shared)
            count, name = batch_length(inputs), None
        if inputs is not None:
            yield Group(inputs, labels, (name,) * count, tuple(range(place, place + count)))
        place += count


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
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in PHOTOGRAPHS)
    if not found:
        raise InvalidValueError(
            f"There is no photograph in {folder}: files ending in {', '.join(PHOTOGRAPHS)} are looked for."
        )
    return found


def _photograph(path: str | Path, preprocessing: Callable[[Any], Any] | None, unreadable: Unreadable) -> Inputs | None:
    """(1, ...) one input, or None if the file is no photograph."""
    if preprocessing is None:
        raise InvalidValueError(
            "Photographs came without their preprocessing: give preprocessing=, as a model's loader does."
        )
    try:
        photograph = read_photograph(path)
    except ValueError as error:
        unreadable(Path(path).stem, str(error))
        return None
    return preprocessing(photograph)[np.newaxis]


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


def regrouped(groups: Iterable[Group], size: int) -> Iterator[Group]:
    """The same images in groups of `size`, or fewer where their shapes change and at the end."""
    waiting: list[Group] = []
    for group in groups:
        if waiting and not _fits(group, waiting[0]):
            yield _joined(waiting)
            waiting = []
        waiting.append(group)
        joined = _joined(waiting)
        whole = len(joined.names) // size * size
        for start in range(0, whole, size):
            yield joined.rows(start, start + size)
        waiting = [joined.rows(whole, len(joined.names))] if whole < len(joined.names) else []
    if waiting:
        yield _joined(waiting)


def _fits(first: Group, second: Group) -> bool:
    """Whether images of both groups can be run together: equal shapes, and equal in what their images share."""
    if first.shapes != second.shapes:
        return False
    (arrays, form), (others, other_form) = split(first.inputs), split(second.inputs)
    if form.key != other_form.key:
        return False
    common = [pair for *pair, shared in zip(arrays, others, form.slots, strict=True) if shared or not pair[0].ndim]
    return all(one is other or np.array_equal(to_numpy(one), to_numpy(other)) for one, other in common)


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
    )


def _joined_inputs(inputs: Sequence[Inputs]) -> Inputs:
    first = inputs[0]
    if is_container(first):
        return rebuilt(first, [_joined_inputs([each[step] for each in inputs]) for step, _ in entries(first)])
    if isinstance(first, Shared) or not is_array(first) or not first.ndim:
        return first
    return array_namespace(*inputs).concat(list(inputs), axis=0)


def prefetched(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """The items, `ahead` of which are made in another thread while the one before them is used."""
    if not ahead:
        yield from items
        return
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, iterator, end) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item
        finally:
            for each in waiting:
                each.cancel()


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
