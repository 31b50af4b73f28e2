"""The tables of docs/study.md, of the values that the repository keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import table
from benchmarks.study import recorded
from benchmarks.study.cells import (
    CONTROLS,
    LOWER,
    RIVALS,
    SUBJECT,
    TITLES,
    better,
    changed,
    counts,
    mean,
    means,
    versus,
)
from benchmarks.study.crossed import best_pairs, crossed
from benchmarks.study.recorded import Recorded
from fusioncam_core.evaluation.statistics import compare
from fusioncam_core.metrics import adcc

FAITHFUL = ("average-drop", "average-increase", "insertion", "deletion", "road")
SIDES = ("drop at held complexity", "complexity", "coherency", "adcc")
PLACES = ("pointing game", "energy in the mask", "share of the right object")
GARMENTS = ("pointing-game", "energy-in-mask", "mask-auc")


# --- values of several parts


def with_adcc(found: Recorded, again: Recorded) -> Recorded:
    """A part's values, with the coherency of another one of the same images, and ADCC of both."""
    metrics = (*found.metrics, "coherency", "adcc")
    values = np.full((len(found.names), len(found.methods), len(metrics)), np.nan)
    values[..., : len(found.metrics)] = found.values
    for place, name in enumerate(found.names):
        if name not in again.names:
            continue
        for method in set(found.methods) & set(again.methods):
            column = found.methods.index(method)
            coherency = again.of(method, "coherency")[again.names.index(name)]
            terms = (coherency, found.of(method, "complexity")[place], found.of(method, "average-drop")[place])
            values[place, column, -2] = coherency
            values[place, column, -1] = adcc(*(np.asarray(term) for term in terms))
    return Recorded(found.names, found.methods, metrics, values)


def photographs(network: str) -> Recorded:
    """What is reported on an ImageNet network and photographs."""
    return with_adcc(recorded.read(network), recorded.read(f"{network}-coherency"))


# --- tables by name


def _sanity(part: str) -> Iterator[str]:
    found = recorded.read(part)
    cells = (
        (name, *(f"{np.nanmean(found.of(name, metric)):.2f}" for metric in found.metrics)) for name in found.methods
    )
    yield from table(("shuffled", *(metric for metric in found.metrics)), cells)
    yield f"n: {len(found.names)}."


def _frameworks() -> Iterator[str]:
    found = recorded.read("frameworks")
    heads = [f"{name}, {metric}" for name in found.names for metric in found.metrics]
    rows = (
        (method, *(f"{value:.4f}" if value else "below .0001" for value in found.values[:, place].ravel()))
        for place, method in enumerate(found.methods)
    )
    yield from table(("method", *heads), rows)


def _named(part: str, names: Callable[[str], bool], *groups: Sequence[str]) -> Iterator[str]:
    """Those rows of a part whose names fit, in a table for each group of metrics."""
    found = recorded.read(part)
    yield from _grouped(found.only([each for each in found.methods if names(each)]), *groups)


def _grouped(found: Recorded, *groups: Sequence[str]) -> Iterator[str]:
    for metrics in groups:
        yield from means(found, metrics)
        yield ""


def _on_photographs(network: str) -> Iterator[str]:
    yield from _grouped(photographs(network), FAITHFUL, SIDES)


def _on_photographs_against(network: str) -> Iterator[str]:
    yield from versus(photographs(network), (*FAITHFUL, *SIDES))


def _part(part: str, *groups: Sequence[str]) -> Iterator[str]:
    yield from _grouped(recorded.read(part), *groups)


def _part_against(part: str, metrics: Sequence[str]) -> Iterator[str]:
    yield from versus(recorded.read(part), metrics)


RANK = ("insertion", "deletion", "drop at held complexity")
VALUES = ("average-drop", "average-increase", "complexity")
GRID = ("share of the own cell",)


def _is_change(name: str) -> bool:
    return not (_is_pair(name) or "," in name)


def _is_pair(name: str) -> bool:
    return " + " in name or name.endswith(" alone")


