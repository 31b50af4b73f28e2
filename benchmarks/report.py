"""The tables of docs/benchmarks.md, from the JSON that `benchmarks.run` and `benchmarks.budgets` wrote.

    python -m benchmarks.report bench-out docs/benchmarks.md

replaces what is between `<!-- measured -->` and `<!-- end -->`, and leaves the words around it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "Keras on TensorFlow", "jax": "Flax NNX on JAX"}
PEERS = {"torchcam": "torch-cam", "pytorch_grad_cam": "pytorch-grad-cam", "tf_keras_vis": "tf-keras-vis"}
BOUND_DEFAULT, BOUND_NETWORK = "1.10", "0.6"

BEGIN, END = "<!-- measured -->", "<!-- end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the tables of the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("folder", type=Path)
    parser.add_argument("document", type=Path)
    options = parser.parse_args(arguments)
    rewrite(options.document, report(options.folder))
    return 0


def rewrite(document: Path, lines: Iterable[str]) -> None:
    """Put the lines in the place of what stands between the marks of a document."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{document} has no {BEGIN} ... {END} to replace")
    document.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines).strip() + f"\n\n{END}{after}")


def report(folder: Path) -> Iterator[str]:
    """All lines."""
    files = [path for path in sorted(folder.glob("*.json")) if path.stem in ("start", *FRAMEWORKS)]
    runs = {path.stem: json.loads(path.read_text()) for path in files}
    if not runs:
        raise SystemExit(f"no benchmark was written into {folder}")
    yield from machine(next(iter(runs.values())))
    for section in (
        exact,
        given,
        beside,
        five,
        gradient,
        probing,
        many,
        peers,
        with_engines,
        options_of_torch,
        memory,
        start,
    ):
        yield from section(runs)
    if (folder / "budgets.json").exists():
        yield from budgets(json.loads((folder / "budgets.json").read_text()))


