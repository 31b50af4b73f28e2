"""Memory of an evaluation grows by what its answer is: some bytes a value, and a sentence for what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("filelock")

IMAGES = 100_000 if EVERYTHING else 4_000
FIRST, ELSE = 1_000, 8

VALUES, CURVES, NAME = 2 * 3, 2, 70
"""Of an image: values of two methods by three metrics, those with a curve, and bytes of its name among others."""

POINTS, LOADED = 9, 2**24
"""Of a curve; bytes of all curves together that are held in the end, and not more."""

DRIVER = """
import json, sys
import numpy as np, torch
from fusioncam_core import evaluate
from fusioncam_core.metrics import AverageDrop, Complexity, Deletion

folder, images, damaged = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "damaged"
torch.manual_seed(0)
layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
model = torch.nn.Sequential(*layers, torch.nn.Linear(4, 5)).eval()
grown = {}

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

class Images:
    dataset = range(images)

    def __iter__(self):
        for start in range(0, images, 100):
            if start % 1000 == 0:
                grown[start] = resident()
            made = np.random.default_rng(start).random((100, 1, 28, 28), dtype=np.float32)
            yield made * np.float32("nan") if damaged else made

found = evaluate(
    model, Images(), ["grad-cam", "grad-cam++"], [AverageDrop(), Complexity(), Deletion(steps=8)], 0,
    layer="1", out=folder, batch_size=50, progress=False,
)
grown[images] = resident()
print(json.dumps([list(grown.items()), list(found.values.shape), len(found.problems), len(found.curves)]))
"""


def grown(folder: Path, images: int, kind: str) -> tuple[float, float, list[int], int, int]:
    """MB after the first thousand while images come and with the answer; shape, problems, metrics with curves."""
    command = [sys.executable, "-c", DRIVER, str(folder), str(images), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    by_place, *rest = json.loads(done.stdout)
    resident = dict(by_place)
    later = max(megabytes for place, megabytes in resident.items() if FIRST <= place < images)
    return (later - resident[FIRST], resident[images] - resident[FIRST], *rest)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's files"
)


@needs_proc
def test_memory_is_that_of_the_values(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Once while they come, and once more where they are put together."""
    coming, whole, shape, problems, curves = grown(tmp_path / "out", IMAGES, "whole")
    assert (shape, problems, curves) == ([2, 3, IMAGES], 0, 1)
    record_property("MB after the first thousand", round(coming, 1))
    record_property("with the answer", round(whole, 1))
    own = 8 * (VALUES + CURVES + 2)
    assert coming < ELSE + IMAGES * (own + NAME) / 1e6
    assert whole < ELSE + (IMAGES * (2 * own + NAME) + min(8 * CURVES * POINTS * IMAGES, LOADED)) / 1e6
    (tmp_path / "out" / "values.jsonl").unlink()


@needs_proc
def test_what_is_missing_takes_a_sentence(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Images with NaN, of which the methods say so one by one."""
    images = IMAGES // 4
    coming, whole, shape, problems, curves = grown(tmp_path / "out", images, "damaged")
    assert (shape, problems, curves) == ([2, 3, images], 2 * images, 0)
    record_property("MB after the first thousand", round(coming, 1))
    record_property("with the answer", round(whole, 1))
    assert whole < ELSE + 2 * images * 600 / 1e6
