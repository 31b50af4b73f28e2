"""One model explained by the library and by hand: a row of the table."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.sweep.layouts import UnknownLayoutError
from benchmarks.sweep.reference import centre_of_change, contrast, corners, finished_map, raw_map, shifts
from benchmarks.sweep.subject import CANDIDATES, NotBuiltError, Size, Subject
from fusioncam_core import FusionCamError, FusionCamWarning, GradCAM

TOLERANCE = 1e-3
SMALLEST_SHIFT = 0.01
"""By how much of the layer's extent the centre of change has to move; less is told by no one from noise."""

FEWEST_POSITIONS = 3
"""Along an axis with fewer a corner is not told from the middle."""

Values = np.ndarray[Any, Any]


def judge(subject: Subject, framework: ModuleType) -> dict[str, Any]:
    """The row of a model. A model that its package does not build is a row as well.

    Args:
        subject: what is known of it.
        framework: one of `benchmarks.sweep.on_*`.
    """
    began = time.monotonic()
    row: dict[str, Any] = {"package": subject.package, "model": subject.name, "kind": subject.kind}
    row |= {"variant": subject.variant} if subject.variant else {}
    try:
        model, size, images = built(subject, framework)
    except NotBuiltError as error:
        return {**row, "status": "not built", "sentence": str(error)}
    row |= {"parameters": framework.parameters(model), "size": list(size)}
    row |= _explained(subject, framework, model, size, images, whole=True)
    if subject.other is not None and row["status"] in ("right", "wrong"):
        row["other"] = _at_other_size(subject, framework, model)
        if row["other"].get("status") == "wrong":
            row["status"] = "wrong"
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


