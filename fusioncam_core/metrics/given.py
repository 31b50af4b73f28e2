"""Maps from elsewhere, of any library, in the place of an explainer's: every metric takes them in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn, Unpack

import numpy as np
import numpy.typing as npt

from fusioncam_core.arrays.checks import require_map, widened
from fusioncam_core.arrays.namespaces import array_namespace, constant_like, to_numpy
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.explainers.base import Behind, Explainer, maps_made
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.options import ExplainerOptions
from fusioncam_core.explainers.result import Result
from fusioncam_core.metrics.explained_batch import ExplainedBatch, require_map_size
from fusioncam_core.metrics.metric import Measured, Metric, find_metric
from fusioncam_core.models.batch_size import Span
from fusioncam_core.models.inputs import Inputs, batch_length, leaf, rows_of
from fusioncam_core.models.session import in_session
from fusioncam_core.models.targets import read_targets
from fusioncam_core.results.explanation import Explanation, join

Maps = npt.NDArray[np.floating[Any]]

CANNOT_EXPLAIN = (
    "the metric explains images again, changed ones, and these maps are given, by no method of ours that could: leave "
    "the metric out for them, or give an explainer"
)
"""Why some metrics have no value."""


class _Unlisted:
    """A name that no method is asked for by."""

    name: ClassVar[str] = "given maps"


class ModelOnly(_Unlisted, Explainer):
    """A model behind given maps: it is asked about images, and never for a map.

    Args:
        model: as explainers take it.
        layer: none is needed.
        **options: as of every explainer.
    """

    title = "Given maps"
    family = "region"
    needs_layer = False

    def explain(self, batch: Batch) -> Result:
        """Refused: there is no method."""
        self._refuse()

    @in_session
    def _call(self, images: Any, targets: Any, progress: bool | None, behind: Behind = None) -> Explanation:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidValueError(CANNOT_EXPLAIN)

    @in_session
    def size_for(self, inputs: Inputs) -> tuple[int, ...]:
        """The spatial size of prepared inputs."""
        self._find_channels(inputs)
        return self.size_of(leaf(inputs, self.masked_input))

    @in_session
    def with_maps(self, inputs: Inputs, targets: Any, maps: Maps) -> Explanation:
        """An explanation of prepared inputs, one target each, with these maps (B, *size).

        Raises:
            ValueError: if the maps are of another size than the images.
        """
        self._find_channels(inputs)
        wanted = read_targets(targets, batch_length(inputs))
        if wanted.several or wanted.functions:
            raise InvalidValueError("A map is measured for one class an image: None, one class or (N,) classes.")

        def rows(span: Span) -> Explanation:
            own = slice(span.start, span.start + span.count)
            chosen = rows_of(inputs, own.start, own.stop), wanted.rows(own.start, own.stop)
            batches = self.fitting(lambda: self.see(*chosen), chosen[0])
            batch = batches[0]
            require_map_size(maps, batch.size)
            like = widened(batch.logits, xp=batch.xp)
            return self._explanation(Result(constant_like(maps[own, None], like, batch.xp)), batches, several=False)

        groups = self._steps.groups(leaf(inputs, self.masked_input))
        return join(
            [part for part, _ in groups.over(batch_length(inputs), rows, ready=maps_made)], self.adapter.namespace
        )


class GivenMaps:
    """Maps (N, *size) of the images of a source, in their order, and the model that metrics ask.

    Args:
        maps: an array of any library, floating, in [0, 1]; NaN in a map leaves that image out.
        model: as explainers take it.
        name: what they are called.
        **options: of the model, as of every explainer: `task`, `output_kind`, `baseline` and so on.

    Attributes:
        maps: as NumPy.
        asks: the model.

    Raises:
        TypeError: if they are no floating array.
        ValueError: if it has no axis of images, or values that are not in [0, 1].
    """

    def __init__(self, maps: Any, model: Any, name: str = "given", **options: Unpack[ExplainerOptions]):
        self.maps = _checked(maps, name)
        self.name = name
        self.asks = ModelOnly(model, **options)

    def require_count(self, images: int) -> None:
        """Nothing, if there are as many maps as images.

        Raises:
            ValueError: otherwise.
        """
        if len(self.maps) != images:
            raise InvalidValueError(
                f"Given maps belong to the images in their order: expected {images} of {self.name!r}, got "
                f"{len(self.maps)}."
            )

    def explanation(self, inputs: Inputs, targets: Any, places: Sequence[int]) -> Explanation:
        """Of prepared inputs, which are the images at these places of the source.

        Raises:
            ValueError: if there is no map for one of them, or the maps are of another size.
        """
        if max(places) >= len(self.maps):
            self.require_count(max(places) + 1)
        return self.asks.with_maps(inputs, targets, self.maps[list(places)])


def are_maps(value: Any) -> bool:
    """Whether a value is an array."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _checked(maps: Any, name: str) -> Maps:
    if not are_maps(maps):
        raise InvalidTypeError(f"Expected maps (N, *size) in an array, got {type(maps).__qualname__} for {name!r}.")
    require_map(maps, f"The maps {name!r}", 1, array_namespace(maps))
    values: Maps = to_numpy(maps)
    if values.ndim < 2:
        raise InvalidValueError(f"Expected maps (N, *size), got shape {values.shape} for {name!r}.")
    known = values[~np.isnan(values)]
    rounding = 8 * float(np.finfo(values.dtype).eps)
    if known.size and not -rounding <= known.min() <= known.max() <= 1 + rounding:
        raise InvalidValueError(
            f"Given maps lie in [0, 1]: got values from {known.min():.4g} to {known.max():.4g} for {name!r}. Clip what "
            "speaks against the class, such as by maps.clip(min=0), and scale each map: fusioncam_core.normalise(maps)."
        )
    return values


