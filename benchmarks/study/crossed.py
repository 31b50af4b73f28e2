"""Tables of all pairs: what each gradient method gives with each region method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.report import table
from benchmarks.study import recorded
from benchmarks.study.cells import LOWER, TITLES, best_of, better, difference
from benchmarks.study.recorded import Recorded
from fusioncam_core.evaluation.statistics import Comparison, compare, holm

ALONE = "alone"


def crossed(part: str, metrics: Sequence[str]) -> Iterator[str]:
    """For each metric the means of all pairs: a gradient method a row, a region method a column, each alone besides."""
    found = recorded.read(part)
    firsts, regions = sides(found)
    for metric in metrics:
        best = best_of(found, metric, found.methods)
        yield from table(
            (f"{TITLES[metric]} ({'↓' if metric in LOWER else '↑'})", *regions, "alone"),
            (_row_of_pairs(found, metric, first, regions, best) for first in (*firsts, ALONE)),
        )
    yield f"n: {len(found.names)}."


def _row_of_pairs(found: Recorded, metric: str, first: str, regions: Sequence[str], best: str) -> tuple[str, ...]:
    cells = [f"{region} {ALONE}" if first == ALONE else f"{first} + {region}" for region in regions]
    cells += [] if first == ALONE else [f"{first} {ALONE}"]
    means = [f"{np.nanmean(found.of(each, metric)):.3f}" for each in cells]
    words = (f"**{value}**" if each == best else value for each, value in zip(cells, means, strict=True))
    return (first, *words, *[""] * (first == ALONE))


def sides(found: Recorded) -> tuple[list[str], list[str]]:
    """The names on either side of the pairs' pluses, in their order."""
    halves = [name.split(" + ") for name in found.methods if " + " in name]
    firsts, regions = ([half[place] for half in halves] for place in (0, 1))
    return list(dict.fromkeys(firsts)), list(dict.fromkeys(regions))


def best_pairs(parts: Sequence[str], metrics: Sequence[str], usual: str = "grad-cam + score-cam") -> Iterator[str]:
    """The pair that is best on half of the images, less others on the other half, on which it was not chosen."""
    pairs: dict[tuple[str, str, str], tuple[str, Comparison]] = {}
    for part in parts:
        found = recorded.read(part)
        even, odd = (_of_images(found, slice(start, None, 2)) for start in (0, 1))
        names = [name for name in found.methods if " + " in name]
        single = [name for name in found.methods if name.endswith(f" {ALONE}")]
        for metric in metrics:
            best = best_of(even, metric, names)
            for other in (usual, best_of(even, metric, single)):
                of_both = (odd.of(best, metric), odd.of(other, metric))
                pairs[part.removesuffix("-pairs"), metric, other] = best, compare(*of_both, better(metric))
    corrected = holm([each.p for _, each in pairs.values()])
    rows = [
        (network, TITLES[metric], best, other, difference(each, p, metric))
        for ((network, metric, other), (best, each)), p in zip(pairs.items(), corrected, strict=True)
    ]
    yield from table(("network", "metric", "the best pair", "less", ""), rows)
    yield f"n: {len(odd.names)}, and as many to choose on. In brackets: the interval of 95 %, and Holm's p."


def _of_images(found: Recorded, rows: slice) -> Recorded:
    return Recorded(found.names[rows], found.methods, found.metrics, found.values[rows])
