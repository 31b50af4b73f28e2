"""The parts on Fashion-MNIST, whose networks are small enough for every method and every mask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.study import attention
from benchmarks.study.measuring import FRACTIONS, HELD_DROP, STEPS, Values, at_complexity
from benchmarks.study.methods import METHODS
from benchmarks.study.networks import BLACK, fashion, small
from benchmarks.study.views import View
from examples.zoo.fashion_mnist import prepare, read_data_set
from fusioncam_core import Explainer, FusionCAM, GradCAM, ScoreCAM
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.explainers.registry import EXPLAINERS, capabilities
from fusioncam_core.metrics import (
    METRICS,
    ROAD,
    Deletion,
    ExplainedBatch,
    Insertion,
    Metric,
    measure_maps,
    randomisation_check,
)

TESTED = 500
"""So many images of the test part, the first ones."""

CHOSEN_ON = 150
"""So many of the training part, for the choice of forms."""

SANE_ON = 50
COMPARED = 4
"""Images of the sanity check, and those on which frameworks are compared."""

TOGETHER = 10
"""Images that are explained at once."""

ONCE = ("ss-cam", "is-cam")
"""Of several masks a channel: they explain no image twice."""

CALIBRATED: tuple[str, Mapping[str, Any]] = ("fusion-cam", {"variant": "calibrated"})

EVERY: dict[str, tuple[str, Mapping[str, Any]]] = {
    **{method.name: (method.name, {}) for method in capabilities()},
    "group-cam": ("group-cam", {"percentile": 0, "blur": 25}),
    "rise": ("rise", {"masks": 500}),
    "ss-cam": ("ss-cam", {"samples": 8}),
    "fusion-cam calibrated": CALIBRATED,
    "fusion-cam united": ("fusion-cam", {"variant": "united"}),
    "score-cam by regression": ("score-cam", {"channel_weights": "regression"}),
}
"""All methods of the library; random masks are 500, not 4000, and noisy ones 8 a channel, not 35."""

Measure = Callable[[], Values]


def explainer(name: str, model: Any, **options: Any) -> Explainer:
    """A method that erases to black."""
    kind, own = EVERY[name]
    return EXPLAINERS[kind](model, baseline=BLACK, **{**options, **own})


class Images(NamedTuple):
    """Images as PyTorch takes them, their names, and where the garments are: what is not black."""

    names: list[str]
    images: np.ndarray
    masks: np.ndarray


def images_of(part: Any, count: int) -> Images:
    """The first ones of a part."""
    pictures, _ = read_data_set(part)
    names = [f"{part} {number:05d}" for number in range(count)]
    return Images(names, prepare(pictures[:count], "first"), (pictures[:count] > 0).astype(np.float32))


def _metrics() -> list[Metric]:
    own = [Insertion(steps=STEPS, baseline=BLACK), Deletion(steps=STEPS, baseline=BLACK), ROAD(fractions=FRACTIONS)]
    names = ("average-drop", "average-increase", "complexity", "pointing-game", "energy-in-mask", "mask-auc")
    return [*own, *(METRICS[name]() for name in names)]


AGAIN = ("coherency", "adcc")
"""What explains the image under its map."""


# --- all methods by all metrics


def faithful(network: str) -> Iterator[tuple[str, Measure]]:
    """Test images, by every method of the library and the two maps that ask no network."""
    given, own = images_of("test", TESTED), small(network)
    explainers = {name: explainer(name, own.model, progress=False) for name in EVERY}

    @functools.lru_cache(maxsize=1)
    def together(first: int) -> list[Values]:
        rows = slice(first, first + TOGETHER)
        images, masks = given.images[rows], given.masks[rows]
        found: list[Values] = [{} for _ in images]
        for name, each in explainers.items():
            _add(found, name, _of_explainer(each, images, masks, again=name not in ONCE))
        targets = own.run(images).argmax(axis=1)
        for name in ("ones", "centre"):
            view = View(own, images[0])
            maps = np.repeat(METHODS[name](view)[0], len(images), axis=0)
            _add(found, name, _of_maps(own.model, images, targets, masks, maps))
        return found

    for place, name in enumerate(given.names):
        yield name, functools.partial(_row, together, place)


def _row(together: Callable[[int], list[Values]], place: int) -> Values:
    return together(place // TOGETHER * TOGETHER)[place % TOGETHER]


def _add(found: list[Values], method: str, values: Mapping[str, np.ndarray]) -> None:
    for place, row in enumerate(found):
        row[method] = {metric: float(each[place]) for metric, each in values.items()}


def _of_explainer(each: Explainer, images: np.ndarray, masks: np.ndarray, *, again: bool) -> dict[str, np.ndarray]:
    """(N,) values by metric."""
    explanation = each(images)
    explained = ExplainedBatch(each, each.prepared(images), explanation)
    asked = [*_metrics(), *(METRICS[name]() for name in AGAIN if again)]
    values = {metric.name: to_numpy(each.session()(metric.measure)(explained, masks > 0).values) for metric in asked}
    targets, maps = to_numpy(explanation.targets), to_numpy(explanation.maps)
    return values | {HELD_DROP: _held(each.adapter, images, targets, maps)}


def _of_maps(
    model: Any, images: np.ndarray, targets: np.ndarray, masks: np.ndarray, maps: np.ndarray
) -> dict[str, np.ndarray]:
    values = {
        metric.name: to_numpy(measure_maps(metric, maps, model, images, targets, masks=masks, baseline=BLACK).values)
        for metric in _metrics()
    }
    return values | {HELD_DROP: _held(model, images, targets, maps)}


def _held(model: Any, images: np.ndarray, targets: np.ndarray, maps: np.ndarray) -> np.ndarray:
    held = np.stack([at_complexity(each) for each in maps])
    return to_numpy(measure_maps("average-drop", held, model, images, targets, baseline=BLACK).values)


# --- without what was learnt


def sane(network: str) -> Iterator[tuple[str, Measure]]:
    """How much of each map is left while the weights are shuffled, from the last layer on."""
    given, model = images_of("test", SANE_ON), fashion(network)
    names = ("grad-cam", "layer-cam", "eigen-cam", "score-cam", "score-cam by regression", "group-cam")
    checked = {name: explainer(name, model, progress=False) for name in (*names, "fusion-cam", "fusion-cam calibrated")}

    @functools.cache
    def together() -> list[Values]:
        found: list[Values] = [{} for _ in given.names]
        for name, each in checked.items():
            check = randomisation_check(each, given.images, stages=4)
            _add(found, name, {f"to {layer}": row for layer, row in zip(check.layers, check.similarities, strict=True)})
        return found

    for place, name in enumerate(given.names):
        yield name, functools.partial(lambda place: together()[place], place)


# --- the choice of a form on training images, once more


def chosen() -> Iterator[tuple[str, Measure]]:
    """One change at a time to the published form on ResNet8, and what attention has to do with it on the tiny ViT."""
    given = images_of("train", CHOSEN_ON)
    model = fashion("resnet8")
    changes, vit = _changes(model), small("tiny_vit")

    def measure(place: int) -> Values:
        image = given.images[place : place + 1]
        found: list[Values] = [{}]
        for name, each in changes.items():
            _add(found, name, _of_explainer(each, image, given.masks[place : place + 1], again=False))
        return found[0] | attention.measure(vit, image[0])

    for place, name in enumerate(given.names):
        yield name, functools.partial(measure, place)


def _changes(model: Any) -> dict[str, Explainer]:
    """Forms of Fusion-CAM, by what differs from the published one."""
    region, form = (functools.partial(kind, model, baseline=BLACK, progress=False) for kind in (ScoreCAM, FusionCAM))
    return {
        "published": form(region=region()),
        "percentile 0": form(region=region(), percentile=0),
        "percentile 30": form(region=region(), percentile=30),
        "region by regression": form(region=region(channel_weights="regression")),
        "root of the union": form(region=region(), variant="calibrated"),
        "calibrated: both": form(region=region(channel_weights="regression"), variant="calibrated"),
        "Grad-CAM": GradCAM(model, baseline=BLACK),
        "Score-CAM": region(),
    }


# --- the same in every framework


def apart() -> Iterator[tuple[str, Measure]]:
    """How far the maps of one network, explained in other frameworks, lie from PyTorch's."""
    for network in ("resnet8", "tiny_vit"):
        yield network, functools.partial(_apart, network)


def _apart(network: str) -> Values:
    first = images_of("test", COMPARED).images
    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))
    layers: dict[str, dict[str, Any]] = {"torch": {}, "keras": {}, "flax": {}}
    if network == "tiny_vit":
        named = {
            "torch": "blocks.3.attention_norm",
            "keras": "block_3_attention_norm",
            "flax": "blocks[3].attention_norm",
        }
        layers = {framework: {"layer": name} for framework, name in named.items()}
    maps: dict[str, dict[str, np.ndarray]] = {}
    for framework, options in layers.items():
        model, images = fashion(network, framework), first if framework == "torch" else last
        maps[framework] = {
            name: np.asarray(explainer(name, model, progress=False, **options)(images).numpy().maps) for name in EVERY
        }
    return {
        name: {other: float(np.abs(maps[other][name] - maps["torch"][name]).max()) for other in ("keras", "flax")}
        for name in EVERY
    }
