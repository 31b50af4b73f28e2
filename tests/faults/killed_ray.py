"""Kills a job on Ray with its whole local cluster, or one of its workers: killed_ray.py FOLDER writes what came of it.

killed_ray.py FOLDER job does the job itself, in the process that is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch

from fusioncam_core import GradCAM
from fusioncam_core.scale.ray import explain_to

IMAGES, PIECE, BATCH = 120, 8, 4
SECONDS = 0.03
"""That an image takes: pieces of a quarter of a second, in the middle of which the kill comes."""


class Slowly(GradCAM):
    """Grad-CAM that takes its time, and leaves a line for each image and the process that explained it."""

    def explain(self, batch: Any) -> Any:
        time.sleep(SECONDS * len(batch.images))
        with open(os.environ["FUSIONCAM_TEST_LOG"], "a") as log:
            log.write(f"{os.getpid()} {len(batch.images)}\n")
        return super().explain(batch)


def explainer() -> GradCAM:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 5)).eval()
    return Slowly(model, "1", batch_size=BATCH)


def images() -> np.ndarray:
    return np.random.default_rng(0).random((IMAGES, 1, 12, 12), dtype=np.float32)


def job(folder: Path) -> None:
    explain_to(explainer, folder, images(), "top2", piece=PIECE, progress=False, workers=2)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in parquet.read_table(path).to_pylist()]


def begun(folder: Path, files: int) -> subprocess.Popen[bytes]:
    """A process that does the job, once it has written so many files."""
    child = subprocess.Popen([sys.executable, __file__, str(folder), "job"])
    while len(list(folder.glob("part-*.parquet"))) < files:
        time.sleep(0.02)
        assert child.poll() is None, "it ended too early"
    return child


def told(folder: Path, log: Path, before: int) -> dict[str, Any]:
    explained = sum(int(line.split()[1]) for line in log.read_text().splitlines())
    left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("part-"))
    return {"before": before, "explained": explained, "left": left, "rows": rows(folder)}


def killed_worker(base: Path) -> dict[str, Any]:
    folder, log = base / "worker", Path(os.environ["FUSIONCAM_TEST_LOG"])
    child = begun(folder, 3)
    victim = int(log.read_text().splitlines()[-1].split()[0])
    assert victim != child.pid
    os.kill(victim, signal.SIGKILL)
    assert child.wait(120) == 0
    return told(folder, log, 3)


def killed_driver(base: Path) -> dict[str, Any]:
    folder, log = base / "driver", Path(os.environ["FUSIONCAM_TEST_LOG"])
    child = begun(folder, 3)
    child.kill()
    child.wait()
    workers = {int(line.split()[0]) for line in log.read_text().splitlines()}
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # they end with the cluster of the process
        time.sleep(0.02)
    before = len(list(folder.glob("part-*.parquet")))
    seen = int(sum(int(line.split()[1]) for line in log.read_text().splitlines()))
    job(folder)
    return {**told(folder, log, before), "seen": seen}


def main() -> None:
    """Kill, go on, and compare with one process."""
    base = Path(sys.argv[1])
    if sys.argv[2:] == ["job"]:
        job(base)
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    found = {}
    for name, kill in (("worker", killed_worker), ("driver", killed_driver)):
        os.environ["FUSIONCAM_TEST_LOG"] = str(base / f"{name}.log")
        found[name] = kill(base)
    os.environ["FUSIONCAM_TEST_LOG"] = str(base / "whole.log")
    explainer().explain_to(base / "whole", images(), "top2", piece=PIECE, progress=False)
    expected = rows(base / "whole")
    for each in found.values():
        each["equal"] = each.pop("rows") == expected
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