def machine(run: dict[str, Any]) -> Iterator[str]:
    info = run["machine_info"]
    packages = ", ".join(f"{name} {version}" for name, version in info["packages"].items())
    cpu = info["cpu"].get("brand_raw", info["machine"])
    yield f"{info['cores']} cores of {cpu}, Python {info['python']}; {packages}."
    yield f"Measured on {run['datetime'][:10]}."
    yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def of(runs: dict[str, Any], test: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(framework or "start", the benchmark, its extra numbers) of every run of a test."""
    for name in sorted(runs, key=lambda name: list(FRAMEWORKS).index(name) if name in FRAMEWORKS else -1):
        for each in runs[name]["benchmarks"]:
            if re.sub(r"\[.*", "", each["name"]) == test:
                yield name, each, each["extra_info"]


def seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def exact(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Exact maps beside the network alone"
    yield ""
    yield "The time of a call over (evaluations × the network's fastest time an image, taken between the batches): the"
    yield "median, which is to be 1.10 at most, and every round."
    yield ""
    rows = [
        (
            FRAMEWORKS[name],
            each["param"],
            more["evaluations"],
            seconds(more["call"]),
            f"**{more['ratio']:.2f}** ({', '.join(f'{each:.2f}' for each in more['ratios'])})",
            f"{more['batch'][1]}, {more['batch'][0]}",
            f"{more['network_alone'][1]}, {more['network_alone'][0]}",
            f"{seconds(more['first_call'])}, {more['calls_to_settle']}",
            "-" if more["compilations"] is None else "{}, then {}".format(*more["compilations"]),
        )
        for name, each, more in of(runs, "test_exact")
    ]
    head = (
        "framework", "method", "evaluations", "a call", "ratio", "batch found", "fastest alone",
        "first call, calls until found", "compilations",
    )  # fmt: skip
    yield from table(head, rows)


def given(runs: dict[str, Any]) -> Iterator[str]:
    yield "### The same, with the batch in which the network alone is fastest"
    yield ""
    yield "What the loop costs, whatever batch a search finds: `batch_size` is given."
    yield ""
    rows = [
        (
            FRAMEWORKS[name],
            each["param"],
            f"{more['batch'][1]}, {more['batch'][0]}",
            seconds(more["call"]),
            f"**{more['ratio']:.2f}** ({', '.join(f'{each:.2f}' for each in more['ratios'])})",
        )
        for name, each, more in of(runs, "test_given_batch")
    ]
    yield from table(("framework", "method", "batch", "a call", "ratio"), rows)


def beside(runs: dict[str, Any]) -> Iterator[str]:
    rows = [
        [
            FRAMEWORKS[framework],
            extra["evaluations"],
            extra["batch"],
            extra["lanes"],
            seconds(extra["one_by_one"]),
            seconds(extra["call"]),
            f"**{extra['gain']:.2f} ×**",
        ]
        for framework, _, extra in of(runs, "test_beside_each_other")
    ]
    if not rows:
        return
    yield "### Programs beside each other"
    yield ""
    yield "Fusion-CAM on JAX, exact and of 128 masks, in turn with the same call whose programs follow each other."
    yield ""
    head = ["framework", "evaluations", "batch", "at once", "one by one", "a call", "gain"]
    yield from table(head, rows)


def ratios(runs: dict[str, Any], test: str, title: str, words: str) -> Iterator[str]:
    rows = [
        (FRAMEWORKS[name], seconds(each["stats"]["median"]), f"**{more['ratio']:.2f}** (bound {more['bound']:.2f})")
        for name, each, more in of(runs, test)
    ]
    yield f"### {title}"
    yield ""
    yield words
    yield ""
    yield from table(("framework", "a call", "ratio"), rows)


def five(runs: dict[str, Any]) -> Iterator[str]:
    words = "Fusion-CAM of an image's five likeliest classes, over that of one."
    yield from ratios(runs, "test_five_classes", "Five classes", words)


def gradient(runs: dict[str, Any]) -> Iterator[str]:
    words = "Grad-CAM over one forward pass and one backward pass from the outputs to the layer, written by hand."
    yield from ratios(runs, "test_gradient", "Grad-CAM", words)


def probing(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Measuring the layers"
    yield ""
    yield "What it adds to the first explanation by a model, as a share of exact Fusion-CAM of one image."
    yield ""
    rows = [
        (
            FRAMEWORKS[name],
            seconds(more["extra"]),
            seconds(more["call"]),
            f"**{more['share']:.1%}** (bound {more['bound']:.0%})",
        )
        for name, _, more in of(runs, "test_probing")
    ]
    yield from table(("framework", "once", "Fusion-CAM", "share"), rows)


def many(runs: dict[str, Any]) -> Iterator[str]:
    """A data set by default, and with given batches."""
    rows = []
    for framework, _, info in of(runs, "test_data_set"):
        rates, best = info["images_a_second"], str(info["best"])
        rows.append(
            (
                FRAMEWORKS[framework],
                info["case"],
                info["images"],
                f"{rates['default']:.3g}",
                info["found"][1],
                f"{rates[best]:.3g} ({best})",
                f"{info['ratio']:.2f}",
                "" if info["of_network"] is None else f"{info['of_network']:.2f}",
            )
        )
    if not rows:
        return
    yield "### Data sets"
    yield ""
    yield (
        "Images a second of `explain_many` by default, after the batch was found, beside the best of the batches 16, "
        f"64 and 256; the ratio is of the times (bound {BOUND_DEFAULT}). Last the share of the network's own "
        f"throughput, at its best of these batches (bound {BOUND_NETWORK})."
    )
    yield ""
    yield from table(
        ("", "case", "images", "default", "batch found", "best given", "ratio", "of the network alone"), rows
    )


def peers(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Beside other libraries"
    yield ""
    yield "Score-CAM of one photograph at the layer of 1280 channels, in turn; a peer at its best batch."
    yield ""
    rows = []
    for name, _, more in of(runs, "test_score_cam"):
        for which, taken in more["seconds"].items():
            ratio = more["ratios"].get(which)
            beside = "" if ratio is None else f"**{ratio:.1f} ×** (bound {more['bounds'][which]:g} ×)"
            label = f"fusioncam, {which}" if ratio is not None else f"{PEERS[which]}, batch {more['batch_of_peers']}"
            like = more["likeness"].get(which)
            rows.append((FRAMEWORKS[name], label, seconds(taken), beside, "" if like is None else f"{like:.3f}"))
    head = ("framework", "library", "Score-CAM", "the fastest peer's time over ours", "Spearman with ours")
    yield from table(head, rows)
    rows = [
        (FRAMEWORKS[name], PEERS.get(which, which), seconds(taken))
        for name, _, more in of(runs, "test_grad_cam")
        for which, taken in more["seconds"].items()
    ]
    yield from table(("framework", "library", "Grad-CAM"), rows)


def with_engines(runs: dict[str, Any]) -> Iterator[str]:
    """Fusion-CAM with OpenVINO beside the fastest peer's Score-CAM."""
    rows = []
    for name, _, more in of(runs, "test_fusion_cam_with_an_engine"):
        peer = more["fastest_peer"]
        label = f"{PEERS[peer]}, batch {more['batch_of_peers']}"
        rows.append((FRAMEWORKS[name], label, seconds(more["seconds"][peer]), "", ""))
        for which, ratio in more["ratios"].items():
            beside = f"**{ratio:.1f} ×** (bound {more['bounds'][which]:g} ×)"
            rows.append(
                (FRAMEWORKS[name], which, seconds(more["seconds"][which]), beside, f"{more['moved'][which]:.1e}")
            )
    if not rows:
        return
    yield "### With an engine beside other libraries"
    yield ""
    yield (
        "Fusion-CAM with OpenVINO, and the fastest peer's Score-CAM, which is a part of it; and how far the map lies "
        "from the framework's exact one."
    )
    yield ""
    yield from table(("framework", "", "a call", "the peer's time over ours", "largest difference of the map"), rows)


def options_of_torch(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Options of the PyTorch backend"
    yield ""
    yield "Score-CAM with `budget=128`, over the same without the option, in turn; and how the map changes."
    yield ""
    rows = [
        (
            f"`{each['param']}`",
            seconds(each["stats"]["median"]),
            f"{more['ratio']:.2f}",
            seconds(more["first_call"]),
            f"{more['largest_difference']:.1e}, {more['mean_difference']:.1e}",
        )
        for _, each, more in of(runs, "test_option")
    ]
    yield from table(("option", "a call", "ratio", "first call", "largest and mean difference of the map"), rows)
    for _, _, more in of(runs, "test_inference_mode"):
        yield f"`torch.inference_mode` in the place of `torch.no_grad`, four images: {more['ratio']:.3f} of the time."
        yield ""


def memory(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Memory"
    yield ""
    yield "The peak beyond the network's own at one batch; each library in a process of its own."
    yield ""
    rows = [
        (
            PEERS.get(more["library"].removeprefix("of_"), "fusioncam"),
            f"{more['megabytes']:.0f} MB",
            more["channels"],
            more["images"],
            more["batch"],
        )
        for _, _, more in of(runs, "test_memory")
    ]
    yield from table(("library", "peak", "channels", "images", "batch"), rows)


def start(runs: dict[str, Any]) -> Iterator[str]:
    yield "### Start"
    yield ""
    rows = [
        (f"`{more['command']}`", seconds(each["stats"]["median"]), f"{more['bound']} s")
        for _, each, more in of(runs, "test_start")
    ]
    yield from table(("command", "median", "bound"), rows)
    yield from first_calls(runs)


def first_calls(runs: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            FRAMEWORKS[more["framework"]],
            *(seconds(more[name]) for name in ("first", "later", "first_processor", "later_processor")),
            f"**{more['ratio']:.1f}** (bound {more['bound']})",
            f"{seconds(more['programs'])}: {more['least_ratio']:.1f}" if more["programs"] else "-",
        )
        for _, _, more in of(runs, "test_first_call")
    ]
    if rows:
        yield (
            "The first Fusion-CAM by a model within 32 masks, and later ones; by the clock, and of the processor. Last "
            "what the framework alone needs to make programs of the network, and the ratio of that and a later call."
        )
        yield ""
        head = ("framework", "first", "later", "of the processor: first", "later", "ratio", "programs alone")
        yield from table(head, rows)


def budgets(layers: dict[str, Any]) -> Iterator[str]:
    for title, found in layers.items():
        few, mean, many = found["live"]
        yield f"### Budgets and tolerances: {title}"
        yield ""
        live = f"{few} to {many} channels are not constant, {mean} on average"
        yield f"{found['photographs']} photographs; {live}."
        yield ""
        yield from _budget_table(found["budgets"])
        yield from table(
            ("tolerance", "masks run: mean, most", "estimate", "true change: mean, largest", "within the tolerance"),
            [
                (
                    row["tolerance"],
                    f"{row['masks_run_mean']:.0f}, {row['masks_run_most']}",
                    f"{row['uncertainty_mean']:.3f}",
                    f"{row['change_mean']:.3f}, {row['change_largest']:.3f}",
                    f"{row['share_within']:.0%}",
                )
                for row in found["tolerances"]
            ],
        )


def _budget_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each strategy, a column for each budget."""
    sizes = list(dict.fromkeys(row["budget"] for row in rows))
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    cells: dict[tuple[str, int], str] = {
        (row["strategy"], row["budget"]): (
            f"{row['spearman_mean']:.4f}, {row['spearman_worst']:.3f}; {row['largest_change_mean']:.3f}"
        )
        for row in rows
    }
    yield "Spearman with the exact map, mean and worst; the map's largest change, mean."
    yield ""
    yield from table(
        ("which masks are run", *(f"{size} masks" for size in sizes)),
        [(name, *(cells[name, size] for size in sizes)) for name in names],
    )


Section = Callable[[dict[str, Any]], Iterator[str]]

if __name__ == "__main__":
    sys.exit(main())
