"""The parts of the study: what is measured of which images, one by one, so that a part may end at any of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.study import budgeted, choosing, composites, grid, layers, pairs, sanity, small
from benchmarks.study.measuring import Values, measured, metrics_of
from benchmarks.study.methods import CENTRAL, METHODS
from benchmarks.study.networks import NETWORKS
from benchmarks.study.photographs import Photograph, for_choosing, for_reporting, photographs
from benchmarks.study.views import View


@dataclass(frozen=True)
class Item:
    """One image of a part.

    Attributes:
        name: of it.
        measure: gives its values by method and metric.
    """

    name: str
    measure: Callable[[], Values]


@dataclass(frozen=True)
class Given:
    """What the caller gives.

    Attributes:
        photographs: the folder of photographs; None for parts that need none.
        out: the folder for what was measured.
    """

    photographs: Path | None
    out: Path

    @functools.cached_property
    def all(self) -> list[Photograph]:
        """The photographs.

        Raises:
            ValueError: if there is no folder.
        """
        if self.photographs is None:
            raise ValueError("This part explains photographs: expected --photographs FOLDER, got none.")
        return photographs(self.photographs)

    def scores(self, network: str, kind: str, name: str) -> Path:
        """The file for an image's channel scores."""
        return self.out / "scores" / network / kind / f"{name}.npz"


Part = Callable[[Given], Iterator[Item]]

CHOSEN_NETWORK = "lite0"
"""The only one on which forms are chosen."""

LAYERS_ON = 20
"""Photographs on which layers and baselines are compared: the first of those for choosing."""

REPORTED = {"lite0": tuple(METHODS), "lite2": CENTRAL}
"""The methods that are measured on photographs, by network."""

COMPOSITES, MOSAICS, SANE = 60, 50, 6
"""So many of each on an ImageNet network, at most."""


def _choosing(given: Given) -> Iterator[Item]:
    network = NETWORKS[CHOSEN_NETWORK]()

    def measure(photograph: Photograph) -> Values:
        view = View(
            network, photograph.prepared(network), kept=given.scores(CHOSEN_NETWORK, "photographs", photograph.name)
        )
        return measured(
            view, {**choosing.rank_maps(view), **choosing.calibrated_maps(view)}, metrics_of(view, road=False)
        )

    for each in for_choosing(given.all):
        yield Item(each.name, functools.partial(measure, each))


def _layers(given: Given) -> Iterator[Item]:
    network = NETWORKS[CHOSEN_NETWORK]()
    for each in for_choosing(given.all)[:LAYERS_ON]:
        yield Item(each.name, functools.partial(layers.measure, network, each))


def _reporting(given: Given, *, network: str) -> Iterator[Item]:
    own = NETWORKS[network]()

    def measure(photograph: Photograph) -> Values:
        view = View(own, photograph.prepared(own), kept=given.scores(network, "photographs", photograph.name))
        maps = {name: METHODS[name](view)[0, 0] for name in REPORTED[network]}
        return measured(view, maps, metrics_of(view))

    for each in for_reporting(given.all):
        yield Item(each.name, functools.partial(measure, each))


def _coherency(given: Given, *, network: str) -> Iterator[Item]:
    own = NETWORKS[network]()
    asked = budgeted.Coherencies(own, REPORTED[network])

    def measure(photograph: Photograph) -> Values:
        image = photograph.prepared(own)
        found = asked.of(image, int(own.run(image[None])[0].argmax()))
        return {name: {"coherency": value} for name, value in found.items()}

    for each in for_reporting(given.all):
        yield Item(each.name, functools.partial(measure, each))


def _composites(given: Given, *, network: str) -> Iterator[Item]:
    own, number = NETWORKS[network](), 0

    def measure(composite: composites.Composite, image: np.ndarray) -> Values:
        view = View(own, image, [composite.label], kept=given.scores(network, "composites", composite.name))
        masks = [composites.as_seen(mask, own) for mask in (composite.explained, composite.distractor)]
        return {name: composites.localised(method(view)[0, 0], *masks) for name, method in METHODS.items()}

    for each in composites.draw(for_reporting(given.all)):
        if number == COMPOSITES:
            return
        image = composites.seen(each, own)
        if image is not None:
            number += 1
            yield Item(each.name, functools.partial(measure, each, image))


def _grid(given: Given, *, network: str) -> Iterator[Item]:
    own = NETWORKS[network]()

    def measure(group: list[Photograph], name: str) -> Values:
        targets = [each.label for each in group]
        view = View(own, grid.put_together(group, own), targets, kept=given.scores(network, "grid", name))
        found = {method: grid.shares(make(view)[0]) for method, make in METHODS.items()}
        return {method: {"share of the own cell": float(np.nanmean(shares))} for method, shares in found.items()}

    for number, group in enumerate(grid.members(for_reporting(given.all), own)):
        if number == MOSAICS:
            return
        name = "-".join(f"{each.label:04d}" for each in group)
        yield Item(name, functools.partial(measure, group, name))


def _sanity(given: Given, *, network: str) -> Iterator[Item]:
    own = NETWORKS[network]()
    chosen = {each.name: each.prepared(own) for each in for_reporting(given.all)[:SANE]}

    @functools.cache
    def together() -> dict[str, Values]:
        return sanity.left(own, chosen)

    for name in chosen:
        yield Item(name, lambda name=name: together()[name])


def _of_images(given: Given, *, measure: Callable[[], Iterator[tuple[str, Callable[[], Values]]]]) -> Iterator[Item]:
    for name, values in measure():
        yield Item(name, values)


IMAGENET = ("lite0", "lite2")
SMALL = ("resnet8", "tiny_vit")

PARTS: dict[str, Part] = {
    "choosing": _choosing,
    "layers": _layers,
    **{name: functools.partial(_reporting, network=name) for name in IMAGENET},
    **{f"{name}-coherency": functools.partial(_coherency, network=name) for name in IMAGENET},
    **{f"{name}-composites": functools.partial(_composites, network=name) for name in IMAGENET},
    **{f"{name}-grid": functools.partial(_grid, network=name) for name in IMAGENET},
    "lite0-sanity": functools.partial(_sanity, network="lite0"),
    **{name: functools.partial(_of_images, measure=functools.partial(small.faithful, name)) for name in SMALL},
    **{f"{name}-sanity": functools.partial(_of_images, measure=functools.partial(small.sane, name)) for name in SMALL},
    **{f"{name}-pairs": functools.partial(_of_images, measure=functools.partial(pairs.pairs, name)) for name in SMALL},
    "choice": functools.partial(_of_images, measure=small.chosen),
    "frameworks": functools.partial(_of_images, measure=small.apart),
}
"""By name."""