def measure_maps(
    metric: str | Metric | type[Metric],
    maps: Any,
    model: Any,
    images: Any,
    targets: Any = None,
    *,
    masks: Any = None,
    **options: Unpack[ExplainerOptions],
) -> Measured:
    """A metric of maps from any library: the same signature for every metric.

    Args:
        metric: its name (`METRICS`), class, or the metric with its options.
        maps: (N, *size), floating, in [0, 1]; of any library.
        model: as explainers take it.
        images: (N, ...) one batch, as for a call of an explainer.
        targets: the explained classes: None for the top ones, one class, or (N,) classes.
        masks: (N, *size) of the objects, for metrics that need them: booleans, or positive on the object.
        **options: of the model, as of every explainer: `task`, `output_kind`, `baseline` and so on.

    Returns:
        The values (N,), NaN where undefined, and the curves of metrics that follow one.

    Raises:
        TypeError: if maps or images are no floating arrays.
        ValueError: if numbers or sizes do not fit, a map's value is not in [0, 1], a metric needs masks and has none,
            or one explains images again, as max-sensitivity does: that takes an explainer.

    Examples:
        >>> import torch
        >>> from fusioncam_core.metrics import measure_maps
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> maps = torch.tensor([[[0.0, 0, 0, 1]]])  # which shows nothing red
        >>> measure_maps("average-drop", maps, model, strip, targets=0).values
        tensor([0.6843])
    """
    measure = find_metric(metric)
    given = GivenMaps(maps, model, **options)
    inputs = given.asks.prepared(images)
    count = batch_length(inputs)
    given.require_count(count)
    explained = ExplainedBatch(given.asks, inputs, given.explanation(inputs, targets, range(count)))
    ground_truth = None
    if masks is not None:
        ground_truth = np.asarray(to_numpy(masks) if are_maps(masks) else masks) > 0
        if ground_truth.shape != given.maps.shape:
            raise InvalidValueError(f"masks have shape {ground_truth.shape}, and the maps {given.maps.shape}.")
    return given.asks.session()(measure.measure)(explained, ground_truth)