def _by_regression(name: str) -> bool:
    return (_is_pair(name) and "regression" in name) or name == "grad-cam + score-cam"


def _is_calibration(name: str) -> bool:
    return name.endswith((", root", ", kept")) or name in ("published", "no third step")


def _of_vit(name: str) -> bool:
    return name.startswith("tiny ViT")


def _of_resnet8(name: str) -> bool:
    return not _of_vit(name)


def _always(name: str) -> bool:
    return True


READ = ("average-drop", "average-increase", "insertion", "deletion", "road", "complexity", "adcc")


def _to_read_by() -> Iterator[str]:
    """For the guide: what metrics say of maps that ask no network, and of two that do."""
    found = photographs("lite0").only((*CONTROLS, "grad-cam", SUBJECT))
    titles = ("a map of ones", "a Gaussian at the centre", "Grad-CAM", "Fusion-CAM, united")
    rows = (
        (f"{TITLES[metric]} ({better(metric)} is better)", *(mean(found.of(name, metric)) for name in found.methods))
        for metric in READ
    )
    yield from table(("metric", *titles), rows)
    yield f"n: {counts(found, READ, found.methods)}."


GOOD_AT = ("average-drop", "complexity", "insertion", "deletion")

_FORMS = (*RIVALS, "fusion-cam calibrated", SUBJECT)

SHOWN: dict[str, tuple[Callable[[], Recorded], tuple[str, ...]]] = {
    "EfficientNet-Lite0, photographs": (partial(photographs, "lite0"), ("centre", *_FORMS)),
    "EfficientNet-Lite2, photographs": (partial(photographs, "lite2"), ("centre", *_FORMS)),
    "ResNet8, garments": (partial(recorded.read, "resnet8"), ("centre", "rise", *_FORMS)),
    "tiny ViT, garments": (partial(recorded.read, "tiny_vit"), ("centre", "rise", *_FORMS)),
}
"""For the guide to methods: the values of each network, and the methods that are shown."""


def _good_at() -> Iterator[str]:
    """Means with their intervals, network by network."""
    rows = []
    for network, (values, methods) in SHOWN.items():
        found = values()
        rows += [
            (f"{network}, {len(found.names)}", f"`{method}`", *(mean(found.of(method, metric)) for metric in GOOD_AT))
            for method in methods
        ]
    heads = [f"{TITLES[metric].lower()} ({'↓' if metric in LOWER else '↑'})" for metric in GOOD_AT]
    yield from table(("network, n", "method", *heads), rows)


PLACED: dict[str, tuple[Callable[[], Recorded], tuple[str, ...]]] = {
    "photographs, Lite0": (partial(photographs, "lite0"), ("insertion", "deletion", "adcc")),
    "photographs, Lite2": (partial(photographs, "lite2"), ("insertion", "deletion", "adcc")),
    "garments, ResNet8": (partial(recorded.read, "resnet8"), ("insertion", "deletion", "adcc")),
    "garments, tiny ViT": (partial(recorded.read, "tiny_vit"), ("insertion", "deletion", "adcc")),
    "composites, Lite0": (partial(recorded.read, "lite0-composites"), PLACES),
    "composites, Lite2": (partial(recorded.read, "lite2-composites"), PLACES),
    "mosaics, Lite0": (partial(recorded.read, "lite0-grid"), GRID),
    "mosaics, Lite2": (partial(recorded.read, "lite2-grid"), GRID),
}
"""On what a default has to earn its place, none of which a form was chosen on."""


def _verdict() -> Iterator[str]:
    """Where the subject stands, and of how many of the five rivals its interval is clear, on either side."""
    rows = []
    for name, (values, metrics) in PLACED.items():
        found = values()
        rows += [(name, TITLES[metric], *standing(found, metric)) for metric in metrics]
    yield from table(("on", "metric", "n", "place", "ahead of", "behind"), rows)


