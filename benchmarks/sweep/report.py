"""The tables of docs/models.md, from the rows that `benchmarks.sweep.run` wrote.

    python -m benchmarks.sweep.report sweep-out docs/models.md

replaces what is between `<!-- measured -->` and `<!-- end -->`, and leaves the words around it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import rewrite
from benchmarks.sweep.run import read
from benchmarks.sweep.worker import PACKAGES

TITLES = {
    "timm": "timm",
    "transformers": "transformers",
    "torchvision": "torchvision",
    "keras-tensorflow": "keras.applications on TensorFlow",
    "keras-jax": "keras.applications on JAX",
    "keras-torch": "keras.applications on PyTorch",
    "monai": "MONAI",
    "smp": "segmentation-models-pytorch",
    "ultralytics": "ultralytics",
    "flax": "Flax",
    "equinox": "Equinox",
}
NINE_IN_TEN = 1e-4
JUDGED = ("right", "wrong", "raw error", "refused")

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the tables of the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep.report")
    parser.add_argument("folder", type=Path)
    parser.add_argument("document", type=Path)
    options = parser.parse_args(arguments)
    rewrite(options.document, report(options.folder))
    return 0


def report(folder: Path) -> Iterator[str]:
    """All lines."""
    packages = {name: sorted(read(folder, name).values(), key=lambda row: row["model"]) for name in PACKAGES}
    packages = {name: rows for name, rows in packages.items() if rows}
    if not packages:
        raise SystemExit(f"no row was written into {folder}")
    yield from _versions(json.loads((folder / "versions.json").read_text()))
    yield from _summary(packages)
    every = [row for rows in packages.values() for row in rows]
    yield from _sentences("Refused", "refused", every)
    yield from _sentences("Wrong", "wrong", every)
    yield from _sentences("Errors that are not sentences of the library", "raw error", every)
    yield from _unnamed(every)
    for name, rows in packages.items():
        yield from _table(TITLES[name], rows)
    yield from _sentences("Not built", "not built", every)
    yield from _sentences("Not judged", "not judged", every)


def _versions(info: dict[str, Any]) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in info["packages"].items())
    yield f"Measured on {info['date']} with Python {info['python']}; {packages}."
    yield ""


def _summary(packages: dict[str, list[Row]]) -> Iterator[str]:
    counted = ("models", "right", "within 1e-4", "refused", "wrong", "errors")
    columns = ("package", *counted, "default layer named", "corners found", "most passes")
    yield f"| {' | '.join(columns)} |"
    yield "|" + " --- |" * len(columns)
    totals = [row for rows in packages.values() for row in rows]
    for title, rows in [*((TITLES[name], rows) for name, rows in packages.items()), ("**all**", totals)]:
        yield f"| {title} | " + " | ".join(_counts([row for row in rows if row["status"] in JUDGED])) + " |"
    yield ""


def _counts(rows: list[Row]) -> Iterator[str]:
    yield str(len(rows))
    yield str(_number(rows, "status", "right"))
    yield str(sum(row["status"] == "right" and largest_difference(row) <= NINE_IN_TEN for row in rows))
    for status in ("refused", "wrong", "raw error"):
        yield str(_number(rows, "status", status))
    classifiers = [row for row in rows if row["kind"] == "classification" and "expected" in row]
    yield f"{_number(classifiers, 'expected', True)} of {len(classifiers)}"
    cornered = [row for row in rows if row.get("corners") in ("found", "not found")]
    yield f"{_number(cornered, 'corners', 'found')} of {len(cornered)}"
    yield str(max((row["passes"] for row in rows if "passes" in row), default="–"))


def _number(rows: Iterable[Row], key: str, value: Any) -> int:
    return sum(row.get(key) == value for row in rows)


def largest_difference(row: Row) -> float:
    """Of the map from the one by hand, at both sizes; 0 where there is no map."""
    return max(float(row.get("difference", 0)), float(row.get("other", {}).get("difference", 0)))


def _sentences(title: str, status: str, rows: list[Row]) -> Iterator[str]:
    chosen = [row for row in rows if row["status"] == status]
    if not chosen:
        return
    yield f"### {title}"
    yield ""
    yield "| package | model | layer | what was said |"
    yield "| --- | --- | --- | --- |"
    for row in chosen:
        said = row.get("sentence") or _differences(row)
        yield f"| {row['package']} | {row['model']} | {_code(row.get('layer'))} | {_cell(said)} |"
    yield ""


def _differences(row: Row) -> str:
    other = row.get("other", {})
    words = [f"differs by {row['difference']:.1e}"] if "difference" in row else []
    if other.get("status") == "wrong":
        said = other.get("sentence") or f"differs by {other['difference']:.1e}"
        words.append(f"at {_size(other['size'])}, layer `{other['layer']}`: {said}")
    return "; ".join(words)


def _unnamed(rows: list[Row]) -> Iterator[str]:
    chosen = [row for row in rows if row.get("expected") is False]
    if not chosen:
        return
    yield "### Default layers that the field would not name"
    yield ""
    yield "| package | model | default layer | output |"
    yield "| --- | --- | --- | --- |"
    for row in chosen:
        yield f"| {row['package']} | {row['model']} | `{row['layer']}` | {_size(row.get('shape', []))} |"
    yield ""


def _table(title: str, rows: list[Row]) -> Iterator[str]:
    shown = [row for row in rows if row["status"] in JUDGED]
    yield f"### {title}"
    yield ""
    yield "| model | kind | parameters | input | default layer | output | named | difference | corners | other size | |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in shown:
        yield "| " + " | ".join(_cells(row)) + " |"
    yield ""


def _cells(row: Row) -> Iterator[str]:
    yield f"{row['model']} ({row['variant']})" if "variant" in row else row["model"]
    yield row["kind"]
    yield f"{row['parameters'] / 1e6:.1f} M" if "parameters" in row else "-"
    yield _size(row.get("size", []))
    yield _code(row.get("layer"))
    yield _size(row.get("shape", []))
    yield {True: "yes", False: "no"}.get(row.get("expected"), "-")  # type: ignore[arg-type]
    yield f"{row['difference']:.0e}" if "difference" in row else "-"
    yield row.get("corners", "-")
    other = row.get("other", {})
    yield f"{_size(other['size'])}: {other['difference']:.0e}" if "difference" in other else other.get("status", "-")
    yield row["status"]


def _size(lengths: Sequence[int]) -> str:
    return " × ".join(map(str, lengths)) or "-"


def _code(name: str | None) -> str:
    return f"`{name}`" if name else "-"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:400]


if __name__ == "__main__":
    sys.exit(main())