def built(subject: Subject, framework: ModuleType, model: Any = None, sizes: Any = None) -> tuple[Any, Size, Values]:
    """A model that runs, its input's size and images for it; `model` itself where it runs at that size."""
    reasons = []
    for size in sizes or subject.sizes:
        images = photographs(subject, size)
        for given in ([model] if model is not None else []) + [None]:
            try:
                framework.seed()
                made = framework.settle(subject.make(size), images) if given is None else given
                framework.outputs(made, images)
            except NotBuiltError as error:
                reasons.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever a package raises where a size does not suit it
                reasons.append(f"{size}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            else:
                return made, size, images
    raise NotBuiltError("; ".join(dict.fromkeys(reasons)))


def photographs(subject: Subject, size: Size) -> Values:
    """Images with structure at every scale, the same every time."""
    generator = np.random.Generator(np.random.PCG64(7))
    shape = (subject.images, *subject.shape(size))
    images = generator.normal(0, 0.5, shape)
    # Coarse structure, along the axes of space alone: those as long as the size says.
    coarse = [max(length // 8, 1) if length in size else length for length in shape[1:]]
    pattern = generator.normal(0, 1, (subject.images, *coarse))
    for axis, length in enumerate(shape[1:], start=1):
        pattern = np.repeat(pattern, -(-length // pattern.shape[axis]), axis=axis).take(range(length), axis=axis)
    return (images + pattern).astype(np.float32)


def _explained(
    subject: Subject, framework: ModuleType, model: Any, size: Size, images: Values, *, whole: bool
) -> dict[str, Any]:
    """The library's map beside the one by hand."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            explainer = GradCAM(model, **subject.options)
            with framework.passes(model) as passes:
                explanation = explainer(images, target_of(subject, 0))
        except FusionCamError as error:
            return {"status": "refused", "sentence": str(error)}
        except Exception as error:  # noqa: BLE001 - an error that is not the library's own is what the row reports
            return {"status": "raw error", "sentence": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    layer = explanation.layer
    found: dict[str, Any] = {"layer": layer, **_named(subject, layer)}
    found |= {"passes": len(passes) - 1} if whole and passes else {}  # the last one is the explanation's
    said = {each.category.__name__: str(each.message) for each in caught if issubclass(each.category, FusionCamWarning)}
    try:
        best = _best(subject, framework, model, layer, size, images)
    except UnknownLayoutError as error:
        return {**found, "status": "wrong", "sentence": f"by hand: {error}"}
    if best is None:
        return {**found, **_of_no_score(said, bool(explanation.numpy().maps.any()))}
    found |= {"warnings": sorted(said)} if said else {}
    number, expected, call, shape, informative = best
    if number != 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explanation = explainer(images, target_of(subject, number))
    found |= {"shape": shape, "informative": informative}
    if call:
        found["call"] = call
    found |= _compared(explanation.numpy().maps, expected)
    if whole:
        found |= _corners(subject, framework, model, layer, call, size, images)
    return found


def _of_no_score(said: dict[str, str], shown: bool) -> dict[str, Any]:
    """Of a layer on which no score depends there is no map: empty ones, with a warning that says so, are right."""
    if "EmptyMapWarning" in said and not shown:
        return {"status": "refused", "sentence": said["EmptyMapWarning"]}
    return {"status": "wrong", "sentence": "no score depends on the layer"}


def _compared(maps: Values, expected: Values) -> dict[str, Any]:
    if maps.shape != expected.shape:
        return {"status": "wrong", "sentence": f"maps of {maps.shape}, {expected.shape} by hand"}
    difference = float(np.abs(maps - expected).max())
    return {"difference": difference, "status": "right" if difference <= TOLERANCE else "wrong"}


def _named(subject: Subject, layer: str) -> dict[str, Any]:
    """Whether the field names that layer, if that is written down."""
    if subject.expected is None:
        return {}
    return {"expected": re.fullmatch(subject.expected, layer.partition("#")[0]) is not None}


def target_of(subject: Subject, number: int) -> Any:
    if subject.score is None and subject.logits is None:
        return number
    return _Target(subject, number)


class _Target:
    """A user's function of the outputs."""

    def __init__(self, subject: Subject, number: int):
        self._subject, self._number = subject, number

    def __call__(self, outputs: Any) -> Any:
        return score(self._subject, outputs, self._number)


def score(subject: Subject, outputs: Any, number: int) -> Any:
    """(n,) scores."""
    if subject.score is not None:
        return subject.score(outputs, number)
    logits = outputs if subject.logits is None else subject.logits(outputs)
    logits = next(iter(logits.values())) if isinstance(logits, Mapping) else logits
    return logits[:, number % logits.shape[1]]


def _best(
    subject: Subject, framework: ModuleType, model: Any, layer: str, size: Size, images: Values
) -> tuple[int, Values, int, list[int], float] | None:
    """Of the first scores the one whose map by hand says most; its number, map, call, the layer's shape, the contrast.

    None if no score depends on the layer.
    """
    try:
        activations, gradients, call = framework.capture(
            model, layer, images, lambda outputs: [score(subject, outputs, number) for number in range(CANDIDATES)]
        )
    except framework.UnconnectedLayerError:
        return None
    layout = subject.layout.of(layer)
    placed = layout.channels_first(activations, size)
    raw = [raw_map(placed, layout.channels_first(each, size)) for each in gradients]
    contrasts = [contrast(each) for each in raw]
    number = int(np.argmax(contrasts))
    return number, finished_map(raw[number], size), call, [1, *activations.shape[1:]], round(contrasts[number], 6)


def _corners(
    subject: Subject, framework: ModuleType, model: Any, layer: str, call: int, size: Size, images: Values
) -> dict[str, Any]:
    """How far the centre of change moves along each axis of space of the layout by hand."""
    axes = tuple(index + 1 for index in _space(subject, size))
    name = layer.partition("#")[0]
    images = images[:1]

    def placed(values: Values) -> Values:
        return subject.layout.of(layer).channels_first(framework.activations(model, name, values, call), size)

    before = placed(images)
    moved = shifts(
        {ends: centre_of_change(before, placed(changed)) for ends, changed in corners(images, axes, seed=11)}
    )
    told = [each for each, length in zip(moved, before.shape[2:], strict=True) if length >= FEWEST_POSITIONS]
    found = "found" if all(each > SMALLEST_SHIFT for each in told) else "not found"
    return {"shifts": [round(each, 3) for each in moved], "corners": found if told else "n/a"}


def _space(subject: Subject, size: Size) -> list[int]:
    """Which axes of one input are space: those that change with the size."""
    doubled = subject.shape(tuple(2 * length for length in size))
    return [axis for axis, (one, two) in enumerate(zip(subject.shape(size), doubled, strict=True)) if one != two]


def _at_other_size(subject: Subject, framework: ModuleType, model: Any) -> dict[str, Any]:
    assert subject.other is not None
    try:
        model, size, images = built(subject, framework, model, [subject.other])
    except NotBuiltError as error:
        return {"status": "n/a", "sentence": str(error)}
    found = _explained(subject, framework, model, size, images, whole=False)
    return {"size": list(size), **found}
