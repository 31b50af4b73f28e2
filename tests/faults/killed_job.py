"""Kills a job at random times and lets it go on: killed_job.py FOLDER KILLS SEED writes what came of it as JSON.

The parent of the processes that are killed imports everything first, and they are forked off it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch

from fusioncam_core import GradCAM

IMAGES, PIECE, BATCH = 120, 8, 4

LOG = "explained"
"""A line for each group of images that the model has seen."""


def network() -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 5)).eval()


class Images:
    """Batches of images, each of which takes a moment to come."""

    dataset = range(IMAGES)

    def __iter__(self) -> Any:
        for start in range(0, IMAGES, BATCH):
            time.sleep(0.01)
            yield np.random.default_rng(start).random((BATCH, 1, 12, 12), dtype=np.float32)


def job(folder: Path) -> None:
    """The job, each of whose explained images leaves a line in a file beside the folder."""
    from fusioncam_core.jobs import run

    rows_of = run.rows_of

    def logged(explanation: Any, *others: Any) -> Any:
        with open(folder.with_suffix(".log"), "a") as log:
            log.write(f"{explanation.indices[0]}\n")
        return rows_of(explanation, *others)

    run.rows_of = logged
    GradCAM(network(), batch_size=BATCH).explain_to(folder, Images(), "top2", piece=PIECE, progress=False)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in parquet.read_table(path).to_pylist()]


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            job(folder)
        finally:
            os._exit(0)
    return child


def wait(child: int, folder: Path, draw: random.Random, begun: float, length: float) -> None:
    """Until a moment for a kill: before the job has begun, or after so many files, however busy the machine is."""
    pieces = IMAGES // PIECE
    files = draw.randrange(-1, pieces)
    if files < 0:
        time.sleep(draw.uniform(0, begun))
        return
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while len(list(folder.glob("part-*.parquet"))) < files and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, (length - begun) / pieces))


def main() -> None:
    """Kill, go on, and compare."""
    base, kills, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    start = time.monotonic()
    whole = forked(base / "whole")
    while not (base / "whole" / "_job.json").exists():
        time.sleep(0.001)
    begun = time.monotonic() - start
    os.waitpid(whole, 0)
    length = time.monotonic() - start
    expected = rows(base / "whole")
    found = []
    for number in range(kills):
        folder = base / f"kill{number}"
        child = forked(folder)
        wait(child, folder, draw, begun, length)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before = len(list(folder.glob("part-*.parquet")))
        os.waitpid(forked(folder), 0)
        seen = [int(line) for line in folder.with_suffix(".log").read_text().split()]
        left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("part-"))
        found.append(
            {
                "before": before,
                "equal": rows(folder) == expected,
                "repeated": sum(seen.count(place) - 1 for place in set(seen)),
                "left": left,
            }
        )
        shutil.rmtree(folder)
    json.dump({"rows": len(expected), "kills": found}, sys.stdout)


if __name__ == "__main__":
    main()