def standing(found: Recorded, metric: str, subject: str = SUBJECT) -> tuple[str, str, str, str]:
    """How many images, the place by the mean, and the rivals that are clearly worse and clearly better."""
    methods = [each for each in found.methods if each not in CONTROLS and np.isfinite(found.of(each, metric)).any()]
    sign = 1 if metric in LOWER else -1
    order = sorted(methods, key=lambda method: sign * float(np.nanmean(found.of(method, metric))))
    rivals = [each for each in RIVALS if each in methods]
    pairs = {each: compare(found.of(subject, metric), found.of(each, metric), better(metric)) for each in rivals}
    ends = {each: sorted((-sign * pair.difference.low, -sign * pair.difference.high)) for each, pair in pairs.items()}
    ahead = [each for each, (low, _) in ends.items() if low > 0]
    behind = [each for each, (_, high) in ends.items() if high < 0]
    number = int(np.isfinite(found.of(subject, metric)).sum())
    words = "all five" if len(ahead) == len(RIVALS) else ", ".join(ahead) or "none"
    return str(number), f"{order.index(subject) + 1} of {len(methods)}", words, ", ".join(behind) or "none"


IMAGENET = ("lite0", "lite2")
SMALL = ("resnet8", "tiny_vit")

TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "changes": partial(changed, "choosing", "published", _is_change, RANK),
    "pairs": partial(_named, "choosing", _is_pair, RANK),
    **{f"{name}-pairs": partial(crossed, f"{name}-pairs", RANK) for name in SMALL},
    "best-pairs": partial(best_pairs, [f"{name}-pairs" for name in SMALL], RANK),
    "regression": partial(changed, "choosing", "grad-cam + score-cam", _by_regression, RANK),
    "calibrations": partial(_named, "choosing", _is_calibration, VALUES),
    "layers": partial(_named, "layers", _always, (*RANK, "average-drop")),
    "choice": partial(_named, "choice", _of_resnet8, (*RANK, *VALUES)),
    "attention": partial(_named, "choice", _of_vit, (*RANK, "average-drop")),
    **{name: partial(_on_photographs, name) for name in IMAGENET},
    **{f"{name}-versus": partial(_on_photographs_against, name) for name in IMAGENET},
    **{f"{name}-composites": partial(_part, f"{name}-composites", PLACES) for name in IMAGENET},
    **{f"{name}-composites-versus": partial(_part_against, f"{name}-composites", PLACES) for name in IMAGENET},
    **{f"{name}-grid": partial(_part, f"{name}-grid", GRID) for name in IMAGENET},
    **{f"{name}-grid-versus": partial(_part_against, f"{name}-grid", GRID) for name in IMAGENET},
    **{name: partial(_part, name, FAITHFUL, SIDES, GARMENTS) for name in SMALL},
    **{f"{name}-versus": partial(_part_against, name, (*FAITHFUL, *SIDES, *GARMENTS)) for name in SMALL},
    **{f"{name}-sanity": partial(_sanity, f"{name}-sanity") for name in ("lite0", *SMALL)},
    "frameworks": _frameworks,
    "verdict": _verdict,
    "read-by": _to_read_by,
    "good-at": _good_at,
}
"""By the mark in a document, `<!-- NAME -->` to `<!-- end -->`."""

DOCUMENTS = ("study.md", "guides/is_my_map_right.md", "guides/which_method.md")
"""Those with tables of ours, in docs/."""


def written(text: str) -> str:
    """A document with its tables made anew; tables of other names stay."""

    def made(found: re.Match[str]) -> str:
        if found[1] not in TABLES:
            return found[0]
        lines = "\n".join(TABLES[found[1]]()).strip()
        return f"<!-- {found[1]} -->\n\n{lines}\n\n<!-- end -->"

    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


def write(docs: Path) -> None:
    """Make the tables of all documents and the figure anew."""
    from benchmarks.study import figure

    for name in DOCUMENTS:
        document = docs / name
        document.write_text(written(document.read_text(encoding="utf-8")), encoding="utf-8")
    figure.draw(docs / "images" / "study")
