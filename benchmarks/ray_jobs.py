"""A job by two Ray workers, one of which is killed, beside one process; and how jobs scale, by workers that wait.

    python -m benchmarks.ray_jobs --out DIR [--images 6000] [--rounds 3]

prints the tables of docs/cluster.md. The folder is for the jobs' files. One process has the two threads of two cores,
each of the workers one. What is compared is measured in turns, in one run; start-up is told apart.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from fusioncam_core import GradCAM
from fusioncam_core.scale.ray import explain_to
from fusioncam_core.scale.workers import Workers

PIECE, BATCH = 200, 64
SIZE = 64


def network() -> Any:
    """Of 0.2 million weights: an image takes a millisecond or two."""
    import torch  # which workers that wait need not have

    torch.manual_seed(0)
    layers: list[Any] = []
    for inside, outside, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
        layers += [torch.nn.Conv2d(inside, outside, 3, stride=stride, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(
        *layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 10)
    ).eval()


def explainer() -> GradCAM:
    return GradCAM(network(), batch_size=BATCH)


def photographs(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, SIZE, SIZE), dtype=np.float32)


def here(folder: str, count: int) -> None:
    """One process, with as many threads as there are cores: what it took, as JSON."""
    began = time.perf_counter()
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    cam = explainer()
    done = cam.explain_to(folder, photographs(count), 3, maps=(7, 7), piece=PIECE, progress=False)
    json.dump({"work": done.seconds, "whole": time.perf_counter() - began}, sys.stdout)


def there(folder: str, count: int, *, kill: bool) -> dict[str, float]:
    """Two workers, one of which is killed when a third of the files are there."""
    images = photographs(count)
    began = time.perf_counter()
    killer = threading.Thread(target=_kill_one, args=(Path(folder), count // PIECE // 3), daemon=True)
    if kill:
        killer.start()
    done = explain_to(explainer, folder, images, 3, maps=(7, 7), piece=PIECE, progress=False, workers=2)
    return {"work": done.seconds, "whole": time.perf_counter() - began}


def _kill_one(folder: Path, files: int) -> None:
    while len(list(folder.glob("part-*.parquet"))) < files:
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-f", "^ray::_Worker"], capture_output=True, text=True, check=False).stdout.split()
    own = [int(pid) for pid in found if _is_ours(int(pid))]
    os.kill(own[0], signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    """Whether this process is among those that a process comes from: another Ray may run here."""
    while pid > 1:
        if pid == os.getpid():
            return True
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        pid = next(int(line.split()[1]) for line in status if line.startswith("PPid"))
    return False


def largest_difference(one: str, other: str) -> float:
    """Between the maps of two jobs."""
    maps = [
        np.stack([np.asarray(row) for row in parquet.read_table(folder, columns=["map"])["map"].to_pylist()])
        for folder in (one, other)
    ]
    return float(np.abs(maps[0] - maps[1]).max())


def compared(out: Path, count: int, rounds: int) -> None:
    """Print both in turns."""
    code = "from benchmarks.ray_jobs import here; import sys; here(sys.argv[1], int(sys.argv[2]))"
    one, two = [], []
    difference = 0.0
    for _ in range(rounds):
        folders = [str(out / name) for name in ("one", "ray")]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        done = subprocess.run([sys.executable, "-c", code, folders[0], str(count)], capture_output=True, check=True)
        one.append(json.loads(done.stdout))
        two.append(there(folders[1], count, kill=True))
        difference = max(difference, largest_difference(*folders))
    rates = [[count / each["work"] for each in times] for times in (one, two)]
    starts = [[each["whole"] - each["work"] for each in times] for times in (one, two)]
    ratio = statistics.median(after / before for before, after in zip(*rates, strict=True))
    print(f"{count} images of {SIZE} x {SIZE} in pieces of {PIECE}, {rounds} rounds, medians\n")
    print("| | images a second | start-up, s |\n| --- | ---: | ---: |")
    for name, rate, start in zip(("one process, two threads", "two workers, one killed"), rates, starts, strict=True):
        print(f"| {name} | {statistics.median(rate):.0f} | {statistics.median(start):.1f} |")
    print(f"\nratio {ratio:.2f}, of the rounds {', '.join(f'{b / a:.2f}' for a, b in zip(*rates, strict=True))}; ")
    print(f"largest difference of two maps' values: {difference:.1e}\n")


def waits(seconds: float, size: int, held: Any, item: int) -> bytes:
    """A piece of work for a worker that only waits."""
    time.sleep(seconds)
    return bytes(size)


def scaled(out: Path, seconds: float, size: int, pieces: int) -> None:
    """Print how long pieces take by ever more workers that wait, and what the model says of it."""
    import ray  # behind what it reads of the environment

    path = out / "piece"
    write = statistics.median(_written(path, size) for _ in range(9))
    print(f"{pieces} pieces of {seconds:g} s and {size / 1e6:.1f} MB, of which writing takes {write * 1000:.1f} ms\n")
    print("| workers | s | model, s | pieces a second | of ideal |\n| ---: | ---: | ---: | ---: | ---: |")
    for count in (1, 2, 4, 8, 16):
        ray.init(address="local", num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        with Workers(dict, workers=count) as workers:
            list(workers.each(functools.partial(waits, 1.0, 1), range(count)))  # all of them are there
            while workers._starting:
                list(workers.each(functools.partial(waits, 0.2, 1), range(count)))
            began = time.perf_counter()
            for _ in workers.each(functools.partial(waits, seconds, size), range(pieces)):
                _written(path, size)
            took = time.perf_counter() - began
        ray.shutdown()
        model = max(-(-pieces // count) * seconds, pieces * write) + write
        print(
            f"| {count} | {took:.2f} | {model:.2f} | {pieces / took:.1f} | {pieces * seconds / count / took:.2f} |",
            flush=True,
        )


def _written(path: Path, size: int) -> float:
    began = time.perf_counter()
    path.write_bytes(bytes(size))
    return time.perf_counter() - began


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--only", choices=["compared", "scaled"])
    given = parser.parse_args()
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only != "scaled":
        compared(given.out, given.images, given.rounds)
    if given.only != "compared":
        scaled(given.out, 0.5, 200_000, given.pieces)


if __name__ == "__main__":
    main()
