"""What a method makes of one batch, and what several layers' results make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fusioncam_core.arrays.namespaces import Array
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.explainers.batch import Batch
from fusioncam_core.explainers.options import Combine
from fusioncam_core.methods.form import Combined, Form, normalised

ARRAY_WORDS = {"mean": "mean", "max": "max", "product": "prod"}
"""How the maps of several layers become one: the word, and the array API's name for it."""


@dataclass(frozen=True)
class Result:
    """A method's maps (B, K, *size), with the stages and the numbers (B, K) it has, and titles of stages to show.

    Of a region map with channels that may be left out: how many masks of each image were run, `masks_run` (B,), and how
    far each map may still move, `uncertainty` (B, K). Of normalised maps the lowest and highest value of each before,
    `raw_range` (B, K, 2), and what all of it was made of, `combined`, as `Explainer.finish` gives them.
    """

    maps: Array
    parts: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    masks_run: Array | None = None
    uncertainty: Array | None = None
    raw_range: Array | None = None
    combined: Combined | None = None


def checked(result: Any, expected: tuple[int, ...], method: str) -> Result:
    """The result of a method, if it has a map for each image and target, of the size that was asked for.

    Args:
        result: what its `explain` returned.
        expected: (images, targets, *size).
        method: the name of its class.

    Raises:
        InvalidValueError: otherwise.
    """
    if not isinstance(result, Result) or tuple(result.maps.shape) != expected:
        shaped = isinstance(result, Result)
        what = f"maps of shape {tuple(result.maps.shape)}" if shaped else type(result).__qualname__
        raise InvalidValueError(
            f"{method}.explain must return a Result with maps of shape {expected} (images, targets, *size): got {what}."
        )
    return result


def require_one_size(sizes: dict[str, tuple[int, ...]]) -> None:
    """Refuse to make one map of maps of several sizes, before any is made.

    Args:
        sizes: of the maps, by layer.
    """
    if len(set(sizes.values())) > 1:
        named = ", ".join(f"{size} of {layer!r}" for layer, size in sizes.items())
        raise InvalidValueError(
            f"Expected layers of one size, to make one map of theirs with size='layer', got {named}: say "
            "size='input', or one size for all of them, or explain them one by one."
        )


def united(results: Sequence[Result], batches: Sequence[Batch], combine: Combine, form: Form) -> Result:
    """The maps of several layers as one, and each as a part; of one layer its result as it is."""
    if len(results) == 1:
        return results[0]
    xp, spatial_ndim = batches[0].xp, len(batches[0].size)
    maps = getattr(xp, ARRAY_WORDS[combine])(xp.stack([result.maps for result in results], axis=0), axis=0)
    maps = normalised(maps, form, spatial_ndim, xp=xp)[0] if form.normalised else maps
    parts = {batch.layer: result.maps for batch, result in zip(batches, results, strict=True)}
    if results[0].masks_run is None or results[0].uncertainty is None:
        return Result(maps, parts)
    masks_run = xp.sum(xp.stack([result.masks_run for result in results]), axis=0)
    largest = xp.max(xp.stack([result.uncertainty for result in results]), axis=0)
    return Result(maps, parts, masks_run=masks_run, uncertainty=largest)
