"""Kills an evaluation at random times, goes on with it, and tells what came of it: a process of its own.

    python killed_evaluation.py FOLDER KILLS SEED

Prints JSON: the values of an uninterrupted run, and for each kill how many values were kept, those found in the end,
how often a line of the file repeats a key, and how many values were computed in both processes together.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.experimental.symbolic_shapes  # a gradient imports it, in every fork anew if not here
from torch import nn

from fusioncam_core import adapt_model, array_namespace, evaluate
from fusioncam_core.evaluation.store import MAP, PLAIN, Store
from fusioncam_core.metrics import AverageDrop, Complexity, Deletion

IMAGES, BATCH = 12, 2
METRICS = (AverageDrop(), Complexity(), Deletion(steps=4))


def network() -> Any:
    torch.manual_seed(3)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3))
    return nn.Sequential(features, nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7)).eval()


def evaluated(folder: Path) -> None:
    """The evaluation, with a byte in a file for each value that is about to be kept."""
    computed = os.open(folder.with_suffix(".computed"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    add = Store.add

    def counted(self: Store, entries: Any) -> Any:
        os.write(computed, b"." * sum(key.metric not in (PLAIN, MAP) and key not in self for key in entries))
        return add(self, entries)

    Store.add = counted  # type: ignore[method-assign]
    images = np.random.default_rng(0).random((IMAGES, 3, 16, 16), dtype=np.float32)
    methods = ("grad-cam", "score-cam")
    found = evaluate(network(), images, methods, METRICS, layer="0", out=folder, batch_size=BATCH, progress=False)
    folder.with_suffix(".json").write_text(json.dumps(found.values.tolist()))


def begun(folder: Path) -> int:
    """The process of an evaluation: a fork, which has imported everything."""
    process = os.fork()
    if not process:
        status = 1
        try:
            evaluated(folder)
            status = 0
        finally:
            os._exit(status)
    return process


def finished(folder: Path) -> Any:
    """The values of an evaluation that runs to its end."""
    _, status = os.waitpid(begun(folder), 0)
    assert status == 0
    return json.loads(folder.with_suffix(".json").read_text())


def lines(folder: Path) -> list[bytes]:
    """The lines of the file that are whole, but the header."""
    path = folder / "values.jsonl"
    return path.read_bytes().split(b"\n")[1:-1] if path.exists() else []


def killed(folder: Path, seconds: float) -> dict[str, Any]:
    """What comes of an evaluation that is killed after so many seconds and begun again."""
    process = begun(folder)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    kept = len(lines(folder))
    values = finished(folder)
    keys = Counter(tuple(json.loads(line)[0]) for line in lines(folder))
    computed = folder.with_suffix(".computed").stat().st_size
    return {"kept": kept, "values": values, "repeated": max(keys.values()) - 1, "computed": computed}


def main(folder: str, kills: str, seed: str) -> None:
    root, generator = Path(folder), random.Random(int(seed))
    torch.set_num_threads(1)
    array_namespace(*adapt_model(network()).weights().values())  # finds plugins and namespaces, likewise
    start = time.perf_counter()
    expected = finished(root / "whole")
    took = time.perf_counter() - start
    after = [killed(root / str(number), generator.uniform(0, took)) for number in range(int(kills))]
    sys.stdout.write(json.dumps({"expected": expected, "kills": after}))


if __name__ == "__main__":
    main(*sys.argv[1:])
