"""The study's command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study import recorded, tables

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a part, keep what was measured, or write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("part", help="a part, 'record' or 'tables'")
    parser.add_argument("--photographs", type=Path, help="a folder of files INDEX_name.jpg, by ImageNet class")
    parser.add_argument("--out", type=Path, default=Path("study-out"), help="where what is measured is kept")
    parser.add_argument("--limit", type=int, help="the most images to measure now")
    parser.add_argument("--go-on", action="store_true", help="begin with the values that the repository keeps")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of documents whose tables are rewritten")
    given = parser.parse_args(arguments)
    if given.part == "tables":
        tables.write(given.docs)
    elif given.part == "record":
        recorded.record(given.out)
    else:
        measure(given.part, given.photographs, given.out, given.limit, go_on=given.go_on)
    return 0


def measure(name: str, photographs: Path | None, out: Path, limit: int | None = None, *, go_on: bool = False) -> None:
    """Measure the images of a part that are not done yet, here or, to go on, in what the repository keeps.

    Raises:
        ValueError: if there is no such part, or no photographs where it needs them.
    """
    import torch

    from benchmarks.study.parts import PARTS, Given
    from benchmarks.study.store import Lines

    if name not in PARTS:
        raise ValueError(f"Expected 'record', 'tables' or a part, of {', '.join(PARTS)}: got {name!r}.")
    torch.set_num_threads(1)  # so that what is added up is the same on every machine
    lines = Lines(out / f"{name}.jsonl")
    if go_on:
        recorded.restore(lines, name)
    known = lines.known()
    for item in PARTS[name](Given(photographs, out)):
        if item.name in known:
            continue
        if limit == 0:
            return
        first = time.perf_counter()
        lines.add({"name": item.name, "values": item.measure()})
        print(f"{name}: {item.name} in {time.perf_counter() - first:.1f} s", flush=True)
        limit = None if limit is None else limit - 1


if __name__ == "__main__":
    sys.exit(main())
