"""Batches of a data set in another program's hands, explained: Ray Data's, Spark's, or those of a loop over files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.arrays.checks import require_count
from fusioncam_core.data.preprocessing import photograph_in, prepared_photograph
from fusioncam_core.data.sources import FROM_LABELS, Group
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.dataset import _together
from fusioncam_core.explainers.job import Asked, Job, made_by
from fusioncam_core.extras import require
from fusioncam_core.jobs.pieces import Piece
from fusioncam_core.jobs.run import Explained, rows_for
from fusioncam_core.jobs.table import PURPOSE, Row, schema, table_of

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer
    from fusioncam_core.explainers.dataset import OnError
    from fusioncam_core.explainers.options import KeptMaps

IMAGE, ID, PATH, LABEL = "image", "id", "path", "label"
"""Columns of what comes."""


class ExplainBatches:
    """Explains batches of a table's rows: called with one, it returns the rows of a job (docs/jobs.md).

    For `ray.data.Dataset.map_batches(ExplainBatches, fn_constructor_kwargs={...}, concurrency=2)`, which makes one on
    each worker, and for Spark's `mapInPandas`: docs/cluster.md.

    Args:
        factory: returns the explainer; it is called once.
        targets: as for `Explainer.explain_to`, the same for all images; or "labels", those of the column `label`.
        preprocessing: of photographs, as there. Without it images are inputs of the model as they come.
        class_names, maps, on_error: as there.
        image: the column of the images: contents of files, arrays (H, W, 3) or (H, W) of uint8, or inputs.
        id: the column that tells images apart, of any type; it comes back as `id`. A column `path` comes back as well.
        weights: the names of the method's weights, which are columns. None goes by the first image that is explained; a
            batch before it has no such columns.
        coming: how many images this one is to get, of all that several get: `engine="auto"` goes by it. None expects as
            many as have come.

    Raises:
        TypeError, ValueError: as for `Explainer.explain_to`; for targets of single images, and missing columns.
        MissingExtra: pyarrow is not installed.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from fusioncam_core import GradCAM
        >>> from fusioncam_core.scale.batches import ExplainBatches
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> explain = ExplainBatches(lambda: GradCAM(model, "0"))
        >>> strip = np.float32([[[4, 2, 0, 0]], [[0, 0, 0, 8]]])  # red on the left, green on the right
        >>> row = explain({"id": ["a"], "image": [strip]}).to_pylist()[0]
        >>> row["id"], row["class"], row["map"]
        ('a', 1, [0.0, 0.0, 0.0, 1.0])
    """

    def __init__(
        self,
        factory: Callable[[], Explainer],
        targets: Any = None,
        *,
        preprocessing: Callable[[Any], Any] | None = None,
        class_names: Sequence[str] | None = None,
        maps: KeptMaps = "made",
        on_error: OnError = "skip",
        image: str = IMAGE,
        id: str = ID,
        weights: Sequence[str] | None = None,
        coming: int | None = None,
    ):
        require("pyarrow", PURPOSE, "jobs")
        if hasattr(targets, "shape") or isinstance(targets, list | tuple):
            raise InvalidValueError(
                "Batches may come in any order: expected the same targets for all images, or 'labels' for those of the "
                f"column {LABEL!r}, got targets for each."
            )
        asked = Asked(targets, preprocessing, class_names, maps, on_error=on_error)
        self._job = Job(made_by(factory), asked)
        self._image, self._id = image, id
        self._weights = None if weights is None else list(weights)
        self._coming = None if coming is None else require_count(coming, "coming")

    def __call__(self, batch: Any) -> Any:
        """The rows of a batch.

        Args:
            batch: a mapping of arrays or lists, a frame of pandas, or a table of pyarrow.

        Returns:
            A table of pyarrow with the columns of a job, in the order of the images.
        """
        identities = self._column(batch, self._id)
        paths = dict(enumerate(self._column(batch, PATH))) if PATH in _names(batch) else {}
        groups = tuple(self._groups(batch, identities))
        rows: list[Row] = []
        with self._job.explainer._choice.many(self._coming):
            for each in self._job.in_their_places(Piece(0, 0, {}, read=groups), self._together):
                if isinstance(each, Explained) and self._weights is None:
                    self._weights = list(each.explanation.weights)
                rows += rows_for(each, paths, self._job.asked.class_names)
        self._coming = None if self._coming is None else max(0, self._coming - len(identities))
        for row in rows:
            row["id"] = identities[row["id"]]
        pa = require("pyarrow", PURPOSE, "jobs")
        return table_of(rows, schema(self._weights or (), pa.array(identities).type))

    def _together(self, group: Group) -> int:
        return _together(self._job.explainer, group)

    def _column(self, batch: Any, name: str) -> list[Any]:
        if name not in _names(batch):
            raise InvalidValueError(f"Expected a column {name!r}, got {', '.join(map(repr, _names(batch)))}.")
        return _values(batch[name])

    def _groups(self, batch: Any, identities: Sequence[Any]) -> Iterator[Group]:
        """Each image by itself; those that are none are told of to the job."""
        wanted = self._job.asked.targets
        labels = self._column(batch, LABEL) if isinstance(wanted, str) and wanted == FROM_LABELS else None
        for row, value in enumerate(self._column(batch, self._image)):
            name = str(identities[row])
            try:
                single = self._input(value, name)
            except InvalidValueError as error:
                self._job.not_read(name, str(error))
                continue
            own = None if labels is None else np.asarray(labels[row])[np.newaxis]
            yield Group(single[np.newaxis], own, (name,), (row,))

    def _input(self, value: Any, name: str) -> Any:
        """One input of the model, without the axis of a batch."""
        preprocessing = self._job.asked.preprocessing
        if isinstance(value, bytes | bytearray | memoryview):
            photograph = photograph_in(bytes(value), name)
            if preprocessing is None:
                raise InvalidTypeError(
                    f"The column {self._image!r} has contents of files: expected preprocessing= for them, got none."
                )
        elif preprocessing is not None:
            photograph = _picture(value, name)
        else:
            return np.array(value)  # of its own: what comes may not be written to
        return prepared_photograph(photograph, preprocessing, name)


def _picture(value: Any, name: str) -> Any:
    """A photograph of Pillow's of what was decoded already."""
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise InvalidValueError(
            f"{name}: expected a photograph as the content of a file or as an array (H, W, 3) or (H, W) of uint8, got "
            f"{pixels.dtype} of shape {pixels.shape}."
        )
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    image = require("PIL.Image", "Reading photographs").fromarray(pixels[:, :, 0] if grey else pixels)
    return image.convert("RGB")


def _names(batch: Any) -> list[str]:
    if isinstance(batch, Mapping):
        return list(batch)
    names = getattr(batch, "column_names", None)  # of pyarrow
    return list(batch.columns if names is None else names)


def _values(column: Any) -> list[Any]:
    """The values of a column, one a row."""
    if hasattr(column, "to_pylist"):
        values: list[Any] = column.to_pylist()
        return values
    return [each.item() if isinstance(each, np.generic) else each for each in column]
